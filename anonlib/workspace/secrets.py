"""The job's secrets, from the environment, a file, AWS or the workspace, and the salt of the workspace.

Each worker reads them itself: they are in no config, pickle, log or command line. The workspace keeps a check of the
secret, so that nothing goes on with another one. Draws and pseudonyms need the salt too, so a purge ends them. Of an
error of AWS only the code is read: messages quote accounts, keys and roles.
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
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from anonlib.config import JobConfig, SecretConfig
from anonlib.errors import ConfigError, NotFound, StorageError
from anonlib.privacy.keys import Keyring, is_random, stretched
from anonlib.storage import read_file
from anonlib.workspace.layout import SALT, SECRET, SECRET_CHECK, JobStores

Section = Literal["secret", "signing"]
"""The part of a job file that says where a secret is."""
CONTEXT = {"anonlib": "secret"}
"""The encryption context of a secret for KMS, so that no other blob of the same key passes for one."""

_PLACES = {
    "env": "the environment variable {}",
    "file": "the file {}",
    "manager": "the secret {} of AWS Secrets Manager",
    "kms": "the file {}, which AWS KMS opens",
}
_ACTIONS = {
    "secretsmanager": ("secretsmanager:GetSecretValue", ", or kms:Decrypt on the key that seals it"),
    "kms": ("kms:Decrypt", ", with the context anonlib=secret"),
}
"""The IAM action that a service is asked for, and what else may be missing where that is denied."""
_REFUSALS = {
    "ResourceNotFoundException": "{where} has not {what}, not in this version, or no value in it yet",
    "InvalidRequestException": "{what} is scheduled for deletion; restore it, or name another",
    "InvalidCiphertextException": "{what} is damaged, or was sealed by a key of another account or region, or not for "
    "anonlib: `aws kms encrypt` needs --encryption-context anonlib=secret",
    **dict.fromkeys(
        ("DecryptionFailure", "NotFoundException", "DisabledException", "KMSInvalidStateException"),
        "{what} cannot be opened: its KMS key is disabled, scheduled for deletion, or not in this account and region",
    ),
    **dict.fromkeys(
        ("InvalidClientTokenId", "SignatureDoesNotMatch", "InvalidSignatureException", "UnrecognizedClientException"),
        "{where} does not know the credentials that were sent for {what}; where the store needs others, name a profile "
        "for the secret by {profile}",
    ),
}
# Many workers start at once; standard retries wait longer each time.
_CONNECT_S, _READ_S, _TRIES = 4, 20, 6
# The API takes ciphertexts of at most 6,144 bytes; base64 needs a third more.
_LARGEST_BLOB = 6144
_BYTES = 32


def release_name(job: JobConfig) -> str:
    """What people call this release: the last part of the output URI unless the job gives it a name."""
    return job.output.release or job.output.uri.rstrip("/").rsplit("/", 1)[-1]


def open_keyring(job: JobConfig, stores: JobStores, *, make: bool = False) -> Keyring:
    """The keyring, if wanted with a new salt and workspace secret; raises ConfigError, also for another secret."""
    return open_pinned(job, stores, make=make)[1]


def open_pinned(job: JobConfig, stores: JobStores, *, make: bool = False) -> tuple[JobConfig, Keyring]:
    """As open_keyring, and the job for its workers, pinned to the version: a rotation waits for the next run."""
    make = make and not stores.workspace.exists(SECRET_CHECK)
    secret, _, version = _secret(job, "secret", stores, make)
    keyring = Keyring(secret, _salt(job, stores, make))
    _refuse_other(keyring, job, stores)
    if version is not None:
        job = job.model_copy(update={"secret": job.secret.model_copy(update={"version": version})})
    return job, keyring


def signing_secret(job: JobConfig, stores: JobStores, keyring: Keyring) -> bytes:
    """`signing` of the job, read only by those who sign, else the keyring's own; raises ConfigError."""
    return keyring.secret if job.signing is None else _secret(job, "signing", stores)[0]


