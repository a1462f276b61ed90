"""The evaluation of subjects reads one scan, measures against its labels, and says when it cannot."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonlib.privacy.clustering import normalized

JOB = Path(__file__).parents[2] / "jobs" / "evaluate_subjects.py"


def _script() -> Any:
    spec = importlib.util.spec_from_file_location("evaluate_subjects", JOB)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


SCRIPT = _script()
NUMBERS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25)


def write_scan(workspace: Path, name: str, of: list[int], *, labelled: bool = True) -> None:
    """A scan of photos of the people numbered in `of`, -1 for a stranger in the background."""
    rng = np.random.default_rng(8)
    axis = np.zeros(128)
    axis[0] = 0.8**0.5
    people = rng.normal(size=(max(of) + 1, 128)) * (0.17 / 128) ** 0.5
    rows = [people[one] if one >= 0 else rng.normal(size=128) * (0.17 / 128) ** 0.5 for one in of]
    faces = normalized((axis + np.array(rows) + rng.normal(size=(len(of), 128)) * (0.03 / 128) ** 0.5).astype("f4"))
    own = [one if one >= 0 else len(people) + row for row, one in enumerate(of)]
    second = normalized(rng.normal(size=(max(own) + 1, 200)).astype("f4"))[own]
    columns = {
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(faces.ravel()), 128),
        "second": pa.FixedSizeListArray.from_arrays(pa.array(second.ravel()), 200),
        "label": pa.array([f"p{one}" if labelled and one >= 0 else None for one in of], pa.string()),
        "female": pa.array([0.9] * len(of), pa.float32()),
        "age": pa.array([30.0] * len(of), pa.float32()),
    }
    folder = workspace / "scan" / name / "faces"
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "shard-000.parquet")
    (folder.parent / "commits").mkdir()
    (folder.parent / "commits" / "shard-000.json").write_text("{}")


def evaluate(workspace: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(JOB), str(workspace), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_people_far_apart_are_all_found(tmp_path: Path) -> None:
    write_scan(tmp_path, "one", [person for person in range(24) for _ in range(3)] + [-1] * 10)
    done = evaluate(tmp_path, "--k", "4")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "subjects.json").read_text())
    assert (found["faces"], found["labelled"]) == (82, 72)
    assert (found["all"]["f"], found["all"]["people"], found["all"]["merged"]) == (1.0, 24, 0)
    assert found["report"]["people"] == 12
    assert len(found["calibration"]) == 7
    assert found["classes"]["share"] == 1.0
    assert found["classes"]["classes"] == 6
    assert "the other half" in done.stdout


def test_several_scans_are_asked_about_and_labels_are_needed(tmp_path: Path) -> None:
    write_scan(tmp_path, "one", [0, 0, 1, 1])
    write_scan(tmp_path, "two", [0, 0, 1, 1], labelled=False)
    asked, nameless = evaluate(tmp_path), evaluate(tmp_path, "--scan", "two")
    assert asked.returncode == nameless.returncode == 1
    assert "name one by --scan: one, two" in asked.stderr
    assert "no face of this scan has a label" in nameless.stderr
    assert "there is no scan" in evaluate(tmp_path / "scan").stderr


@given(NUMBERS)
def test_bcubed_is_its_definition(pairs: list[tuple[int, int]]) -> None:
    truth, cluster = np.array(pairs).T
    same_person, same_cluster = truth[:, None] == truth, cluster[:, None] == cluster
    both = (same_person & same_cluster).sum(axis=1)
    found = SCRIPT.bcubed(truth, cluster)
    assert found.precision == pytest.approx((both / same_cluster.sum(axis=1)).mean())
    assert found.recall == pytest.approx((both / same_person.sum(axis=1)).mean())
    above = np.triu(np.ones_like(same_person), 1)
    assert found.merged == (above & same_cluster & ~same_person).sum()
    assert found.split == (above & same_person & ~same_cluster).sum()
    assert found.f == pytest.approx(2 / (1 / found.precision + 1 / found.recall))


@given(NUMBERS)
def test_the_truth_is_perfect_and_names_do_not_matter(pairs: list[tuple[int, int]]) -> None:
    truth = np.array(pairs)[:, 0]
    found = SCRIPT.bcubed(truth, 7 - 3 * truth)
    assert (found.precision, found.recall, found.merged, found.split) == (1, 1, 0, 0)
    assert found.people == found.clusters


def test_merging_costs_precision_and_splitting_recall() -> None:
    truth = np.array([0, 0, 0, 1])
    merged, split = SCRIPT.bcubed(truth, np.zeros(4, np.int64)), SCRIPT.bcubed(truth, np.arange(4))
    assert (merged.precision, merged.recall, merged.merged, merged.split) == (0.625, 1, 3, 0)
    assert (split.precision, split.recall, split.merged, split.split) == (1, 0.5, 0, 3)


def test_nothing_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        SCRIPT.bcubed(np.zeros(0, np.int64), np.zeros(0, np.int64))


def test_a_class_is_real_if_it_hides_as_many_people_as_it_says() -> None:
    subject = np.array([0, 1, 2, 3, 4, 5])
    truth = np.array([0, 1, 2, 3, 3, 4])
    found = SCRIPT.real_classes([(0, 1, 2), (3, 4, 5)], [3, 3], subject, truth, 3)
    assert (found.classes, found.effective_real, found.k_real, found.share) == (2, 1, 1, 0.5)
    known = SCRIPT.real_classes([(0, 1, 2), (3, 4, 5)], [3, 2], subject, truth, 3)
    assert (known.effective_real, known.k_real) == (2, 1)


def test_a_subject_stands_for_whom_most_of_its_faces_show() -> None:
    subject = np.array([0, 0, 0, 1, 1])
    one = SCRIPT.real_classes([(0, 1)], [2], subject, np.array([7, 8, 8, 8, 8]), 2)
    two = SCRIPT.real_classes([(0, 1)], [2], subject, np.array([7, 7, 8, 8, 8]), 2)
    assert (one.effective_real, two.effective_real) == (0, 1)


def test_a_class_with_a_nameless_subject_is_left_out() -> None:
    found = SCRIPT.real_classes([(0, 1)], [2], np.array([0]), np.array([0]), 2)
    assert found.classes == 0
    assert np.isnan(found.share)
