"""A purged workspace takes no writes, not even one that was on its way when the purge began."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anonlib.config import JobConfig
from anonlib.errors import JobError, WorkspacePurged
from anonlib.job import Job
from anonlib.storage import Storage, open_storage
from anonlib.workspace import purge as purge_module
from anonlib.workspace.layout import PURGED, Workspace
from anonlib.workspace.purge import purge
from tests.support import photos
from tests.support.runs import contents, job
from tests.support.s3server import S3Server, one_sentence

Write = Callable[[Storage], object]
WRITES: tuple[Write, ...] = (
    lambda storage: storage.publish("scan/faces", b"1"),
    lambda storage: storage.claim("scan/faces", b"1"),
)


@pytest.fixture(params=["disk", "s3"])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "disk":
        yield open_storage(str(tmp_path / "workspace"))
        return
    server: S3Server = request.getfixturevalue("s3")
    with server.acting_as():
        yield open_storage(f"s3://{server.bucket()}/workspace", server.options)


def paths(storage: Storage) -> list[str]:
    return [entry.path for entry in storage.list(unfinished=True)]


@pytest.mark.parametrize("write", WRITES)
def test_a_write_after_the_purge_is_refused(inner: Storage, write: Write) -> None:
    workspace = Workspace(inner)
    write(workspace)
    inner.delete_tree("")
    inner.publish(PURGED, b"{}")
    with pytest.raises(WorkspacePurged, match="was purged") as refused:
        write(workspace)
    assert one_sentence(refused.value)
    assert paths(inner) == [PURGED]


@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_the_purge_overtook_is_removed_by_its_writer(
    inner: Storage, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The purge marks, removes everything and lists again, all between the writer's first look and its write."""
    workspace, looked = Workspace(inner), []
    look = inner.exists

    def overtaken(path: str) -> bool:
        found = look(path)
        if not looked:
            looked.append(path)
            inner.publish(PURGED, b"{}")
        return found

    monkeypatch.setattr(inner, "exists", overtaken)
    with pytest.raises(WorkspacePurged):
        write(workspace)
    assert looked == [PURGED] and paths(inner) == [PURGED]


def test_what_is_gone_by_a_purge_is_said_to_be(inner: Storage) -> None:
    workspace = Workspace(inner)
    inner.publish(PURGED, b"{}")
    with pytest.raises(WorkspacePurged):
        workspace.read("scan/faces")
    assert not workspace.exists("scan/faces")


@pytest.fixture
def two(tmp_path: Path) -> JobConfig:
    """A job of two shards that has not run yet."""
    for number in range(2):
        photos.tar(tmp_path / "input" / f"{number:05d}.tar", [("a.jpg", photos.jpeg(photos.nobody()))])
    return job(tmp_path / "input", tmp_path, method={"name": "solid"})


def test_a_run_whose_workspace_is_purged_under_it_stops_and_leaves_nothing(
    two: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease is not seen, as that of a run that may not write one."""
    monkeypatch.setattr(purge_module, "at_work", lambda workspace: None)
    running = Job(two, report=lambda stage, outcome, units: outcome.error or purge(two, force=True))
    with pytest.raises(JobError, match=r"stopped in shard or block 00001 of its scan stage.*was purged"):
        running.scan()
    assert list(contents(tmp_path / "workspace")) == [PURGED]


def test_a_workspace_is_not_purged_under_a_run(two: JobConfig, tmp_path: Path) -> None:
    refused: list[str] = []

    def report(*_: object) -> None:
        with pytest.raises(JobError, match="is at work on") as said:
            purge(two, force=True)
        refused.append(str(said.value))

    Job(two, report=report).scan()
    assert len(refused) == 2 and "end it first" in refused[0]
    assert purge(two, force=True).files > 0
    assert list(contents(tmp_path / "workspace")) == [PURGED]