def open_in_worker(job: JobConfig, stores: JobStores, check: str) -> Keyring:
    """The keyring as this worker reads it; raises ConfigError if it is not the one with this Keyring.check."""
    keyring = Keyring(_secret(job, "secret", stores)[0], _salt(job, stores, make=False))
    if not hmac.compare_digest(check, keyring.check()):
        raise ConfigError(
            f"{_place(job, 'secret')} holds another secret for the worker on {socket.gethostname()} than the one that "
            "this job was started with; give every worker the same, and run the job again"
        )
    return keyring


def try_secret(job: JobConfig, stores: JobStores, section: Section) -> tuple[str, bool]:
    """Where a secret comes from, and whether it is random bytes, not a passphrase; raises ConfigError."""
    secret, random, _ = _secret(job, section, stores)
    if section == "secret":
        _refuse_other(Keyring(secret, ""), job, stores)
    return _place(job, section), random


def bind(job: JobConfig, stores: JobStores, keyring: Keyring) -> None:
    """From now on the workspace takes no other secret; raises ConfigError if it already has another."""
    if not stores.workspace.exists(SECRET_CHECK):
        stores.workspace.claim(SECRET_CHECK, f"{keyring.check()}\n".encode())
    _refuse_other(keyring, job, stores)


def _source(job: JobConfig, section: Section) -> SecretConfig:
    return job.secret if section == "secret" else job.signing or SecretConfig()


def _place(job: JobConfig, section: Section) -> str:
    source = _source(job, section).model_dump()
    words = (_PLACES[key].format(source[key]) for key in _PLACES if source[key] is not None)
    return next(words, "the workspace's own file")


