"""What a Parquet file would take in memory, read from its page headers before any page is.

A page says how large it unpacks to, and a dictionary's value stands once in the file however often it is used: six
kilobytes can ask for gigabytes. The footer says so too, but it is the page headers that Arrow obeys, so those are read
(parquet.thrift of apache/parquet-format, in Thrift's compact protocol), and rows are taken a few at a time, or refused.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.datasets.base import MAX_SAMPLE_BYTES
from anonlib.errors import DatasetError, DecompressionBomb

BUDGET = MAX_SAMPLE_BYTES
"""Bytes that a batch of rows may always take."""
MAX_RATIO = 20
"""Beyond the budget: how many times its bytes in the file a row group may take at once."""
MAX_ROWS = 1 << 20
"""More rows than this, and than bytes, no row group of photos has."""

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_FIRST_READ, _MAX_HEADER = 1 << 12, 1 << 20
_WIDEST_READ = 64 << 20
_SLOT = 16
_MAX_DEPTH = 8
_DAMAGED = "a page header of the Parquet file is damaged"


class _Column(NamedTuple):
    """One column chunk: bytes in the file, of its dictionary, of its largest page and of all pages unpacked.

    `widest`: bytes of a value of the dictionary at most, 0 without one. `nested`: a row may have any number of values.
    """

    stored: int
    dictionary: int
    page: int
    pages: int
    values: int
    widest: int
    nested: bool


def leaves_of(file: pq.ParquetFile, names: Collection[str]) -> list[int]:
    """The numbers of the leaves of these columns."""
    paths = [file.schema.column(number).path for number in range(file.metadata.num_columns)]
    return [i for i, path in enumerate(paths) if any(path == name or path.startswith(f"{name}.") for name in names)]


def rows_at_once(
    file: pq.ParquetFile,
    stream: BinaryIO,
    group: int,
    most: int,
    budget: int = BUDGET,
    names: Collection[str] | None = None,
) -> int:
    """How many rows of a row group may be read together, `most` if all is well; `names`: of these columns alone.

    `stream` is what `file` reads; its position is changed. Raises DecompressionBomb if not even one may be read, and
    DatasetError where a page header is damaged.
    """
    leaves = range(file.metadata.num_columns) if names is None else leaves_of(file, names)
    columns = list(_columns(file, stream, group, leaves))
    rows, stored = file.metadata.row_group(group).num_rows, sum(column.stored for column in columns)
    if rows > max(MAX_ROWS, stored):
        raise DecompressionBomb(f"a row group says that it has {rows:,} rows in {stored:,} bytes")
    while True:
        taken = 0
        for column in columns:
            values = column.values if column.nested else min(most, column.values)
            # Arrow has a dictionary twice, and the pages in which the rows lie.
            taken += 2 * column.dictionary + column.page + values * (column.widest + _SLOT)
        if taken <= max(budget, MAX_RATIO * stored):
            return most
        if most == 1:
            raise DecompressionBomb(f"a row group of {stored:,} bytes unpacks to {taken:,} bytes and more")
        most //= 2


def check_column(file: pq.ParquetFile, stream: BinaryIO, name: str) -> None:
    """Whether a whole column may be read at once.

    Raises DecompressionBomb, and DatasetError where a page header is damaged.
    """
    numbers = leaves_of(file, [name])
    columns = [column for group in range(file.num_row_groups) for column in _columns(file, stream, group, numbers)]
    stored = sum(column.stored for column in columns)
    taken = sum(column.dictionary + column.pages + column.values * (column.widest + _SLOT) for column in columns)
    if taken > max(BUDGET, MAX_RATIO * stored):
        raise DecompressionBomb(f"the column {name!r} of {stored:,} bytes unpacks to {taken:,} bytes and more")


def _columns(file: pq.ParquetFile, stream: BinaryIO, group: int, numbers: Sequence[int]) -> Iterator[_Column]:
    for number in numbers:
        chunk = file.metadata.row_group(group).column(number)
        nested = file.schema.column(number).max_repetition_level > 0
        dictionary = largest = pages = values = widest = 0
        for header, start in _page_headers(stream, chunk):
            size = _whole(header, 2)
            if header.get(1) == _DICTIONARY:
                dictionary = max(dictionary, size)
                widest = max(widest, _widest(stream, chunk, header, start))
            elif header.get(1) in (_DATA, _DATA_V2):
                largest, pages, values = max(largest, size), pages + size, values + _count(header)
        yield _Column(chunk.total_compressed_size, dictionary, largest, pages, values, widest, nested)


def _page_headers(stream: BinaryIO, chunk: pq.ColumnChunkMetaData) -> Iterator[tuple[dict[int, Any], int]]:
    """Every page header of a column chunk, its fields by their ids, and where its page starts."""
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    if start < 0:
        raise DatasetError("the footer of the Parquet file is damaged")
    end, seen = start + chunk.total_compressed_size, 0
    while start < end and seen < chunk.num_values:
        header, length = _page_header(stream, start)
        yield header, start + length
        if header.get(1) != _DICTIONARY:
            seen += _count(header)
        start += length + _whole(header, 3)


def _page_header(stream: BinaryIO, start: int) -> tuple[dict[int, Any], int]:
    """The fields of the page header there by their ids, and its length."""
    for length in (_FIRST_READ, _MAX_HEADER):
        stream.seek(start)
        data = io.BytesIO(stream.read(length))
        with suppress(IndexError):
            return _struct(data, 0), data.tell()
    raise DatasetError(f"{_DAMAGED} or too large")


def _whole(header: dict[int, Any], field: int) -> int:
    """A count or size, 0 if there is none; raises DatasetError."""
    value = header.get(field, 0)
    if not isinstance(value, int) or value < 0:
        raise DatasetError(_DAMAGED)
    return value


def _count(header: dict[int, Any]) -> int:
    """Values of a page: a data page's, a dictionary's, or a data page's of version 2."""
    inner: Any = next((header[field] for field in (5, 7, 8) if field in header), {})
    if not isinstance(inner, dict):
        raise DatasetError(_DAMAGED)
    return _whole(inner, 1)


