"""The job's secrets: from the environment, a file or AWS, else made once and kept in the workspace; and its salt.

A worker reads them from the same places itself; they never travel in a config, a pickle, a log or on a command line.
What travels is a check, and the workspace keeps it: neither a worker nor a later command goes on with another secret.

The salt is 32 random bytes that the first command of a job leaves in the workspace. Draws and pseudonyms need it beside
the secret, so two workspaces have none in common, and a purge ends them although a named secret is kept.

From AWS a secret comes of Secrets Manager, or as a small file that KMS opens. An S3 server of one's own
(storage.endpoint_url) answers for neither, so both are asked where boto3's environment says
(AWS_ENDPOINT_URL_SECRETS_MANAGER, AWS_ENDPOINT_URL_KMS), else at AWS, and by credentials of their own if the job names
a profile. Of what a service says only the error's code is read: messages quote accounts, keys and roles.
"""

from __future__ import annotations

import binascii
import hmac
import json
import logging
import os
import secrets
import socket
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from anonlib.config import JobConfig, SecretConfig
from anonlib.errors import ConfigError, NotFound, StorageError
from anonlib.privacy.keys import Keyring, is_random, stretched
from anonlib.storage import read_file
from anonlib.workspace.layout import SALT, SECRET, SECRET_CHECK, JobStores

CONTEXT = {"anonlib": "secret"}
"""What a secret for KMS is sealed with, so that no other blob of the same key passes for one (encryption context)."""

_GET, _DECRYPT = "secretsmanager:GetSecretValue", "kms:Decrypt"
# Many workers start at once; standard retries wait longer each time.
_CONNECT_S, _READ_S, _TRIES = 4, 20, 6
# The API takes ciphertexts of at most 6,144 bytes; base64 needs a third more.
_LARGEST_BLOB = 6144
_STRANGER = {
    *("IncompleteSignature", "InvalidClientTokenId", "InvalidSignatureException"),
    *("MissingAuthenticationToken", "SignatureDoesNotMatch", "UnrecognizedClientException"),
}
_BYTES = 32


@dataclass(frozen=True)
class SecretReference:
    """A secret of a job: where it is, and the `section` of the job file that says so."""

    job: JobConfig
    section: str
    source: SecretConfig

    def key(self, name: str) -> str:
        """A key of the section, as the job file has it."""
        return f"{self.section}.{name}"


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
        return _from_kms(wanted), None
    if make:
        stores.workspace.claim(SECRET, secrets.token_hex(_BYTES).encode(), private=True)
    try:
        return stores.workspace.read(SECRET), None
    except NotFound:
        raise ConfigError(
            "the workspace has no secret; run the job's plan first, or name the one that it was planned with, such as "
            "by secret.env"
        ) from None


def from_manager(wanted: SecretReference) -> tuple[bytes, str]:
    """The secret that Secrets Manager keeps, and the id of the version that it gave; raises ConfigError."""
    source = wanted.source
    name, what = str(source.manager), f"the secret {source.manager} of AWS Secrets Manager"
    # arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME
    region = name.split(":")[3] if name.startswith("arn:") and name.count(":") > 3 else None
    asked = {"SecretId": name} | ({"VersionId": source.version} if source.version else {})
    with _asking("secretsmanager", _GET, what, wanted, region) as client:
        answer = client.get_secret_value(**asked)
    text = answer.get("SecretString")
    value = bytes(answer.get("SecretBinary", b"")) if text is None else str(text).encode()
    return _entry(value, wanted, what), str(answer["VersionId"])


def _from_kms(wanted: SecretReference) -> bytes:
    """What KMS opens the job's blob to, which is raw or base64; raises ConfigError."""
    uri, key = str(wanted.source.kms), wanted.key("kms")
    try:
        blob = read_file(uri, wanted.job.storage.options)
    except StorageError as error:
        raise ConfigError(f"{key}: {str(error).rstrip('.')}") from None
    with suppress(binascii.Error):  # raw, as `base64 -d` leaves it
        blob = b64decode(b"".join(blob.split()), validate=True)
    if not 0 < len(blob) <= _LARGEST_BLOB:
        raise ConfigError(f"{uri} ({key}) is not a secret that KMS sealed: those have 1 to {_LARGEST_BLOB} bytes")
    with _asking("kms", _DECRYPT, f"the sealed secret {uri}", wanted, None) as client:
        return bytes(client.decrypt(CiphertextBlob=blob, EncryptionContext=CONTEXT)["Plaintext"])


