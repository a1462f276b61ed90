"""A job that is killed, or meets another one on its output, awake or asleep, ends in the bytes of one job."""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from anonlib.config import JobConfig
from anonlib.storage import OURS, open_storage
from tests.faults.drivers import made, outcomes
from tests.support import photos
from tests.support.runs import Run, job

SEED = 6
STAGES = ("workspace/scan/", "workspace/plan/", "release/")


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


def test_a_job_that_is_killed_in_every_stage_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """Two tars of three people each, a photo of each: the least that makes two classes."""
    shots = photos.people(6, 1)
    for shard in range(2):
        content: list[tuple[str, bytes]] = []
        for name, pixels in shots[shard::2]:
            content += photos.members(name, pixels, {"person": name})
        photos.tar(tmp_path / "input" / f"{shard:05d}.tar", content)
    (run,) = outcomes("kill", job(tmp_path / "input", tmp_path / "clean", secret={}))
    clean = made(open_storage(str(tmp_path / "clean")))
    assert run.code == 0
    # So no file comes into being past the gaps.
    writes = {write.partition(" ")[2] for write in run.writes if OURS not in write}
    assert writes - {"workspace/job.yaml"} == set(clean)
    assert {"workspace/secret", "release/run.json", "release/classes.parquet", "release/certificate.json"} < set(clean)

    draw = random.Random(SEED)
    chosen = [f"middle {draw.choice([write for write in run.writes if f' {stage}' in write])}" for stage in STAGES]
    *struck, last = outcomes("kill", job(tmp_path / "input", tmp_path / "killed", secret={}), *chosen)
    assert [killed.code for killed in struck] == [-signal.SIGKILL] * len(STAGES), chosen
    assert last.code == 0
    assert made(open_storage(str(tmp_path / "killed"))) == clean, chosen
