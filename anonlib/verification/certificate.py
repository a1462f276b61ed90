"""What a release says of itself, in which bytes and under which signature: its certificate, and the audit's statement.

A certificate has one spelling (canonical JSON), so that signing it and signing what a reader understood are the same.
Shards are bound to it by the root of a Merkle tree, built and domain-separated as RFC 6962 (section 2.1) has it. The
signature is Ed25519 (RFC 8032); its key comes from the secret that signs (`Keyring.signing`) by HKDF-SHA256 (RFC 5869)
and, unlike the key of draws and pseudonyms, is bound to no workspace: who made one release is recognized in the next.
Nothing here knows a clock.

The statement of an audit (audit.json) is signed by the same key. It names the report's files by sha256 and the
certificate that was audited, so a report cannot be moved to another release, changed, or left behind by a release that
was rendered anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from anonlib.errors import VerificationError
from anonlib.workspace.schemas import AUDIT_FILES, STATEMENT

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

AUDIT_VERSION = 1
VERSION = 2
"""Of the certificate and of all released tables: `schema_version` in run.json."""
_KEY_PURPOSE = b"anonlib: Ed25519 key that signs certificates, version 1"
_LEAF, _NODE = b"\x00", b"\x01"


Kind = Literal["k-anonymity of the identity channel", "epsilon metric privacy of the identity channel", "none"]
K_ANONYMITY: Kind = "k-anonymity of the identity channel"
METRIC_PRIVACY: Kind = "epsilon metric privacy of the identity channel"
NONE: Kind = "none"

WITHOUT_LABELS = (
    "the job had no labels, so the claim is of the persons that the recognizers find: "
    "people who were taken for several persons are not covered"
)
"""Where a job has no `input.subject_field`."""


@dataclass(frozen=True)
class Claim:
    """`k`: least effective class; `epsilon`: a unit of `metric`; `pure_epsilon`: for any two people, one release."""

    kind: Kind
    k: int | None = None
    epsilon: float | None = None
    metric: str | None = None
    pure_epsilon: float | None = None

    def __str__(self) -> str:
        """`k-anonymity of the identity channel, k = 5`."""
        epsilon = None if self.epsilon is None else f"{self.epsilon:g} a {self.metric}"
        numbers = {"k": self.k, "epsilon": epsilon}
        return ", ".join([self.kind, *(f"{name} = {value}" for name, value in numbers.items() if value is not None)])


@dataclass(frozen=True)
class CertifiedCounts:
    """Images by status, and the faces in them.

    images = released + no_face + quarantined. faces = replaced + next_surrogate + solid + withheld: `replaced` by the
    assigned surrogate, which alone the claim is about; `next_surrogate` and `solid` chosen after a look at the face;
    `withheld` in images that were quarantined.
    """

    shards: int = 0
    images: int = 0
    released: int = 0
    no_face: int = 0
    quarantined: int = 0
    faces: int = 0
    replaced: int = 0
    next_surrogate: int = 0
    solid: int = 0
    withheld: int = 0


@dataclass(frozen=True)
class CertifiedTable:
    """A file of the release whose rows the claim rests on: classes and surrogates, or draws."""

    path: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class Scope:
    """Among whom the claim holds: `persons` with a surrogate, formed of `subjects`, `labelled` of them by label.

    A face keeps the gender and age band of its person, so persons are compared within one of the `strata` (persons of
    each, by name). Persons that are formed by clustering may be several that are one, or one that is several.
    """

    persons: int
    subjects: int
    labelled: int
    strata: dict[str, int]

    def __str__(self) -> str:
        """`among 49 persons (48 by label) of 6 kinds of gender and age, 5 to 12 a kind`."""
        kinds = self.strata.values()
        formed = (
            "all by label" if self.labelled == self.subjects else f"{self.labelled} of {self.subjects} parts by label"
        )
        return (
            f"among {self.persons} persons ({formed}), each within one of {len(kinds)} kinds of gender and age, "
            f"of {min(kinds, default=0)} to {max(kinds, default=0)} persons"
        )


@dataclass(frozen=True)
class Certificate:
    """certificate.json. Digests and the key are hex; `method` is the job's, `run_sha256` that of run.json.

    Version 1 had one table at most and no scope; it is read, and written again by `to_bytes`, in its own form.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    version: int
    anonlib: str
    release: str
    run: str
    run_sha256: str
    method: dict[str, Any]
    claim: Claim
    counts: CertifiedCounts
    models: dict[str, dict[str, str]]
    merkle_root: str
    tables: tuple[CertifiedTable, ...]
    scope: Scope | None
    public_key: str = ""
    signature: str = ""

    def to_bytes(self) -> bytes:
        """The file: canonical JSON and a line's end."""
        return canonical(self._document()) + b"\n"

    def signed_bytes(self) -> bytes:
        """What the signature is over: the canonical JSON of everything but the signature."""
        return canonical({name: value for name, value in self._document().items() if name != "signature"})

    def _document(self) -> dict[str, Any]:
        document = asdict(self)
        if self.version == 1:
            tables = document.pop("tables")
            del document["scope"]
            document["table"] = tables[0] if tables else None
        return document

    @staticmethod
    def from_bytes(data: bytes) -> Certificate:
        """Read the file; raises VerificationError if it is not a certificate, or not in its one spelling."""
        try:
            read = _READER.validate_json(_lifted(data))
            same = read.to_bytes() == data
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "its JSON"
            raise VerificationError(f"the certificate cannot be read: {where} is not as it should be") from None
        except (ValueError, RecursionError):
            raise VerificationError("the certificate cannot be read") from None
        if not same:
            raise VerificationError(
                "the certificate is not in canonical form, so what was signed and what is read may differ"
            )
        if not 1 <= read.version <= VERSION:
            raise VerificationError(
                f"the certificate is of version {read.version}; this anonlib knows version {VERSION}"
            )
        return read


