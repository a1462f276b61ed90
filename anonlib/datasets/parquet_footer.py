"""What a Parquet file says of itself: its footer, and from its page headers the memory that its rows would take.

Through pyarrow's RowGroupMetaData and ColumnChunkMetaData some damaged footers end the process: a C++ exception passes
functions that Cython takes for ones that raise none. Opening a file and reading its rows is safe, so no other file asks
Arrow for values of a footer. A page says how large it unpacks to, and a dictionary's value stands once in the file
however often it is used: six kilobytes can ask for gigabytes. Arrow obeys the page headers, so these are read before
any page, and rows are taken a few at a time, or refused.

Both are structs of parquet.thrift (apache/parquet-format) in Thrift's compact protocol (thrift-compact-protocol.md of
apache/thrift). Arrow reads a damaged field as the type that it expects, or skips it. This reader must never understand
a file otherwise than Arrow, so it refuses a field that comes twice, is of another type, or is out of range.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.datasets.base import MAX_SAMPLE_BYTES
from anonlib.errors import DamagedTable, DatasetError

BUFFER_BYTES = 4 << 20
UNREADABLE = (pa.ArrowException, OSError, DatasetError)
"""The exceptions of a damaged file."""
BUDGET = MAX_SAMPLE_BYTES
"""Bytes that a batch of rows may always take."""
MAX_RATIO = 20
"""Beyond the budget: how many times its bytes in the file a row group may take at once."""
MAX_ROWS = 1 << 20
"""More rows than this, and than bytes, no row group of photos has."""

_TAIL_BYTES = 1 << 16
_CODECS = ("none", "snappy", "gzip", "lzo", "brotli", "lz4", "zstd", "lz4_raw")
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_FIRST_READ, _MAX_HEADER = 1 << 12, 1 << 20
_WIDEST_READ = 64 << 20
_SLOT = 16


# ---- Thrift's compact protocol --------------------------------------------------------------------------------

BOOL, BYTE, I16, I32, I64, DOUBLE, BYTES = 1, 3, 4, 5, 6, 7, 8
_FALSE, _LIST, _SET, _STRUCT = 2, 9, 10, 12

Fields = dict[int, tuple[int, Any]]
"""The fields of a struct by their ids: the number of a type, and for its parts Fields or such a pair."""
Type = int | list[Any] | Fields
"""One of the numbers above, [the type of its values] of a list, the fields of a struct."""

_ANY = (0, None)
_MAX_DEPTH = 16
_BITS = {I16: 15, I32: 31, I64: 63}


def fields(*types: Type) -> Fields:
    """A struct's fields, numbered from 1."""
    return {number: _field(each) for number, each in enumerate(types, 1)}


def _field(of: Type) -> tuple[int, Any]:
    if isinstance(of, int):
        return of, None
    return (_LIST, _field(of[0])) if isinstance(of, list) else (_STRUCT, of)


def read_struct(data: bytes, at: int, known: Fields, depth: int = 0) -> tuple[dict[int, Any], int]:
    """The struct at `at`, field id -> value (integers, floats, bytes, lists, dicts), and where it ends.

    Fields that are not `known` are read by the type that they say. Raises DamagedTable, and IndexError where the bytes
    end.
    """
    found: dict[int, Any] = {}
    field = 0
    while head := data[at]:
        at += 1
        if head > 15:
            field += head >> 4
        else:
            field, at = _integer(data, at, I16)
        kind = head & 15
        expected, inner = known.get(field, _ANY)
        if field in found or not 0 < field < 1 << 15 or (kind != expected and expected and {kind, expected} != {1, 2}):
            raise DamagedTable("a field of its metadata comes twice or is of another type")
        if kind <= _FALSE:  # a boolean is its type
            found[field] = kind == BOOL
        else:
            found[field], at = _value(data, at, kind, inner, depth)
    return found, at + 1


def _value(data: bytes, at: int, kind: int, inner: Any, depth: int) -> tuple[Any, int]:
    if I16 <= kind <= I64:
        return _integer(data, at, kind)
    if kind == BYTES:
        length, at = _unsigned(data, at)
        end = at + length
        if end > len(data):
            raise IndexError
        return data[at:end], end
    if depth > _MAX_DEPTH:
        raise DamagedTable("its metadata is nested too deep")
    if kind == _STRUCT:
        return read_struct(data, at, inner or {}, depth + 1)
    if kind in (_LIST, _SET):
        head, at = data[at], at + 1
        count, kind = head >> 4, head & 15
        if count == 15:
            count, at = _unsigned(data, at)
        expected, inner = inner or _ANY
        if kind != expected and expected:
            raise DamagedTable("a list in its metadata is of another type")
        if kind in (BOOL, _FALSE):  # in a list each has a byte
            kind = BYTE
        values = []
        for _ in range(count):
            value, at = _value(data, at, kind, inner, depth + 1)
            values.append(value)
        return values, at
    if kind == BYTE:
        return data[at], at + 1
    if kind == DOUBLE:
        if at + 8 > len(data):
            raise IndexError
        return struct.unpack_from("<d", data, at)[0], at + 8
    raise DamagedTable("a field of its metadata has no type")


