"""What a release's own files say, for a reader who trusts none of them: whatever is odd in one is a sentence."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, field_validator

from anonlib.errors import DatasetError, NotFound, VerificationError
from anonlib.storage import Storage
from anonlib.verification.certificate import AuditStatement, Certificate, sha256, shard_leaf
from anonlib.verification.data_files import BROKEN, Hashing, bounded_batches, whole
from anonlib.workspace.schemas import DATA, RESTRICTED_COLUMNS, STATEMENT, manifest_path, marker_path

Parsed = TypeVar("Parsed", bound=BaseModel)

MAX_NOTE = 64 << 20
"""Bytes of a JSON file: run.json names every shard, a marker every file of a folder's slice."""
MAX_TABLE = 512 << 20
"""Bytes of a manifest or of the table of a claim."""
MAX_CERTIFICATE = 1 << 20
"""Bytes of a certificate or of an audit's statement."""
_WORD = r"^[a-z0-9-]{1,64}$"
_TABLE_BUDGET = 64 << 20
_AT_ONCE = 4


class RunNote(BaseModel):
    """run.json, which holds nothing else; `promised`: the maker has said that there is an audit."""

    model_config = ConfigDict(strict=True, extra="forbid")

    anonlib: str
    run: str
    schema_version: int = 1
    method: dict[str, Any]
    synthesis: bool = False
    keep_fields: list[str]
    rekeyed: bool
    shards: list[str]
    models: dict[str, dict[str, str]]
    promised: bool = False

    @field_validator("models")
    @classmethod
    def _closed(cls, models: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        if any(set(model) != {"sha256", "licence"} for model in models.values()):
            raise ValueError("a model is its sha256 and its licence")
        return models


class ReleasedMethod(BaseModel):
    """`method` of run.json: its settings, files by their sha256. Its claim follows from name, k, epsilon and kappa.

    A method may have keys of its own, which no claim depends on: numbers, and words without room for a remark.
    """

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, bool | int | float | Annotated[str, Field(pattern=_WORD)] | None]

    name: str = Field(pattern=_WORD)
    k: int = Field(default=5, ge=2, le=1000)
    texture: str | None = Field(default=None, pattern=_WORD)
    decoder: str | None = None
    epsilon: float | None = Field(default=None, gt=0)
    kappa: float | None = Field(default=None, gt=0)
    own_angle: float = 75.0
    other_angle: float = 50.0
    draw: str = Field(default="fresh", pattern=_WORD)
    accept: str | None = Field(default=None, max_length=100)
    swapper: str | None = None
    recognizer: str | None = None
    donors: str | None = None


class Marker(BaseModel):
    """commits/SHARD.json; `decisions` and `painted` where a reviewer decided on images of the shard."""

    model_config = ConfigDict(strict=True, extra="forbid")

    shard: str
    run: str
    files: dict[str, str]
    manifest_sha256: str
    images: int
    faces: int
    released: int
    no_face: int
    quarantined: int
    fallbacks: int
    decisions: str | None = None
    painted: str | None = None


@dataclass(frozen=True)
class CommittedShard:
    """One shard's marker, manifest (the bytes of the table) and leaf (32 bytes) in the certificate's Merkle tree."""

    shard: str
    marker: Marker
    manifest: bytes
    leaf: bytes


def read(release: Storage, path: str, most: int = MAX_NOTE) -> bytes:
    """A file that must be there, of no more than `most` bytes."""
    try:
        return whole(release, path, most)
    except NotFound:
        raise VerificationError(f"{path} is missing") from None


def read_statement(release: Storage, certificate: Certificate) -> AuditStatement | None:
    """The audit of a release, or None; raises VerificationError where it does not fit certificate, key or files."""
    try:
        data = whole(release, STATEMENT, MAX_CERTIFICATE)
    except NotFound:
        return None
    statement = AuditStatement.from_bytes(data, certificate)
    for path, digest in statement.files.items():
        try:
            with release.open_read(path) as stream:
                found = Hashing(stream).finish()
        except NotFound:
            raise VerificationError(f"{path} is missing") from None
        if found != digest:
            raise VerificationError(f"{path} is not the one that the audit signed")
    return statement


def shards_of(release: Storage, shards: Iterable[str]) -> Iterator[CommittedShard]:
    """Every shard in order, a few read at a time, none larger than it may be.

    Raises VerificationError unless each marker fits its own name and manifest and vouches for data alone.
    """

    def read_shard(shard: str) -> CommittedShard:
        data = whole(release, marker_path(shard), MAX_NOTE)
        manifest = whole(release, manifest_path(shard), MAX_TABLE)
        marker = parsed(Marker, data, marker_path(shard))
        if marker.shard != shard:
            raise VerificationError(f"the marker of shard {shard} speaks of shard {marker.shard}")
        digest = sha256(manifest)
        if digest != marker.manifest_sha256:
            raise VerificationError(f"the manifest of shard {shard} is not the one that its marker names")
        if any(not path.startswith(DATA) for path in marker.files):
            raise VerificationError(f"the marker of shard {shard} vouches for files outside data/")
        return CommittedShard(shard, marker, manifest, shard_leaf(shard, sha256(data), digest, marker.files))

    todo = list(shards)
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for start in range(0, len(todo), _AT_ONCE):
                yield from pool.map(read_shard, todo[start : start + _AT_ONCE])
    except NotFound as error:
        raise VerificationError(f"a marker or manifest is missing: {error.path}") from None


def rows_of(data: bytes, schema: pa.Schema, what: str, *, later: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a table of ours, which has exactly this schema and nothing beside it.

    `later` is a column that came after the first releases were made, and may be missing.
    """
    try:
        with pq.ParquetFile(io.BytesIO(data), pre_buffer=False) as file:
            found = file.schema_arrow
            for name in found.names:
                if name not in schema.names:
                    kind = "restricted" if name in RESTRICTED_COLUMNS else "unknown"
                    raise VerificationError(f"{what} has the {kind} column {name!r}")
            known = [schema] if later is None else [schema, schema.remove(schema.get_field_index(later))]
            extra = set(file.metadata.metadata or {}) - {b"ARROW:schema"}
            if not any(map(found.equals, known)) or extra or found.metadata:
                raise VerificationError(f"{what} does not have the columns that it should, or more beside them")
            for batch in bounded_batches(file, io.BytesIO(data), 1024, _TABLE_BUDGET):
                yield from batch.to_pylist()
    except DatasetError as error:
        raise VerificationError(f"{what} is not read: {error}") from None
    except BROKEN as error:
        raise VerificationError(f"{what} cannot be read ({type(error).__name__})") from None


def parsed(model: type[Parsed], data: bytes, what: str) -> Parsed:
    """A JSON file in the shape of `model`."""
    try:
        return model.model_validate_json(data)
    except (ValueError, RecursionError):
        raise VerificationError(f"{what} cannot be read") from None