_READER = TypeAdapter(Certificate)


def _lifted(data: bytes) -> bytes:
    """A certificate of version 1 with the fields of today; anything else as it is."""
    document = json.loads(data)
    if isinstance(document, dict) and document.get("version") == 1 and "table" in document:
        table = document.pop("table")
        document |= {"tables": [] if table is None else [table], "scope": None}
        return json.dumps(document).encode()
    return data


@dataclass(frozen=True)
class AuditStatement:
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

    def sign(self, secret: bytes) -> AuditStatement:
        """The statement with key and signature."""
        ready = replace(self, public_key=public_key(secret))
        return replace(ready, signature=signature_of(ready.signed_bytes(), secret))

    @staticmethod
    def of(certificate: bytes, files: Mapping[str, bytes], failed: list[str]) -> AuditStatement:
        """What an audit of the release with this certificate states, unsigned."""
        digests = {path: sha256(data) for path, data in sorted(files.items())}
        return AuditStatement(AUDIT_VERSION, sha256(certificate), digests, not failed, failed)

    @staticmethod
    def from_bytes(data: bytes, certificate: Certificate) -> AuditStatement:
        """Read the file; raises VerificationError unless it is of this certificate and signed by its key."""
        try:
            found = _STATEMENT_READER.validate_json(data)
            same = found.to_bytes() == data
        except (ValidationError, ValueError, RecursionError):
            raise VerificationError(f"{STATEMENT} cannot be read") from None
        if not same or found.version != AUDIT_VERSION:
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
        return found


_STATEMENT_READER = TypeAdapter(AuditStatement)


def sha256(data: bytes) -> str:
    """In hex."""
    return hashlib.sha256(data).hexdigest()


def canonical(document: Mapping[str, Any]) -> bytes:
    """The one spelling of a document: sorted keys, no spaces, UTF-8. Raises ValueError for NaN and infinities."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def shard_leaf(shard: str, marker_sha256: str, manifest_sha256: str, files: Mapping[str, str]) -> bytes:
    """The leaf (32 bytes) of one shard; `files` are the release's paths with their sha256."""
    return merkle_leaf(
        canonical(
            {
                "shard": shard,
                "marker_sha256": marker_sha256,
                "manifest_sha256": manifest_sha256,
                "files": dict(files),
            }
        )
    )


def merkle_leaf(content: bytes) -> bytes:
    """The hash of a leaf, which no inner node can have."""
    return hashlib.sha256(_LEAF + content).digest()


def merkle_root(leaves: Sequence[bytes]) -> str:
    """Hex root over leaf hashes in order. The odd one out of a level moves up alone, as RFC 6962's split has it."""
    if not leaves:
        return hashlib.sha256().hexdigest()
    level = list(leaves)
    while len(level) > 1:
        pairs = [hashlib.sha256(_NODE + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0].hex()


def public_key(secret: bytes) -> str:
    """The hex key (32 bytes) by which all certificates of this secret are checked, whatever the release.

    It lets everybody test guesses of the secret, so no secret gets here that `keys.stretched` has not seen.
    """
    return _signing_key(secret).public_key().public_bytes_raw().hex()


def signed(certificate: Certificate, secret: bytes) -> Certificate:
    """The certificate with key and signature; the same bytes every time."""
    ready = replace(certificate, public_key=public_key(secret))
    return replace(ready, signature=signature_of(ready.signed_bytes(), secret))


def signature_of(data: bytes, secret: bytes) -> str:
    """The hex signature of other bytes by the key of all certificates of this secret."""
    return _signing_key(secret).sign(data).hex()


def check_signature(certificate: Certificate, pinned: str | None = None) -> None:
    """Raise VerificationError unless the certificate's own key signed it and it is the `pinned` hex key, if given."""
    if pinned is not None and pinned.strip().lower() != certificate.public_key:
        raise VerificationError(
            f"the certificate is signed by the key {certificate.public_key}, not by the one that was given"
        )
    check_signature_of(certificate.signed_bytes(), certificate.signature, certificate.public_key, "the certificate")


def check_signature_of(data: bytes, signature: str, key: str, what: str) -> None:
    """Raise VerificationError, about `what`, unless the hex `signature` of `data` is by the hex public `key`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        read = bytes.fromhex(signature)
        if read.hex() != signature:
            raise ValueError("another spelling of the signature")
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(read, data)
    except (InvalidSignature, ValueError):
        raise VerificationError(f"{what}'s signature does not fit: it was changed after it was signed") from None


def _signing_key(secret: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    seed = HKDF(SHA256(), length=32, salt=None, info=_KEY_PURPOSE).derive(secret)
    return Ed25519PrivateKey.from_private_bytes(seed)
