"""What a release's own files say, read by somebody who trusts none of them: whatever is odd in one is a sentence."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from anonlib.audit.contents import BROKEN
from anonlib.pipeline.certify import Committed, committed
from anonlib.pipeline.places import Room, sha256
from anonlib.privacy.certificate import Untrue
from anonlib.records import RESTRICTED_COLUMNS
from anonlib.storage import NotFound, Storage

Parsed = TypeVar("Parsed", bound=BaseModel)


class Note(BaseModel):
    """run.json, as far as it is checked."""

    model_config = ConfigDict(strict=True)

    anonlib: str
    run: str
    schema_version: int = 1
    method: dict[str, Any]
    keep_fields: list[str]
    rekeyed: bool
    shards: list[str]
    models: dict[str, dict[str, str]]


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


def read(release: Storage, path: str) -> bytes:
    """A file that must be there."""
    try:
        return release.read(path)
    except NotFound:
        raise Untrue(f"{path} is missing") from None


def shards_of(release: Storage, shards: Iterable[str]) -> Iterator[tuple[Committed, Marker]]:
    """Every shard with its marker, which fits its own name and manifest and vouches for data alone."""
    room = Room(release, "")
    try:
        for one in committed(room, shards):
            marker = parsed(Marker, one.marker, room.marker(one.shard))
            if marker.shard != one.shard:
                raise Untrue(f"the marker of shard {one.shard} speaks of shard {marker.shard}")
            if sha256(one.manifest) != marker.manifest_sha256:
                raise Untrue(f"the manifest of shard {one.shard} is not the one that its marker names")
            if any(not path.startswith("data/") for path in marker.files):
                raise Untrue(f"the marker of shard {one.shard} vouches for files outside data/")
            yield one, marker
    except NotFound as error:
        raise Untrue(f"a marker or manifest is missing: {error}") from None


def rows_of(data: bytes, schema: pa.Schema, what: str, *, later: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a table of ours, which has exactly this schema and nothing beside it.

    `later` is a column that came after the first releases were made, and may be missing.
    """
    try:
        with pq.ParquetFile(io.BytesIO(data)) as file:
            found = file.schema_arrow
            for name in found.names:
                if name not in schema.names:
                    kind = "restricted" if name in RESTRICTED_COLUMNS else "unknown"
                    raise Untrue(f"{what} has the {kind} column {name!r}")
            known = [schema] if later is None else [schema, schema.remove(schema.get_field_index(later))]
            if (
                not any(map(found.equals, known))
                or set(file.metadata.metadata or {}) - {b"ARROW:schema"}
                or found.metadata
            ):
                raise Untrue(f"{what} does not have the columns that it should, or more beside them")
            for batch in file.iter_batches(1024, use_threads=False):
                yield from batch.to_pylist()
    except BROKEN as error:
        raise Untrue(f"{what} cannot be read ({type(error).__name__})") from None


def parsed(model: type[Parsed], data: bytes, what: str) -> Parsed:
    """A JSON file in the shape of `model`."""
    try:
        return model.model_validate_json(data)
    except (ValueError, RecursionError):
        raise Untrue(f"{what} cannot be read") from None
