"""The plan of a real run: everybody has a place, and nobody wears themselves."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from anonlib.job import Job
from anonlib.methods.base import released_digest
from tests.support.runs import Run, contents, manifest, planned_copy

Rows = list[dict[str, Any]]


def rows(run: Run, pattern: str) -> Rows:
    return [row for path in sorted(run.workspace.glob(pattern)) for row in pq.read_table(path).to_pylist()]


class Planned:
    """The tables of a finished job."""

    def __init__(self, run: Run) -> None:
        self.k = run.config.method.k
        self.faces = rows(run, "scan/*/faces/*.parquet")
        self.subjects = rows(run, "plan/*/subjects.parquet")
        self.classes = rows(run, "plan/*/classes.parquet")
        self.surrogates = rows(run, "plan/*/surrogate_plans/*.parquet")
        self.assignments = rows(run, "plan/*/assignments/*.parquet")
        self.person = {face: subject["person_id"] for subject in self.subjects for face in subject["faces"]}


@pytest.fixture(scope="module")
def plan(finished: Run) -> Planned:
    return Planned(finished)


def test_every_face_has_one_subject_and_one_assignment_and_a_label_is_one_subject(plan: Planned) -> None:
    ids = sorted(face["face_id"] for face in plan.faces)
    assert sorted(face for subject in plan.subjects for face in subject["faces"]) == ids
    assert sorted(row["face_id"] for row in plan.assignments) == ids
    owner = {face: subject["subject_id"] for subject in plan.subjects for face in subject["faces"]}
    labelled = {(face["label"], owner[face["face_id"]]) for face in plan.faces if face["label"]}
    assert len(labelled) == len(dict(labelled)) == len({subject for _, subject in labelled}) == 12


def test_effective_k_counts_the_photos_that_show_the_surrogate(plan: Planned) -> None:
    shown = Counter(plan.person[row["face_id"]] for row in plan.assignments if row["surrogates"])
    for one in plan.classes:
        photos = [shown[member] for member in one["members"]]
        assert min(photos) > 0
        assert one["effective_k"] == min(len(photos), sum(photos) // max(photos))


def test_a_face_wears_a_surrogate_of_other_people_or_is_redacted_with_a_reason(plan: Planned) -> None:
    worn = {one["class_id"]: one["surrogate"] for one in plan.classes}
    gave = {one["surrogate_id"]: set(one["donors"]) for one in plan.surrogates}
    for row in plan.assignments:
        assert bool(row["reason"]) == (not row["surrogates"])
        if row["surrogates"]:
            assert row["surrogates"] == [worn[row["class_id"]]]
            assert plan.person[row["face_id"]] not in gave[row["surrogates"][0]]
    assert any(row["surrogates"] for row in plan.assignments)


def test_the_manifest_names_surrogates_by_keyed_digest_alone(finished: Run) -> None:
    """A plain hash would let anybody with the photos test whether a guessed average is the one."""
    stored = {digest for folder in finished.workspace.glob("plan/*/surrogates") for digest in contents(folder).values()}
    shown = {face["surrogate_digest"] for row in manifest(finished.output) for face in row["faces"]} - {None}
    keyring = Job(finished.config).keyring
    assert shown and shown <= {released_digest(keyring, digest) for digest in stored}
    assert not shown & stored


def test_labels_stay_in_the_scan(finished: Run) -> None:
    for path in finished.workspace.glob("plan/**/*.parquet"):
        assert "Ada-Quill" not in json.dumps(pq.read_table(path).to_pylist(), default=repr)


def test_too_few_people_are_all_redacted(finished: Run, tmp_path: Path) -> None:
    """Twelve people cannot hide among fifty."""
    config = planned_copy(finished, tmp_path, method={"name": "k-diff", "k": 50, "texture": "average"})
    job = Job(config)
    job.make_plan()
    (tables,) = (tmp_path / "workspace").glob(f"plan/{job.plan_key[:16]}/assignments")
    planned = [row for path in tables.iterdir() for row in pq.read_table(path).to_pylist()]
    assert planned and not any(row["surrogates"] for row in planned)
    assert any("fewer than 50 persons" in row["reason"] for row in planned)
