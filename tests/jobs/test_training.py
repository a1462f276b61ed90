"""Networks are trained from prepared photos, go on where they were cut, and end in one file with a card.

In one file, so that one process prepares the faces once.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anonlib.errors import ConfigError
from anonlib.models.runtime import load_engine
from anonlib.models.torch_graph import TorchGraph
from anonlib.privacy.clustering import normalized
from anonlib.synthesis import feature_transfer as crops
from anonlib.synthesis.base import DecoderNotes, PublicFaces
from anonlib.synthesis.canonical import shape_model
from anonlib.synthesis.feature_transfer import FLOW_SIDE, SIDE, FeatureTransferNetwork, network_input
from anonlib.synthesis.network_file import metadata_of
from anonlib.synthesis.textures.ksame_net import LOOKS, NetworkDecoder
from jobs.training import data
from jobs.training.data import RECOGNIZERS, PreparedFaces, load, prepare
from jobs.training.export import export, feature_transfer_onnx, generator_onnx
from jobs.training.feature_transfer import train_embedding
from jobs.training.feature_transfer_network import FeatureTransferNet, applied
from jobs.training.generator import train_ksame_net
from jobs.training.generator_network import Generator, doubled, linear_start, looks_of
from jobs.training.trainer import TrainingSettings
from tests.support.heads import TERMS, heads

ABOUT = DecoderNotes("demo heads", TERMS, 0, True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the prepared faces of twenty generated people, three photos each, apart from no dataset."""
    root = tmp_path_factory.mktemp("prepared")
    prepare(str(heads(root / "heads.tar", 20)), root / "faces")
    return root / "faces"


@pytest.fixture(scope="module")
def faces(prepared: Path) -> PreparedFaces:
    return load(prepared)


