"""The job that a workspace is of, kept there as a job file, so that later commands need the workspace's place alone.

It holds no secret, only where one is. Its places are as the run had them: a relative one is found from the same folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from anonlib.config import JobConfig, StorageConfig, absolute, load_config
from anonlib.errors import AccessDenied, ConfigError, JobError, NotFound
from anonlib.storage import Storage, StorageOptions, open_storage
from anonlib.workspace.layout import JOB_FILE, PURGED


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
    if (output := flags.pop("output.uri", None)) is not None and absolute(output) != absolute(kept.output.uri):
        # Draws and pseudonyms of a release without a name hang on the place where it was made.
        flags = {"output.release": kept.output.release or kept.output.uri.rstrip("/"), **flags, "output.uri": output}
    return load_config(kept.model_dump(mode="json"), flags)
