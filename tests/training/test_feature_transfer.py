"""The network of `embedding`: trained through what a photo really goes through, and exported as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anonlib.errors import ModelUnusable
from anonlib.faces import align
from anonlib.models.catalog import MODELS
from anonlib.models.fetch import model_bytes
from anonlib.models.runtime import load_engine
from anonlib.synthesis import crops
from anonlib.synthesis.base import DecoderNotes
from anonlib.synthesis.canonical import shape_model
from anonlib.synthesis.feature_transfer import FLOW_SIDE, POINTS, SIDE, FeatureTransferNetwork, network_input, notes_of
from anonlib.training.feature_transfer import trainer
from anonlib.training.feature_transfer.data import Batches, CropSet
from anonlib.training.feature_transfer.export import to_onnx
from anonlib.training.feature_transfer.network import DRAWN_SIDE, FeatureTransferNet, applied
from anonlib.training.feature_transfer.objective import HELD_OUT, LOOKS, READERS, FeatureTransferTraining
from anonlib.training.feature_transfer.recognizers import moved_points, view
from anonlib.training.feature_transfer.warm_start import begin, regression
from anonlib.training.loop import Settings


def people(count: int, seed: int = 0) -> CropSet:
    """Blurred noise as faces, each with unit vectors of its own; even ones are men, odd ones women."""
    random = np.random.default_rng(seed)
    small = torch.from_numpy(random.random((count, 3, 8, 8), np.float32))
    crops_ = torch.nn.functional.interpolate(small, size=(SIDE, SIDE), mode="bilinear")
    vectors = {}
    for name, width in zip(READERS, (128, 256), strict=True):
        drawn = 3 + random.standard_normal((count, width)).astype(np.float32)
        vectors[name] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return CropSet(
        (255 * crops_.permute(0, 2, 3, 1)).byte().numpy(),
        np.full((count, 64, 64), 255, np.uint8),
        np.repeat(POINTS[None], count, axis=0),
        vectors,
        (np.arange(count) % 2).astype(np.float32),
        np.full(count, 30, np.float32),
    )


@pytest.fixture(scope="module")
def net() -> FeatureTransferNet:
    """A network that answers with much."""
    torch.manual_seed(3)
    made = FeatureTransferNet()
    with torch.no_grad():
        for layer in (made.out, made.flow):
            layer.weight.mul_(20)
    return made.eval()


@pytest.fixture(scope="module")
def mesh() -> NDArray[np.float32]:
    """The mean face, upright in a crop: (468, 3) px."""
    shape = shape_model().mean
    return (shape * 45 + np.array([SIDE / 2, 0.45 * SIDE, 0])).astype(np.float32)


def notes(count: int = 5, ages: int = 5) -> dict[str, str]:
    random = np.random.default_rng(0)
    donors = random.standard_normal((count, 128)).astype(np.float32)
    donors /= np.linalg.norm(donors, axis=1, keepdims=True)
    female, age = np.arange(count, dtype=np.float32) % 2, np.full(ages, 41, np.float32)
    return notes_of(
        DecoderNotes("noise", "none", 9, True), centre=np.ones(128, np.float32), donors=donors, female=female, age=age
    )


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch"])
def test_the_file_answers_as_the_network_that_was_trained(net: FeatureTransferNet, backend: str) -> None:
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    way = random.standard_normal(128).astype(np.float32) / 11
    answers = load_engine(to_onnx(net, notes()), backend=backend)(network_input(pixels, way)[None])
    crop = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        wanted = net(crop, torch.from_numpy(way)[None])
    for got, want in zip(answers, wanted, strict=True):
        assert got.shape == want.shape and want.abs().max() > 0.05
        assert np.abs(got - want.numpy()).max() < 0.01 * float(want.abs().max())


def test_the_file_holds_donors_and_terms_and_is_refused_when_damaged(net: FeatureTransferNet) -> None:
    data = to_onnx(net, notes())
    made = FeatureTransferNetwork.from_bytes(data)
    assert made.about == DecoderNotes("noise", "none", 9, True) and len(made.data) < 6_000_000
    assert made.donors.shape == (5, 128) and np.allclose(np.linalg.norm(made.donors, axis=1), 1, atol=1e-6)
    assert made.female.tolist() == [0, 1, 0, 1, 0] and made.age[0] == 41 and (made.centre == 1).all()
    for broken in (data[:-100], b"nothing", to_onnx(net, {})):
        with pytest.raises(ModelUnusable, match="damaged"):
            FeatureTransferNetwork.from_bytes(broken)
    with pytest.raises(ModelUnusable, match="none of embedding"):
        FeatureTransferNetwork.from_bytes(to_onnx(net, notes(ages=4)))
    later = {**notes(), "about": notes()["about"].replace('"version": 1', '"version": 2')}
    with pytest.raises(ModelUnusable, match="of version 2 and this anonlib reads 1"):
        FeatureTransferNetwork.from_bytes(to_onnx(net, later))


def test_it_is_trained_through_what_a_photo_goes_through(mesh: NDArray[np.float32]) -> None:
    """The same tints and shifts in torch and in the renderer make the same px."""
    pixels = people(1, seed=4).crops[0]
    crop = crops.FaceCrop(pixels, np.eye(2, 3, dtype=np.float32))
    random = np.random.default_rng(2)
    tints = (0.1 * random.standard_normal((3, 8, 8))).astype(np.float32).repeat(16, axis=1).repeat(16, axis=2)
    shifts = (3 * random.standard_normal((2, FLOW_SIDE, FLOW_SIDE))).astype(np.float32)
    rendered = crops.change(pixels, mesh, crop, 255 * tints.transpose(1, 2, 0), shifts.transpose(1, 2, 0))
    photo = pixels.copy()
    rendered.paste(photo)
    alpha = torch.from_numpy(crops.alpha_in_crop(mesh))[None, None]
    assert 0.3 < float(alpha.mean()) < 0.9
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    out, _ = applied(image, alpha, torch.from_numpy(tints)[None], torch.from_numpy(shifts)[None])
    trained = 255 * out[0].permute(1, 2, 0).numpy()
    assert np.abs(photo - pixels.astype(int)).mean() > 5
    assert np.abs(trained - photo).mean() < 0.7 and np.percentile(np.abs(trained - photo), 99) < 4


def test_a_reader_sees_the_crop_that_its_card_asks_for() -> None:
    pixels = people(1, seed=5).crops[0]
    points = POINTS + np.float32([[2, 1], [0, 1], [-1, 0], [1, 2], [0, -1]])
    card = MODELS["mobileface"].input
    target = np.array(card.landmarks(), np.float32)
    wanted = align.crop(pixels, align.similarity(points, target), 112)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    seen = view(image, torch.from_numpy(points)[None], torch.from_numpy(target), 112, None)[0].permute(1, 2, 0).numpy()
    inside = np.s_[20:92, 20:92]
    assert np.abs(seen[inside] - wanted[inside]).mean() < 1.5


def test_moving_the_whole_face_looks_like_nothing_to_a_reader() -> None:
    """Points move with the px, so a view that is aligned to them stays as it was."""
    crop = torch.from_numpy(people(1, seed=6).crops[0]).permute(2, 0, 1)[None].float() / 255
    shifts = torch.full((1, 2, FLOW_SIDE, FLOW_SIDE), 4.0)
    out, moved = applied(crop, torch.ones(1, 1, SIDE, SIDE), torch.zeros(1, 3, SIDE, SIDE), shifts)
    points = torch.from_numpy(POINTS)[None]
    after = moved_points(points, moved)
    assert torch.allclose(after, points - 4, atol=1e-4)
    target = torch.tensor(MODELS["mobileface"].input.landmarks())
    before, again = view(crop, points, target, 112, None), view(out, after, target, 112, None)
    inside = np.s_[..., 20:92, 20:92]
    assert (before[inside] - again[inside]).abs().mean() < 0.2 * (
        before[inside] - view(out, points, target, 112, None)[inside]
    ).abs().mean()


def test_training_begins_with_what_the_vectors_tell_of_the_crops() -> None:
    """A stripe is planted where one number of the vector is high; the linear map draws it for that number alone."""
    faces = people(150)
    told = faces.centred()[READERS[0]][:, 7]
    stripe = np.zeros((SIDE, SIDE, 1))
    stripe[60:64, 30:98] = 1
    pixels = 100 + 400 * told[:, None, None, None] * stripe + np.zeros(3)
    planted = CropSet(
        np.clip(pixels, 0, 255).astype(np.uint8), faces.masks, faces.points, faces.vectors, faces.female, faces.age
    )
    strength = np.abs(regression(planted)).mean(axis=(1, 2, 3))
    assert int(strength.argmax()) == 7 and strength[7] > 3 * np.delete(strength, 7).mean()
    net = FeatureTransferNet()
    begin(net, planted)
    with torch.inference_mode():
        drawn = net.draw(net.wish(torch.eye(128)[7:8])).reshape(3, DRAWN_SIDE, DRAWN_SIDE)
    assert drawn[:, 30:32, 20:44].mean() > 5 * drawn[:, 10:20, 20:44].abs().mean()


def test_a_donor_is_of_the_gender_and_far_away() -> None:
    batches = Batches(people(200), 64, 150)
    random = np.random.default_rng(0)
    rows = random.integers(0, 150, 64)
    donors = batches.donors(rows, random)
    assert (donors % 2 == rows % 2).all()
    cosine = (batches.first[rows] * batches.first[donors]).sum(axis=1)
    assert (cosine < np.cos(np.radians(75.0)) + 1e-6).mean() > 0.95
    batch = batches.of(rows, donors, np.ones(64, np.bool_))
    assert torch.allclose(batch.own[READERS[0]] + batch.direction, batch.donor[READERS[0]], atol=1e-6)
    assert torch.allclose(batch.points[:, 0, 0], SIDE - 1 - torch.from_numpy(POINTS)[1, 0].expand(64))


def test_a_step_lowers_what_it_is_told_to_lower_and_repeats_to_the_bit() -> None:
    faces = people(HELD_OUT + 4)
    models = {name: model_bytes(name) for name in (*READERS, LOOKS)}

    def run() -> tuple[FeatureTransferTraining, list[dict[str, float]]]:
        training = FeatureTransferTraining(faces, models, Settings(1, bf16=False), batch=2)
        for group in training.optimizers["generator"].param_groups:
            group["lr"] = 1e-3
        random = np.random.default_rng(0)
        return training, [training.step(random, 0.0) for _ in range(2)]

    (training, first), (_, second) = run(), run()
    assert first == second
    assert all(np.isfinite(list(figures.values())).all() for figures in first)
    assert {"change", "colour", "tint", "shift"} <= set(first[0])
    sheet = training.sheet(training.net)
    assert sheet.shape == (4 * SIDE, 8 * SIDE, 3) and sheet.dtype == np.uint8


def test_the_bank_is_spread_over_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "DONORS", 40)
    faces = people(60)
    bank = trainer.bank_of(faces)
    assert len(bank["donors"]) == len(bank["female"]) == len(bank["age"]) == 40
    assert np.allclose(bank["donors"][[0, -1]], faces.centred()[READERS[0]][[0, -1]])
