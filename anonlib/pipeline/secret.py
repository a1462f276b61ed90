"""The job's secret: from the environment, a file or AWS, else made once and kept in the workspace.

A worker reads it from the same place itself; it never travels in a config, a pickle, a log or on a command line. What
travels is a check, and the workspace keeps it: neither a worker nor a later command goes on with another secret.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
from pathlib import Path

from anonlib.config import ConfigError, JobConfig
from anonlib.pipeline.places import SECRET, SECRET_CHECK, Places
from anonlib.pipeline.vault import from_kms, from_manager
from anonlib.privacy.keys import MIN_SECRET_BYTES, Keyring
from anonlib.storage import NotFound

_BYTES = 32


def release_name(job: JobConfig) -> str:
    """The name that this release's draws and pseudonyms are bound to: the last part of the output URI unless given."""
    return job.output.release or job.output.uri.rstrip("/").rsplit("/", 1)[-1]


def source_of(job: JobConfig) -> str:
    """Where the secret comes from, in words that show nothing of it."""
    if job.secret.env is not None:
        return f"the environment variable {job.secret.env}"
    if job.secret.file is not None:
        return f"the file {job.secret.file}"
    if job.secret.manager is not None:
        return f"the secret {job.secret.manager} of AWS Secrets Manager"
    if job.secret.kms is not None:
        return f"the file {job.secret.kms}, which AWS KMS opens"
    return "the workspace's own file"


def open_keyring(job: JobConfig, places: Places, *, make: bool = False) -> Keyring:
    """The keyring of this job; with `make` a missing workspace secret is created.

    Raises ConfigError, also for another secret than the one that this workspace was planned with.
    """
    return open_pinned(job, places, make=make)[1]


def open_pinned(job: JobConfig, places: Places, *, make: bool = False) -> tuple[JobConfig, Keyring]:
    """As open_keyring, and the job for its workers: it names the version that Secrets Manager gave.

    So a rotation in the middle of a run waits for the next.
    """
    known = _known(places)
    keyring, version = _opened(job, places, make and known is None)
    if known is not None:
        _same(keyring, known, job)
    if version is None:
        return job, keyring
    return job.model_copy(update={"secret": job.secret.model_copy(update={"version": version})}), keyring


def open_in_worker(job: JobConfig, places: Places, check: str) -> Keyring:
    """The keyring as this worker reads it; raises ConfigError if it is not the one with this Keyring.check."""
    keyring, _ = _opened(job, places, make=False)
    if not hmac.compare_digest(check, keyring.check()):
        raise ConfigError(
            f"{source_of(job)} holds another secret for the worker on {socket.gethostname()} than the one that this "
            "job was started with; give every worker the same, and run the job again"
        )
    return keyring


def bind(job: JobConfig, places: Places, keyring: Keyring) -> None:
    """From now on the workspace takes no other secret; raises ConfigError if it already has another."""
    known = _known(places)
    if known is None and not places.workspace.claim(SECRET_CHECK, f"{keyring.check()}\n".encode()):
        known = _known(places)
    if known is not None:
        _same(keyring, known, job)


def _known(places: Places) -> str | None:
    try:
        return places.workspace.read(SECRET_CHECK).decode().strip()
    except NotFound:
        return None


def _same(keyring: Keyring, known: str, job: JobConfig) -> None:
    if not hmac.compare_digest(known, keyring.check()):
        hint = ", or name its version by secret.version" if job.secret.manager else ""
        raise ConfigError(
            f"{source_of(job)} holds another secret than the one that the workspace {job.workspace.uri} was planned "
            f"with; give that one{hint}, or give this job a new workspace and output"
        )


def _opened(job: JobConfig, places: Places, make: bool) -> tuple[Keyring, str | None]:
    value, version = _read(job, places, make)
    secret = value.strip()
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(f"{source_of(job)} has {len(secret)} bytes; a secret needs at least {MIN_SECRET_BYTES}")
    return Keyring(secret, release_name(job)), version


def _read(job: JobConfig, places: Places, make: bool) -> tuple[bytes, str | None]:
    """The secret with any space around it, and its version if it has versions."""
    if job.secret.env is not None:
        value = os.environ.get(job.secret.env, "")
        if not value:
            raise ConfigError(f"{source_of(job)} (secret.env) is not set on this machine")
        return value.encode(errors="surrogateescape"), None
    if job.secret.file is not None:
        try:
            return Path(job.secret.file).read_bytes(), None
        except OSError as error:
            raise ConfigError(f"the secret file {job.secret.file} cannot be read: {error.strerror}") from None
    if job.secret.manager is not None:
        return from_manager(job)
    if job.secret.kms is not None:
        return from_kms(job), None
    if make:
        places.workspace.claim(SECRET, secrets.token_hex(_BYTES).encode(), private=True)
    try:
        return places.workspace.read(SECRET), None
    except NotFound:
        raise ConfigError(
            "the workspace has no secret; run the job's plan first, or name the one that it was planned with, such as "
            "by secret.env"
        ) from None