def test_prepared_faces_hold_what_photos_show_once_and_nobody_of_those_that_judge(
    prepared: Path, faces: PreparedFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert np.allclose(np.linalg.norm(faces.vector, axis=1), 1, atol=1e-4)
    eyes = np.array(data.VIEW.landmarks())[:2].mean(axis=0)
    assert np.abs(faces.mesh[:, [33, 263], :2].mean(axis=1) - eyes).mean() < 4
    source = str(heads(tmp_path / "heads.tar", 3))
    photos, left_out = prepare(source, tmp_path / "faces", apart_from=[source])
    assert left_out.total() == photos
    with pytest.raises(ConfigError, match="prepare"):
        load(tmp_path / "faces")
    monkeypatch.setattr(data, "gather", None)  # a second preparation reads no photo
    photos, left_out = prepare(str(prepared.parent / "heads.tar"), prepared)
    assert len(faces) == photos - left_out.total() > 30


# ---- ksame-net --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two seconds in two pieces."""
    folder, threads = tmp_path_factory.mktemp("run"), torch.get_num_threads()
    first = train_ksame_net(prepared, folder, TrainingSettings(1.0, threads=1), ABOUT, batch=4)
    train_ksame_net(prepared, folder, TrainingSettings(first["seconds"] + 1.0, threads=1), ABOUT, batch=4)
    torch.set_num_threads(threads)
    return folder


def test_an_untrained_generator_is_a_regression_and_its_file_draws_what_it_draws(faces: PreparedFaces) -> None:
    torch.manual_seed(0)
    generator = Generator(linear_start(faces), 256).eval()
    points = normalized(faces.vector - faces.vector.mean(axis=0))
    with torch.no_grad():
        z, look = torch.from_numpy(points[:3]), torch.from_numpy(looks_of(faces)[:3])
        assert np.allclose(generator(z, look), doubled(generator.base(generator.identity(z), look)), atol=1e-5)
        for parameter in generator.parameters():  # zeros would hide a wrong order
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    network = NetworkDecoder.from_bytes(generator_onnx(generator, ABOUT, PublicFaces(points, faces.female, faces.age)))
    z, look = network.bank.vectors[0], network.look(0.8, 33.0, "happy", 0.2, 10.0)
    detail, shape = network.answer(z, look)
    with torch.no_grad():
        asked = torch.from_numpy(z[None]), torch.from_numpy(look[None])
        wanted, wanted_shape = generator(*asked)[0].permute(1, 2, 0).numpy(), generator.shapes(*asked)[0].numpy()
    assert np.abs(detail - wanted).max() < 0.02 * np.abs(wanted).max()
    assert np.allclose(shape.ravel(), wanted_shape, atol=2e-3)
    in_torch = TorchGraph(network.data)(torch.cat(asked, dim=1))[0]
    assert np.abs(in_torch[0].permute(1, 2, 0).numpy() - detail).max() < 1e-3 * np.abs(wanted).max()
    for number in range(len(LOOKS)):
        other = look.copy()
        other[number] += 1.0
        assert np.abs(network.answer(z, other)[0] - detail).max() > 1e-3, LOOKS[number]


def test_a_run_that_was_cut_resumes_and_its_card_has_the_facts(trained: Path, tmp_path: Path) -> None:
    steps = json.loads((trained / "run.json").read_text())["record"]["steps"]
    first, last = (json.loads(line)["steps"] for line in (trained / "metrics.jsonl").read_text().splitlines())
    assert 0 < first < last == steps
    network = export(trained, tmp_path / "net.onnx")
    assert isinstance(network, NetworkDecoder)
    card = (tmp_path / "net.md").read_text()
    for fact in (ABOUT.fitted_on, TERMS, network.digest, f"{steps:,} steps"):
        assert fact in card
    with pytest.raises(ConfigError, match="train there first"):
        export(tmp_path, tmp_path / "other.onnx")


# ---- embedding --------------------------------------------------------------------------------------------------


def image_of(face: NDArray[np.uint8]) -> torch.Tensor:
    """(1, 3, s, s) 0-1."""
    return torch.from_numpy(face).permute(2, 0, 1)[None].float() / 255


def test_a_toy_run_of_embedding_ends_in_a_file_with_its_card(prepared: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    first = train_embedding(prepared, tmp_path / "run", TrainingSettings(0.5, threads=1), ABOUT, batch=2)
    settings = TrainingSettings(first["seconds"] + 0.5, threads=1)
    last = train_embedding(prepared, tmp_path / "run", settings, ABOUT, batch=2)
    torch.set_num_threads(threads)
    assert last["steps"] > first["steps"] > 0
    assert {f"{name} to {end}" for name in RECOGNIZERS for end in ("source", "donor")} < set(last["figures"])
    network = export(tmp_path / "run", tmp_path / "out" / "net.onnx")
    assert isinstance(network, FeatureTransferNetwork)
    assert len(network.donors) == 3000 and network.about.fitted_on == ABOUT.fitted_on and network.about.faces > 30
    card = (tmp_path / "out" / "net.md").read_text()
    assert network.digest in card and f"{last['steps']:,} steps" in card


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_the_file_answers_as_the_network_that_was_trained(backend: str) -> None:
    torch.manual_seed(3)
    net = FeatureTransferNet().eval()
    with torch.no_grad():
        for layer in (net.out, net.flow):  # its answers are large
            layer.weight.mul_(20)
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    direction = random.standard_normal(128).astype(np.float32) / 11
    donors, age = random.standard_normal((5, 128)).astype(np.float32), np.full(5, 41, np.float32)
    columns = {"donors": donors, "female": age % 2, "age": age}
    file = feature_transfer_onnx(net, metadata_of(ABOUT, {"centre": np.ones(128, np.float32)}, columns))
    assert len(file) < 6_000_000 and FeatureTransferNetwork.from_bytes(file).about == ABOUT
    answers = load_engine(file, backend=backend)(network_input(pixels, direction)[None])
    with torch.inference_mode():
        wanted = net(image_of(pixels), torch.from_numpy(direction)[None])
    for got, want in zip(answers, wanted, strict=True):
        assert got.shape == want.shape and want.abs().max() > 0.05
        assert np.abs(got - want.numpy()).max() < 0.01 * float(want.abs().max())


def test_training_and_the_renderer_make_the_same_pixels() -> None:
    mesh = (shape_model().mean * 45 + np.array([SIDE / 2, 0.45 * SIDE, 0])).astype(np.float32)
    random = np.random.default_rng(2)
    small = torch.from_numpy(random.random((1, 3, 8, 8), np.float32))
    smooth = torch.nn.functional.interpolate(small, size=(SIDE, SIDE), mode="bilinear")
    pixels = (255 * smooth[0].permute(1, 2, 0)).byte().numpy()
    matrix = np.eye(2, 3, dtype=np.float32)
    tints = (0.1 * random.standard_normal((3, 8, 8))).astype(np.float32).repeat(16, axis=1).repeat(16, axis=2)
    shifts = (3 * random.standard_normal((2, FLOW_SIDE, FLOW_SIDE))).astype(np.float32)
    photo = pixels.copy()
    crops.change(pixels, mesh, matrix, 255 * tints.transpose(1, 2, 0), shifts.transpose(1, 2, 0)).paste(photo)
    alpha = torch.from_numpy(crops.alpha_in_crop(mesh))[None, None]
    assert 0.3 < float(alpha.mean()) < 0.9
    out, _ = applied(image_of(pixels), alpha, torch.from_numpy(tints)[None], torch.from_numpy(shifts)[None])
    drawn = 255 * out[0].permute(1, 2, 0).numpy()
    assert np.abs(photo - pixels.astype(int)).mean() > 5
    assert np.abs(drawn - photo).mean() < 0.7 and np.percentile(np.abs(drawn - photo), 99) < 4
