"""SIGKILL at every gap of a job's writes: the next run ends in the bytes of a run that nobody disturbed.

By hand, at every gap from the beginning, on a disk and on S3: python tests/faults/test_kill_points.py
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from anonlib.storage import OURS, Storage, StorageOptions, open_storage
from tests.faults.drivers import Driver, gaps_of, killed
from tests.faults.told import apart, made, told
from tests.support import photos
from tests.support.runs import job
from tests.support.s3server import S3Server, running

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


def everywhere(source: Path, place: str, options: StorageOptions, changes: dict[str, Any]) -> Iterator[str]:
    """Kill at each gap of a job of its own, look at what lies there, run again, compare."""

    def at(name: str) -> tuple[Any, Storage]:
        return job(source, f"{place}/{name}", secret={}, **changes), open_storage(f"{place}/{name}", options)

    config, root = at("clean")
    run = Driver(config).run()
    clean = made(root)
    assert run.code == 0
    for number, gap in enumerate(gaps_of(run.writes)):
        config, root = at(str(number))
        assert killed(config, gap).code == KILLED, gap
        left = {path: data for path, data in made(root).items() if OURS not in path}
        assert left.items() <= clean.items(), f"{gap}: a file under its final name is not the one it will be"
        assert Driver(config).run().code == 0, gap
        assert made(root) == clean, gap
        yield gap


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="anonlib-gaps-")))
        source = apart(make_people, folder / "input")
        for count, gap in enumerate(everywhere(source, str(folder / "disk"), StorageOptions(), {}), 1):
            print(f"disk {count}: {gap}", flush=True)
        server: S3Server = stack.enter_context(running(folder))
        stack.enter_context(server.acting_as())
        there = {"storage": {"endpoint_url": server.endpoint, "region": "us-east-1"}}
        for count, gap in enumerate(everywhere(source, f"s3://{server.bucket()}", server.options, there), 1):
            print(f"s3 {count}: {gap}", flush=True)


if __name__ == "__main__":
    main()
