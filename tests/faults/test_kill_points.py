"""SIGKILL between and in the middle of a job's writes: the next run ends in the bytes of an undisturbed run."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from anonlib.storage import open_storage
from tests.faults.drivers import gaps_of
from tests.faults.told import made, told
from tests.support import photos
from tests.support.runs import job

SEED = 6
STAGES = ("workspace/scan/", "workspace/plan/", "release/")
KILLED = -signal.SIGKILL


def make_people(folder: Path) -> Path:
    """Two tars of three people each, a photo of each: the least that makes two classes."""
    shots = photos.people(6, 1)
    for shard in range(2):
        content: list[tuple[str, bytes]] = []
        for name, pixels in shots[shard::2]:
            content += photos.members(name, pixels, {"person": name})
        photos.tar(folder / f"{shard:05d}.tar", content)
    return folder


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_people(tmp_path_factory.mktemp("six"))


def test_a_job_that_is_killed_in_every_stage_ends_in_the_same_bytes(six: Path, tmp_path: Path) -> None:
    (run,) = told("kill", job(six, tmp_path / "clean", secret={}))
    clean, writes = made(open_storage(str(tmp_path / "clean"))), run.writes
    assert run.code == 0
    # So no file comes into being past the gaps.
    assert sorted(write.partition(" ")[2] for write in writes) == sorted(clean)
    assert {"workspace/secret", "release/run.json", "release/classes.parquet", "release/certificate.json"} < set(clean)

    draw = random.Random(SEED)
    every = gaps_of(writes)
    assert len(every) == 2 * len(writes) + 1
    chosen = [
        draw.choice([gap for gap in every if f" {stage}" in gap and gap.startswith("middle")]) for stage in STAGES
    ]
    *struck, last = told("kill", job(six, tmp_path / "killed", secret={}), *chosen)
    assert [one.code for one in struck] == [KILLED] * len(STAGES), chosen
    assert last.code == 0
    assert made(open_storage(str(tmp_path / "killed"))) == clean, chosen
