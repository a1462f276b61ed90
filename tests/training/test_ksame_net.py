"""ksame-net from prepared faces to a file: it starts as the linear decoder, learns, resumes, and is one ONNX."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from anonlib.errors import ConfigError, ModelUnusable
from anonlib.models.torch_graph import TorchGraph
from anonlib.synthesis.base import DecoderNotes
from anonlib.synthesis.canonical import SIZE
from anonlib.synthesis.textures.ksame_net import LOOKS, NetworkDecoder
from anonlib.training.data import PreparedFaces
from anonlib.training.export import export, generator_onnx
from anonlib.training.objectives.generator import NO_PERSON, GeneratorObjective, looks_of, scenes_of, train_ksame_net
from anonlib.training.objectives.generator_network import BASE, Generator
from anonlib.training.trainer import CHECKPOINT, TrainingSettings
from tests.support.decoders import TERMS, Fit

ABOUT = DecoderNotes("demo heads", TERMS, 0, True)


@pytest.fixture(scope="module")
def generator(fitted: Fit, faces: PreparedFaces) -> Generator:
    torch.manual_seed(0)
    look = looks_of(faces)
    return Generator(fitted.decoder, look.mean(axis=0), look.std(axis=0) + 1e-3, 256).eval()


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two seconds in two pieces."""
    folder, threads = tmp_path_factory.mktemp("run"), torch.get_num_threads()
    first = train_ksame_net(prepared, folder, TrainingSettings(1.0, threads=1), ABOUT, batch=4)
    train_ksame_net(prepared, folder, TrainingSettings(first["seconds"] + 1.0, threads=1), ABOUT, batch=4)
    torch.set_num_threads(threads)
    return folder


def test_untrained_it_is_the_linear_decoder(generator: Generator, fitted: Fit, faces: PreparedFaces) -> None:
    z = fitted.decoder.identity(faces.vector[:3])
    with torch.no_grad():
        asked = torch.from_numpy(z), torch.from_numpy(looks_of(faces)[:3])
        drawn, shapes = generator(*asked), generator.shapes(*asked).reshape(3, -1, 3).numpy()
    for row in range(3):
        wanted = fitted.decoder.decode(z[row], float(faces.female[row]), float(faces.age[row]))
        small = torch.nn.functional.avg_pool2d(drawn[row], SIZE // BASE).permute(1, 2, 0).numpy()
        linear = wanted.detail.reshape(BASE, 2, BASE, 2, 3).mean(axis=(1, 3))
        assert np.abs(small - linear)[16:-16, 16:-16].mean() < 0.01
        assert np.allclose(shapes[row], wanted.shape, atol=1e-3)


def test_the_file_draws_what_the_network_draws(generator: Generator, fitted: Fit) -> None:
    with torch.no_grad():
        for parameter in generator.parameters():  # zeros would hide a wrong order
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    network = NetworkDecoder.from_bytes(generator_onnx(generator, ABOUT, fitted.decoder))
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


def test_a_scene_shows_another_person(generator: Generator, fitted: Fit, faces: PreparedFaces) -> None:
    z = fitted.decoder.identity(faces.vector)
    scenes = scenes_of(faces, np.arange(40), z, generator, 0)
    known = scenes.face != NO_PERSON
    assert known.sum() == 40 and len(scenes) == 50
    assert (scenes.into[known] != scenes.face[known]).all()
    assert np.allclose(np.linalg.norm(scenes.z, axis=1), 1, atol=1e-4)
    assert not np.isclose(scenes.z[~known] @ z.T, 1, atol=1e-3).any()
    women = faces.female > 0.5
    assert (women[scenes.into[known]] == women[scenes.face[known]]).mean() > 0.9


def test_steps_teach_texture_and_identity(fitted: Fit, faces: PreparedFaces) -> None:
    torch.manual_seed(0)
    settings = TrainingSettings(1.0, rate=1e-3, bf16=False)
    objective = GeneratorObjective(faces, fitted.decoder, settings, 128, batch=4)
    generator = objective.networks["generator"]
    with torch.no_grad():
        before = objective.measure(generator)
    steps = [objective.step(np.random.default_rng(0), 0.0) for _ in range(12)]
    with torch.no_grad():
        after = objective.measure(generator)
    assert sum(step["texture"] for step in steps[6:]) < sum(step["texture"] for step in steps[:6])
    assert steps[-1]["identity"] < 0.97 * steps[0]["identity"]
    assert before["l1"] != after["l1"] and before["cosine"] > 0.3


def test_a_run_that_was_cut_resumes_and_its_card_has_the_facts(trained: Path, fitted: Fit, tmp_path: Path) -> None:
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
    for data in (network.data[:-1000], b"no network", fitted.path.read_bytes()):
        with pytest.raises(ModelUnusable):
            NetworkDecoder.from_bytes(data)


def test_a_larger_network_starts_where_the_smaller_one_ended(trained: Path, prepared: Path, tmp_path: Path) -> None:
    small = torch.load(trained / CHECKPOINT, weights_only=True)["networks"]["average"]
    train_ksame_net(prepared, tmp_path, TrainingSettings(0.0, threads=1), ABOUT, size=256, grown_from=trained, batch=4)
    large = torch.load(tmp_path / CHECKPOINT, weights_only=True)["networks"]["average"]
    assert torch.equal(large["blocks.3.first.weight"], small["blocks.3.first.weight"])
    assert not large["blocks.5.draw.weight"].any()
