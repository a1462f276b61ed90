"""The benchmark of the plan judges subjects rightly, and runs; how fast they are is no test."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "jobs" / "benchmark_privacy.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_privacy", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_drawn_people_are_as_far_apart_as_both_recognizers_put_them(benchmark: ModuleType) -> None:
    person = benchmark.person_of_each(3000, 5)
    assert 3000 / 5 * 0.9 < person[-1] + 1 < 3000 / 5 * 1.1
    vectors = benchmark.drawn(person, 0)
    similarity, same = vectors @ vectors.T, person[:, None] == person
    assert np.mean(similarity[~same]) == pytest.approx(0.85 * 0.8 * 0.96 + 0.15 * 0.1 * 0.75, abs=0.02)
    np.fill_diagonal(same, False)
    assert np.mean(similarity[same]) == pytest.approx(0.85 * 0.96 + 0.15 * 0.75, abs=0.01)


def test_bcubed_lowers_precision_for_a_merge_and_recall_for_a_split(benchmark: ModuleType) -> None:
    person = np.array([0, 0, 0, 0, 1, 1])
    right = benchmark.bcubed(person, person)
    assert (right["precision"], right["recall"], right["merged"], right["split"]) == (1, 1, 0, 0)
    merged = benchmark.bcubed(np.zeros(6, np.int64), person)
    assert (merged["recall"], merged["merged"], merged["split"]) == (1, 1, 0)
    assert merged["precision"] == pytest.approx((4 * 4 / 6 + 2 * 2 / 6) / 6)
    split = np.array([0, 0, 0, 2, 1, 1])
    assert benchmark.bcubed(split, person)["recall"] == pytest.approx((3 * 3 / 4 + 1 / 4 + 2) / 6)
    assert benchmark.shared_pairs(person, split) == pytest.approx((3 + 1) / (6 + 1))


def test_a_plan_finds_the_people_as_drawn() -> None:
    command = [sys.executable, str(SCRIPT), "--faces", "400", "1200", "--exact"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| BCubed F | 1.0000 | 1.0000 |" in done.stdout
    assert "| pairs of the exact plan that are found | 1.0000 | 1.0000 |" in done.stdout
