"""The job's secrets: from the environment, a file or AWS, else made once and kept in the workspace; and its salt.

A worker reads them from the same places itself; they never travel in a config, a pickle, a log or on a command line.
What travels is a check, and the workspace keeps it: neither a worker nor a later command goes on with another secret.

The salt is 32 random bytes that the first command of a job leaves in the workspace. Draws and pseudonyms need it beside
the secret, so two workspaces have none in common, and a purge ends them although a named secret is kept.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anonlib.config import JobConfig, SecretConfig
from anonlib.errors import ConfigError, NotFound
from anonlib.privacy.keys import Keyring, is_random, stretched
from anonlib.workspace.aws_secrets import SecretReference, from_kms, from_manager
from anonlib.workspace.layout import SALT, SECRET, SECRET_CHECK, JobStores

_BYTES = 32


@dataclass(frozen=True)
class SecretCheck:
    """A secret that can be read: from where, and whether it is `random` bytes or a passphrase."""

    source: str
    random: bool


def release_name(job: JobConfig) -> str:
    """What people call this release: the last part of the output URI unless the job gives it a name."""
    return job.output.release or job.output.uri.rstrip("/").rsplit("/", 1)[-1]


def source_of(job: JobConfig) -> str:
    """Where the secret comes from, in words that show nothing of it."""
    return _source(SecretReference(job, "secret", job.secret))


def open_keyring(job: JobConfig, stores: JobStores, *, make: bool = False) -> Keyring:
    """The keyring of this job; with `make` a missing salt and workspace secret are created.

    Raises ConfigError, also for another secret than the one that this workspace was planned with.
    """
    return open_pinned(job, stores, make=make)[1]


def open_pinned(job: JobConfig, stores: JobStores, *, make: bool = False) -> tuple[JobConfig, Keyring]:
    """As open_keyring, and the job for its workers: it names the version that Secrets Manager gave.

    So a rotation in the middle of a run waits for the next.
    """
    known = _known(stores)
    secret, version = _secret(SecretReference(job, "secret", job.secret), stores, make and known is None)
    keyring = Keyring(secret, _salt(job, stores, make and known is None))
    if known is not None:
        _same(keyring, known, job)
    if version is None:
        return job, keyring
    return job.model_copy(update={"secret": job.secret.model_copy(update={"version": version})}), keyring


def signing_secret(job: JobConfig, stores: JobStores, keyring: Keyring) -> bytes:
    """The secret that signs: `signing` of the job, else the keyring's own. Raises ConfigError.

    Read where something is signed and nowhere else, so that a role which scans or reviews needs no right to it.
    """
    return (
        keyring.secret
        if job.signing is None
        else _secret(SecretReference(job, "signing", job.signing), stores, make=False)[0]
    )


def open_in_worker(job: JobConfig, stores: JobStores, check: str) -> Keyring:
    """The keyring as this worker reads it; raises ConfigError if it is not the one with this Keyring.check."""
    secret, _ = _secret(SecretReference(job, "secret", job.secret), stores, make=False)
    keyring = Keyring(secret, _salt(job, stores, make=False))
    if not hmac.compare_digest(check, keyring.check()):
        raise ConfigError(
            f"{source_of(job)} holds another secret for the worker on {socket.gethostname()} than the one that this "
            "job was started with; give every worker the same, and run the job again"
        )
    return keyring


def try_secret(job: JobConfig, stores: JobStores, section: Literal["secret", "signing"]) -> SecretCheck:
    """Read one secret of a job as a run would, for `anonlib doctor`; makes nothing. Raises ConfigError."""
    wanted = SecretReference(job, section, job.secret if section == "secret" else job.signing or SecretConfig())
    given = _read(wanted, stores, make=False)[0].strip()
    secret, known = _stretched(given, wanted), _known(stores)
    if section == "secret" and known is not None:
        _same(Keyring(secret, ""), known, job)
    return SecretCheck(_source(wanted), random=is_random(given))


def bind(job: JobConfig, stores: JobStores, keyring: Keyring) -> None:
    """From now on the workspace takes no other secret; raises ConfigError if it already has another."""
    known = _known(stores)
    if known is None and not stores.workspace.claim(SECRET_CHECK, f"{keyring.check()}\n".encode()):
        known = _known(stores)
    if known is not None:
        _same(keyring, known, job)


def _source(wanted: SecretReference) -> str:
    source = wanted.source
    if source.env is not None:
        return f"the environment variable {source.env}"
    if source.file is not None:
        return f"the file {source.file}"
    if source.manager is not None:
        return f"the secret {source.manager} of AWS Secrets Manager"
    if source.kms is not None:
        return f"the file {source.kms}, which AWS KMS opens"
    return "the workspace's own file"


def _known(stores: JobStores) -> str | None:
    try:
        return stores.workspace.read(SECRET_CHECK).decode().strip()
    except NotFound:
        return None


def _same(keyring: Keyring, known: str, job: JobConfig) -> None:
    if not hmac.compare_digest(known, keyring.check()):
        hint = ", or name its version by secret.version" if job.secret.manager else ""
        raise ConfigError(
            f"{source_of(job)} holds another secret than the one that the workspace {job.workspace.uri} was planned "
            f"with; give that one{hint}, or give this job a new workspace and output"
        )


def _salt(job: JobConfig, stores: JobStores, make: bool) -> str:
    """The workspace's salt, made where it may be, and the release in it; a release without a name is its output."""
    try:
        salt = stores.workspace.read(SALT)
    except NotFound:
        if not make:
            raise ConfigError(
                f"the workspace {job.workspace.uri} has no file {SALT}, without which nothing that was planned there "
                "can be drawn again; run the job's scan first, or give this job a new workspace and output"
            ) from None
        stores.workspace.claim(SALT, secrets.token_hex(_BYTES).encode(), private=True)
        salt = stores.workspace.read(SALT)
    return f"{salt.decode()} {job.output.release or job.output.uri.rstrip('/')}"


def _secret(wanted: SecretReference, stores: JobStores, make: bool) -> tuple[bytes, str | None]:
    """A secret, stretched where it may be a passphrase, and its version if it has versions; raises ConfigError."""
    value, version = _read(wanted, stores, make)
    return _stretched(value.strip(), wanted), version


def _stretched(given: bytes, wanted: SecretReference) -> bytes:
    try:
        return stretched(given)
    except ValueError as error:
        raise ConfigError(f"{_source(wanted)} ({wanted.section}) {error}") from None


def _read(wanted: SecretReference, stores: JobStores, make: bool) -> tuple[bytes, str | None]:
    """The secret with any space around it, and its version if it has versions."""
    source = wanted.source
    if source.env is not None:
        value = os.environ.get(source.env, "")
        if not value:
            raise ConfigError(f"{_source(wanted)} ({wanted.key('env')}) is not set on this machine")
        return value.encode(errors="surrogateescape"), None
    if source.file is not None:
        try:
            return Path(source.file).read_bytes(), None
        except OSError as error:
            raise ConfigError(f"the secret file {source.file} cannot be read: {error.strerror}") from None
    if source.manager is not None:
        return from_manager(wanted)
    if source.kms is not None:
        return from_kms(wanted), None
    if make:
        stores.workspace.claim(SECRET, secrets.token_hex(_BYTES).encode(), private=True)
    try:
        return stores.workspace.read(SECRET), None
    except NotFound:
        raise ConfigError(
            "the workspace has no secret; run the job's plan first, or name the one that it was planned with, such as "
            "by secret.env"
        ) from None