def _refuse_other(keyring: Keyring, job: JobConfig, stores: JobStores) -> None:
    """Raise ConfigError if the workspace is bound to another secret than this one."""
    try:
        known = stores.workspace.read(SECRET_CHECK).decode().strip()
    except NotFound:
        return
    if not hmac.compare_digest(known, keyring.check()):
        hint = ", or name its version by secret.version" if job.secret.manager else ""
        raise ConfigError(
            f"{_place(job, 'secret')} holds another secret than the one that the workspace {job.workspace.uri} was "
            f"planned with; give that one{hint}, or give this job a new workspace and output"
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
        stores.workspace.claim(SALT, secrets.token_hex(_BYTES).encode())
        salt = stores.workspace.read(SALT)
    return f"{salt.decode()} {job.output.release or job.output.uri.rstrip('/')}"


def _secret(job: JobConfig, section: Section, stores: JobStores, make: bool = False) -> tuple[bytes, bool, str | None]:
    """A secret, whether it is random bytes and no stretched passphrase, and any version; raises ConfigError."""
    source, version = _source(job, section), None
    if source.env is not None:
        value = os.environ.get(source.env, "").encode(errors="surrogateescape")
        if not value:
            raise ConfigError(f"{_place(job, section)} ({section}.env) is not set on this machine")
    elif source.file is not None:
        try:
            value = Path(source.file).read_bytes()
        except OSError as error:
            raise ConfigError(f"the secret file {source.file} cannot be read: {error.strerror}") from None
    elif source.manager is not None:
        value, version = from_manager(job, section)
    elif source.kms is not None:
        value = _from_kms(job, section)
    else:
        if make:
            stores.workspace.claim(SECRET, secrets.token_hex(_BYTES).encode())
        try:
            value = stores.workspace.read(SECRET)
        except NotFound:
            raise ConfigError(
                "the workspace has no secret; run the job's plan first, or name the one that it was planned with, "
                "such as by secret.env"
            ) from None
    value = value.strip()
    try:
        return stretched(value), is_random(value), version
    except ValueError as error:
        raise ConfigError(f"{_place(job, section)} ({section}) {error}") from None


def from_manager(job: JobConfig, section: Section) -> tuple[bytes, str]:
    """The secret that Secrets Manager keeps, and the id of the version that it gave; raises ConfigError."""
    source, what = _source(job, section), _place(job, section)
    name, key = str(source.manager), f"{section}.field"
    # arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME
    region = name.split(":")[3] if name.startswith("arn:") and name.count(":") > 3 else None
    version = {"VersionId": source.version} if source.version else {}
    with _client("secretsmanager", what, job, section, region) as client:
        answer = client.get_secret_value(SecretId=name, **version)
    text = answer.get("SecretString")
    value = bytes(answer.get("SecretBinary", b"")) if text is None else str(text).encode()
    document = None
    with suppress(ValueError):
        document = json.loads(value)
    if source.field is not None:
        entry = document.get(source.field) if isinstance(document, dict) else None
        if not isinstance(entry, str):
            raise ConfigError(f"{what} holds no JSON object with a text under {source.field} ({key})")
        value = entry.encode()
    elif isinstance(document, dict):
        raise ConfigError(f"{what} holds JSON; name the entry that is the secret by {key}")
    return value, str(answer["VersionId"])


def _from_kms(job: JobConfig, section: Section) -> bytes:
    """What KMS opens the job's blob to, which is raw or base64; raises ConfigError."""
    uri, key = str(_source(job, section).kms), f"{section}.kms"
    try:
        blob = read_file(uri, job.storage.options)
    except StorageError as error:
        raise ConfigError(f"{key}: {str(error).rstrip('.')}") from None
    with suppress(binascii.Error):  # raw, as `base64 -d` leaves it
        blob = b64decode(b"".join(blob.split()), validate=True)
    if not 0 < len(blob) <= _LARGEST_BLOB:
        raise ConfigError(f"{uri} ({key}) is not a secret that KMS sealed: those have 1 to {_LARGEST_BLOB} bytes")
    with _client("kms", f"the sealed secret {uri}", job, section) as client:
        return bytes(client.decrypt(CiphertextBlob=blob, EncryptionContext=CONTEXT)["Plaintext"])


@contextmanager
def _client(service: str, what: str, job: JobConfig, section: Section, region: str | None = None) -> Iterator[Any]:
    """A client for one call; what goes wrong in the block becomes a ConfigError about `what`."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, NoRegionError

    from anonlib.storage.s3_errors import code_of, not_sent, refused_by_any

    # An S3 server of one's own has no secrets: the service is asked where boto3's environment says, else at AWS.
    region = region or (job.storage.region if job.storage.endpoint_url is None else None)
    retries = {"mode": "standard", "total_max_attempts": _TRIES}
    config = Config(connect_timeout=_CONNECT_S, read_timeout=_READ_S, retries=retries)
    (action, hint), where = _ACTIONS[service], "AWS"
    # botocore's parser writes whole answers, secrets too, into a log of level DEBUG.
    parser_log = logging.getLogger("botocore.parsers")
    level = parser_log.level
    parser_log.setLevel(logging.INFO)
    try:
        session = boto3.session.Session(profile_name=_source(job, section).profile)
        client = session.client(service, region_name=region, config=config)
        parts = urlsplit(client.meta.endpoint_url)
        where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        yield client
    except NoRegionError:
        raise ConfigError(f"{what} needs a region: set AWS_DEFAULT_REGION, or give its ARN") from None
    except ClientError as error:
        code = code_of(error)
        words = {"where": where, "what": what, "action": action, "code": code, "profile": f"{section}.profile"}
        sentence = refused_by_any(code, action, what, where, hint)
        other = "{where} refused {action} on {what} ({code}); if that is the store, set AWS_ENDPOINT_URL_S3 alone"
        known = _REFUSALS.get(code, other).format(**words)
        raise ConfigError(known if sentence is None else str(sentence).rstrip(".")) from None
    except BotoCoreError as error:
        raise ConfigError(str(not_sent(error, action, what, where)).rstrip(".")) from None
    except ValueError:
        raise ConfigError(
            f"the endpoint or region for {what} is not valid; check AWS_ENDPOINT_URL and AWS_DEFAULT_REGION"
        ) from None
    finally:
        parser_log.setLevel(level)
