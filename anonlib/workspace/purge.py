"""Purge: everything in a workspace goes, and a record of that stays.

Without the salt a release can no longer be joined to a person, not even with the secret. The record is written first,
as a mark that refuses new runs and the writes of those at work (see layout.Workspace), and finished last.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from anonlib import __version__
from anonlib.config import JobConfig
from anonlib.errors import JobError, NotFound, VersionsRemain
from anonlib.storage import Storage, open_storage
from anonlib.workspace.layout import INVENTORY_NOTE, PREVIEW, PURGED, SALT, SECRET, JobStores, json_bytes, release_store
from anonlib.workspace.lease import at_work
from anonlib.workspace.schemas import CERTIFICATE

_SWEEPS = 5


@dataclass(frozen=True)
class Purged:
    """The record, not personal; `remains`: what could not be destroyed here."""

    at: str
    anonlib: str
    run: str | None
    files: int
    bytes: int
    secret: str
    remains: str | None = None
    finished: bool = False


def purge(job: JobConfig, *, force: bool = False) -> Purged:
    """Destroy the workspace, or go on with that; `force`: of an unfinished job too. Raises JobError, StorageError."""
    workspace = open_storage(job.workspace.uri, job.storage.options, private=True)
    if (resumed := resume(workspace)) is not None:
        return resumed
    _refuse_beside_a_run(workspace)
    record = _begun(job, JobStores(workspace, open_storage(job.output.uri, job.storage.options)), force)
    workspace.publish(PURGED, json_bytes(asdict(record)))
    return _finished(workspace, record)


def record_of(workspace: Storage) -> Purged | None:
    """What the mark of a purge says, None where none has begun."""
    try:
        return Purged(**json.loads(workspace.read(PURGED)))
    except NotFound:
        return None


def resume(workspace: Storage) -> Purged | None:
    """Finish a purge that has begun, and destroy what came in since; None where none has. Needs no job."""
    record = record_of(workspace)
    if record is None:
        return None
    if not record.finished:
        _refuse_beside_a_run(workspace)
    return _finished(workspace, record) if not record.finished or _left(workspace) else record


def _finished(workspace: Storage, record: Purged) -> Purged:
    record = replace(record, remains=_destroy(workspace) or record.remains, finished=True)
    workspace.publish(PURGED, json_bytes(asdict(record)))
    return record


def _refuse_beside_a_run(workspace: Storage) -> None:
    if other := at_work(workspace):
        raise JobError(f"a run ({other}) is at work on {workspace.uri}; end it first, then purge")


def _begun(job: JobConfig, stores: JobStores, force: bool) -> Purged:
    """The record of what is to be destroyed; raises JobError if that is no workspace, or its job is not complete."""
    workspace = stores.workspace
    if not workspace.exists(INVENTORY_NOTE):
        if workspace.exists(PREVIEW):
            workspace.delete(PREVIEW)
            raise JobError(f"{job.workspace.uri} held a preview and no job; the preview is destroyed")
        raise JobError(f"{job.workspace.uri} holds no workspace of anonlib, so nothing there was touched")
    run = _finished_run(job, stores, force)
    if job.secret.named:
        secret = "kept where the job names it, so not ours to destroy; without the salt it draws nothing here again"
    else:
        secret = "destroyed with the workspace" if workspace.exists(SECRET) else "there was none in the workspace"
    sizes = [entry.size for entry in workspace.list()]
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Purged(at=at, anonlib=__version__, run=run, files=len(sizes), bytes=sum(sizes), secret=secret)


def _finished_run(job: JobConfig, stores: JobStores, force: bool) -> str | None:
    """The run whose release this workspace made; raises JobError if that is not complete and `force` is not given."""
    release, problem = release_store(stores), ""
    try:
        run = release.run()
    except NotFound:
        run, problem = {"run": None, "shards": []}, "holds no release yet"
    shards, done = len(run["shards"]), len(release.markers(run["shards"]))
    inventory = int(json.loads(stores.workspace.read(INVENTORY_NOTE))["shards"])
    if not problem and inventory != shards:
        problem = f"has {shards} shards, the workspace {inventory}: they are not one job's"
    elif not problem and done < shards:
        problem = f"has {done} of {shards} shards"
    elif not problem and not stores.release.exists(CERTIFICATE):
        problem = "has no certificate yet"
    if problem and not force:
        hint = "finish the job first, or purge with --force and lose what is not released"
        raise JobError(f"the output {job.output.uri} {problem}; {hint}")
    return None if run["run"] is None else str(run["run"])


def _destroy(workspace: Storage) -> str | None:
    """Remove all but the mark, the salt first; returns what the storage keeps. Raises JobError if files keep coming."""
    remains = None
    for key in (SALT, SECRET):
        workspace.delete(key)
    for _ in range(_SWEEPS):
        try:
            workspace.delete_tree("", keep=(PURGED,))
        except VersionsRemain as error:
            remains = str(error)
        if not _left(workspace):
            return remains
    raise JobError(f"a run goes on writing to {workspace.uri}, which is being purged; end it, then purge again")


def _left(workspace: Storage) -> list[str]:
    return [entry.path for entry in workspace.list(unfinished=True) if entry.path != PURGED]
