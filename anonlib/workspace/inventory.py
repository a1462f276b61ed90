"""The list of work of a job, written once by its first stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from anonlib.config import JobConfig
from anonlib.datasets import Shard
from anonlib.errors import JobError, NotFound
from anonlib.models.requirements import best_precision
from anonlib.storage import Storage
from anonlib.workspace import tables
from anonlib.workspace.layout import INVENTORY, INVENTORY_NOTE, JobStores, json_bytes, sha256
from anonlib.workspace.schemas import INVENTORY as SCHEMA

LAYOUT = 3


def read_note(workspace: Storage) -> dict[str, Any] | None:
    """What a workspace notes of its list, None before there is one; raises JobError for another layout."""
    try:
        note = dict(json.loads(workspace.read(INVENTORY_NOTE)))
    except NotFound:
        return None
    if note.get("layout") != LAYOUT:
        raise JobError(
            f"the workspace {workspace.uri} was made by another version of anonlib, whose tables this one does not "
            "read; give this job a new workspace and output, or finish it with that version"
        )
    return note


def with_precision(job: JobConfig, workspace: Storage) -> JobConfig:
    """The job, `precision: auto` as the workspace has pinned it, or as this machine computes best before it has."""
    if job.precision != "auto":
        return job
    pinned = (read_note(workspace) or {}).get("precision") or best_precision(job)
    return job.model_copy(update={"precision": pinned})


def read_inventory(stores: JobStores) -> list[Shard]:
    """The job's shards in order; raises JobError without a list, and for another layout."""
    read_note(stores.workspace)
    try:
        rows = tables.from_bytes(stores.workspace.read(INVENTORY)).to_pylist()
    except NotFound:
        raise JobError(f"the workspace {stores.workspace.uri} has no inventory; is this the job's own?") from None
    return [Shard(**(row | {"files": tuple(row["files"] or ())})) for row in rows]


def check_inventory(job: JobConfig, stores: JobStores, shards: Sequence[Shard]) -> str:
    """The digest of the list; raises JobError if the workspace was made for another one. Writes nothing."""
    digest = sha256(_table(shards))
    note = read_note(stores.workspace)
    if note is not None and note["inventory"] != digest:
        raise JobError(
            f"the input {job.input.uri} is not the one that the workspace {job.workspace.uri} was "
            "made for (files came, went or changed); give this run a new workspace and output"
        )
    return digest


def claim_inventory(
    job: JobConfig, stores: JobStores, shards: Sequence[Shard], left_out: Callable[[], Mapping[str, int]] = dict
) -> None:
    """Write the list down where there is none, with what the dataset left out; raises as check_inventory."""
    workspace, data = stores.workspace, _table(shards)
    # Not claimed where it exists: a role that may only read the workspace can render from it.
    if not workspace.exists(INVENTORY_NOTE):
        note = {"inventory": sha256(data), "shards": len(shards), "input": job.input.uri, "layout": LAYOUT}
        note["precision"] = job.precision
        note |= {"left_out": dict(left_out())}
        workspace.claim(INVENTORY_NOTE, json_bytes(note))
    check_inventory(job, stores, shards)
    if not workspace.exists(INVENTORY):
        workspace.publish(INVENTORY, data)


def _table(shards: Sequence[Shard]) -> bytes:
    rows = [asdict(replace(shard, listed=())) | {"files": list(shard.files)} for shard in shards]
    return tables.to_bytes([{name: row[name] for name in SCHEMA.names} for row in rows], SCHEMA)