def _integer(data: bytes, at: int, kind: int) -> tuple[int, int]:
    value = data[at]
    if value < 128:
        return value >> 1 ^ -(value & 1), at + 1
    value, at = _unsigned(data, at)
    value = value >> 1 ^ -(value & 1)
    if value >> _BITS[kind] not in (0, -1):
        raise DamagedTable("a number in its metadata is too large")
    return value, at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := data[at]) > 127:
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if shift > 63:
            raise DamagedTable("a number in its metadata is too long")
    return value | byte << shift, at + 1


def _whole(values: dict[int, Any], field: int, default: int = -1) -> int:
    """A count or size; raises DamagedTable."""
    value = values.get(field, default)
    if value < 0:
        raise DamagedTable("its metadata lacks a number, or has a negative one")
    return int(value)


# ---- the footer -----------------------------------------------------------------------------------------------

_PAIR = fields(BYTES, BYTES)
_STATISTICS = fields(BYTES, BYTES, I64, I64, BYTES, BYTES, BOOL, BOOL)
_SIZES, _SHAPES = fields(I64, [I64], [I64]), fields(fields(*[DOUBLE] * 8), [I32])
_CHUNK = fields(
    *(I32, [I32], [BYTES], I32, I64, I64, I64, [_PAIR], I64, I64, I64),
    *(_STATISTICS, [fields(I32, I32, I32)], I64, I32, _SIZES, _SHAPES),
)
_KEY = fields({}, fields([BYTES], BYTES))
_COLUMN = fields(BYTES, I64, _CHUNK, I64, I32, I64, I32, _KEY, BYTES)
_GROUP = fields([_COLUMN], I64, I64, [fields(I32, BOOL, BOOL)], I64, I64, I16)
_LEAF = fields(I32, I32, I32, BYTES, I32, I32, I32, I32, I32, {})
_FILE = fields(I32, [_LEAF], I64, [_GROUP], [_PAIR], BYTES, [{}], {}, BYTES)


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
class Table:
    """An open Parquet file, the stream that it reads, and the fields of its footer by their ids, unknown ones too."""

    file: pq.ParquetFile
    stream: BinaryIO
    footer: dict[int, Any]

    @property
    def writer(self) -> str:
        return str(self.footer.get(6, b"").decode("utf-8", "backslashreplace"))

    @cached_property
    def groups(self) -> list[RowGroup]:
        """Raises DamagedTable."""
        return [RowGroup(_whole(group, 3), list(map(_chunk, group.get(1, [])))) for group in self.footer.get(4, [])]

    @property
    def footer_text(self) -> str:
        """The footer as JSON: who wrote it, names of columns, metadata, least and greatest values."""
        return json.dumps(self.footer, ensure_ascii=False, default=lambda value: value.decode("utf-8", "replace"))


def _chunk(column: dict[int, Any]) -> ColumnChunk:
    chunk = column.get(3, {})
    codec = _whole(chunk, 4)
    if codec >= len(_CODECS):
        raise DamagedTable("its footer names an unknown compression")
    start, nulls = chunk.get(11), chunk.get(12, {}).get(3)
    return ColumnChunk(_CODECS[codec], _whole(chunk, 5), _whole(chunk, 7), _whole(chunk, 9), start, nulls)


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
            footer = read_struct(tail[-8 - int.from_bytes(tail[-8:-4], "little") :], 0, _FILE)[0]
        except IndexError:
            raise DamagedTable("its footer is cut off") from None
        table, leaves = Table(file, stream, footer), metadata.num_columns
        if len(table.groups) != file.num_row_groups or any(len(group.chunks) != leaves for group in table.groups):
            raise DamagedTable("its footer has other columns than its schema")
        yield table


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


def leaves_of(file: pq.ParquetFile, names: Collection[str]) -> list[int]:
    """The numbers of the leaves of these columns."""
    paths = [file.schema.column(number).path for number in range(file.metadata.num_columns)]
    return [i for i, path in enumerate(paths) if any(path == name or path.startswith(f"{name}.") for name in names)]


# ---- what pages take ------------------------------------------------------------------------------------------

