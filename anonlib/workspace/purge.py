"""Purge: the end of a workspace. Embeddings, crops, the mapping, the salt and the workspace's own secret go; a record
of that stays.

Draws and pseudonyms need the salt beside the secret, so that a release can no longer be joined to a person, not even by
its makers, who may keep the secret that signs. The record is written first, as a mark that refuses new runs and the
writes of those at work (see layout.Workspace), it stays while all else goes, the salt first, and it is finished last.
A run that is known to be at work must end first.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from anonlib import __version__
from anonlib.config import JobConfig
from anonlib.errors import JobError, NotFound, VersionsRemain
from anonlib.storage import Storage, open_storage
from anonlib.workspace.layout import (
    INVENTORY_NOTE,
    PURGED,
    SALT,
    SECRET,
    JobStores,
    json_bytes,
    open_stores,
    release_store,
    storage_options,
)
from anonlib.workspace.lease import at_work
from anonlib.workspace.schemas import CERTIFICATE

_SWEEPS = 5


@dataclass(frozen=True)
class Purged:
    """The record; nothing in it is personal. `remains` is None, or what could not be destroyed here.

    `late` files came after the purge was finished, and a later one removed them.
    """

    at: str
    anonlib: str
    run: str | None
    files: int
    bytes: int
    secret: str
    remains: str | None = None
    late: int = 0


def purge(job: JobConfig, *, force: bool = False) -> Purged:
    """Destroy the job's workspace; with `force` even if its release is not complete. Raises JobError, StorageError.

    A purge that was cut off is continued by the next one. One that is done gives its record back, once it has removed
    what came in since.
    """
    workspace = open_storage(job.workspace.uri, storage_options(job), private=True)
    stores = JobStores(workspace, open_stores(job).release)
    begun = _begun(workspace)
    if begun is not None and begun.pop("finished"):
        return _purge_again(workspace, Purged(**begun))
    if other := at_work(workspace):
        raise JobError(f"a run ({other}) is at work on {job.workspace.uri}; end it first, then purge")
    if begun is None and not workspace.exists(INVENTORY_NOTE):
        raise JobError(f"{job.workspace.uri} holds no workspace of anonlib, so nothing there was touched")
    if begun is None:
        run = _finished_run(job, stores, force)
        entries = list(workspace.list())
        record = Purged(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            anonlib=__version__,
            run=run,
            files=len(entries),
            bytes=sum(entry.size for entry in entries),
            secret=_fate_of_secret(job, workspace),
        )
    else:
        record = Purged(**begun)
    _write(workspace, record, finished=False)
    remains = _destroy(workspace)
    record = replace(record, remains=remains)
    _write(workspace, record, finished=True)
    return record


def _purge_again(workspace: Storage, record: Purged) -> Purged:
    """Remove what a writer left that was killed before it could look for the mark again."""
    late = len(_left(workspace))
    if late == 0:
        return record
    remains = _destroy(workspace) or record.remains
    record = replace(record, remains=remains, late=record.late + late)
    _write(workspace, record, finished=True)
    return record


def _begun(workspace: Storage) -> dict[str, Any] | None:
    try:
        return dict(json.loads(workspace.read(PURGED)))
    except NotFound:
        return None


def _write(workspace: Storage, record: Purged, *, finished: bool) -> None:
    workspace.publish(PURGED, json_bytes(asdict(record) | {"finished": finished}))


def _finished_run(job: JobConfig, stores: JobStores, force: bool) -> str | None:
    """The run whose release this workspace made; raises JobError if that is not complete and `force` is not given."""
    hint = "finish the job first, or purge with --force and lose what is not released"
    try:
        run = release_store(stores).run()
    except NotFound:
        if force:
            return None
        raise JobError(f"the output {job.output.uri} holds no release yet; {hint}") from None
    done, shards = len(release_store(stores).markers(run["shards"])), len(run["shards"])
    ours = int(json.loads(stores.workspace.read(INVENTORY_NOTE))["shards"])
    if ours != shards and not force:
        raise JobError(f"the release {job.output.uri} has {shards} shards, the workspace {ours}: not one job; {hint}")
    if done < shards and not force:
        raise JobError(f"the release {job.output.uri} has {done} of {shards} shards; {hint}")
    if not stores.release.exists(CERTIFICATE) and not force:
        raise JobError(f"the release {job.output.uri} has no certificate yet; {hint}")
    return str(run["run"])


def _fate_of_secret(job: JobConfig, workspace: Storage) -> str:
    kept = "so it was not ours to destroy; without the workspace's salt it draws nothing of this release again"
    if job.secret.env is not None:
        return f"came from an environment variable, {kept}"
    if job.secret.file is not None:
        return f"came from a file, {kept}"
    if job.secret.manager is not None:
        return f"came from AWS Secrets Manager, {kept}"
    if job.secret.kms is not None:
        return f"came from a file that AWS KMS opens, {kept}"
    return "destroyed with the workspace" if workspace.exists(SECRET) else "there was none in the workspace"


def _destroy(workspace: Storage) -> str | None:
    """Remove everything but the mark, and what comes in meanwhile; returns what stays, in the storage's words.

    The salt goes first.
    Raises JobError if files keep coming in.
    """
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
    """Everything that is there beside the mark, unfinished files too."""
    return [entry.path for entry in workspace.list(unfinished=True) if entry.path != PURGED]
