"""A job's secrets from AWS: of Secrets Manager, or a small file that KMS opens.

An S3 server of one's own (storage.endpoint_url) answers for neither, so both are asked where boto3's environment says
(AWS_ENDPOINT_URL_SECRETS_MANAGER, AWS_ENDPOINT_URL_KMS), else at AWS, and by credentials of their own if the job names
a profile. Of what a service says only the error's code is read: messages quote accounts, keys and roles.
"""

from __future__ import annotations

import binascii
import json
import logging
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from anonlib.config import JobConfig, SecretConfig
from anonlib.errors import ConfigError, StorageError
from anonlib.storage import read_file

CONTEXT = {"anonlib": "secret"}
"""What a secret for KMS is sealed with, so that no other blob of the same key passes for one (encryption context)."""

_GET, _DECRYPT = "secretsmanager:GetSecretValue", "kms:Decrypt"
# Many workers start at once; standard retries wait longer each time.
_CONNECT_S, _READ_S, _TRIES = 4, 20, 6
# The API takes ciphertexts of at most 6,144 bytes; base64 needs a third more.
_LARGEST_BLOB = 6144
_STRANGER = {
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_BUSY = {
    "DependencyTimeoutException",
    "InternalServiceError",
    "KMSInternalException",
    "KeyUnavailableException",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
}


@dataclass(frozen=True)
class SecretReference:
    """A secret of a job: where it is, and the `section` of the job file that says so."""

    job: JobConfig
    section: str
    source: SecretConfig

    def key(self, name: str) -> str:
        """A key of the section, as the job file has it."""
        return f"{self.section}.{name}"


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


def from_kms(wanted: SecretReference) -> bytes:
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
    manager = action == _GET
    if code in ("AccessDenied", "AccessDeniedException", "403"):
        also = ", or kms:Decrypt on the key that seals it" if manager else ", with the context anonlib=secret"
        return f"access denied: these credentials may not do {action} on {what}{also}"
    if code in _EXPIRED:
        return "the temporary AWS credentials have expired; get new ones and run again"
    if code in _STRANGER:
        return (
            f"{where} does not know the credentials that were sent for {what}; where the store needs others, "
            f"name a profile for the secret by {profile}"
        )
    if code in _BUSY:
        return f"{where} is overloaded or failing ({code}) and did not do {action}; try again later"
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
