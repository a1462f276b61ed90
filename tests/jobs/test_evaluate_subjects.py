"""The evaluation of subjects reads one scan, measures against its labels, and says when it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonlib.privacy.clustering import normalized
from tests.support.jobs import JOBS, script

SCRIPT = script("evaluate_subjects")
NUMBERS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25)


def write_scan(workspace: Path, name: str, of: list[int], *, labelled: bool = True) -> None:
    """A scan of photos of the people numbered in `of`, -1 for a stranger in the background."""
    rng = np.random.default_rng(8)
    axis = np.zeros(128)
    axis[0] = 0.8**0.5
    people = rng.normal(size=(max(of) + 1, 128)) * (0.17 / 128) ** 0.5
    rows = [people[person] if person >= 0 else rng.normal(size=128) * (0.17 / 128) ** 0.5 for person in of]
    faces = normalized((axis + np.array(rows) + rng.normal(size=(len(of), 128)) * (0.03 / 128) ** 0.5).astype("f4"))
    own = [person if person >= 0 else len(people) + row for row, person in enumerate(of)]
    second = normalized(rng.normal(size=(max(own) + 1, 200)).astype("f4"))[own]
    columns = {
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(faces.ravel()), 128),
        "second": pa.FixedSizeListArray.from_arrays(pa.array(second.ravel()), 200),
        "label": pa.array([f"p{person}" if labelled and person >= 0 else None for person in of], pa.string()),
        "female": pa.array([0.9] * len(of), pa.float32()),
        "age": pa.array([30.0] * len(of), pa.float32()),
    }
    folder = workspace / "scan" / name / "faces"
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "shard-000.parquet")
    (folder.parent / "commits").mkdir()
    (folder.parent / "commits" / "shard-000.json").write_text("{}")


def evaluate(workspace: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(JOBS / "evaluate_subjects.py"), str(workspace), *flags]
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
def test_bcubed_is_its_definition_and_the_truth_is_perfect(pairs: list[tuple[int, int]]) -> None:
    truth, cluster = np.array(pairs).T
    same_person, same_cluster = truth[:, None] == truth, cluster[:, None] == cluster
    both = (same_person & same_cluster).sum(axis=1)
    found = SCRIPT.bcubed(truth, cluster)
    assert found["precision"] == pytest.approx((both / same_cluster.sum(axis=1)).mean())
    assert found["recall"] == pytest.approx((both / same_person.sum(axis=1)).mean())
    above = np.triu(np.ones_like(same_person), 1)
    assert found["merged"] == (above & same_cluster & ~same_person).sum()
    assert found["split"] == (above & same_person & ~same_cluster).sum()
    assert found["f"] == pytest.approx(2 / (1 / found["precision"] + 1 / found["recall"]))
    right = SCRIPT.bcubed(truth, 7 - 3 * truth)
    assert (right["precision"], right["recall"], right["merged"], right["split"]) == (1, 1, 0, 0)


def test_a_class_is_real_if_it_hides_as_many_people_as_it_says() -> None:
    subject, truth = np.arange(6), np.array([0, 1, 2, 3, 3, 4])
    found = SCRIPT.real_classes([(0, 1, 2), (3, 4, 5)], [3, 3], subject, truth, 3)
    assert found == {"classes": 2, "effective_real": 1, "k_real": 1, "share": 0.5}
    known = SCRIPT.real_classes([(0, 1, 2), (3, 4, 5)], [3, 2], subject, truth, 3)
    assert (known["effective_real"], known["k_real"]) == (2, 1)
    nameless = SCRIPT.real_classes([(0, 1)], [2], np.array([0]), np.array([0]), 2)
    assert nameless["classes"] == 0 and np.isnan(nameless["share"])
