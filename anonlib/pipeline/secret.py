"""The job's secret: from the environment or a file, else made once and kept in the workspace.

A worker reads it from the same place itself; it never travels in a config, a pickle, a log or on a command
line.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from anonlib.config import ConfigError, JobConfig
from anonlib.pipeline.places import SECRET, Places
from anonlib.privacy.keys import MIN_SECRET_BYTES, Keyring
from anonlib.storage import NotFound

_BYTES = 32


def release_name(job: JobConfig) -> str:
    """The name that this release's draws and pseudonyms are bound to: the last part of the output URI unless given."""
    return job.output.release or job.output.uri.rstrip("/").rsplit("/", 1)[-1]


def open_keyring(job: JobConfig, places: Places, *, make: bool = False) -> Keyring:
    """The keyring of this job; with `make` a missing workspace secret is created. Raises ConfigError."""
    return Keyring(_read(job, places, make), release_name(job))


def _read(job: JobConfig, places: Places, make: bool) -> bytes:
    if job.secret.env is not None:
        value = os.environ.get(job.secret.env, "")
        if not value:
            raise ConfigError(f"the environment variable {job.secret.env} (secret.env) is not set on this machine")
        return _long_enough(value.encode(), f"the environment variable {job.secret.env}")
    if job.secret.file is not None:
        try:
            return _long_enough(Path(job.secret.file).read_bytes().strip(), f"the file {job.secret.file}")
        except OSError as error:
            raise ConfigError(f"the secret file {job.secret.file} cannot be read: {error.strerror}") from None
    if make:
        places.workspace.claim(SECRET, secrets.token_hex(_BYTES).encode(), private=True)
    try:
        return _long_enough(places.workspace.read(SECRET), "the workspace's secret")
    except NotFound:
        raise ConfigError("the workspace has no secret; run the job's plan first, or name one by secret.env") from None


def _long_enough(secret: bytes, where: str) -> bytes:
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(f"{where} has {len(secret)} bytes; a secret needs at least {MIN_SECRET_BYTES}")
    return secret
