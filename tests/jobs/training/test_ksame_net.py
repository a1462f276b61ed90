"""ksame-net from prepared faces to a file: it starts as a regression, learns, resumes, and is one ONNX."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anonlib.errors import ConfigError, ModelUnusable
from anonlib.models.torch_graph import TorchGraph
from anonlib.privacy.clustering import normalized
from anonlib.synthesis.base import DecoderNotes, PublicFaces
from anonlib.synthesis.canonical import shape_model
from anonlib.synthesis.textures.ksame_net import LOOKS, NetworkDecoder
from jobs.training.data import PreparedFaces
from jobs.training.export import export, generator_onnx
from jobs.training.generator import NO_PERSON, GeneratorObjective, scenes_of, train_ksame_net
from jobs.training.generator_network import (
    BASE,
    Generator,
    directions,
    doubled,
    linear_start,
    looks_of,
    zone_of,
)
from jobs.training.trainer import CHECKPOINT, TrainingSettings
from tests.support.heads import TERMS

ABOUT = DecoderNotes("demo heads", TERMS, 0, True)


@pytest.fixture(scope="module")
def generator(faces: PreparedFaces) -> Generator:
    torch.manual_seed(0)
    return Generator(linear_start(faces), 256).eval()


def identities(faces: PreparedFaces) -> NDArray[np.float32]:
    return normalized(faces.vector - faces.vector.mean(axis=0))


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two seconds in two pieces."""
    folder, threads = tmp_path_factory.mktemp("run"), torch.get_num_threads()
    first = train_ksame_net(prepared, folder, TrainingSettings(1.0, threads=1), ABOUT, batch=4)
    train_ksame_net(prepared, folder, TrainingSettings(first["seconds"] + 1.0, threads=1), ABOUT, batch=4)
    torch.set_num_threads(threads)
    return folder


def test_untrained_it_is_a_regression_that_tells_people_apart(generator: Generator, faces: PreparedFaces) -> None:
    z, look = torch.from_numpy(identities(faces)), torch.from_numpy(looks_of(faces))
    with torch.no_grad():
        base, shapes = generator.base(generator.identity(z), look).numpy(), generator.shapes(z, look).numpy()
        assert np.allclose(generator(z[:3], look[:3]), doubled(torch.from_numpy(base[:3])), atol=1e-5)
    assert np.abs(shapes.mean(axis=0) - shape_model().mean.ravel()).max() < 2e-3 < 5e-3 < shapes.std(axis=0).max()
    # Of ten people, by chance one: the drawn texture is nearest to that of the person's photo.
    zone = zone_of(BASE)
    real = np.stack([cv2.resize(d.astype(np.float32), (BASE, BASE)) for d in faces.detail]).transpose(0, 3, 1, 2)
    drawn, real = ((part - part.mean(axis=0)) * zone for part in (base, real))
    rows = np.arange(0, 30, 3)
    distance = np.square(drawn[rows, None] - real[None, rows]).sum(axis=(2, 3, 4))
    assert (distance.argmin(axis=1) == np.arange(10)).mean() >= 0.4


def test_directions_leave_out_gender_and_what_does_not_vary() -> None:
    rng = np.random.default_rng(0)
    looks = np.stack([rng.random(400), rng.uniform(20, 80, 400), rng.random(400)], axis=1)
    points = (rng.standard_normal((400, 12)) * np.array([1.0] * 10 + [1e-3] * 2)).astype(np.float32)
    points[:, 3] += 4 * looks[:, 0]
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    axes = directions(points, looks)
    assert len(axes) <= 10
    assert np.abs(axes[:, 3] / np.linalg.norm(axes, axis=1)).max() < 0.3
    assert np.allclose((points @ axes.T).std(axis=0), 1, atol=0.05)


def test_the_file_draws_what_the_network_draws(generator: Generator, faces: PreparedFaces) -> None:
    with torch.no_grad():
        for parameter in generator.parameters():  # zeros would hide a wrong order
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    network = NetworkDecoder.from_bytes(
        generator_onnx(generator, ABOUT, PublicFaces(identities(faces), faces.female, faces.age))
    )
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


def test_a_scene_shows_another_person(generator: Generator, faces: PreparedFaces) -> None:
    z = identities(faces)
    scenes = scenes_of(faces, np.arange(40), z, generator, 0)
    known = scenes.face != NO_PERSON
    assert known.sum() == 40 and len(scenes) == 50
    assert (scenes.into[known] != scenes.face[known]).all()
    assert np.allclose(np.linalg.norm(scenes.z, axis=1), 1, atol=1e-4)
    assert not np.isclose(scenes.z[~known] @ z.T, 1, atol=1e-3).any()
    women = faces.female > 0.5
    assert (women[scenes.into[known]] == women[scenes.face[known]]).mean() > 0.9


def test_steps_teach_texture_and_identity(faces: PreparedFaces) -> None:
    torch.manual_seed(0)
    settings = TrainingSettings(1.0, rate=1e-3, bf16=False)
    objective = GeneratorObjective(faces, settings, 128, batch=4)
    generator = objective.networks["generator"]
    with torch.no_grad():
        before = objective.measure(generator)
    steps = [objective.step(np.random.default_rng(0), 0.0) for _ in range(12)]
    with torch.no_grad():
        after = objective.measure(generator)
    assert sum(step["texture"] for step in steps[6:]) < sum(step["texture"] for step in steps[:6])
    assert steps[-1]["identity"] < 0.97 * steps[0]["identity"]
    assert before["l1"] != after["l1"] and before["cosine"] > 0.3


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
    for data in (network.data[:-1000], b"no network"):
        with pytest.raises(ModelUnusable):
            NetworkDecoder.from_bytes(data)


def test_a_larger_network_starts_where_the_smaller_one_ended(trained: Path, prepared: Path, tmp_path: Path) -> None:
    small = torch.load(trained / CHECKPOINT, weights_only=True)["networks"]["average"]
    train_ksame_net(prepared, tmp_path, TrainingSettings(0.0, threads=1), ABOUT, size=256, grown_from=trained, batch=4)
    large = torch.load(tmp_path / CHECKPOINT, weights_only=True)["networks"]["average"]
    assert torch.equal(large["blocks.3.first.weight"], small["blocks.3.first.weight"])
    assert not large["blocks.5.draw.weight"].any()
