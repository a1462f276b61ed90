"""Sources of faces on generated people: what each does to a photo, and that the judges notice who does nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anonlib.audit.generators.averaged import AverageSource
from anonlib.audit.generators.cast import COLUMNS, Participants, assemble, usable
from anonlib.audit.generators.control import AGES, ROWS_A_PAGE, compared, control
from anonlib.audit.generators.disjoint import RESEMBLES, bank_faces, learned_from, resembling
from anonlib.audit.generators.evaluation import Evaluation
from anonlib.audit.generators.judges import STANDING, Judges
from anonlib.audit.generators.opened import open_sources, read_decoder
from anonlib.audit.generators.scanned import scan_faces, scanned_dataset
from anonlib.audit.generators.sources import NOBODY, ClearSource, CropSource, DecodedSource, FaceSource
from anonlib.audit.generators.speed import TimedWork, speeds, timed
from anonlib.datasets import open_dataset
from anonlib.errors import ConfigError
from anonlib.models.catalog import PIPELINE_RECOGNIZER
from anonlib.storage import open_storage
from anonlib.workspace.schemas import EXPRESSIONS
from anonlib.workspace.tables import matrix
from tests.support.generators import OneFace, decoder_file, network_file, plain_skin
from tests.support.runs import Run

SCRIPT = Path(__file__).parents[3] / "jobs" / "evaluate_generator.py"
JUDGE = "fr-feature"


@pytest.fixture(scope="module")
def cast(finished: Run) -> Participants:
    storage = open_storage(str(finished.workspace))
    rows = usable(scan_faces(storage, None, COLUMNS))
    return assemble(rows, open_dataset(scanned_dataset(storage)), people=12, strangers=100, seed=0)


@pytest.fixture(scope="module")
def evaluation(cast: Participants) -> Evaluation:
    return Evaluation(cast, Judges())


# ---- what sources do ------------------------------------------------------------------------------------------


def test_photos_as_they_are_are_recognized_and_change_nothing(cast: Participants, evaluation: Evaluation) -> None:
    found = evaluation.measure(ClearSource(cast))
    assert set(found.identity) == set(STANDING)
    for name in (JUDGE, PIPELINE_RECOGNIZER):
        assert found.identity[name].rank_one.value == found.identity[name].naive.value > 0.8
        assert found.identity[name].consistency.count == 0  # nobody is painted, so nothing is painted twice
    assert found.looks.found.value == found.looks.expression.value == 1.0
    assert found.looks.mesh_meant.value == found.looks.mesh_source.value < 0.05


def test_one_face_for_everybody_is_a_face_but_nobody_in_particular(cast: Participants, evaluation: Evaluation) -> None:
    found = evaluation.measure(DecodedSource("one", cast, OneFace(AverageSource(cast, 2).textures[0])))
    assert found.identity[JUDGE].rank_one.value <= 3 / len(cast)
    assert found.identity[JUDGE].naive.value <= 3 / len(cast)
    assert found.identity[JUDGE].different > 0.3
    assert found.identity[JUDGE].consistency.count == len(cast)
    assert found.looks.mesh_meant.value < found.looks.mesh_source.value
    assert found.looks.found.value > 0.8


def test_skin_without_features_is_no_face(cast: Participants, evaluation: Evaluation) -> None:
    found = evaluation.measure(DecodedSource("skin", cast, OneFace(plain_skin())))
    assert found.looks.found.value < 0.2
    assert found.looks.mesh_meant.count == found.looks.age_band.count < 3


def test_what_copies_the_photo_gives_it_away_and_misses_its_donor(cast: Participants, evaluation: Evaluation) -> None:
    copy = CropSource("copy", cast, lambda photo, donor: photo.rgb.copy(), gives=True)
    found = evaluation.measure(copy)
    assert found.identity[JUDGE].naive.value > 0.8
    assert found.identity[JUDGE].rank_one.value < 0.2
    assert found.identity[JUDGE].consistency.value < 0.4
    assert found.looks.mesh_meant.count == 0  # nobody said what it was meant to be


def test_a_flat_ellipse_leaves_no_face(cast: Participants, evaluation: Evaluation) -> None:
    found = evaluation.measure(open_sources(["solid"], cast, 5)["solid"])
    assert found.looks.found.value == 0.0
    assert found.looks.gender.count == found.identity[JUDGE].to_target.count == 0
    assert found.identity[JUDGE].naive.value < 0.5


def test_what_a_function_paints_is_told_the_photo_and_the_donor(cast: Participants) -> None:
    told: list[tuple[str, int]] = []

    def change(photo: object, donor: int) -> np.ndarray:  # type: ignore[type-arg]
        told.append((photo.face_id, donor))  # type: ignore[attr-defined]
        return np.zeros_like(cast.scenes[3].rgb)

    source = CropSource("crop", cast, change, gives=True)
    wish = source.wish(2, 3)
    assert (wish.target, wish.look) == (2, cast.looks[3])
    assert source.paint(cast.scenes[3], wish).image.max() == 0
    assert told == [(cast.scenes[3].face_id, 2)]
    assert CropSource("crop", cast, change).wish(2, 3).target == NOBODY


def test_embedding_turns_the_photo_towards_its_donor_and_keeps_its_look(
    cast: Participants, evaluation: Evaluation
) -> None:
    source = open_sources(["embedding"], cast, 5)["embedding"]
    photo = cast.scenes[0]
    changed = np.abs(source.paint(photo, source.wish(1, 0)).image.astype(int) - photo.rgb)
    assert 0.5 < changed.mean() < 20
    found = evaluation.measure(source)
    kept = evaluation.measure(CropSource("copy", cast, lambda photo, donor: photo.rgb.copy(), gives=True))
    own = found.identity["dlib-resnet"]
    assert own.to_target.value > kept.identity["dlib-resnet"].to_target.value + 0.03
    assert own.naive.value < kept.identity["dlib-resnet"].naive.value


def test_nobody_wears_the_average_of_his_own_class(cast: Participants) -> None:
    source = AverageSource(cast, 2)
    assert sorted(one for members in source.members for one in members) == [
        number for number, rows in enumerate(cast.portraits) if rows
    ]
    assert source.targets is not None
    for donor in range(len(cast)):
        for host in (int(cast.first[donor]), int(cast.second[donor])):
            wish = source.wish(donor, host)
            assert host not in source.members[wish.target]
            assert wish.look == source.looks[wish.target]
    for number, members in enumerate(source.members):
        assert (source.targets.of_person[members] == number).all()
    with pytest.raises(ConfigError, match="two classes need"):
        AverageSource(cast, 50)


# ---- what is typed --------------------------------------------------------------------------------------------


def test_sources_are_called_by_kind_and_by_file_where_there_are_two(cast: Participants, tmp_path: Path) -> None:
    one, two = (decoder_file(tmp_path / f"{name}.npz", cast.templates) for name in ("one", "two"))
    specs = [f"linear:{one}", f"bank:{one}", "blur"]
    assert [source.name for source in open_sources(specs, cast, 2).values()] == ["linear", "bank", "blur"]
    opened = open_sources([f"linear:{one}", f"linear:{two}"], cast, 2)
    assert [source.name for source in opened.values()] == ["linear one", "linear two"]
    network = network_file(tmp_path / "net.onnx", one)
    (opened_network,) = open_sources([f"ksame-net:{network}"], cast, 2).values()
    assert (opened_network.name, opened_network.targets is not None) == ("ksame-net", True)
    for kind, path in (("linear", network), ("ksame-net", one)):
        with pytest.raises(ConfigError, match="not of the kind"):
            open_sources([f"{kind}:{path}"], cast, 2)
    for spec, said in (("linear", "name its file"), ("linear:nowhere.npz", "cannot be read"), ("magic", "no source")):
        with pytest.raises(ConfigError, match=said):
            open_sources([spec], cast, 2)


def test_people_who_may_have_been_learned_from_are_known(finished: Run, tmp_path: Path) -> None:
    rows = usable(scan_faces(open_storage(str(finished.workspace)), None, COLUMNS))
    embeddings, labels = matrix(rows, "embedding"), rows.column("label").to_pylist()
    away = np.full((1, embeddings.shape[1]), 1 / np.sqrt(embeddings.shape[1]), np.float32)
    decoder = read_decoder(f"linear:{decoder_file(tmp_path / 'd.npz', np.concatenate([embeddings[:4], away]))}")
    assert decoder is not None
    np.testing.assert_allclose(bank_faces(decoder)[:4], embeddings[:4], atol=1e-4)
    without, said = learned_from(rows, [decoder], {})
    assert set(labels[:4]) <= without < set(labels)
    assert f"{len(without)} people" in said[1] and "drawn by a program" in said[0]
    assert labels[-1] in learned_from(rows, [], {"faces": embeddings[-1:]})[0]
    assert "no faces of a training" in learned_from(rows, [], {})[1][0]
    near = embeddings[:1] * RESEMBLES + 1.01 * np.sqrt(1 - RESEMBLES**2) * _across(embeddings[:1])
    assert not resembling(embeddings[:1], near / np.linalg.norm(near)).any()


def _across(vector: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """A unit vector at right angles to one (1, d)."""
    other = np.roll(vector, 1, axis=1)
    other = other - (other @ vector.T) * vector
    return np.asarray(other / np.linalg.norm(other), np.float32)


# ---- pages and speed ------------------------------------------------------------------------------------------


def test_pages_show_every_source_and_the_control_page_everything_that_can_be_asked(cast: Participants) -> None:
    sources: list[FaceSource] = [ClearSource(cast), *open_sources(["solid"], cast, 2).values()]
    pages = list(compared(cast, sources, faces=12))
    assert len(pages) == -(-min(12, len(cast)) // ROWS_A_PAGE)
    assert len(list(compared(cast, sources, faces=3))) == 1
    again = next(compared(cast, sources, faces=12))
    assert again.tobytes() == pages[0].tobytes()
    decoder = OneFace(plain_skin())
    page = control(cast, DecodedSource("noting", cast, decoder))
    assert decoder.asked[1:] == [(female, age) for female in (1.0, 0.0) for age in AGES]
    assert page.width > len(EXPRESSIONS) * 200


def test_speed_is_measured_with_one_and_two_threads(cast: Participants, tmp_path: Path) -> None:
    spec = f"linear:{decoder_file(tmp_path / 'd.npz', cast.templates)}"
    found = speeds(cast, spec, 2)
    assert [one.threads for one in found] == [1, 2]
    assert all(one.faces == len(cast) and one.decode > 0 and one.render > 0 for one in found)
    assert all(one.batched is None for one in found)


def test_a_network_is_timed_alone_too(cast: Participants, tmp_path: Path) -> None:
    path = network_file(tmp_path / "net.onnx", decoder_file(tmp_path / "d.npz", cast.templates))
    found = timed(f"ksame-net:{path}", 2, 1, TimedWork(cast.templates[:4], cast.looks[:4], cast.scenes[:4]))
    assert found.batched is not None and found.batched > 0
    assert (found.device, found.faces) == ("cpu", 4)
    with pytest.raises(ConfigError, match="decodes nothing"):
        timed("solid", 2, 1, TimedWork(cast.templates[:4], cast.looks[:4], cast.scenes[:4]))


# ---- the command ----------------------------------------------------------------------------------------------


def test_the_command_writes_figures_and_pages(finished: Run, cast: Participants, tmp_path: Path) -> None:
    path = decoder_file(tmp_path / "d.npz", -cast.templates)
    done = run(tmp_path / "out", "--workspace", str(finished.workspace), "--source", f"linear:{path}", "--faces", "3",
               "--people", "10", "--no-speed")  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out" / "generator.json").read_text())
    assert list(written["sources"]) == ["clear", "linear"]
    assert written["people"] == 10 < len(cast)
    assert written["sources"]["linear"]["looks"]["frechet"] > 0
    assert "target at rank 1" in done.stdout and "drawn by a program" in done.stdout
    assert {one.name for one in (tmp_path / "out").glob("*.png")} == {"faces-1.png", "control-linear.png"}
    with Image.open(tmp_path / "out" / "faces-1.png") as page:
        assert page.height > 3 * 240


def test_the_command_asks_for_people(tmp_path: Path) -> None:
    done = run(tmp_path / "out", "--source", "solid")
    assert done.returncode == 1
    assert "--workspace" in done.stderr and "Traceback" not in done.stderr


def run(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(folder), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