def _widest(stream: BinaryIO, chunk: pq.ColumnChunkMetaData, header: dict[int, Any], start: int) -> int:
    """Bytes of the longest value of a dictionary page: looked up where it pays, else no more than the page has."""
    size, count = _whole(header, 2), max(_count(header), 1)
    if chunk.physical_type != "BYTE_ARRAY":
        return size // count
    if size > _WIDEST_READ or count == 1:
        return size
    stream.seek(start)
    page = stream.read(_whole(header, 3))
    try:
        if chunk.compression != "UNCOMPRESSED":
            page = pa.Codec(chunk.compression.lower()).decompress(page, size, asbytes=True)
    except (pa.ArrowException, OSError, ValueError):
        return size
    longest = place = 0
    for _ in range(count):
        length = int.from_bytes(page[place : place + 4], "little")
        longest, place = max(longest, length), place + 4 + length
    return min(longest, size)


def _struct(data: io.BytesIO, depth: int) -> dict[int, Any]:
    """Integers and structs of a struct in Thrift's compact protocol (thrift-compact-protocol.md) by field id.

    What else there is is left out. Raises IndexError where the bytes end, and DatasetError.
    """
    fields: dict[int, Any] = {}
    field = 0
    while head := data.read(1)[0]:
        field = field + (head >> 4) if head >> 4 else _signed(data)
        value = _value(data, head & 15, depth)
        if value is not None:
            fields[field] = value
    return fields


def _value(data: io.BytesIO, kind: int, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise DatasetError("a page header of the Parquet file is nested too deep")
    if kind == 3:
        return data.read(1)[0]
    if kind in (4, 5, 6):
        return _signed(data)
    if kind == 12:
        return _struct(data, depth + 1)
    if kind in (7, 8):  # a double, bytes
        length = 8 if kind == 7 else _unsigned(data)
        if len(data.read(min(length, _MAX_HEADER))) < length:
            raise IndexError
    elif kind in (9, 10):  # a list, a set
        head = data.read(1)[0]
        for _ in range(head >> 4 if head >> 4 < 15 else _unsigned(data)):
            # A boolean is its type, but for a list's, which has a byte.
            _value(data, 3 if head & 15 in (1, 2) else head & 15, depth + 1)
    elif kind not in (1, 2):
        raise DatasetError(_DAMAGED)
    return None


def _unsigned(data: io.BytesIO) -> int:
    value = shift = 0
    while (byte := data.read(1)[0]) & 0x80:
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 63:
            raise DatasetError(_DAMAGED)
    return value | byte << shift


def _signed(data: io.BytesIO) -> int:
    value = _unsigned(data)
    return value >> 1 ^ -(value & 1)
