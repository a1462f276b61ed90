"""The list of work is written once, by the first stage; a workspace of another version is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anonlib.config import JobConfig
from anonlib.errors import ConfigError, JobError
from anonlib.job import Job
from anonlib.models import requirements
from anonlib.storage import open_storage
from anonlib.workspace.inventory import LAYOUT, read_note
from anonlib.workspace.layout import INVENTORY_NOTE
from anonlib.workspace.purge import purge
from anonlib.workspace.status import status
from tests.support import photos
from tests.support.runs import contents, job


@pytest.fixture
def config(tmp_path: Path) -> JobConfig:
    photos.tar(tmp_path / "input" / "00000.tar", [("a.jpg", photos.jpeg(photos.nobody()))])
    return job(tmp_path / "input", tmp_path, method={"name": "solid"})


def test_opening_a_job_writes_nothing(config: JobConfig, tmp_path: Path) -> None:
    before = contents(tmp_path)
    opened = Job(config)
    assert [shard.shard_id for shard in opened.shards] == ["00000"] and opened.scan_key
    assert contents(tmp_path) == before
    opened.scan()
    assert (read_note(opened.stores.workspace) or {})["layout"] == LAYOUT
    before = contents(tmp_path)
    assert Job(config).keyring.check() == opened.keyring.check()
    assert contents(tmp_path) == before


def test_a_job_computes_as_it_began_and_is_refused_where_that_cannot_be(
    config: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "has_bf16", lambda: True)
    began = Job(config.model_copy(update={"precision": "auto"}))
    began._begin()
    monkeypatch.setattr(requirements, "has_bf16", lambda: False)
    later = Job(config.model_copy(update={"precision": "auto"}))
    assert began.config.precision == later.config.precision == "bf16" and later.scan_key == began.scan_key
    with pytest.raises(ConfigError, match="began so"):
        later.run()
    other = Job(config.model_copy(update={"precision": "f32"}))
    assert other.scan_key != began.scan_key


def test_a_workspace_of_another_version_is_refused_and_can_be_purged(config: JobConfig) -> None:
    Job(config).run()
    workspace = open_storage(config.workspace.uri)
    note = json.loads(workspace.read(INVENTORY_NOTE))
    for layout in ({}, {"layout": LAYOUT + 1}):
        del note["layout"]
        note |= layout
        workspace.publish(INVENTORY_NOTE, json.dumps(note).encode())
        for read in (Job, lambda job: status(workspace, None)):
            with pytest.raises(JobError, match="was made by another version of anonlib"):
                read(config)
        note.setdefault("layout", 0)
    assert purge(config).remains is None
