"""The footer of a Parquet file (parquet.thrift of apache/parquet-format), read without Arrow's accessors.

Through pyarrow's RowGroupMetaData and ColumnChunkMetaData some damaged footers end the process: a C++ exception passes
functions that Cython takes for ones that raise none. Opening a file and reading its rows is safe, so no other file asks
Arrow for values of a footer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.datasets.thrift import BOOL, BYTES, DOUBLE, I16, I32, I64, fields, read_struct
from anonlib.errors import DamagedTable, DatasetError

BUFFER_BYTES = 4 << 20
UNREADABLE = (pa.ArrowException, OSError, DatasetError)
"""The exceptions of a damaged file."""

_TAIL_BYTES = 1 << 16
_PAIR = fields(BYTES, BYTES)
STATISTICS = fields(BYTES, BYTES, I64, I64, BYTES, BYTES, BOOL, BOOL)
_SIZES, _SHAPES = fields(I64, [I64], [I64]), fields(fields(*[DOUBLE] * 8), [I32])
_CHUNK = fields(
    *(I32, [I32], [BYTES], I32, I64, I64, I64, [_PAIR], I64, I64, I64),
    *(STATISTICS, [fields(I32, I32, I32)], I64, I32, _SIZES, _SHAPES),
)
_KEY = fields({}, fields([BYTES], BYTES))
_COLUMN = fields(BYTES, I64, _CHUNK, I64, I32, I64, I32, _KEY, BYTES)
_GROUP = fields([_COLUMN], I64, I64, [fields(I32, BOOL, BOOL)], I64, I64, I16)
_LEAF = fields(I32, I32, I32, BYTES, I32, I32, I32, I32, I32, {})
_FILE = fields(I32, [_LEAF], I64, [_GROUP], [_PAIR], BYTES, [{}], {}, BYTES)
_CODECS = ("none", "snappy", "gzip", "lzo", "brotli", "lz4", "zstd", "lz4_raw")


class ColumnChunk(NamedTuple):
    """A column in a row group: `size` in bytes as stored, offsets in the file; None where the footer does not say."""

    codec: str
    values: int
    size: int
    data_page: int
    dictionary_page: int | None
    nulls: int | None


class RowGroup(NamedTuple):
    """A row group, with a chunk for each leaf of the schema."""

    rows: int
    chunks: list[ColumnChunk]


@dataclass(frozen=True)
class Footer:
    """The values of a footer's fields by their ids, with those that the format does not know."""

    values: dict[int, Any]

    @property
    def writer(self) -> str:
        return str(self.values.get(6, b"").decode("utf-8", "backslashreplace"))

    @cached_property
    def groups(self) -> list[RowGroup]:
        """Raises DamagedTable."""
        return [RowGroup(_whole(group, 3), list(map(_chunk, group.get(1, [])))) for group in self.values.get(4, [])]

    @property
    def text(self) -> str:
        """All of it as JSON: who wrote it, names of columns, metadata, least and greatest values."""
        return json.dumps(self.values, ensure_ascii=False, default=lambda value: value.decode("utf-8", "replace"))


def _chunk(column: dict[int, Any]) -> ColumnChunk:
    chunk = column.get(3, {})
    codec = _whole(chunk, 4)
    if codec >= len(_CODECS):
        raise DamagedTable("its footer names an unknown compression")
    start, nulls = chunk.get(11), chunk.get(12, {}).get(3)
    return ColumnChunk(_CODECS[codec], _whole(chunk, 5), _whole(chunk, 7), _whole(chunk, 9), start, nulls)


def _whole(values: dict[int, Any], field: int) -> int:
    value = values.get(field, -1)
    if value < 0:
        raise DamagedTable("its footer lacks a number, or has a negative one")
    return int(value)


class Table(NamedTuple):
    """An open Parquet file, the stream that it reads, and its footer."""

    file: pq.ParquetFile
    stream: BinaryIO
    footer: Footer


@contextmanager
def open_table(stream: BinaryIO) -> Iterator[Table]:
    """Raises ArrowException, DamagedTable and OSError."""
    tail = _tail(stream)
    try:
        metadata = pq.read_metadata(pa.BufferReader(tail))
        file = pq.ParquetFile(stream, metadata=metadata, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid("the names of its columns are not UTF-8") from error
    with file:
        try:
            footer = Footer(read_struct(tail[-8 - int.from_bytes(tail[-8:-4], "little") :], 0, _FILE)[0])
        except IndexError:
            raise DamagedTable("its footer is cut off") from None
        leaves = metadata.num_columns
        if len(footer.groups) != file.num_row_groups or any(len(group.chunks) != leaves for group in footer.groups):
            raise DamagedTable("its footer has other columns than its schema")
        yield Table(file, stream, footer)


def _tail(stream: BinaryIO) -> bytes:
    """The footer, its length and the format's four letters; less where the file is too short."""
    size = stream.seek(0, os.SEEK_END)
    length, tail = min(size, _TAIL_BYTES), b""
    while len(tail) < length <= size:
        stream.seek(size - length)
        tail = stream.read()
        length = int.from_bytes(tail[-8:-4], "little") + 8
    return tail[-length:]


def raise_if_of_the_disk(error: Exception) -> None:
    """Arrow calls damaged content an OSError too, but without a number; with one it is the system's."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
