"""SIGKILL between and in the middle of a job's writes: the next run ends in the bytes of an undisturbed run."""

from __future__ import annotations

import random
import signal
from pathlib import Path

from anonlib.storage import open_storage
from tests.faults.drivers import made, outcomes
from tests.support import photos
from tests.support.runs import job

SEED = 6
STAGES = ("workspace/scan/", "workspace/plan/", "release/")


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
    assert sorted(write.partition(" ")[2] for write in run.writes) == sorted(clean)
    assert {"workspace/secret", "release/run.json", "release/classes.parquet", "release/certificate.json"} < set(clean)

    draw = random.Random(SEED)
    chosen = [f"middle {draw.choice([write for write in run.writes if f' {stage}' in write])}" for stage in STAGES]
    *struck, last = outcomes("kill", job(tmp_path / "input", tmp_path / "killed", secret={}), *chosen)
    assert [killed.code for killed in struck] == [-signal.SIGKILL] * len(STAGES), chosen
    assert last.code == 0
    assert made(open_storage(str(tmp_path / "killed"))) == clean, chosen
