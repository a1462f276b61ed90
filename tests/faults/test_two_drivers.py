"""Two jobs at once on one output, awake or asleep: each shard is committed once, and the bytes are those of one job.

By hand, with more races, on a disk and on S3: python tests/faults/test_two_drivers.py SEEDS
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from runs import job

from anonlib.config import JobConfig
from anonlib.storage import open_storage
from faults.drivers import Driver
from faults.told import Told, made, told

ASLEEP = "before claim release/commits/00001.json"


def redaction(source: Path | str, place: Path | str, **changes: Any) -> JobConfig:
    return job(source, place, **({"method": {"name": "solid"}, "secret": {}} | changes))


def shards_won(drivers: list[Told] | list[Driver]) -> Counter[str]:
    """How often each marker and note was claimed with success, whoever did."""
    return Counter(claim for one in drivers for claim in one.won)


@pytest.fixture(scope="module")
def clean(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("clean")
    told("kill", redaction(tiny, root))
    return made(open_storage(str(root)))


def test_two_drivers_whose_writes_alternate_commit_each_shard_once(
    tiny: Path, tmp_path: Path, clean: dict[str, bytes]
) -> None:
    both = told("race", redaction(tiny, tmp_path), "3")
    assert [one.code for one in both] == [3, 3], both
    won = shards_won(both)
    assert set(won.values()) == {1}
    assert {claim.partition(" ")[2] for claim in won} >= {path for path in clean if "/commits/" in path}
    assert all(len(one.won) > 3 for one in both), "both had work"
    assert made(open_storage(str(tmp_path))) == clean


def test_a_driver_that_slept_while_another_finished_changes_nothing(
    tiny: Path, tmp_path: Path, clean: dict[str, bytes]
) -> None:
    config = redaction(tiny, tmp_path)
    asleep, awake = told("orphan", config, ASLEEP, config)
    assert (asleep.code, awake.code) == (3, 3)
    assert asleep.writes.count(ASLEEP.partition(" ")[2]) == 1 and ASLEEP.partition(" ")[2] not in asleep.won
    assert not [write for write in asleep.writes if "00002" in write and "release" in write], "what is done stays"
    assert made(open_storage(str(tmp_path))) == clean


def test_a_driver_of_another_job_that_wakes_up_writes_nothing_more(tiny: Path, tmp_path: Path) -> None:
    """The first job's output was cleared while it slept, and another was begun there."""
    first = redaction(tiny, tmp_path / "first")
    other = redaction(tiny, tmp_path / "second", output=first.output.model_dump(), jpeg_quality=80)
    refused, _ = told("kill", first, "before publish release/data/00001.tar"), None
    (late,) = told("kill", other)
    assert refused[-1].code == 3
    assert late.code == 1 and "holds a release of another job" in late.said
