"""A worker that slept while a reviewer withheld a photo does not put it back, wherever between its writes it slept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from anonlib.config import JobConfig
from anonlib.errors import JobError
from anonlib.job import Job
from anonlib.storage import StorageOptions, open_storage
from anonlib.verification.release import verify
from anonlib.workspace import lease as lease_module
from anonlib.workspace.decisions import Decision, DecisionLog
from anonlib.workspace.layout import open_stores
from tests.faults.drivers import made, outcomes
from tests.support import photos
from tests.support.forgery import check
from tests.support.runs import job
from tests.support.s3server import S3Server

WITHHELD = Decision(shard="00000", key="a", verdict="withhold").model_dump_json()
WRITES = ("data/00000.tar", "commits/00000.json")


@dataclass(frozen=True)
class Place:
    """A root for jobs: a folder, or a prefix of a bucket."""

    root: str
    options: StorageOptions = field(default_factory=StorageOptions)
    changes: dict[str, Any] = field(default_factory=dict)

    def job(self, source: Path) -> JobConfig:
        return job(source, self.root, method={"name": "solid"}, secret={}, **self.changes)

    def release(self) -> dict[str, bytes]:
        everything = made(open_storage(self.root, self.options))
        return {path: data for path, data in everything.items() if path.startswith("release/")}

    def verify(self) -> int:
        """How many photos of the release are quarantined."""
        return verify(open_storage(f"{self.root}/release", self.options)).certificate.counts.quarantined


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "disk":
        yield Place(str(tmp_path / "place"))
        return
    server: S3Server = request.getfixturevalue("s3")
    with server.acting_as():
        storage = {"storage": {"endpoint_url": server.endpoint, "region": "us-east-1"}}
        yield Place(f"s3://{server.bucket()}", server.options, storage)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos in a folder, each of which is a file of the release, too."""
    (tmp_path / "photos").mkdir()
    for start, name in enumerate("ab"):
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(photos.jpeg(photos.nobody()[start:]))
    return tmp_path / "photos"


@pytest.mark.parametrize("write", WRITES)
def test_a_worker_that_slept_through_a_review_changes_nothing(tiny: Path, tmp_path: Path, write: str) -> None:
    """It is stopped before a write; another run finishes, a reviewer withholds a photo, a run carries that out."""
    place = Place(str(tmp_path / "place"))
    config = place.job(tiny)
    asleep, first, second = outcomes("orphan", config, f"before claim release/{write}", config, WITHHELD, config)
    assert [first.code, second.code] == [3, 3], (first.why, second.why)
    assert asleep.writes.count(f"claim release/{write}") == 1 and f"claim release/{write}" not in asleep.won
    assert asleep.code == 1 and "other" in asleep.why, asleep.why

    release = place.release()
    assert place.verify() == 2
    assert b"a.jpg" not in release["release/data/00000.tar"]
    (last,) = outcomes("kill", config)
    assert (last.code, place.release()) == (3, release), last.why


def test_one_that_wakes_up_while_the_photo_is_taken_back_leaves_no_certificate(tiny: Path, tmp_path: Path) -> None:
    """What it wrote is there first; the run that takes back is stopped, and the next one mends it."""
    place, gap = Place(str(tmp_path / "place")), "before claim release/data/00000.tar"
    config = place.job(tiny)
    asleep, first, second = outcomes("orphan", config, gap, config, WITHHELD, gap)
    assert first.code == 3 and second.code == 1, (asleep.why, second.why)
    assert "release/certificate.json" not in place.release()
    (last,) = outcomes("kill", config)
    assert last.code == 3, last.why
    place.verify()
    assert b"a.jpg" not in place.release()["release/data/00000.tar"]


def test_a_photo_with_a_file_of_its_own_is_removed_again_by_the_worker_that_put_it_back(
    folder: Path, place: Place
) -> None:
    config = place.job(folder)
    (shard,) = (shard.shard_id for shard in Job(config).shards)
    withheld = Decision(shard=shard, key="a.jpg", verdict="withhold").model_dump_json()
    asleep, *others = outcomes("orphan", config, "before claim release/data/a.jpg", config, withheld, config)
    assert [run.code for run in others] == [0, 3], others
    assert "claim release/data/a.jpg" in asleep.won
    assert [write for write in asleep.writes if "/failures/" not in write][-1] == "delete release/data/a.jpg"
    assert sorted(path for path in place.release() if "/data/" in path) == ["release/data/b.jpg"]
    place.verify()


def test_a_file_that_no_marker_names_is_found_at_the_end_of_every_run(folder: Path, tmp_path: Path) -> None:
    """As a worker leaves it that is killed once it has put a photo back."""
    config = Place(str(tmp_path / "place")).job(folder)
    Job(config).run()
    data = Path(config.output.uri) / "data"
    (data / "c.jpg").write_bytes(photos.jpeg(photos.nobody()))
    for _ in range(2):
        with pytest.raises(JobError, match=r"must not leave: no marker names data/c\.jpg; delete"):
            Job(config).run()
    (data / "c.jpg").unlink()
    Job(config).run()
    (data / "b.jpg").unlink()
    with pytest.raises(JobError, match=r"data/b\.jpg is missing; delete commits/"):
        Job(config).run()


def test_decisions_are_not_carried_out_beside_another_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "BEAT_S", 0.1)
    config = Place(str(tmp_path / "place")).job(folder)
    Job(config).run()
    output = Path(config.output.uri)
    run = json.loads((output / "run.json").read_text())["run"]
    (shard,) = (shard.shard_id for shard in Job(config).shards)
    DecisionLog(open_stores(config).workspace, run).add(Decision(shard=shard, key="a.jpg", verdict="withhold"))
    with Job(config).lease.held(), pytest.raises(Exception, match=r"Another run .* is at work"):
        Job(config).run()
    assert check(output).certificate.counts.quarantined == 0
    Job(config).run()
    assert check(output).certificate.counts.quarantined == 1
