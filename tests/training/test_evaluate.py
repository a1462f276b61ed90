"""A source of faces is credited with what it does, on people who are assigned fairly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from anonlib.datasets import Dataset, open_dataset
from anonlib.errors import ConfigError, JobError
from anonlib.models.catalog import PIPELINE_RECOGNIZER
from anonlib.storage import open_storage
from anonlib.training.evaluate.evaluation import STANDING, Evaluation, Identity, Judges, frechet, identity
from anonlib.training.evaluate.participants import (
    COLUMNS,
    Participants,
    ScannedPhoto,
    assemble,
    bank_faces,
    learned_from,
    scan_faces,
    scanned_dataset,
    usable,
)
from anonlib.training.evaluate.sources import (
    AverageSource,
    DecodedSource,
    FaceSource,
    Painted,
    Request,
    open_sources,
    read_decoder,
)
from anonlib.workspace.tables import matrix
from tests.support.evidence import units
from tests.support.generators import OneFace, decoder_file, network_file, plain_skin
from tests.support.runs import Run

SCRIPT = Path(__file__).parents[2] / "jobs" / "evaluate_generator.py"
JUDGE = "fr-feature"
PEOPLE, SIZE = 40, 16
TARGET, REPEATED = np.arange(PEOPLE), 2 * np.arange(20)
HOST = np.concatenate([np.roll(TARGET, -1), np.roll(TARGET, -2)[REPEATED]])
YAW = np.where(TARGET % 4 == 0, -40.0, 10.0)


class CopySource(FaceSource):
    """Leaves the photo as it is and claims the donor's identity."""

    def request(self, donor: int, host: int) -> Request:
        return self._of(donor, host)

    def paint(self, photo: ScannedPhoto, request: Request) -> Painted:
        return photo.rgb.copy(), None


@pytest.fixture(scope="module")
def rows(finished: Run) -> pa.Table:
    return usable(scan_faces(open_storage(str(finished.workspace)), None, COLUMNS))


@pytest.fixture(scope="module")
def dataset(finished: Run) -> Dataset:
    return open_dataset(scanned_dataset(open_storage(str(finished.workspace))))


@pytest.fixture(scope="module")
def people(rows: pa.Table, dataset: Dataset) -> Participants:
    return assemble(rows, dataset, people=12, strangers=100, seed=0)


@pytest.fixture(scope="module")
def evaluation(people: Participants) -> Evaluation:
    return Evaluation(people, Judges())


# ---- figures --------------------------------------------------------------------------------------------------


def judged(first: NDArray[np.float32], second: NDArray[np.float32], people: NDArray[np.float32]) -> Identity:
    """Paintings that look as `first` and `second` say, by a recognizer that knows the people by `people`."""
    return identity(np.concatenate([first, second]), TARGET, HOST, REPEATED, YAW, (people, TARGET), people)


def test_a_source_that_hits_every_identity_is_perfect() -> None:
    people = units(PEOPLE, 1, SIZE)
    found = judged(people, people[REPEATED], people)
    assert (found.to_target.value, found.rank_one.value, found.consistency.value) == pytest.approx((1, 1, 1), abs=1e-6)
    assert found.naive.value == 0.0
    assert found.rank_one.chance == found.naive.chance == 1 / PEOPLE
    only_frontal = judged(np.where((YAW == 10)[:, None], people, -people), people[REPEATED], people)
    assert (only_frontal.rank_one.value, only_frontal.rank_one_frontal.value) == (0.75, 1.0)


def test_one_face_for_all_is_consistent_and_its_target_is_found_by_chance() -> None:
    people, face = units(PEOPLE, 1, SIZE), units(1, 9, SIZE)
    found = judged(face.repeat(PEOPLE, axis=0), face.repeat(len(REPEATED), axis=0), people)
    assert found.rank_one.value == found.naive.value == pytest.approx(1 / PEOPLE)
    assert found.consistency.value == found.different == pytest.approx(1.0)


def test_a_copy_of_the_photo_gives_its_person_away_and_misses_its_target() -> None:
    people = units(PEOPLE, 1, SIZE)
    found = judged(people[HOST[:PEOPLE]], people[HOST[PEOPLE:]], people)
    assert (found.naive.value, found.rank_one.value) == (1.0, 0.0)
    none = np.zeros(0, np.int64)
    redacted = identity(
        people[HOST[:PEOPLE]], np.full(PEOPLE, -1), HOST[:PEOPLE], none, YAW, (people[:0], none), people
    )
    assert (redacted.to_target.count, redacted.rank_one.count, redacted.to_others) == (0, 0, None)
    assert redacted.naive.value == 1.0


