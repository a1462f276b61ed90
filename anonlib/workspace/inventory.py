"""What a workspace keeps of its job: the list of work, written once by the first stage, and the job file.

By the job file later commands need the workspace's place alone. It holds no secret, only where one is. Its places are
as the run had them: a relative one is found from the same folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from anonlib.config import JobConfig, StorageConfig, comparable, load_config
from anonlib.datasets import Shard
from anonlib.errors import AccessDenied, ConfigError, JobError, NotFound
from anonlib.models.requirements import best_precision
from anonlib.storage import Storage, StorageOptions, join_uri, open_storage, parse_uri
from anonlib.workspace import tables
from anonlib.workspace.layout import INVENTORY, INVENTORY_NOTE, JOB_FILE, PURGED, JobStores, json_bytes, sha256
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


def with_commit(job: JobConfig, workspace: Storage) -> JobConfig:
    """The job, its input and `spare.people` on the hub as of the commits that the workspace has pinned, or as of now
    before it has: branches move on. Raises StorageError."""
    changes: dict[str, Any] = {}
    for section, key, options in (
        ("input", "uri", job.storage.input_options),
        ("spare", "people", job.storage.options),
    ):
        place = getattr(job, section)
        uri = getattr(place, key, "")
        if uri.startswith("hf://"):
            root, path = parse_uri(uri)
            pinned = (read_note(workspace) or {}).get("pinned", {}).get(uri) or open_storage(root, options).pinned()
            changes[section] = place.model_copy(update={key: join_uri(pinned, path)})
    return job.model_copy(update=changes)


def _commits(job: JobConfig, pinned: JobConfig) -> dict[str, str]:
    """What `with_commit` has changed: a place on the hub -> its root at a commit."""
    places = [(job.input.uri, pinned.input.uri)]
    if job.spare and pinned.spare:
        places.append((job.spare.people, pinned.spare.people))
    return {uri: parse_uri(at_commit)[0] for uri, at_commit in places if uri != at_commit}


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
    job: JobConfig,
    at_commit: JobConfig,
    stores: JobStores,
    shards: Sequence[Shard],
    left_out: Callable[[], Mapping[str, int]],
) -> None:
    """Write the list down where there is none, with the commits that it was read at and what the dataset left out;
    raises as check_inventory."""
    workspace, data = stores.workspace, _table(shards)
    # Not claimed where it exists: a role that may only read the workspace can render from it.
    if not workspace.exists(INVENTORY_NOTE):
        note = {"inventory": sha256(data), "shards": len(shards), "input": job.input.uri, "layout": LAYOUT}
        note |= {"precision": job.precision, "pinned": _commits(job, at_commit), "left_out": dict(left_out())}
        workspace.claim(INVENTORY_NOTE, json_bytes(note))
    check_inventory(job, stores, shards)
    if not workspace.exists(INVENTORY):
        workspace.publish(INVENTORY, data)


def _table(shards: Sequence[Shard]) -> bytes:
    rows = [asdict(shard) | {"files": list(shard.files)} for shard in shards]
    return tables.to_bytes([{name: row[name] for name in SCHEMA.names} for row in rows], SCHEMA)


# ---- the job file ---------------------------------------------------------------------------------------------


def keep_job(job: JobConfig, workspace: Storage) -> None:
    """Write the job down where it is not yet; a role that may only read the workspace keeps none."""
    data = job.to_yaml().encode()
    with suppress(NotFound):
        if workspace.read(JOB_FILE) == data:
            return
    with suppress(AccessDenied):
        workspace.publish(JOB_FILE, data)


def named_workspace(file: Path | None, overrides: Mapping[str, Any]) -> Storage:
    """The workspace that a job file or `workspace.uri` names; raises ConfigError."""
    if file is not None or "input.uri" in overrides:
        job = load_config(file, overrides)
        return open_storage(job.workspace.uri, job.storage.options, private=True)
    if "workspace.uri" not in overrides:
        raise ConfigError("name a job file, or the workspace by --workspace (and the release by --output)")
    return open_storage(overrides["workspace.uri"], named_options(overrides), private=True)


def named_options(overrides: Mapping[str, Any]) -> StorageOptions:
    """How flags say that S3 is reached."""
    told = {key.partition(".")[2]: value for key, value in overrides.items() if key.startswith("storage.")}
    return StorageConfig(**told).options


def named_job(file: Path | None, overrides: Mapping[str, Any]) -> JobConfig:
    """The job of a file and flags, or the one that the workspace at `workspace.uri` keeps, with these flags.

    Raises ConfigError, and JobError where the workspace was purged.
    """
    if file is not None or "input.uri" in overrides:
        return load_config(file, overrides)
    workspace = named_workspace(file, overrides)
    try:
        kept = load_config(yaml.safe_load(workspace.read(JOB_FILE)))
    except NotFound:
        if workspace.exists(PURGED):
            raise JobError(f"the workspace {workspace.uri} was purged, and nothing of the job is left there") from None
        raise ConfigError(f"the workspace {workspace.uri} keeps no job; name the job file") from None
    flags = dict(overrides)
    output = flags.pop("output.uri", None)
    if output is not None and len(set(comparable(output, kept.output.uri))) > 1:
        # Draws and pseudonyms of a release without a name hang on the place where it was made.
        flags = {"output.release": kept.output.release or kept.output.uri.rstrip("/"), **flags, "output.uri": output}
    return load_config(kept.model_dump(mode="json"), flags)
