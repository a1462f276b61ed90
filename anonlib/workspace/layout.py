"""Where everything of a run lies: the workspace's rooms and the release's, and the markers that say a shard is
done.

A marker is written last and claimed, never replaced: whether a shard is done has one answer. It names the
digests of what it vouches for and carries no time, so a second run of the same job ends in the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from anonlib.config import JobConfig
from anonlib.errors import NotFound
from anonlib.storage import Storage, StorageOptions, open_storage
from anonlib.verification.certificate import sha256 as sha256
from anonlib.workspace import tables
from anonlib.workspace.purgeable import Workspace
from anonlib.workspace.schemas import RUN_NOTE as RUN_NOTE

SECRET = "secret"
SECRET_CHECK = "secret-check"
SALT = "salt"
INVENTORY = "inventory.parquet"
INVENTORY_NOTE = "inventory.json"
_READERS = 16


@dataclass(frozen=True)
class JobStores:
    """Both places of a job, opened. Picklable; holds no secret."""

    workspace: Storage
    release: Storage


def storage_options(job: JobConfig) -> StorageOptions:
    """How to reach S3, from the job."""
    return StorageOptions(endpoint_url=job.storage.endpoint_url, region=job.storage.region)


def open_stores(job: JobConfig) -> JobStores:
    """The workspace of a job, which takes no writes once it is purged, and its release."""
    options = storage_options(job)
    workspace = open_storage(job.workspace.uri, options, private=True)
    return JobStores(Workspace(workspace), open_storage(job.output.uri, options))


@dataclass(frozen=True)
class StageStore:
    """One stage's tables and markers under `prefix` of a storage."""

    storage: Storage
    prefix: str

    def path(self, *parts: str) -> str:
        return "/".join([*([self.prefix] if self.prefix else []), *parts])

    def marker(self, unit: str) -> str:
        return self.path("commits", f"{unit}.json")

    def done(self) -> set[str]:
        """The units that have a marker."""
        start = self.path("commits", "")
        return {
            entry.path.removeprefix(start).removesuffix(".json")
            for entry in self.storage.list(start)
            if entry.path.endswith(".json")
        }

    def commit(self, unit: str, payload: Mapping[str, Any]) -> bool:
        """Claim the marker of `unit`; False if someone else had."""
        return self.storage.claim(self.marker(unit), json_bytes(payload))

    def committed(self, unit: str) -> dict[str, Any] | None:
        """What the marker of `unit` says, None if it has none."""
        try:
            return dict(json.loads(self.storage.read(self.marker(unit))))
        except NotFound:
            return None

    def markers(self, units: Iterable[str]) -> list[dict[str, Any]]:
        """What the markers say of those of the units that have one, in the order given, read many at a time."""
        with ThreadPoolExecutor(_READERS) as pool:
            return [marker for marker in pool.map(self.committed, units) if marker is not None]


def scan_store(stores: JobStores, key: str) -> StageStore:
    return StageStore(stores.workspace, f"scan/{key[:16]}")


def plan_store(stores: JobStores, key: str) -> StageStore:
    return StageStore(stores.workspace, f"plan/{key[:16]}")


def render_store(stores: JobStores, key: str) -> StageStore:
    """What a render notes in the workspace and must not leave it: faces/SHARD, and reasons/SHARD in sentences."""
    return StageStore(stores.workspace, f"render/{key[:16]}")


def rendered_rows(stores: JobStores, run: str, shard: str) -> dict[str, list[dict[str, Any]]]:
    """RENDERED rows of a released shard by key, in the order of the manifest's faces; `run` of run.json.

    None of a shard that was given up.
    """
    store = render_store(stores, run)
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        data = store.storage.read(store.path("faces", f"{shard}.parquet"))
    except NotFound:
        return found
    for row in tables.from_bytes(data).to_pylist():
        found.setdefault(row["key"], []).append(row)
    return found


def release_store(stores: JobStores) -> StageStore:
    return StageStore(stores.release, "")


def json_bytes(payload: Mapping[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, one line."""
    return (json.dumps(payload, sort_keys=True, ensure_ascii=False) + "\n").encode()