def test_the_face_of_a_class_is_found_if_a_member_is_nearest() -> None:
    people, none = units(PEOPLE, 1, SIZE), np.zeros(0, np.int64)
    classes = np.where(TARGET < 30, TARGET // 5, -1)  # the last ten people are in none
    target = TARGET % 6
    found = identity(people[target * 5 + 2], target, HOST[:PEOPLE], none, YAW, (people, classes), people)
    assert (found.rank_one.value, found.rank_one.chance) == (1.0, 1 / 6)
    assert found.to_target.value is not None and 0.1 < found.to_target.value < 0.5  # the mean over five members


def test_the_frechet_distance_is_that_of_the_textbook() -> None:
    rng = np.random.default_rng(4)
    first = rng.normal(size=(300, 6)).astype(np.float32)
    second = (rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)) + 0.5).astype(np.float32)
    apart = first.mean(axis=0) - second.mean(axis=0)
    a, b = (np.cov(sample, rowvar=False) for sample in (first, second))
    assert frechet(first, second) == pytest.approx(float(apart @ apart + np.trace(a + b - 2 * sqrtm(a @ b).real)), 1e-4)
    assert frechet(first, first) == pytest.approx(0.0, abs=1e-9)
    assert frechet(first, second[:1]) is None


# ---- people ---------------------------------------------------------------------------------------------------


def test_a_face_goes_into_two_other_people_and_nothing_rests_on_the_gallery(
    people: Participants, rows: pa.Table
) -> None:
    ids, labels = rows.column("face_id").to_pylist(), rows.column("label").to_pylist()
    label, women = dict(zip(ids, labels, strict=True)), people.female >= 0.5
    for host in (people.first, people.second):
        assert sorted(host) == list(range(len(people)))
        assert (host != np.arange(len(people))).all() and (women[host] == women).all()
    assert (people.first != people.second).all()
    for number, (scene, gallery) in enumerate(zip(people.scenes, people.gallery, strict=True)):
        assert scene.face_id != gallery.face_id and label[scene.face_id] == label[gallery.face_id]
        assert gallery.face_id not in {row["face_id"] for row in people.portraits[number]}
        # Two photos each: what is left for the template is the scene.
        template = matrix(rows, "embedding")[ids.index(scene.face_id)]
        np.testing.assert_allclose(people.templates[number], template, atol=1e-5)
    taking_part = {label[photo.face_id] for photo in people.scenes}
    assert not taking_part & {label[photo.face_id] for photo in people.strangers}


def test_the_seed_draws_people_and_known_ones_stay_out(rows: pa.Table, dataset: Dataset) -> None:
    label = dict(zip(rows.column("face_id").to_pylist(), rows.column("label").to_pylist(), strict=True))

    def named(seed: int, count: int, without: frozenset[str] = frozenset()) -> list[str]:
        drawn = assemble(rows, dataset, people=count, strangers=0, without=without, seed=seed)
        return [label[photo.face_id] for photo in drawn.scenes]

    assert named(1, 6) == named(1, 6) != named(2, 6)
    known = frozenset(named(1, 6)[:2])
    assert not known & set(named(1, 100, known))
    with pytest.raises(JobError, match="needs 3 people of one gender"):
        named(1, 6, frozenset(label.values()))
    elsewhere = pa.Table.from_pylist([row | {"key": "x" + row["key"]} for row in rows.to_pylist()], schema=rows.schema)
    with pytest.raises(JobError, match="of the faces; give the one that was scanned"):
        assemble(elsewhere, dataset, people=8, strangers=0)


def test_people_whom_a_source_may_have_learned_from_are_known(rows: pa.Table, tmp_path: Path) -> None:
    embeddings, labels = matrix(rows, "embedding"), rows.column("label").to_pylist()
    away = np.full((1, embeddings.shape[1]), 1 / np.sqrt(embeddings.shape[1]), np.float32)
    decoder = read_decoder(f"linear:{decoder_file(tmp_path / 'd.npz', np.concatenate([embeddings[:4], away]))}")
    assert decoder is not None
    np.testing.assert_allclose(bank_faces(decoder)[:4], embeddings[:4], atol=1e-4)  # type: ignore[arg-type]
    without, checks = learned_from(rows, [decoder], {})
    assert set(labels[:4]) <= without < set(labels) and len(checks) == 2
    assert labels[-1] in learned_from(rows, [], {"faces": embeddings[-1:]})[0]


