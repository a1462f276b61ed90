"""Two jobs at once on one output, awake or asleep: each shard is committed once, and the bytes are those of one job."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from anonlib.config import JobConfig
from anonlib.storage import open_storage
from tests.faults.drivers import made, outcomes
from tests.support.runs import Run, job

ASLEEP = "claim release/commits/00001.json"


def redaction(source: Path, place: Path, **changes: Any) -> JobConfig:
    return job(source, place, method={"name": "solid"}, **changes)


@pytest.fixture(scope="module")
def clean(redacted: Run) -> dict[str, bytes]:
    return made(open_storage(str(redacted.output.parent)))


def test_two_drivers_whose_writes_alternate_commit_each_shard_once(
    tiny: Path, tmp_path: Path, clean: dict[str, bytes]
) -> None:
    both = outcomes("race", redaction(tiny, tmp_path), "3")
    assert [run.code for run in both] == [3, 3], both
    won = Counter(claim for run in both for claim in run.won)
    assert set(won.values()) == {1}
    assert {claim.partition(" ")[2] for claim in won} >= {path for path in clean if "/commits/" in path}
    assert all(len(run.won) > 1 for run in both), "both had work"
    assert made(open_storage(str(tmp_path))) == clean


def test_a_driver_that_slept_while_another_finished_changes_nothing(
    tiny: Path, tmp_path: Path, clean: dict[str, bytes]
) -> None:
    config = redaction(tiny, tmp_path)
    asleep, awake = outcomes("orphan", config, f"before {ASLEEP}", config)
    assert (asleep.code, awake.code) == (3, 3)
    assert asleep.writes.count(ASLEEP) == 1 and ASLEEP not in asleep.won
    assert not [write for write in asleep.writes if "00002" in write and "release" in write], "what is done stays"
    assert made(open_storage(str(tmp_path))) == clean


def test_a_driver_of_another_job_that_wakes_up_is_refused(tiny: Path, tmp_path: Path, clean: dict[str, bytes]) -> None:
    """Its output was cleared while it slept, and another job was done there."""
    first = redaction(tiny, tmp_path / "first", jpeg_quality=80)
    second = redaction(tiny, tmp_path / "second", output=first.output.model_dump())
    asleep, awake = outcomes("orphan", first, "before claim release/commits/00000.json", first.output.uri, second)
    assert (asleep.code, awake.code) == (1, 3)
    assert "Another job" in asleep.why
    assert [write for write in asleep.writes if "/failures/" not in write][-1] == "claim release/commits/00000.json"
    both = made(open_storage(str(tmp_path / "first"))).items(), clean.items()
    first_release, clean_release = ({path: data for path, data in all_ if "release/" in path} for all_ in both)
    assert first_release == clean_release
