"""Rounds, exit codes and keys of a job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import photos
import pytest
from runs import Run, job

from anonlib.pipeline.job import ROUNDS, Job, JobError, Summary
from anonlib.pipeline.outcome import Outcome
from anonlib.pipeline.runner import SerialRunner
from anonlib.pipeline.scan import ScanStage
from anonlib.pipeline.unit_log import Work
from anonlib.storage import Changed, StorageError

CLEAN = Summary(shards=2, committed=2, images=5, released=4, no_face=1, quarantined=0, faces=4, fallbacks=0)


def test_the_exit_code_is_0_only_if_everything_was_released() -> None:
    assert CLEAN.code == 0
    assert replace(CLEAN, fallbacks=4).code == 0
    assert replace(CLEAN, quarantined=1).code == 3
    assert replace(CLEAN, committed=1).code == 3


class Flaky(SerialRunner):
    """Loses the units of its first rounds, as a cluster does whose workers die."""

    def __init__(self, lost: int) -> None:
        self.lost, self.rounds = lost, 0

    def run(self, make: Any, units: Sequence[Any], work: Work) -> Iterator[Outcome]:
        self.rounds += 1
        if self.rounds > self.lost:
            yield from super().run(make, units, work)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return photos.tar(tmp_path / "input" / "00000.tar", [("a.jpg", photos.jpeg(photos.nobody()))]).parent


def test_a_unit_that_its_worker_lost_is_tried_again(source: Path, tmp_path: Path) -> None:
    runner = Flaky(ROUNDS - 1)
    summary = Job(job(source, tmp_path, method={"name": "solid"}), runner=runner).run()
    assert summary.code == 0 and summary.no_face == 1


def test_a_scan_that_fails_three_times_ends_the_job_with_a_sentence(source: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="scanning failed for 1 units after 3 rounds; 00000: its worker died"):
        Job(job(source, tmp_path, method={"name": "solid"}), runner=Flaky(ROUNDS)).run()
    assert not (tmp_path / "release" / "data").exists()


class Renderless(SerialRunner):
    """Scans, and fails to render for a reason."""

    def __init__(self, why: Exception) -> None:
        self.why, self.asked = why, 0

    def run(self, make: Any, units: Sequence[Any], work: Work) -> Iterator[Outcome]:
        yield from super().run(make if make.func is ScanStage else lambda: Failing(self), units, work)


class Failing:
    def __init__(self, runner: Renderless) -> None:
        self.runner = runner

    def run(self, unit: Any) -> Outcome:
        self.runner.asked += 1
        raise self.runner.why


def test_a_shard_is_quarantined_for_its_data_and_not_for_its_storage(source: Path, tmp_path: Path) -> None:
    photos.tar(source / "00001.tar", [("b.jpg", photos.jpeg(photos.nobody()))])
    config = job(source, tmp_path, method={"name": "solid"})
    storage = Renderless(StorageError("The disk is full."))
    with pytest.raises(JobError, match=r"the same command goes on there: The disk is full\."):
        Job(config, runner=storage).run()
    assert storage.asked == 1 and not (tmp_path / "release" / "commits").exists()
    data = Renderless(Changed("It has changed."))
    assert Job(config, runner=data).run().quarantined == 2
    assert data.asked == 2 * ROUNDS


def test_every_outcome_is_reported(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, str, int]] = []
    config = job(source, tmp_path, method={"name": "solid"})
    Job(config, report=lambda stage, outcome, units: seen.append((stage, outcome.unit, units))).run()
    assert seen == [("scan", "00000", 1), ("render", "00000", 1)]


def test_where_a_job_runs_is_in_no_key_and_what_it_does_is(finished: Run, tmp_path: Path) -> None:
    def keys(**changes: Any) -> tuple[str, str]:
        opened = Job(job(finished.input, tmp_path, **changes))
        return opened.scan_key, opened.plan_key

    usual = keys()
    assert keys(ray={"actors": 7, "num_gpus": 1}) == usual
    assert keys(jpeg_quality=80, rekey=True) == usual
    scan, plan = keys(method={"name": "k-diff", "k": 3})
    assert scan == usual[0] and plan != usual[1]
    assert keys(detector={"score": 0.5})[0] != usual[0]