# ---- sources --------------------------------------------------------------------------------------------------


def test_photos_as_they_are_are_recognized_and_change_nothing(people: Participants, evaluation: Evaluation) -> None:
    found = evaluation.measure(FaceSource("clear", people))
    assert set(found.identity) == set(STANDING)
    for name in (JUDGE, PIPELINE_RECOGNIZER):
        own, naive = found.identity[name].rank_one.value, found.identity[name].naive.value
        assert own is not None and own == naive and own > 0.8
        assert found.identity[name].consistency.count == 0
    assert found.looks.found.value == found.looks.expression.value == 1.0
    assert found.looks.mesh_meant.value == found.looks.mesh_source.value


def test_one_face_for_all_is_a_face_and_skin_or_an_ellipse_is_none(
    people: Participants, evaluation: Evaluation
) -> None:
    face = evaluation.measure(DecodedSource("one", people, OneFace(AverageSource(people, 2).textures[0])))
    assert (face.looks.found.value or 0) > 0.8
    assert (face.identity[JUDGE].rank_one.value or 0) <= 3 / len(people)
    assert (face.identity[JUDGE].different or 0) > 0.3 and face.identity[JUDGE].consistency.count == len(people)
    skin = evaluation.measure(DecodedSource("skin", people, OneFace(plain_skin())))
    assert (skin.looks.found.value or 0) < 0.2 and skin.looks.mesh_meant.count == skin.looks.age_band.count < 3
    solid = evaluation.measure(open_sources(["solid"], people, 5)[0])
    assert solid.looks.found.value == 0.0
    assert solid.looks.gender.count == solid.identity[JUDGE].to_target.count == 0


def test_embedding_turns_the_photo_towards_its_donor(people: Participants, evaluation: Evaluation) -> None:
    moved = evaluation.measure(open_sources(["embedding"], people, 5)[0]).identity["dlib-resnet"]
    copied = evaluation.measure(CopySource("copy", people)).identity["dlib-resnet"]
    assert moved.to_target.value is not None and copied.to_target.value is not None
    assert moved.to_target.value > copied.to_target.value + 0.03
    assert (moved.naive.value or 0) < (copied.naive.value or 0)


def test_a_host_gets_the_average_of_another_class(people: Participants) -> None:
    source = AverageSource(people, 2)
    assert sorted(member for members in source.members for member in members) == [
        number for number, rows in enumerate(people.portraits) if rows
    ]
    for donor in range(len(people)):
        for host in (int(people.first[donor]), int(people.second[donor])):
            assert host not in source.members[source.request(donor, host).target]
    for number, members in enumerate(source.members):
        assert (source.of_person[members] == number).all()
    with pytest.raises(ConfigError, match="two classes need"):
        AverageSource(people, 50)


def test_sources_are_called_by_kind_and_by_file_where_there_are_two(people: Participants, tmp_path: Path) -> None:
    first, second = (decoder_file(tmp_path / f"{name}.npz", people.templates) for name in ("one", "two"))
    network = network_file(tmp_path / "net.onnx", first)
    specs = [f"linear:{first}", f"linear:{second}", f"bank:{first}", f"ksame-net:{network}", "blur"]
    names = [source.name for source in open_sources(specs, people, 2)]
    assert names == ["linear one", "linear two", "bank", "ksame-net", "blur"]
    refused = {
        f"linear:{network}": "not of the kind",
        f"ksame-net:{first}": "not of the kind",
        "linear": "name its file",
        "linear:nowhere.npz": "cannot be read",
        "magic": "no source",
    }
    for spec, sentence in refused.items():
        with pytest.raises(ConfigError, match=sentence):
            open_sources([spec], people, 2)


def test_the_command_writes_figures_and_pages(finished: Run, people: Participants, tmp_path: Path) -> None:
    path = decoder_file(tmp_path / "d.npz", -people.templates)
    command = [sys.executable, str(SCRIPT), str(tmp_path / "out"), "--source"]
    flags = [f"linear:{path}", "--workspace", str(finished.workspace), "--faces", "3", "--people", "10"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out" / "generator.json").read_text())
    assert list(written["sources"]) == ["clear", "linear"] and written["people"] == 10
    assert written["sources"]["linear"]["looks"]["frechet"] > 0 and written["speed"]["linear"]["render"] > 0
    assert {page.name for page in (tmp_path / "out").glob("*.png")} == {"faces-1.png", "control-linear.png"}
    refused = subprocess.run([*command, "solid"], capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1 and "--workspace" in refused.stderr and "Traceback" not in refused.stderr
