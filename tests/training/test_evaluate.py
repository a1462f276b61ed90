"""A decoder of faces is credited with what it does, on people who are assigned fairly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from anonlib.datasets import Dataset, open_dataset
from anonlib.errors import ConfigError, JobError
from anonlib.storage import open_storage
from anonlib.synthesis.textures.average import average, member_texture, portrait
from anonlib.training.evaluate import (
    COLUMNS,
    STANDING,
    Participants,
    assemble,
    evaluate,
    identity,
    read_decoder,
    scan_faces,
)
from anonlib.workspace.tables import matrix
from tests.support.evidence import units
from tests.support.generators import OneFace, decoder_file, network_file
from tests.support.runs import Run

SCRIPT = Path(__file__).parents[2] / "jobs" / "evaluate_generator.py"
JUDGE = "fr-feature"
EVERYONE = np.arange(40)
HOST = np.roll(EVERYONE, -1)


@pytest.fixture(scope="module")
def rows(finished: Run) -> pa.Table:
    return scan_faces(open_storage(str(finished.workspace)), None, COLUMNS)


@pytest.fixture(scope="module")
def dataset(finished: Run) -> Dataset:
    return open_dataset(str(finished.input))


@pytest.fixture(scope="module")
def people(rows: pa.Table, dataset: Dataset) -> Participants:
    return assemble(rows, dataset, people=12)


def test_a_decoder_gets_credit_for_identities_and_a_copy_of_the_photo_none() -> None:
    known = units(40, 1, 16)
    right = identity(known, known[:20], EVERYONE, HOST, known)
    assert [figure.value for figure in right.values()] == pytest.approx([1, 1, 0, 1], abs=1e-6)
    assert right["target at rank 1"].chance == 1 / 40
    copied = identity(known[HOST], known[:0], EVERYONE, HOST, known)
    assert (copied["target at rank 1"].value, copied["photo's person at rank 1"].value) == (0, 1)
    assert copied["one identity in two photos, cosine"].count == 0
    one_face = identity(known[:1].repeat(40, axis=0), known[:1].repeat(20, axis=0), EVERYONE, HOST, known)
    assert one_face["target at rank 1"].value == pytest.approx(1 / 40)
    assert one_face["one identity in two photos, cosine"].value == pytest.approx(1)


def test_a_face_goes_into_two_other_people_and_nothing_rests_on_the_gallery(
    people: Participants, rows: pa.Table
) -> None:
    ids = rows.column("face_id").to_pylist()
    label, women = dict(zip(ids, rows.column("label").to_pylist(), strict=True)), people.looks[:, 0] >= 0.5
    for host in people.hosts:
        assert sorted(host) == list(range(len(people)))
        assert (host != np.arange(len(people))).all() and (women[host] == women).all()
    assert (people.hosts[0] != people.hosts[1]).all()
    for number, (scene, gallery) in enumerate(zip(people.scenes, people.gallery, strict=True)):
        assert scene.face_id != gallery.face_id and label[scene.face_id] == label[gallery.face_id]
        # Two photos each: what is left for the template is the scene.
        template = matrix(rows, "embedding")[ids.index(scene.face_id)]
        np.testing.assert_allclose(people.templates[number], template, atol=1e-5)


def test_the_seed_draws_people_and_too_few_or_lacking_photos_are_refused(rows: pa.Table, dataset: Dataset) -> None:
    def drawn(seed: int) -> list[str]:
        return [photo.face_id for photo in assemble(rows, dataset, people=6, seed=seed).scenes]

    assert drawn(1) == drawn(1) != drawn(2)
    with pytest.raises(JobError, match="needs 3 people of one gender"):
        assemble(rows.slice(0, 3), dataset, people=6)
    elsewhere = pa.Table.from_pylist([row | {"key": "x" + row["key"]} for row in rows.to_pylist()], schema=rows.schema)
    with pytest.raises(JobError, match="of the faces; give the one that was scanned"):
        assemble(elsewhere, dataset, people=8)


def test_photos_as_they_are_are_recognized_and_one_face_for_all_is_not(people: Participants) -> None:
    member = member_texture([portrait(people.scenes[0].rgb, people.scenes[0].mesh, 0.0)])
    found = evaluate(people, {"clear": None, "face": OneFace(average([member]))})
    clear, face = found["clear"], found["face"]
    own, naive = (clear[f"{JUDGE}, {whose} at rank 1"].value or 0 for whose in ("target", "photo's person"))
    assert own == naive > 0.8
    assert clear["face found again"].value == clear["expression kept (happy, neutral)"].value == 1.0
    assert (face["face found again"].value or 0) > 0.8
    assert (face[f"{JUDGE}, target at rank 1"].value or 0) <= 3 / len(people)
    assert face[f"{JUDGE}, one identity in two photos, cosine"].count == len(people)


def test_what_is_no_decoder_is_refused(people: Participants, tmp_path: Path) -> None:
    linear = decoder_file(tmp_path / "one.npz", people.templates)
    network = network_file(tmp_path / "net.onnx", linear)
    for spec in (f"linear:{network}", f"ksame-net:{linear}", "linear:nowhere.npz"):
        with pytest.raises(ConfigError, match="cannot be used"):
            read_decoder(spec)
    for spec in ("linear", "magic"):
        with pytest.raises(ConfigError, match="is no decoder"):
            read_decoder(spec)


def test_the_command_writes_figures_and_pages(finished: Run, people: Participants, tmp_path: Path) -> None:
    path = decoder_file(tmp_path / "d.npz", -people.templates)
    command = [sys.executable, str(SCRIPT), str(tmp_path / "out"), "--source", f"linear:{path}"]
    flags = ["--workspace", str(finished.workspace), "--faces", "3", "--people", "10"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out" / "generator.json").read_text())
    assert list(written["sources"]) == ["clear", f"linear:{path}"] and written["people"] == 10
    assert {f"{name}, target at rank 1" for name in STANDING} < set(written["sources"]["clear"])
    assert [page.name for page in (tmp_path / "out").glob("*.png")] == ["faces-1.png"]
