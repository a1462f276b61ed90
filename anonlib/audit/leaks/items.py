"""Every single thing in a release's files: each tar member, each Parquet cell, each file, with nothing skipped.

The datasets' own readers skip what belongs to no sample, which is where something could hide.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.audit.contents import BROKEN
from anonlib.datasets.base import MAX_SAMPLE_BYTES, format_of
from anonlib.datasets.names import printable, split_member
from anonlib.storage import Storage

_BLOCK = 1 << 20
_ROWS_AT_ONCE = 16
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Item:
    """One thing: `where` it is, its sample's `key` if it has one, the member's or column's `name`, and its `content`.

    `content` is bytes, or a cell's value; a Schema for a Parquet file's own. `odd`: not such a thing as is written.
    """

    where: str
    key: str | None
    name: str
    content: Any
    odd: bool = False


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
            stream = gzip.GzipFile(fileobj=stream)
        with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8") as archive:
            for info in archive:
                # tarfile remembers every header it has seen, which a long shard cannot afford.
                archive.members = []  # type: ignore[attr-defined]
                split = split_member(info.name)
                key, name = split or (info.name, "")
                notes = {*info.pax_headers.values(), info.uname, info.gname, info.linkname} - {"", info.name}
                if not info.isreg() or info.size > MAX_SAMPLE_BYTES or notes:
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
        for name, value in (schema.metadata or {}).items():
            yield Item(f"{path}: metadata {name.decode(errors='replace')}", None, "", value, odd=name != b"huggingface")
        number = 0
        for batch in file.iter_batches(_ROWS_AT_ONCE, use_threads=False):
            for row in batch.to_pylist():
                for name, value in row.items():
                    yield Item(f"{path}: row {number}, {name}", None, name, value)
                number += 1
