"""What a release says of itself, in which bytes and under which signature: its certificate, and the audit's statement.

Both have one spelling (canonical JSON), so that signing them and signing what a reader understood are the same. Shards
are bound to the certificate by a Merkle root as RFC 6962 (section 2.1) has it. The signature is Ed25519 (RFC 8032), its
key HKDF-SHA256 (RFC 5869) of the secret that signs, the same for every release of one maker. audit.json names the
report's files and the audited certificate by sha256, so that no report can be moved to another release.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import ConfigDict, TypeAdapter

from anonlib.errors import VerificationError, require
from anonlib.workspace.schemas import AUDIT_FILES, STATEMENT

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

AUDIT_VERSION = 1
VERSION = 4
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
    """Images by status, and their faces by what replaced them; the claim is about those in `replaced` alone.
    `solid`: those under an ellipse, flat or filled; `ignored`, `spared`: those that stay, in areas that the
    dataset ignores, or since their people agreed.
    `clips`: images that are clips, and their `frames`."""

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
    by_lot: int = 0
    ignored: int = 0
    spared: int = 0
    clips: int = 0
    frames: int = 0


@dataclass(frozen=True)
class Hidden:
    """How many regions of a kind beside faces were hidden, by which redaction (a fill is flat where a look at it found
    the region again), and which of the certificate's models found them.

    Nothing is claimed of what that network did not find.
    """

    method: str
    network: str
    regions: int


@dataclass(frozen=True)
class CertifiedTable:
    """A file of the release whose rows the claim rests on: classes and surrogates, or draws."""

    path: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class Scope:
    """Among whom the claim holds: `persons` of `subjects`, `labelled` of these by label; `strata`: persons of each.

    A face keeps its person's gender, age band and tone of skin, so persons are compared within one stratum.
    """

    persons: int
    subjects: int
    labelled: int
    strata: dict[str, int]

    def __str__(self) -> str:
        """`among 49 persons (48 by label) of 6 strata, 5 to 12 in each`."""
        sizes = self.strata.values()
        formed = "all" if self.labelled == self.subjects else f"{self.labelled} of {self.subjects} parts"
        return (
            f"among {self.persons} persons ({formed} by label), each within one of {len(sizes)} strata of gender, age "
            f"and tone of skin, of {min(sizes, default=0)} to {max(sizes, default=0)} persons"
        )


@dataclass(frozen=True, kw_only=True)
class _Signed:
    """A document with one spelling and a signature over everything else in it; both hex."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    public_key: str = ""
    signature: str = ""

    def document(self) -> dict[str, Any]:
        """What the file holds."""
        return asdict(self)

    def to_bytes(self) -> bytes:
        """The file: canonical JSON and a line's end."""
        return canonical(self.document()) + b"\n"

    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        return canonical({name: value for name, value in self.document().items() if name != "signature"})

    def sign(self, secret: bytes) -> Self:
        """The same with key and signature; the same bytes every time."""
        ready = replace(self, public_key=public_key(secret))
        return replace(ready, signature=_signing_key(secret).sign(ready.signed_bytes()).hex())

    def check_signature(self, what: str) -> None:
        """Raise VerificationError, about `what`, unless the signature is by the document's own key."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            signature = bytes.fromhex(self.signature)
            if signature.hex() != self.signature:
                raise ValueError("another spelling of the signature")
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key)).verify(signature, self.signed_bytes())
        except (InvalidSignature, ValueError):
            raise VerificationError(f"{what}'s signature does not fit: it was changed after it was signed") from None


@dataclass(frozen=True)
class Certificate(_Signed):
    """certificate.json; digests are hex. Version 1 had at most one table and no scope, and has its own form."""

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
    hidden: dict[str, Hidden] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """What the file holds."""
        document = asdict(self)
        for name in ("by_lot",) * (self.version < 3) + ("ignored", "spared", "clips", "frames") * (self.version < 4):
            del document["counts"][name]
        if not self.hidden:
            del document["hidden"]
        if self.version == 1:
            tables = document.pop("tables")
            del document["scope"]
            document["table"] = tables[0] if tables else None
        return document

    @staticmethod
    def from_bytes(data: bytes) -> Certificate:
        """Read the file; raises VerificationError if it is not a certificate, or not in its one spelling."""
        try:
            document = json.loads(data)
            if isinstance(document, dict) and document.get("version") == 1 and "table" in document:
                table = document.pop("table")
                document |= {"tables": [] if table is None else [table], "scope": None}
            read = TypeAdapter(Certificate).validate_json(json.dumps(document))
            same = read.to_bytes() == data
        except (ValueError, RecursionError):
            raise VerificationError("the certificate cannot be read") from None
        require(same, "the certificate is not in canonical form, so what was signed and what is read may differ")
        known = 1 <= read.version <= VERSION
        require(known, f"the certificate is of version {read.version}; this anonlib knows version {VERSION}")
        return read


@dataclass(frozen=True)
class AuditStatement(_Signed):
    """audit.json: `files` of the release with their sha256, `failed` the names of the policy's failed lines."""

    version: int
    certificate_sha256: str
    files: dict[str, str]
    passed: bool
    failed: list[str]

    @staticmethod
    def of(certificate: bytes, files: Mapping[str, bytes], failed: list[str]) -> AuditStatement:
        """What an audit of the release with this certificate states, unsigned."""
        digests = {path: sha256(data) for path, data in sorted(files.items())}
        return AuditStatement(AUDIT_VERSION, sha256(certificate), digests, not failed, failed)

    @staticmethod
    def from_bytes(data: bytes, certificate: Certificate) -> AuditStatement:
        """Read the file; raises VerificationError unless it is of this certificate and signed by its key."""
        try:
            read = TypeAdapter(AuditStatement).validate_json(data)
            same = read.to_bytes() == data
        except (ValueError, RecursionError):
            raise VerificationError(f"{STATEMENT} cannot be read") from None
        if not same or read.version != AUDIT_VERSION:
            raise VerificationError(f"{STATEMENT} is not in canonical form, or of another version")
        require(read.public_key == certificate.public_key, f"{STATEMENT} is signed by another key than the certificate")
        read.check_signature(STATEMENT)
        of_this = read.certificate_sha256 == sha256(certificate.to_bytes())
        require(of_this, f"{STATEMENT} is the audit of another release, or of this one before it was rendered anew")
        if read.passed == bool(read.failed) or not set(read.files) <= set(AUDIT_FILES):
            raise VerificationError(f"{STATEMENT} contradicts itself")
        return read


def sha256(data: bytes) -> str:
    """In hex."""
    return hashlib.sha256(data).hexdigest()


def canonical(document: Mapping[str, Any]) -> bytes:
    """The one spelling of a document: sorted keys, no spaces, UTF-8. Raises ValueError for NaN and infinities."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def shard_leaf(shard: str, marker_sha256: str, manifest_sha256: str, files: Mapping[str, str]) -> bytes:
    """The leaf (32 bytes) of one shard; `files` are the release's paths with their sha256."""
    digests = {"marker_sha256": marker_sha256, "manifest_sha256": manifest_sha256, "files": dict(files)}
    return merkle_leaf(canonical({"shard": shard, **digests}))


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
    """The hex key of all certificates of a secret, which lets anybody test guesses of it: see `keys.stretched`."""
    return _signing_key(secret).public_key().public_bytes_raw().hex()


def _signing_key(secret: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    seed = HKDF(SHA256(), length=32, salt=None, info=_KEY_PURPOSE).derive(secret)
    return Ed25519PrivateKey.from_private_bytes(seed)
