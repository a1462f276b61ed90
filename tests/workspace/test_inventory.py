"""The list of work is written once, by the first stage; a workspace of another version is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anonlib.config import JobConfig
from anonlib.errors import JobError
from anonlib.job import Job
from anonlib.storage import open_storage
from anonlib.workspace.inventory import LAYOUT, read_inventory, read_note
from anonlib.workspace.layout import INVENTORY_NOTE, open_stores
from anonlib.workspace.purge import purge
from anonlib.workspace.status import status
from tests.support import photos
from tests.support.runs import job


@pytest.fixture
def config(tmp_path: Path) -> JobConfig:
    photos.tar(tmp_path / "input" / "00000.tar", [("a.jpg", photos.jpeg(photos.nobody()))])
    return job(tmp_path / "input", tmp_path, method={"name": "solid"})


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_opening_a_job_writes_nothing(config: JobConfig, tmp_path: Path) -> None:
    before = files(tmp_path)
    opened = Job(config)
    assert [shard.shard_id for shard in opened.shards] == ["00000"] and opened.scan_key
    assert files(tmp_path) == before
    opened.scan()
    assert (read_note(opened.stores.workspace) or {})["layout"] == LAYOUT
    before = files(tmp_path)
    assert Job(config).keyring.check() == opened.keyring.check()
    assert files(tmp_path) == before


READERS: dict[str, Callable[[JobConfig], Any]] = {
    "a job": Job,
    "a status": lambda config: status(open_stores(config).workspace, None),
    "the list": lambda config: read_inventory(open_stores(config)),
}


@pytest.mark.parametrize("layout", [None, LAYOUT - 1, LAYOUT + 1])
@pytest.mark.parametrize("reader", READERS)
def test_a_workspace_of_another_version_is_refused_in_one_sentence(
    reader: str, layout: int | None, config: JobConfig, tmp_path: Path
) -> None:
    Job(config).run()
    workspace = open_storage(config.workspace.uri)
    note = json.loads(workspace.read(INVENTORY_NOTE))
    changed = {name: value for name, value in (note | {"layout": layout}).items() if value is not None}
    workspace.publish(INVENTORY_NOTE, json.dumps(changed).encode())
    with pytest.raises(JobError, match="was made by another version of anonlib"):
        READERS[reader](config)


def test_a_workspace_of_another_version_can_be_purged(config: JobConfig) -> None:
    Job(config).run()
    workspace = open_storage(config.workspace.uri)
    workspace.publish(INVENTORY_NOTE, b'{"inventory": "0", "shards": 1, "input": "photos"}\n')
    assert purge(config).remains is None
