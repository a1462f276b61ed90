"""ksame-net from photos to a file: it starts as the linear decoder, learns, goes on after a cut, and is one ONNX."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from anonlib.errors import ConfigError, ModelUnusable
from anonlib.faces import topology
from anonlib.models.catalog import MODELS
from anonlib.models.torch_graph import TorchGraph
from anonlib.synthesis.base import DecoderNotes
from anonlib.synthesis.canonical import SIZE, canonical_frame
from anonlib.synthesis.textures.ksame_net import LOOKS, MOODS, NetworkDecoder
from anonlib.synthesis.textures.linear import Decoder
from anonlib.training.generator import faces as prepared
from anonlib.training.generator.batches import NOBODY, looks_of, make_scenes
from anonlib.training.generator.export import to_onnx
from anonlib.training.generator.faces import VIEW, PreparedFaces, learned_vectors, load, prepare, tally
from anonlib.training.generator.judges import Glance, cut
from anonlib.training.generator.network import BASE, Generator, Linear
from anonlib.training.generator.objective import GeneratorTraining
from anonlib.training.generator.trainer import export, train
from anonlib.training.loop import CHECKPOINT, Settings
from tests.support.decoders import TERMS, Fit, heads

ABOUT = DecoderNotes("demo heads", TERMS, 0, True)
PEOPLE = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated heads, prepared, apart from nobody."""
    root = tmp_path_factory.mktemp("generator")
    prepare(str(heads(root / "heads.tar", PEOPLE)), root / "faces")
    return root / "faces"


@pytest.fixture(scope="module")
def faces(folder: Path) -> PreparedFaces:
    return load(folder)


@pytest.fixture(scope="module")
def generator(fitted: Fit, faces: PreparedFaces) -> Generator:
    torch.manual_seed(0)
    look = looks_of(faces)
    return Generator(Linear.of(fitted.decoder), look.mean(axis=0), look.std(axis=0) + 1e-3, 256).eval()


@dataclass(frozen=True)
class Trained:
    """A run of two seconds in two pieces, and its file."""

    folder: Path
    first: int
    steps: int
    network: NetworkDecoder
    card: str


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("run")
    threads = torch.get_num_threads()
    first = train(folder, root / "run", Settings(1.0, threads=1), ABOUT, 128, batch=4)
    last = train(folder, root / "run", Settings(first.seconds + 1.0, threads=1), ABOUT, 128, batch=4)
    torch.set_num_threads(threads)
    network = export(root / "run", root / "out" / "net.onnx")
    card = (root / "out" / "net.md").read_text()
    return Trained(root / "run", first.steps, last.steps, network, card)


def test_a_part_holds_what_the_photos_show(folder: Path, faces: PreparedFaces) -> None:
    photos, left_out = tally(folder)
    assert len(faces) == photos - left_out.total() > 60
    assert np.allclose(np.linalg.norm(faces.vector, axis=1), 1, atol=1e-4)
    assert np.array_equal(learned_vectors(folder), faces.vector)
    assert faces.view.shape[1:] == (160, 160, 3)
    eyes = np.array(VIEW.landmarks())[:2].mean(axis=0)
    assert np.abs(faces.mesh[:, [33, 263], :2].mean(axis=1) - eyes).mean() < 4


def test_preparing_again_reads_nothing_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "Gatherer", None)
    prepare(str(folder.parent / "heads.tar"), folder)


def test_who_resembles_the_judging_dataset_is_left_out(tmp_path: Path) -> None:
    source = str(heads(tmp_path / "heads.tar", 4))
    prepare(source, tmp_path / "faces", apart_from=[source])
    photos, left_out = tally(tmp_path / "faces")
    assert left_out.total() == photos
    for read in (load, learned_vectors):
        with pytest.raises(ConfigError, match="prepare"):
            read(tmp_path / "faces")