_PLAIN_PAGE = fields(I32, I32, I32, I32, _STATISTICS)
_PAGE_V2 = fields(*[I32] * 6, BOOL, _STATISTICS)
_HEADER = fields(*[I32] * 4, _PLAIN_PAGE, {}, fields(I32, I32, BOOL), _PAGE_V2)


def rows_at_once(
    table: Table, group: int, most: int, budget: int = BUDGET, names: Collection[str] | None = None
) -> int:
    """How many rows of a row group may be read together, `most` if all is well; `names`: of these columns alone.

    The position of the table's stream is changed. Raises DamagedTable if not even one row may be read, or
    where a page header is damaged.
    """
    leaves = range(table.file.metadata.num_columns) if names is None else leaves_of(table.file, names)
    columns = [_memory_of(table, group, leaf) for leaf in leaves]
    rows, stored = table.groups[group].rows, sum(table.groups[group].chunks[leaf].size for leaf in leaves)
    if rows > max(MAX_ROWS, stored):
        raise DamagedTable(f"a row group says that it has {rows:,} rows in {stored:,} bytes")
    while True:
        taken = sum(fixed + each * (values if nested else min(most, values)) for fixed, each, values, nested in columns)
        if taken <= max(budget, MAX_RATIO * stored):
            return most
        if most == 1:
            raise DamagedTable(f"a row group of {stored:,} bytes unpacks to {taken:,} bytes and more")
        most //= 2


def bounded_batches(
    table: Table, most: int, budget: int = BUDGET, names: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of up to `most` rows, of fewer where they would take too much; raises DatasetError where one does."""
    for group in range(table.file.num_row_groups):
        rows = rows_at_once(table, group, most, budget, names)
        yield from table.file.iter_batches(rows, row_groups=[group], columns=names, use_threads=False)


def _memory_of(table: Table, group: int, number: int) -> tuple[int, int, int, bool]:
    """What a leaf takes: bytes whatever the rows, and bytes a value; its values, and whether a row may have several."""
    chunk, leaf = table.groups[group].chunks[number], table.file.schema.column(number)
    dictionary = largest = values = widest = 0
    for header, start in _page_headers(table.stream, chunk):
        size = _whole(header, 2, 0)
        if header.get(1) == _DICTIONARY:
            dictionary = max(dictionary, size)
            widest = max(widest, _widest(table.stream, chunk, leaf.physical_type, header, start))
        elif header.get(1) in (_DATA, _DATA_V2):
            largest, values = max(largest, size), values + _count(header)
    # Arrow has a dictionary twice, and the pages in which the rows lie.
    return 2 * dictionary + largest, widest + _SLOT, values, leaf.max_repetition_level > 0


def _page_headers(stream: BinaryIO, chunk: ColumnChunk) -> Iterator[tuple[dict[int, Any], int]]:
    """Every page header of a column chunk, its fields by their ids, and where its page starts."""
    start = chunk.data_page
    if chunk.dictionary_page is not None and 0 < chunk.dictionary_page < start:
        start = chunk.dictionary_page
    end, seen = start + chunk.size, 0
    while start < end and seen < chunk.values:
        header, length = _page_header(stream, start)
        yield header, start + length
        if header.get(1) != _DICTIONARY:
            seen += _count(header)
        start += length + _whole(header, 3, 0)


def _page_header(stream: BinaryIO, start: int) -> tuple[dict[int, Any], int]:
    """The fields of the page header there by their ids, and its length."""
    for length in (_FIRST_READ, _MAX_HEADER):
        stream.seek(start)
        with suppress(IndexError):
            return read_struct(stream.read(length), 0, _HEADER)
    raise DamagedTable("the header of a page is damaged or too large")


def _count(header: dict[int, Any]) -> int:
    """Values of a page: a data page's, a dictionary's, or a data page's of version 2."""
    return _whole(next((header[field] for field in (5, 7, 8) if field in header), {}), 1, 0)


def _widest(stream: BinaryIO, chunk: ColumnChunk, kind: str, header: dict[int, Any], start: int) -> int:
    """Bytes of the longest value of a dictionary page: looked up where it pays, else no more than the page has."""
    size, count = _whole(header, 2, 0), max(_count(header), 1)
    if kind != "BYTE_ARRAY":
        return size // count
    if size > _WIDEST_READ or count == 1:
        return size
    stream.seek(start)
    page = stream.read(_whole(header, 3, 0))
    try:
        if chunk.codec != "none":
            page = pa.Codec(chunk.codec).decompress(page, size, asbytes=True)
    except (pa.ArrowException, OSError, ValueError):
        return size
    longest = place = 0
    for _ in range(min(count, len(page) // 4)):
        length = int.from_bytes(page[place : place + 4], "little")
        longest, place = max(longest, length), place + 4 + length
    return min(longest, size)
