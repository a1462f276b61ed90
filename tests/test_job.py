"""Rounds, exit codes and keys of a job."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from anonlib.errors import Changed, JobError, StorageError
from anonlib.execution.base import UnitResult
from anonlib.execution.rounds import SerialRunner, run_unit
from anonlib.job import ROUNDS, Job
from anonlib.stages.render import RenderStage
from anonlib.stages.scan import ScanStage
from anonlib.storage import open_storage
from anonlib.verification.release import verify
from tests.support import photos
from tests.support.runs import Run, by_key, job


class Flaky(SerialRunner):
    """Loses the units of its first rounds, as a cluster does whose workers die."""

    def __init__(self, lost: int) -> None:
        super().__init__()
        self.lost, self.rounds = lost, 0

    def run(self, make: Any, units: Sequence[Any]) -> Iterator[UnitResult]:
        self.rounds += 1
        if self.rounds > self.lost:
            yield from super().run(make, units)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return photos.tar(tmp_path / "input" / "00000.tar", [("a.jpg", photos.jpeg(photos.nobody()))]).parent


def test_a_unit_that_its_worker_lost_is_tried_again(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, str, int]] = []
    config = job(source, tmp_path, method={"name": "solid"})
    summary = Job(
        config, runner=Flaky(ROUNDS - 1), report=lambda stage, outcome, units: seen.append((stage, outcome.unit, units))
    ).run()
    assert summary.code == 0 and summary.no_face == 1
    assert seen == [("redact", "00000", 1)]
    assert replace(summary, fallbacks=4).code == 0
    assert replace(summary, quarantined=1).code == replace(summary, committed=0).code == 3


def test_a_scan_that_fails_three_times_ends_the_job_with_a_sentence(source: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="scanning failed for 1 units after 3 rounds; 00000: its worker died"):
        Job(job(source, tmp_path, method={"name": "solid"}), runner=Flaky(2 * ROUNDS)).run()
    assert not (tmp_path / "release" / "data").exists()


class Failing(SerialRunner):
    """Fails to scan or to render a shard, or all: with an error, or by the death of the worker (`why` is None)."""

    def __init__(self, stage: type, why: Exception | None, shard: str | None = None) -> None:
        super().__init__()
        self.stage, self.why, self.shard, self.asked, self.failures = stage, why, shard, 0, 0

    def run(self, make: Any, units: Sequence[Any]) -> Iterator[UnitResult]:
        stages = [make.func, *(part.func for part in make.args if isinstance(part, partial))]
        failing = [one for one in units if self.stage in stages and self.shard in (None, one.shard_id)]
        self.asked += len(units)
        yield from super().run(make, [unit for unit in units if unit not in failing])
        for unit in failing if self.why is not None else ():
            self.failures += 1
            yield run_unit(SimpleNamespace(run=Mock(side_effect=self.why)), unit)


@pytest.mark.parametrize("why", [Changed("Ada_Quill/sea.tar has changed."), RecursionError("deep"), None])
def test_a_shard_that_cannot_be_scanned_is_lost(why: Exception | None, source: Path, tmp_path: Path) -> None:
    photos.tar(source / "00001.tar", [("b.jpg", photos.jpeg(photos.nobody()))])
    config = job(source, tmp_path, method={"name": "solid"})
    runner = Failing(ScanStage, why, "00001")
    summary = Job(config, runner=runner).run()
    assert (summary.committed, summary.no_face, summary.quarantined, summary.code) == (2, 1, 1, 3)
    row = by_key(tmp_path / "release")["00001#unscanned"]
    assert row["status"] == "quarantined"
    assert row["reason"] == "shard-failed"
    (note,) = (tmp_path / "workspace").glob("scan/*/lost/00001.json")
    told = json.loads(note.read_text())["why"]
    assert (type(why).__name__ if isinstance(why, RecursionError) else str(why or "its worker died")) in told
    verify(open_storage(str(tmp_path / "release")), None)
    # Neither stage touches it again.
    before = runner.asked
    assert Job(config, runner=runner).run() == summary and runner.asked == before


def test_a_place_that_fails_while_a_shard_is_scanned_stops_the_job(source: Path, tmp_path: Path) -> None:
    photos.tar(source / "00001.tar", [("b.jpg", photos.jpeg(photos.nobody()))])
    with pytest.raises(JobError, match=r"the same command goes on there: The disk is full\."):
        Job(job(source, tmp_path), runner=Failing(ScanStage, StorageError("The disk is full."), "00001")).run()
    assert not list((tmp_path / "workspace").glob("scan/*/lost/*"))


def test_a_shard_is_quarantined_for_its_data_and_not_for_its_storage(source: Path, tmp_path: Path) -> None:
    photos.tar(source / "00001.tar", [("b.jpg", photos.jpeg(photos.nobody()))])
    config = job(source, tmp_path, method={"name": "solid"})
    storage = Failing(RenderStage, StorageError("The disk is full."))
    with pytest.raises(JobError, match=r"the same command goes on there: The disk is full\."):
        Job(config, runner=storage).run()
    assert storage.failures == 1 and not (tmp_path / "release" / "commits").exists()
    data = Failing(RenderStage, Changed("It has changed."))
    assert Job(config, runner=data).run().quarantined == 2
    assert data.failures == 4 * ROUNDS  # in one pass, and in the stage itself


def test_where_a_job_runs_is_in_no_key_and_what_it_does_is(finished: Run, tmp_path: Path) -> None:
    def keys(**changes: Any) -> tuple[str, str]:
        opened = Job(job(finished.input, tmp_path, precision="f32", **changes))  # a GPU has no bf16
        return opened.scan_key, opened.plan_key

    usual = keys()
    assert keys(ray={"actors": 7, "num_gpus": 1}) == usual
    assert keys(jpeg_quality=80, rekey=True) == usual
    scan, plan = keys(method={"name": "k-diff", "k": 3})
    assert scan == usual[0] and plan != usual[1]
    assert keys(detector={"score": 0.5})[0] != usual[0]