def test_untrained_it_is_the_linear_decoder(generator: Generator, fitted: Fit, faces: PreparedFaces) -> None:
    z = fitted.decoder.identity(faces.vector[:3])
    look = torch.from_numpy(looks_of(faces)[:3])
    with torch.no_grad():
        drawn = generator(torch.from_numpy(z), look)
    for row in range(3):
        wanted = fitted.decoder.decode(z[row], float(faces.female[row]), float(faces.age[row]))
        small = torch.nn.functional.avg_pool2d(drawn[row], SIZE // BASE).permute(1, 2, 0).numpy()
        linear = wanted.detail.reshape(BASE, 2, BASE, 2, 3).mean(axis=(1, 3))
        inside = slice(16, -16)
        assert np.abs(small - linear)[inside, inside].mean() < 0.01
        shape = Linear.of(fitted.decoder).shapes(
            z[row : row + 1], faces.female[row : row + 1], faces.age[row : row + 1]
        )
        assert np.allclose(shape[0], wanted.shape, atol=1e-3)


def test_the_file_draws_what_the_network_draws(generator: Generator, fitted: Fit, faces: PreparedFaces) -> None:
    with torch.no_grad():
        for parameter in generator.parameters():  # zeros would hide a wrong order
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    network = NetworkDecoder.from_bytes(to_onnx(generator, ABOUT, fitted.decoder))
    z, look = network.bank.vectors[0], network.look(0.8, 33.0, "happy", 0.2, 10.0)
    detail, shape = network.answer(z, look)
    with torch.no_grad():
        wanted = generator(torch.from_numpy(z[None]), torch.from_numpy(look[None]))[0].permute(1, 2, 0).numpy()
    assert np.abs(detail - wanted).max() < 0.02 * np.abs(wanted).max()
    assert np.allclose(shape, Linear.of(fitted.decoder).shapes(z[None], look[:1], look[1:2])[0], atol=2e-3)
    asked = np.concatenate([z, look])[None].astype(np.float32)
    alone = TorchGraph(network.data)(torch.from_numpy(asked))[0]
    assert np.abs(alone[0].permute(1, 2, 0).numpy() - detail).max() < 1e-3 * np.abs(wanted).max()


def test_each_look_reaches_the_picture(generator: Generator, fitted: Fit) -> None:
    network = NetworkDecoder.from_bytes(to_onnx(generator, ABOUT, fitted.decoder))
    z, plain = network.bank.vectors[1], network.look(0.5, 40.0, "neutral", 0.1)
    drawn = network.answer(z, plain)[0]
    for number in range(len(LOOKS)):
        other = plain.copy()
        other[number] += 1.0
        assert np.abs(network.answer(z, other)[0] - drawn).max() > 1e-3, LOOKS[number]


def test_a_scene_paints_somebody_else(fitted: Fit, faces: PreparedFaces) -> None:
    rows = np.arange(40)
    z = fitted.decoder.identity(faces.vector)
    scenes = make_scenes(faces, rows, z, Linear.of(fitted.decoder), 0)
    known = scenes.face != NOBODY
    assert known.sum() == 40 and len(scenes) == 50
    assert (scenes.into[known] != scenes.face[known]).all()
    assert np.allclose(np.linalg.norm(scenes.z, axis=1), 1, atol=1e-4)
    assert not np.isclose(scenes.z[~known] @ z.T, 1, atol=1e-3).any()
    women = faces.female > 0.5
    assert (women[scenes.into[known]] == women[scenes.face[known]]).mean() > 0.9
    again = make_scenes(faces, rows, z, Linear.of(fitted.decoder), 0, workers=2)
    assert (again.grid == scenes.grid).all() and (again.ground == scenes.ground).all()


def test_a_judge_sees_the_crop_that_its_card_wants() -> None:
    side = 160
    rows, columns = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    view = torch.stack([columns, rows, rows])[None]
    for name in ("dlib-resnet", "mobileface"):
        wanted = MODELS[name].input
        seen = torch.nn.functional.grid_sample(view, cut(wanted, view), align_corners=False)[0]
        for inner, outer in zip(wanted.landmarks(), VIEW.landmarks(), strict=True):
            x, y = (round(one - 0.5) for one in inner)
            assert abs(float(seen[0, y, x]) - outer[0]) < 1.5 and abs(float(seen[1, y, x]) - outer[1]) < 1.5


def test_one_glance_at_two_pictures_is_the_same_glance() -> None:
    views = torch.full((2, 3, 160, 160), 100.0)
    glance = Glance.at_random(views, np.random.default_rng(0))
    assert torch.equal(glance(views), glance(views.clone()))
    assert (glance(views) - views).abs().mean() > 1


def test_steps_teach_texture_and_identity(fitted: Fit, faces: PreparedFaces) -> None:
    torch.manual_seed(0)
    task = GeneratorTraining(faces, fitted.decoder, Settings(1.0, rate=1e-3, bf16=False), 128, batch=4)
    with torch.no_grad():
        before = task.measure(task.networks["generator"])
    steps = [task.step(np.random.default_rng(0), 0.0) for _ in range(12)]
    early, late = ([one["texture"] for one in half] for half in (steps[:6], steps[6:]))
    assert sum(late) < sum(early), "a single batch says little"
    assert steps[-1]["identity"] < 0.97 * steps[0]["identity"]
    with torch.no_grad():
        after = task.measure(task.networks["generator"])
    assert before["cosine"] == pytest.approx(before["linear_cosine"], abs=0.02)
    assert before["l1"] == pytest.approx(before["linear_l1"], abs=1e-5) != after["l1"]
    assert before["linear_l1"] == after["linear_l1"]


def test_a_run_that_was_cut_goes_on(trained: Trained) -> None:
    assert trained.steps > trained.first > 0
    assert json.loads((trained.folder / "run.json").read_text())["record"]["steps"] == trained.steps
    lines = (trained.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [trained.first, trained.steps]
    assert len(list(trained.folder.glob("sheet-*.png"))) == 2


def test_what_was_trained_decodes_moods_of_one_face(trained: Trained) -> None:
    texture = trained.network.decode(trained.network.bank.vectors[0], 0.5, 40.0)
    assert {texture.of(mood).shape for mood in MOODS} == {(SIZE, SIZE, 3)}
    for happy, opening, mood in ((0.1, 0.0, MOODS[0]), (0.9, 0.9, MOODS[-1])):
        changed = np.abs(texture.dressed(happy, opening) - texture.of(mood)).max(axis=2)
        lips = canonical_frame().polygon(topology.LIPS_INNER, 1.6)
        assert changed[lips].max() > 0.01 > changed[~lips].max()
    again = NetworkDecoder.from_bytes(trained.network.data).decode(trained.network.bank.vectors[0], 0.5, 40.0)
    assert np.array_equal(again.of(MOODS[2]), texture.of(MOODS[2]))


def test_the_card_says_what_it_is(trained: Trained) -> None:
    for said in (ABOUT.fitted_on, TERMS, trained.network.digest, f"{trained.steps:,} steps", "Known failures"):
        assert said in trained.card


def test_growing_starts_where_the_smaller_one_ended(trained: Trained, folder: Path, tmp_path: Path) -> None:
    small = torch.load(trained.folder / CHECKPOINT, weights_only=True)["average"]
    train(folder, tmp_path / "large", Settings(0.0, threads=1), ABOUT, 256, grown_from=trained.folder, batch=4)
    large = torch.load(tmp_path / "large" / CHECKPOINT, weights_only=True)["average"]
    assert torch.equal(large["blocks.3.first.weight"], small["blocks.3.first.weight"])
    assert not large["blocks.5.draw.weight"].any()


def test_an_unfinished_folder_and_a_damaged_file_are_refused(trained: Trained, fitted: Fit, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train there first"):
        export(tmp_path, tmp_path / "net.onnx")
    for data in (trained.network.data[:-1000], b"no network", fitted.path.read_bytes()):
        with pytest.raises(ModelUnusable):
            NetworkDecoder.from_bytes(data)
    with pytest.raises(ModelUnusable):
        Decoder.from_bytes(trained.network.data)