def _entry(value: bytes, wanted: SecretReference, what: str) -> bytes:
    """The secret itself, or the entry that `field` names if it is a JSON object."""
    field, key = wanted.source.field, wanted.key("field")
    try:
        document = json.loads(value)
    except ValueError:
        document = None
    if field is None:
        if isinstance(document, dict):
            raise ConfigError(f"{what} holds JSON; name the entry that is the secret by {key}")
        return value
    if not isinstance(document, dict):
        raise ConfigError(f"{what} holds no JSON object, so there is no entry {field} ({key}) in it")
    if not isinstance(document.get(field), str):
        raise ConfigError(f"{what} has no entry {field} ({key}) that is a text")
    return str(document[field]).encode()


@contextmanager
def _asking(service: str, action: str, what: str, wanted: SecretReference, region: str | None) -> Iterator[Any]:
    """A client for one call; what goes wrong in the block becomes a ConfigError."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, NoRegionError

    from anonlib.storage.s3_errors import code_of, not_sent

    # The region of an S3 server of one's own is no region of AWS.
    storage = wanted.job.storage
    region = region or (storage.region if storage.endpoint_url is None else None)
    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard", "total_max_attempts": _TRIES},
    )
    where = "AWS"
    try:
        with _unlogged():
            session = boto3.session.Session(profile_name=wanted.source.profile)
            client = session.client(service, region_name=region, config=config)
            parts = urlsplit(client.meta.endpoint_url)
            where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            yield client
    except NoRegionError:
        raise ConfigError(f"{what} needs a region: set AWS_DEFAULT_REGION, or give its ARN") from None
    except ClientError as error:
        raise ConfigError(_refused(code_of(error), action, what, where, wanted.key("profile"))) from None
    except BotoCoreError as error:
        raise ConfigError(str(not_sent(error, action, what, where)).rstrip(".")) from None
    except ValueError:
        raise ConfigError(
            f"the endpoint or region for {what} is not valid; check AWS_ENDPOINT_URL and AWS_DEFAULT_REGION"
        ) from None


def _refused(code: str, action: str, what: str, where: str, profile: str) -> str:
    from anonlib.storage.s3_errors import refused_by_any

    also = ", or kms:Decrypt on the key that seals it" if action == _GET else ", with the context anonlib=secret"
    if (refused := refused_by_any(code, action, what, where, also)) is not None:
        return str(refused).rstrip(".")
    if code in _STRANGER:
        return (
            f"{where} does not know the credentials that were sent for {what}; where the store needs others, "
            f"name a profile for the secret by {profile}"
        )
    sentences = {
        "ResourceNotFoundException": f"{where} has not {what}, not in this version, or no value in it yet",
        "InvalidRequestException": f"{what} is scheduled for deletion; restore it, or name another",
        "DecryptionFailure": f"{what} cannot be opened: the KMS key that seals it is disabled or gone",
        "InvalidCiphertextException": (
            f"{what} is damaged, or was sealed by a key of another account or region, or not for anonlib: "
            "`aws kms encrypt` needs --encryption-context anonlib=secret"
        ),
        "NotFoundException": f"{what} cannot be opened: its KMS key is not in this account and region",
        "DisabledException": f"{what} cannot be opened: its KMS key is disabled; enable it and run again",
        "KMSInvalidStateException": f"{what} cannot be opened: its KMS key is scheduled for deletion or not usable",
    }
    return sentences.get(code) or (
        f"{where} refused {action} on {what} ({code}); if that is the store's address, write "
        "AWS_ENDPOINT_URL_S3 instead of AWS_ENDPOINT_URL"
    )


@contextmanager
def _unlogged() -> Iterator[None]:
    """botocore's parser writes whole answers into the log of who asks for DEBUG."""
    logger = logging.getLogger("botocore.parsers")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
