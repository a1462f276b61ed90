"""The plan of a real run: everybody has a place, and nobody wears themselves."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from anonlib.config import JobConfig
from anonlib.errors import JobError
from anonlib.job import Job
from anonlib.workspace.schemas import ASSIGNMENTS, CLASSES, SUBJECTS, SURROGATES
from tests.support.runs import Run, contents, run_job

Rows = list[dict[str, Any]]


def rows(run: Run, pattern: str) -> Rows:
    return [row for path in sorted(run.workspace.glob(pattern)) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def faces(finished: Run) -> Rows:
    return rows(finished, "scan/*/faces/*.parquet")


@pytest.fixture(scope="module")
def subjects(finished: Run) -> Rows:
    return rows(finished, "plan/*/subjects.parquet")


@pytest.fixture(scope="module")
def classes(finished: Run) -> Rows:
    return rows(finished, "plan/*/classes.parquet")


@pytest.fixture(scope="module")
def assignments(finished: Run) -> Rows:
    return rows(finished, "plan/*/assignments/*.parquet")


def test_every_face_has_one_subject_and_one_assignment(faces: Rows, subjects: Rows, assignments: Rows) -> None:
    ids = sorted(face["face_id"] for face in faces)
    assert sorted(face for subject in subjects for face in subject["faces"]) == ids
    assert sorted(row["face_id"] for row in assignments) == ids


def test_faces_of_one_label_are_one_subject(faces: Rows, subjects: Rows) -> None:
    owner = {face: subject["subject_id"] for subject in subjects for face in subject["faces"]}
    of_label = defaultdict(set)
    for face in faces:
        if face["label"]:
            of_label[face["label"]].add(owner[face["face_id"]])
    assert len(of_label) == 12
    assert all(len(found) == 1 for found in of_label.values())
    assert len({next(iter(found)) for found in of_label.values()}) == 12


@pytest.fixture(scope="module")
def surrogates(finished: Run) -> Rows:
    return rows(finished, "plan/*/surrogate_plans/*.parquet")


def test_every_class_hides_k_persons_and_every_surrogate_has_k_donors(
    classes: Rows, surrogates: Rows, finished: Run
) -> None:
    k = finished.config.method.k
    assert classes and surrogates
    for one in classes:
        assert len(one["members"]) >= one["effective_k"] >= k
    for one in surrogates:
        assert len(set(one["donors"])) == len(one["donors"]) >= k
        assert len(one["portraits"]) == len(one["donors"]) and all(one["portraits"])
    assert {one["surrogate_id"] for one in surrogates} == {one["surrogate"] for one in classes}


def test_no_person_is_in_two_classes(classes: Rows, subjects: Rows) -> None:
    members = [member for one in classes for member in one["members"]]
    assert len(members) == len(set(members))
    of_person = {subject["person_id"]: subject["class_id"] for subject in subjects if subject["class_id"]}
    assert of_person == {member: one["class_id"] for one in classes for member in one["members"]}


def test_effective_k_counts_the_photos_that_show_the_surrogate(
    classes: Rows, subjects: Rows, assignments: Rows
) -> None:
    person = {face: subject["person_id"] for subject in subjects for face in subject["faces"]}
    shown = Counter(person[row["face_id"]] for row in assignments if row["surrogates"])
    for one in classes:
        photos = [shown[member] for member in one["members"]]
        assert min(photos) > 0
        assert one["effective_k"] == min(len(photos), sum(photos) // max(photos))


def test_all_faces_of_a_class_wear_one_surrogate(classes: Rows, assignments: Rows) -> None:
    worn = {one["class_id"]: one["surrogate"] for one in classes}
    replaced = [row for row in assignments if row["method"] == "k-diff"]
    assert replaced and all(row["surrogates"] == [worn[row["class_id"]]] for row in replaced)


def test_nobody_wears_a_surrogate_that_they_gave_to(subjects: Rows, surrogates: Rows, assignments: Rows) -> None:
    person = {face: subject["person_id"] for subject in subjects for face in subject["faces"]}
    gave = {one["surrogate_id"]: set(one["donors"]) for one in surrogates}
    worn = [(person[row["face_id"]], other) for row in assignments for other in row["surrogates"] or ()]
    assert worn and all(who not in gave[other] for who, other in worn)


def test_what_is_not_replaced_is_redacted_with_a_reason(assignments: Rows) -> None:
    for row in assignments:
        assert (row["method"] == "solid") == bool(row["reason"]) == (not row["surrogates"])
        assert row["method"] in ("solid", "k-diff")


def test_tables_have_their_schemas(finished: Run) -> None:
    for pattern, schema in (
        ("subjects", SUBJECTS),
        ("classes", CLASSES),
        ("surrogate_plans/*", SURROGATES),
        ("assignments/*", ASSIGNMENTS),
    ):
        for path in finished.workspace.glob(f"plan/*/{pattern}.parquet"):
            assert pq.read_schema(path).equals(schema)


def test_the_plans_digest_covers_its_tables(finished: Run) -> None:
    (marker,) = finished.workspace.glob("plan/*/commits/plan.json")
    plan = json.loads(marker.read_text())
    assert len(plan["digest"]) == 64
    assert all((marker.parent.parent / "surrogate_plans" / f"{block}.parquet").exists() for block in plan["blocks"])


def test_labels_stay_in_the_scan(finished: Run) -> None:
    for path in finished.workspace.glob("plan/**/*.parquet"):
        assert "Ada-Quill" not in json.dumps(pq.read_table(path).to_pylist(), default=repr)


def test_too_few_people_are_all_redacted(finished: Run, tmp_path: Path) -> None:
    """Twelve people cannot hide among fifty."""
    run = run_job(finished.input, tmp_path, method={"name": "k-diff", "k": 50})
    planned = rows(run, "plan/*/assignments/*.parquet")
    assert {row["method"] for row in planned} == {"solid"}
    assert any("fewer than 50 persons" in row["reason"] for row in planned)
    assert run.summary.fallbacks == run.summary.faces and run.summary.code == 0


def test_a_plan_needs_a_finished_scan(finished: Run, tmp_path: Path) -> None:
    config = finished.config.model_dump() | {"workspace": {"uri": str(tmp_path / "w")}}
    with pytest.raises(JobError, match="3 of 3 shards are not scanned yet"):
        Job(JobConfig.model_validate(config)).make_plan()
    assert "plan" not in {path.split("/")[0] for path in contents(tmp_path / "w")}
