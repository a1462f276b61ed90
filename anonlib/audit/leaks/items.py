"""Every single thing in a release's files: each tar member, each Parquet cell, each file, with nothing skipped.

The datasets' own readers skip what belongs to no sample, which is where something could hide.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.datasets.base import MAX_SAMPLE_BYTES, format_of
from anonlib.datasets.names import printable, split_member
from anonlib.datasets.parquet_layout import HUGGING_FACE
from anonlib.storage import Storage
from anonlib.verification.data_files import BROKEN

_BLOCK = 1 << 20
_ROWS_AT_ONCE = 16
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_HEADER = 512
_WRITER = "parquet-cpp-arrow version "


@dataclass(frozen=True)
class Item:
    """One thing: `where` it is, its sample's `key` if it has one, the member's or column's `name`, and its `content`.

    `content` is bytes, or a cell's value; a Schema for a Parquet file's own, a Footer for what else its footer says.
    `odd`: not such a thing as is written.
    """

    where: str
    key: str | None
    name: str
    content: Any
    odd: bool = False


@dataclass(frozen=True)
class Footer:
    """A Parquet file's footer as text: who wrote it, names of columns, least and greatest values."""

    text: str


def items_of(release: Storage, path: str) -> Iterator[Item]:
    """What is in one file of a release, in order; what cannot be read to its end is odd."""
    kind = format_of(path)
    try:
        if kind == "webdataset":
            yield from _in_tar(release, path)
        elif kind == "parquet":
            yield from _in_parquet(release, path)
        else:
            key = path.removeprefix("data/") if path.startswith("data/") else None
            yield Item(path, key, path.rpartition(".")[2].lower(), release.read(path))
    except BROKEN:
        yield Item(path, None, "", b"", odd=True)


def _in_tar(release: Storage, path: str) -> Iterator[Item]:
    with release.open_read(path) as raw:
        stream: Any = io.BufferedReader(cast("io.RawIOBase", raw), _BLOCK)
        if stream.peek(2)[:2] == _GZIP_MAGIC:
            # A name, a comment or a time (RFC 1952, 2.3).
            header = stream.peek(_GZIP_HEADER)[:_GZIP_HEADER]
            yield Item(f"{path}: its gzip header", None, "", header[10:], odd=any(header[3:8]))
            stream = gzip.GzipFile(fileobj=stream)
        with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8") as archive:
            for info in archive:
                # tarfile remembers every header it has seen, which a long shard cannot afford.
                archive.members = []  # type: ignore[attr-defined]
                split = split_member(info.name)
                key, name = split or (info.name, "")
                notes = {*info.pax_headers.values(), info.uname, info.gname, info.linkname} - {"", info.name}
                notes |= info.pax_headers.keys() - {"path"}
                numbers = (info.mtime, info.uid, info.gid, info.mode) != (0, 0, 0, 0o644)
                if not info.isreg() or info.size > MAX_SAMPLE_BYTES or notes or numbers:
                    yield Item(f"{path}: {printable(info.name)}", key, name, " ".join(sorted(notes)), odd=True)
                if info.isreg() and info.size <= MAX_SAMPLE_BYTES:
                    content = cast("BinaryIO", archive.extractfile(info)).read()
                    yield Item(f"{path}: {printable(info.name)}", key, name, content, odd=split is None)
            while block := cast("BinaryIO", archive.fileobj).read(_BLOCK):
                if any(block):
                    yield Item(f"{path}: after its end", None, "", block.strip(b"\0"), odd=True)


def _in_parquet(release: Storage, path: str) -> Iterator[Item]:
    with (
        release.open_read(path, seekable=True) as stream,
        pq.ParquetFile(stream, buffer_size=_BLOCK, pre_buffer=False) as file,
    ):
        schema: pa.Schema = file.schema_arrow
        yield Item(path, None, "", schema)
        for name, value in (file.metadata.metadata or {}).items():
            if name != b"ARROW:schema":
                yield Item(f"{path}: metadata", None, name.decode(errors="replace"), value, odd=not _ours(name, value))
        strange = any(map(_has_metadata, schema)) or not file.metadata.created_by.startswith(_WRITER)
        footer = json.dumps(file.metadata.to_dict(), ensure_ascii=False, default=str)
        yield Item(f"{path}: footer", None, "", Footer(footer), odd=strange)
        number = 0
        for batch in file.iter_batches(_ROWS_AT_ONCE, use_threads=False):
            for row in batch.to_pylist():
                for name, value in row.items():
                    yield Item(f"{path}: row {number}, {name}", None, name, value)
                number += 1


def _ours(name: bytes, value: bytes) -> bool:
    """Whether a file's metadata says that one column is an Image, and no more."""
    if name != HUGGING_FACE:
        return False
    try:
        features = json.loads(value)["info"]["features"]
        return bool(json.loads(value) == {"info": {"features": {column: {"_type": "Image"} for column in features}}})
    except (ValueError, KeyError, TypeError):
        return False


def _has_metadata(field: pa.Field) -> bool:
    """Whether a field, or one that it holds, has metadata beside what Parquet numbers fields by."""
    inner = [field.type.field(number) for number in range(field.type.num_fields)]
    return bool(set(field.metadata or {}) - {b"PARQUET:field_id"}) or any(map(_has_metadata, inner))
