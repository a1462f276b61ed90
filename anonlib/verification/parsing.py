"""What a release's own files say, read by somebody who trusts none of them: whatever is odd in one is a sentence."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, field_validator

from anonlib.errors import DatasetError, NotFound, VerificationError
from anonlib.stages.certify import Committed
from anonlib.storage import Storage
from anonlib.verification.data_files import BROKEN, bounded_batches, whole
from anonlib.workspace.layout import StageStore, sha256
from anonlib.workspace.schemas import RESTRICTED_COLUMNS

Parsed = TypeVar("Parsed", bound=BaseModel)

MAX_NOTE = 64 << 20
"""Bytes of a JSON file: run.json names every shard, a marker every file of a folder's slice."""
MAX_TABLE = 512 << 20
"""Bytes of a manifest or of the table of a claim."""
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


def read(release: Storage, path: str, most: int = MAX_NOTE) -> bytes:
    """A file that must be there, of no more than `most` bytes."""
    try:
        return whole(release, path, most)
    except NotFound:
        raise VerificationError(f"{path} is missing") from None


def shards_of(release: Storage, shards: Iterable[str]) -> Iterator[tuple[Committed, Marker]]:
    """Every shard with its marker, which fits its own name and manifest and vouches for data alone."""
    store = StageStore(release, "")
    try:
        for one in _committed(store, shards):
            marker = parsed(Marker, one.marker, store.marker(one.shard))
            if marker.shard != one.shard:
                raise VerificationError(f"the marker of shard {one.shard} speaks of shard {marker.shard}")
            if sha256(one.manifest) != marker.manifest_sha256:
                raise VerificationError(f"the manifest of shard {one.shard} is not the one that its marker names")
            if any(not path.startswith("data/") for path in marker.files):
                raise VerificationError(f"the marker of shard {one.shard} vouches for files outside data/")
            yield one, marker
    except NotFound as error:
        raise VerificationError(f"a marker or manifest is missing: {error.path}") from None


def _committed(store: StageStore, shards: Iterable[str]) -> Iterator[Committed]:
    """Marker and manifest of each shard in order, a few read at a time, none larger than it may be."""

    def read_one(shard: str) -> Committed:
        marker = whole(store.storage, store.marker(shard), MAX_NOTE)
        return Committed(shard, marker, whole(store.storage, store.path("manifest", f"{shard}.parquet"), MAX_TABLE))

    todo = list(shards)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(todo), _AT_ONCE):
            yield from pool.map(read_one, todo[start : start + _AT_ONCE])


def rows_of(data: bytes, schema: pa.Schema, what: str, *, later: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a table of ours, which has exactly this schema and nothing beside it.

    `later` is a column that came after the first releases were made, and may be missing.
    """
    try:
        stream = io.BytesIO(data)
        with pq.ParquetFile(stream, pre_buffer=False) as file:
            found = file.schema_arrow
            for name in found.names:
                if name not in schema.names:
                    kind = "restricted" if name in RESTRICTED_COLUMNS else "unknown"
                    raise VerificationError(f"{what} has the {kind} column {name!r}")
            known = [schema] if later is None else [schema, schema.remove(schema.get_field_index(later))]
            if (
                not any(map(found.equals, known))
                or set(file.metadata.metadata or {}) - {b"ARROW:schema"}
                or found.metadata
            ):
                raise VerificationError(f"{what} does not have the columns that it should, or more beside them")
            for batch in bounded_batches(file, stream, 1024, _TABLE_BUDGET):
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
