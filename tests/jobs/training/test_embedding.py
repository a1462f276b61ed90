"""The network of `embedding`: trained through what a photo really goes through, and exported as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anonlib.errors import ModelUnusable
from anonlib.faces import align
from anonlib.models.catalog import MODELS, PIPELINE_RECOGNIZER
from anonlib.models.runtime import load_engine
from anonlib.synthesis import feature_transfer as crops
from anonlib.synthesis.base import DecoderNotes
from anonlib.synthesis.canonical import shape_model
from anonlib.synthesis.feature_transfer import FLOW_SIDE, POINTS, SIDE, FeatureTransferNetwork, network_input
from anonlib.synthesis.network_file import metadata_of
from jobs.training.data import RECOGNIZERS
from jobs.training.export import export, feature_transfer_onnx
from jobs.training.feature_transfer import CropSet, train_embedding
from jobs.training.feature_transfer_network import (
    DRAWN_SIDE,
    FeatureTransferNet,
    applied,
    begin,
    moved_points,
)
from jobs.training.recognizers import aligned
from jobs.training.trainer import TrainingSettings

ABOUT = DecoderNotes("noise", "none", 9, True)


def noise_faces(count: int, seed: int = 0) -> CropSet:
    """Blurred noise as faces, each with its own unit vectors; even ones are men, odd ones women."""
    random = np.random.default_rng(seed)
    small = torch.from_numpy(random.random((count, 3, 8, 8), np.float32))
    images = torch.nn.functional.interpolate(small, size=(SIDE, SIDE), mode="bilinear")
    vectors = {}
    for name, width in zip(RECOGNIZERS, (128, 256), strict=True):
        drawn = 3 + random.standard_normal((count, width)).astype(np.float32)
        vectors[name] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return CropSet(
        (255 * images.permute(0, 2, 3, 1)).byte().numpy(),
        np.full((count, 64, 64), 255, np.uint8),
        np.repeat(POINTS[None], count, axis=0),
        vectors,
        (np.arange(count) % 2).astype(np.float32),
        np.full(count, 30, np.float32),
    )


def image_of(face: NDArray[np.uint8]) -> torch.Tensor:
    """(1, 3, s, s) 0-1."""
    return torch.from_numpy(face).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def net() -> FeatureTransferNet:
    """A network whose answers are large."""
    torch.manual_seed(3)
    network = FeatureTransferNet()
    with torch.no_grad():
        for layer in (network.out, network.flow):
            layer.weight.mul_(20)
    return network.eval()


def test_a_toy_run_ends_in_a_file_with_its_card(prepared: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    first = train_embedding(prepared, tmp_path / "run", TrainingSettings(0.5, threads=1), ABOUT, batch=2)
    settings = TrainingSettings(first["seconds"] + 0.5, threads=1)
    last = train_embedding(prepared, tmp_path / "run", settings, ABOUT, batch=2)
    torch.set_num_threads(threads)
    assert last["steps"] > first["steps"] > 0
    assert {f"{name} to {end}" for name in RECOGNIZERS for end in ("source", "donor")} < set(last["figures"])
    network = export(tmp_path / "run", tmp_path / "out" / "net.onnx")
    assert isinstance(network, FeatureTransferNetwork)
    assert len(network.donors) == 3000 and network.about.fitted_on == "noise" and network.about.faces > 60
    card = (tmp_path / "out" / "net.md").read_text()
    assert network.digest in card and f"{last['steps']:,} steps" in card


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch"])
def test_the_file_answers_as_the_network_that_was_trained(net: FeatureTransferNet, backend: str) -> None:
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    direction = random.standard_normal(128).astype(np.float32) / 11
    donors, age = random.standard_normal((5, 128)).astype(np.float32), np.full(5, 41, np.float32)
    columns = {"donors": donors, "female": age % 2, "age": age}
    notes = metadata_of(ABOUT, {"centre": np.ones(128, np.float32)}, columns)
    file = feature_transfer_onnx(net, notes)
    assert len(file) < 6_000_000 and FeatureTransferNetwork.from_bytes(file).about == ABOUT
    for broken in (file[:-100], feature_transfer_onnx(net, {})):
        with pytest.raises(ModelUnusable, match="damaged"):
            FeatureTransferNetwork.from_bytes(broken)
    answers = load_engine(file, backend=backend)(network_input(pixels, direction)[None])
    with torch.inference_mode():
        wanted = net(image_of(pixels), torch.from_numpy(direction)[None])
    for got, want in zip(answers, wanted, strict=True):
        assert got.shape == want.shape and want.abs().max() > 0.05
        assert np.abs(got - want.numpy()).max() < 0.01 * float(want.abs().max())


def test_training_and_the_renderer_make_the_same_pixels() -> None:
    mesh = (shape_model().mean * 45 + np.array([SIDE / 2, 0.45 * SIDE, 0])).astype(np.float32)
    pixels = noise_faces(1, seed=4).crops[0]
    matrix = np.eye(2, 3, dtype=np.float32)
    random = np.random.default_rng(2)
    tints = (0.1 * random.standard_normal((3, 8, 8))).astype(np.float32).repeat(16, axis=1).repeat(16, axis=2)
    shifts = (3 * random.standard_normal((2, FLOW_SIDE, FLOW_SIDE))).astype(np.float32)
    photo = pixels.copy()
    crops.change(pixels, mesh, matrix, 255 * tints.transpose(1, 2, 0), shifts.transpose(1, 2, 0)).paste(photo)
    alpha = torch.from_numpy(crops.alpha_in_crop(mesh))[None, None]
    assert 0.3 < float(alpha.mean()) < 0.9
    out, _ = applied(image_of(pixels), alpha, torch.from_numpy(tints)[None], torch.from_numpy(shifts)[None])
    trained = 255 * out[0].permute(1, 2, 0).numpy()
    assert np.abs(photo - pixels.astype(int)).mean() > 5
    assert np.abs(trained - photo).mean() < 0.7 and np.percentile(np.abs(trained - photo), 99) < 4


def test_a_recognizer_sees_the_crop_that_its_card_wants_wherever_the_face_moved() -> None:
    target = torch.tensor(MODELS["mobileface"].input.landmarks())
    pixels = noise_faces(1, seed=5).crops[0]
    inside = np.s_[..., 20:92, 20:92]
    points = POINTS + np.float32([[2, 1], [0, 1], [-1, 0], [1, 2], [0, -1]])
    wanted = align.crop(pixels, align.similarity(points, target.numpy()), 112).transpose(2, 0, 1)
    seen = 255 * aligned(image_of(pixels), torch.from_numpy(points)[None], target, 112, None)[0].numpy()
    assert np.abs(seen[inside] - wanted[inside]).mean() < 1.5
    shifts = torch.full((1, 2, FLOW_SIDE, FLOW_SIDE), 4.0)
    out, moved = applied(image_of(pixels), torch.ones(1, 1, SIDE, SIDE), torch.zeros(1, 3, SIDE, SIDE), shifts)
    five = torch.from_numpy(POINTS)[None]
    after = moved_points(five, moved)
    assert torch.allclose(after, five - 4, atol=1e-4)
    before, followed, left = (
        aligned(image, at, target, 112, None)[inside]
        for image, at in ((image_of(pixels), five), (out, after), (out, five))
    )
    assert (before - followed).abs().mean() < 0.2 * (before - left).abs().mean()


def test_training_begins_with_what_the_vectors_tell_of_the_crops() -> None:
    """A stripe is planted where one number of the vector is high; the linear map draws it for that number alone."""
    faces = noise_faces(150)
    points = faces.centred[PIPELINE_RECOGNIZER]
    stripe = np.zeros((SIDE, SIDE, 1))
    stripe[60:64, 30:98] = 1
    pixels = 100 + 400 * points[:, 7, None, None, None] * stripe + np.zeros(3)
    planted = replace(faces, crops=np.clip(pixels, 0, 255).astype(np.uint8))
    network = FeatureTransferNet()
    begin(network, planted.crops, points)
    with torch.inference_mode():
        every = network.draw(network.rank(torch.eye(128))).reshape(128, 3, DRAWN_SIDE, DRAWN_SIDE)
    drawn = every[7]
    assert int(every.abs().mean(dim=(1, 2, 3)).argmax()) == 7
    assert drawn[:, 30:32, 20:44].mean() > 5 * drawn[:, 10:20, 20:44].abs().mean()


def test_a_donor_is_of_the_gender_and_far_away() -> None:
    faces, random = noise_faces(200), np.random.default_rng(0)
    rows = random.integers(0, 150, 64)
    donors = faces.donors(rows, random)
    assert (donors % 2 == rows % 2).all()
    points = faces.centred[PIPELINE_RECOGNIZER]
    assert ((points[rows] * points[donors]).sum(axis=1) < np.cos(np.radians(75.0)) + 1e-6).mean() > 0.95
    batch = faces.batch(rows, donors, "cpu", np.ones(64, np.bool_))
    donor = batch.source[PIPELINE_RECOGNIZER] + batch.direction
    assert torch.allclose(donor, batch.donor[PIPELINE_RECOGNIZER], atol=1e-6)
    assert torch.allclose(batch.points[:, 0, 0], SIDE - 1 - torch.from_numpy(POINTS)[1, 0].expand(64))
