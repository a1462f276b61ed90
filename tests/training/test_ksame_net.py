"""ksame-net from prepared faces to a file: it starts as the linear decoder, learns, resumes, and is one ONNX."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from anonlib.errors import ConfigError, ModelUnusable
from anonlib.models.catalog import MODELS
from anonlib.models.torch_graph import TorchGraph
from anonlib.synthesis.base import DecoderNotes
from anonlib.synthesis.canonical import SIZE
from anonlib.synthesis.textures.ksame_net import LOOKS, NetworkDecoder
from anonlib.training.data import VIEW, PreparedFaces
from anonlib.training.export import generator_onnx
from anonlib.training.loop import CHECKPOINT
from anonlib.training.objectives.base import TrainingSettings
from anonlib.training.objectives.generator import NO_PERSON, GeneratorObjective, looks_of, scenes_of
from anonlib.training.objectives.generator_network import BASE, Generator, Linear
from anonlib.training.recognizers import crop_grid
from anonlib.training.trainer import export, train_ksame_net
from tests.support.decoders import TERMS, Fit

ABOUT = DecoderNotes("demo heads", TERMS, 0, True)


@pytest.fixture(scope="module")
def generator(fitted: Fit, faces: PreparedFaces) -> Generator:
    torch.manual_seed(0)
    look = looks_of(faces)
    return Generator(Linear.of(fitted.decoder), look.mean(axis=0), look.std(axis=0) + 1e-3, 256).eval()


@dataclass(frozen=True)
class Trained:
    """A run of two seconds in two pieces of `first` and all `steps`, and its file."""

    folder: Path
    first: int
    steps: int
    network: NetworkDecoder
    card: str


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("run")
    threads = torch.get_num_threads()
    first = train_ksame_net(prepared, root / "run", TrainingSettings(1.0, threads=1), ABOUT, batch=4)
    settings = TrainingSettings(first.seconds + 1.0, threads=1)
    last = train_ksame_net(prepared, root / "run", settings, ABOUT, batch=4)
    torch.set_num_threads(threads)
    network = export(root / "run", root / "out" / "net.onnx")
    assert isinstance(network, NetworkDecoder)
    return Trained(root / "run", first.steps, last.steps, network, (root / "out" / "net.md").read_text())


def test_untrained_it_is_the_linear_decoder(generator: Generator, fitted: Fit, faces: PreparedFaces) -> None:
    z = fitted.decoder.identity(faces.vector[:3])
    with torch.no_grad():
        drawn = generator(torch.from_numpy(z), torch.from_numpy(looks_of(faces)[:3]))
    shapes = Linear.of(fitted.decoder).shapes(z, faces.female[:3], faces.age[:3])
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
        wanted = generator(torch.from_numpy(z[None]), torch.from_numpy(look[None]))[0].permute(1, 2, 0).numpy()
    assert np.abs(detail - wanted).max() < 0.02 * np.abs(wanted).max()
    assert np.allclose(shape, Linear.of(fitted.decoder).shapes(z[None], look[:1], look[1:2])[0], atol=2e-3)
    asked = np.concatenate([z, look])[None].astype(np.float32)
    in_torch = TorchGraph(network.data)(torch.from_numpy(asked))[0]
    assert np.abs(in_torch[0].permute(1, 2, 0).numpy() - detail).max() < 1e-3 * np.abs(wanted).max()
    for number in range(len(LOOKS)):
        other = look.copy()
        other[number] += 1.0
        assert np.abs(network.answer(z, other)[0] - detail).max() > 1e-3, LOOKS[number]


def test_a_scene_shows_another_person(fitted: Fit, faces: PreparedFaces) -> None:
    z, linear = fitted.decoder.identity(faces.vector), Linear.of(fitted.decoder)
    scenes = scenes_of(faces, np.arange(40), z, linear, 0)
    known = scenes.face != NO_PERSON
    assert known.sum() == 40 and len(scenes) == 50
    assert (scenes.into[known] != scenes.face[known]).all()
    assert np.allclose(np.linalg.norm(scenes.z, axis=1), 1, atol=1e-4)
    assert not np.isclose(scenes.z[~known] @ z.T, 1, atol=1e-3).any()
    women = faces.female > 0.5
    assert (women[scenes.into[known]] == women[scenes.face[known]]).mean() > 0.9


def test_a_judge_sees_the_crop_that_its_card_wants() -> None:
    side = 160
    rows, columns = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    view = torch.stack([columns, rows, rows])[None]
    for name in ("dlib-resnet", "mobileface"):
        wanted = MODELS[name].input
        seen = torch.nn.functional.grid_sample(view, crop_grid(wanted, view), align_corners=False)[0]
        for inner, outer in zip(wanted.landmarks(), VIEW.landmarks(), strict=True):
            x, y = (round(coordinate - 0.5) for coordinate in inner)
            assert abs(float(seen[0, y, x]) - outer[0]) < 1.5 and abs(float(seen[1, y, x]) - outer[1]) < 1.5


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
    assert before["cosine"] == pytest.approx(before["linear_cosine"], abs=0.02)
    assert before["l1"] == pytest.approx(before["linear_l1"], abs=1e-5) != after["l1"]
    assert before["linear_l1"] == after["linear_l1"]


def test_a_run_that_was_cut_resumes_and_its_card_has_the_facts(trained: Trained) -> None:
    assert trained.steps > trained.first > 0
    assert json.loads((trained.folder / "run.json").read_text())["record"]["steps"] == trained.steps
    lines = (trained.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [trained.first, trained.steps]
    assert len(list(trained.folder.glob("sheet-*.png"))) == 2
    for fact in (ABOUT.fitted_on, TERMS, trained.network.digest, f"{trained.steps:,} steps"):
        assert fact in trained.card


def test_a_larger_network_starts_where_the_smaller_one_ended(trained: Trained, prepared: Path, tmp_path: Path) -> None:
    small = torch.load(trained.folder / CHECKPOINT, weights_only=True)["average"]
    settings = TrainingSettings(0.0, threads=1)
    train_ksame_net(prepared, tmp_path, settings, ABOUT, size=256, grown_from=trained.folder, batch=4)
    large = torch.load(tmp_path / CHECKPOINT, weights_only=True)["average"]
    assert torch.equal(large["blocks.3.first.weight"], small["blocks.3.first.weight"])
    assert not large["blocks.5.draw.weight"].any()


def test_an_unfinished_folder_and_a_damaged_file_are_refused(trained: Trained, fitted: Fit, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train there first"):
        export(tmp_path, tmp_path / "net.onnx")
    for data in (trained.network.data[:-1000], b"no network", fitted.path.read_bytes()):
        with pytest.raises(ModelUnusable):
            NetworkDecoder.from_bytes(data)
