"""What a release's own files say, for a reader who trusts none of them: whatever is odd in one is a sentence."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from anonlib.datasets.names import is_kind
from anonlib.datasets.parquet_footer import bounded_batches, open_table
from anonlib.errors import require
from anonlib.storage import Storage
from anonlib.verification.certificate import VERSION, AuditStatement, Certificate, sha256, shard_leaf
from anonlib.verification.data_files import check_hash, readable, whole
from anonlib.workspace import schemas

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

# The tables of earlier schema versions, which `verify` goes on reading.
CLASSES_1 = schemas.CERTIFIED_CLASSES.insert(2, pa.field("weights", pa.list_(pa.float64())))
CLASSES_1 = CLASSES_1.insert(5, pa.field("made", pa.string()))
_FACE = list(schemas.MANIFEST_FACE)[: -len(schemas.OF_CLIP) - 1]
_FIRST_FACE = [pa.field("box", pa.list_(pa.float32())), pa.field("score", pa.float32()), *_FACE[1:6]]
_FIRST_FACE += [pa.field("mask_coverage", pa.float32()), pa.field("similarity", pa.list_(schemas.SIMILARITY))]
_FIRST_FACE += [*_FACE[6:], pa.field("reason", pa.string())]
SURROGATES_2 = schemas.CERTIFIED_SURROGATES.remove(2)  # without the gallery
_LATER = ("media", "rate", "frames", "seconds")
MANIFEST_3 = pa.schema([field for field in schemas.MANIFEST if field.name not in _LATER])
MANIFEST_3 = MANIFEST_3.set(MANIFEST_3.get_field_index("faces"), pa.field("faces", pa.list_(pa.struct(_FACE))))
MANIFEST_2 = pa.schema([field for field in MANIFEST_3 if field.name not in ("orientation", "outside")])
_FACES = MANIFEST_2.get_field_index("faces")
MANIFEST_1 = MANIFEST_2.set(_FACES, pa.field("faces", pa.list_(pa.struct(_FIRST_FACE))))
MANIFEST_OF = {1: MANIFEST_1, 2: MANIFEST_2, 3: MANIFEST_3, VERSION: schemas.MANIFEST}
"""The schema of a manifest, by schema version."""


def kind_of_left_out(kind: str) -> str:
    """The kind; raises ValueError for a word that is none of them, since it may tell a name."""
    if not is_kind(kind):
        raise ValueError("no kind of what is left out")
    return kind


LeftOut = dict[Annotated[str, AfterValidator(kind_of_left_out)], Annotated[int, Field(gt=0)]]


class HowHidden(BaseModel):
    """How regions of a kind are hidden, and the model that finds them."""

    model_config = ConfigDict(strict=True, extra="forbid")

    method: Literal["fill", "solid", "blur", "pixelate"]
    network: str = Field(pattern=_WORD)


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
    models: dict[str, dict[Literal["sha256", "licence"], str]]
    promised: bool = False
    left_out: LeftOut = {}
    hide: dict[Literal["text", "person", "plate"], HowHidden] = {}


def manifest_of(note: RunNote) -> pa.Schema:
    """The schema of a release's manifests."""
    if note.schema_version == VERSION:
        return schemas.manifest_schema(note.hide)
    return MANIFEST_OF[note.schema_version]


class ReleasedMethod(BaseModel):
    """`method` of run.json, files by their sha256; keys of its own are numbers and words without room for a remark."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, bool | int | float | Annotated[str, Field(pattern=_WORD)] | None]

    name: str = Field(pattern=_WORD)
    k: int = Field(default=5, ge=2, le=1000)
    texture: str | None = Field(default=None, pattern=_WORD)
    epsilon: float | None = Field(default=None, gt=0)
    kappa: float | None = Field(default=None, gt=0)
    own_angle: float = 75.0
    other_angle: float = 50.0
    region: str = Field(default="wide", pattern=_WORD)
    accept: str | None = Field(default=None, max_length=100)
    swapper: str | None = None
    recognizer: str | None = None
    donors: str | None = None


class Marker(BaseModel):
    """commits/SHARD.json; `left_out`: what in the shard is no image, by kind; `decisions` and `painted` where a
    reviewer decided on images of the shard."""

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
    left_out: LeftOut = {}
    decisions: str | None = None
    painted: str | None = None


class CommittedShard(NamedTuple):
    """One shard's marker, manifest (the bytes of the table) and leaf (32 bytes) in the certificate's Merkle tree."""

    shard: str
    marker: Marker
    manifest: bytes
    leaf: bytes


def read_statement(release: Storage, certificate: Certificate) -> AuditStatement | None:
    """The audit of a release, or None; raises VerificationError where it does not fit certificate, key or files."""
    if not release.exists(schemas.STATEMENT):
        return None
    statement = AuditStatement.from_bytes(whole(release, schemas.STATEMENT, MAX_CERTIFICATE), certificate)
    for path, digest in statement.files.items():
        check_hash(release, path, digest)
    return statement


def shards_of(release: Storage, shards: Iterable[str]) -> Iterator[CommittedShard]:
    """Every shard in order, a few read at a time; raises VerificationError unless marker, name and manifest fit."""

    def read_shard(shard: str) -> CommittedShard:
        data = whole(release, schemas.marker_path(shard), MAX_NOTE)
        manifest = whole(release, schemas.manifest_path(shard), MAX_TABLE)
        marker = parsed(Marker, data, schemas.marker_path(shard))
        require(marker.shard == shard, f"the marker of shard {shard} speaks of shard {marker.shard}")
        digest = sha256(manifest)
        require(digest == marker.manifest_sha256, f"the manifest of shard {shard} is not the one that its marker names")
        inside = all(path.startswith(schemas.DATA) for path in marker.files)
        require(inside, f"the marker of shard {shard} vouches for files outside data/")
        return CommittedShard(shard, marker, manifest, shard_leaf(shard, sha256(data), digest, marker.files))

    todo = list(shards)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(todo), _AT_ONCE):
            yield from pool.map(read_shard, todo[start : start + _AT_ONCE])


def rows_of(data: bytes, schema: pa.Schema, what: str, *, later: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a table with exactly this schema; the column `later` may be missing. Raises VerificationError."""
    with readable(what), open_table(io.BytesIO(data)) as table:
        found = table.file.schema_arrow
        for name in found.names:
            kind = "restricted" if name in schemas.RESTRICTED_COLUMNS else "unknown"
            require(name in schema.names, f"{what} has the {kind} column {name!r}")
        known = [schema] if later is None else [schema, schema.remove(schema.get_field_index(later))]
        extra = set(table.file.metadata.metadata or {}) - {b"ARROW:schema"}
        fits = any(map(found.equals, known)) and not extra and not found.metadata
        require(fits, f"{what} does not have the columns that it should, or more beside them")
        for batch in bounded_batches(table, 1024, _TABLE_BUDGET):
            yield from batch.to_pylist()


def parsed(model: type[Parsed], data: bytes, what: str) -> Parsed:
    """A JSON file in the shape of `model`; raises VerificationError."""
    with readable(what):
        return model.model_validate_json(data)
