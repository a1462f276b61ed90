"""The audit's own signature: which report belongs to which certificate, and whether the release passed.

audit.json lies beside certificate.json and is signed by the same key. It names the report's files by sha256 and the
certificate that was audited, so a report cannot be moved to another release, changed, or left behind by a release that
was rendered anew. An audit can be repeated: the last one stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from pydantic import ConfigDict, TypeAdapter, ValidationError

from anonlib.errors import NotFound, VerificationError
from anonlib.stages.certify import CERTIFICATE
from anonlib.stages.rerender import remove_audit
from anonlib.storage import Storage
from anonlib.verification.certificate import Certificate, canonical, check_signature_of, public_key, signature_of
from anonlib.verification.data_files import Hashing, whole
from anonlib.workspace.layout import AUDIT_FILES, STATEMENT, sha256

VERSION = 1
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Statement:
    """audit.json: `files` of the release with their sha256, `failed` the names of the policy's failed lines."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    version: int
    certificate_sha256: str
    files: dict[str, str]
    passed: bool
    failed: list[str]
    public_key: str = ""
    signature: str = ""

    def to_bytes(self) -> bytes:
        """The file: canonical JSON and a line's end."""
        return canonical(asdict(self)) + b"\n"

    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        return canonical({name: value for name, value in asdict(self).items() if name != "signature"})


_READER = TypeAdapter(Statement)


def publish(release: Storage, secret: bytes, files: Mapping[str, bytes], failed: list[str]) -> Statement:
    """Write the files, then the statement that vouches for them; what an earlier audit left is removed first."""
    remove_audit(release)
    for path, data in files.items():
        if path not in AUDIT_FILES:
            raise ValueError(f"{path} is none of the files of an audit")
        release.create(path, data)
    digests = {path: sha256(data) for path, data in sorted(files.items())}
    made = Statement(VERSION, sha256(release.read(CERTIFICATE)), digests, not failed, failed, public_key(secret))
    made = replace(made, signature=signature_of(made.signed_bytes(), secret))
    release.create(STATEMENT, made.to_bytes())
    return made


def read_statement(release: Storage, certificate: Certificate) -> Statement | None:
    """The audit of a release, or None; raises VerificationError where it does not fit certificate, key or files."""
    try:
        data = whole(release, STATEMENT, _MAX_BYTES)
    except NotFound:
        return None
    try:
        found = _READER.validate_json(data)
        same = found.to_bytes() == data
    except (ValidationError, ValueError, RecursionError):
        raise VerificationError(f"{STATEMENT} cannot be read") from None
    if not same or found.version != VERSION:
        raise VerificationError(f"{STATEMENT} is not in canonical form, or of another version")
    if found.public_key != certificate.public_key:
        raise VerificationError(f"{STATEMENT} is signed by another key than the certificate")
    check_signature_of(found.signed_bytes(), found.signature, found.public_key, STATEMENT)
    if found.certificate_sha256 != sha256(certificate.to_bytes()):
        raise VerificationError(
            f"{STATEMENT} is the audit of another release, or of this one before it was rendered anew"
        )
    if found.passed == bool(found.failed) or not set(found.files) <= set(AUDIT_FILES):
        raise VerificationError(f"{STATEMENT} contradicts itself")
    for path, digest in found.files.items():
        try:
            with release.open_read(path) as stream:
                held = Hashing(stream).finish()
        except NotFound:
            raise VerificationError(f"{path} is missing") from None
        if held != digest:
            raise VerificationError(f"{path} is not the one that the audit signed")
    return found
