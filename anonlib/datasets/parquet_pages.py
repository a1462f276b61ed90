"""What a Parquet file would take in memory, read from its page headers before any page is.

A page says how large it unpacks to, and a dictionary's value stands once in the file however often it is used: six
kilobytes can ask for gigabytes. The footer says so too, but it is the page headers that Arrow obeys, so those are read
(parquet.thrift of apache/parquet-format, in Thrift's compact protocol), and rows are taken a few at a time, or refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

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
_MAX_HEADER = 1 << 20
_FIRST_READ = 1 << 12
_WIDEST_READ = 64 << 20
_SLOT = 16
_BYTE_ARRAY = "BYTE_ARRAY"


@dataclass(frozen=True)
class _Column:
    """One column chunk: bytes in the file, of its dictionary, of its largest page and of all pages unpacked.

    `values`: how many; `widest`: bytes of a value of the dictionary at most, 0 without one; `nested`: whether a row
    may have any number of values.
    """

    stored: int
    dictionary: int
    page: int
    pages: int
    values: int
    widest: int
    nested: bool

    def taken(self, rows: int) -> int:
        """Bytes that so many rows take at most, with the pages in which they lie; Arrow has a dictionary twice."""
        values = self.values if self.nested else min(rows, self.values)
        return 2 * self.dictionary + self.page + values * (self.widest + _SLOT)


def rows_at_once(file: pq.ParquetFile, stream: BinaryIO, group: int, most: int, budget: int = BUDGET) -> int:
    """How many rows of a row group may be read together, `most` if all is well.

    `stream` is what `file` reads; its position is changed. Raises DecompressionBomb if not even one may be read, and
    DatasetError where a page header is damaged.
    """
    columns = list(_columns(file, stream, group, range(file.metadata.num_columns)))
    rows, stored = file.metadata.row_group(group).num_rows, sum(column.stored for column in columns)
    if rows > max(MAX_ROWS, stored):
        raise DecompressionBomb(f"a row group says that it has {rows:,} rows in {stored:,} bytes")
    allowed = max(budget, MAX_RATIO * stored)
    wanted = most
    while (taken := sum(column.taken(wanted) for column in columns)) > allowed:
        if wanted == 1:
            raise DecompressionBomb(f"a row group of {stored:,} bytes unpacks to {taken:,} bytes and more")
        wanted //= 2
    return wanted


def check_column(file: pq.ParquetFile, stream: BinaryIO, name: str) -> None:
    """Whether a whole column may be read at once.

    Raises DecompressionBomb, and DatasetError where a page header is damaged.
    """
    numbers = [i for i in range(file.metadata.num_columns) if file.schema.column(i).path.split(".")[0] == name]
    stored = taken = 0
    for group in range(file.num_row_groups):
        for column in _columns(file, stream, group, numbers):
            stored += column.stored
            taken += column.dictionary + column.pages + column.values * (column.widest + _SLOT)
    if taken > max(BUDGET, MAX_RATIO * stored):
        raise DecompressionBomb(f"the column {name!r} of {stored:,} bytes unpacks to {taken:,} bytes and more")


def _columns(file: pq.ParquetFile, stream: BinaryIO, group: int, numbers: Sequence[int]) -> Iterator[_Column]:
    for number in numbers:
        chunk = file.metadata.row_group(group).column(number)
        nested = file.schema.column(number).max_repetition_level > 0
        dictionary = largest = pages = values = widest = 0
        for header, start in _page_headers(stream, chunk):
            size, count = _whole(header, 2), _count(header)
            if header.get(1) == _DICTIONARY:
                dictionary = max(dictionary, size)
                widest = max(widest, _widest(stream, chunk, header, start))
            elif header.get(1) in (_DATA, _DATA_V2):
                largest, pages, values = max(largest, size), pages + size, values + count
        yield _Column(chunk.total_compressed_size, dictionary, largest, pages, values, widest, nested)


def _page_headers(stream: BinaryIO, chunk: pq.ColumnChunkMetaData) -> Iterator[tuple[dict[int, Any], int]]:
    """Every page header of a column chunk, and where its page starts."""
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    if start < 0:
        raise DatasetError("the footer of the Parquet file is damaged")
    end, seen = start + chunk.total_compressed_size, 0
    while start < end and seen < chunk.num_values:
        header, length = _page_header(stream, start)
        stored = _whole(header, 3)
        yield header, start + length
        if header.get(1) != _DICTIONARY:
            seen += _count(header)
        start += length + stored


def _page_header(stream: BinaryIO, start: int) -> tuple[dict[int, Any], int]:
    """The fields of the page header there by their ids, and its length."""
    wanted = _FIRST_READ
    while True:
        stream.seek(start)
        data = stream.read(wanted)
        try:
            return _Compact(data).fields()
        except IndexError:
            if wanted >= _MAX_HEADER or len(data) < wanted:
                raise DatasetError("a page header of the Parquet file is damaged or too large") from None
            wanted = _MAX_HEADER


def _whole(header: dict[int, Any], field: int) -> int:
    """A count or size, 0 if there is none; raises DatasetError."""
    value = header.get(field, 0)
    if not isinstance(value, int) or value < 0:
        raise DatasetError("a page header of the Parquet file is damaged")
    return value


def _count(header: dict[int, Any]) -> int:
    """Values of a page: a data page's, a dictionary's, or a data page's of version 2."""
    inner: Any = next((header[field] for field in (5, 7, 8) if field in header), {})
    if not isinstance(inner, dict):
        raise DatasetError("a page header of the Parquet file is damaged")
    return _whole(inner, 1)


def _widest(stream: BinaryIO, chunk: pq.ColumnChunkMetaData, header: dict[int, Any], start: int) -> int:
    """Bytes of the longest value of a dictionary page: looked up where it pays, else no more than the page has."""
    size, stored, count = _whole(header, 2), _whole(header, 3), max(_count(header), 1)
    if chunk.physical_type != _BYTE_ARRAY:
        return size // count
    if size > _WIDEST_READ or count == 1:
        return size
    stream.seek(start)
    page = stream.read(stored)
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


class _Compact:
    """Structs in Thrift's compact protocol (thrift-compact-protocol.md); IndexError where the bytes end."""

    _MAX_DEPTH = 8

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def fields(self, depth: int = 0) -> tuple[dict[int, Any], int]:
        """Integers and structs by field id, what else there is left out; and where the struct ends."""
        found: dict[int, Any] = {}
        field = 0
        while (head := self._byte()) != 0:
            kind, step = head & 15, head >> 4
            field = field + step if step else self._signed()
            value = self._value(kind, depth)
            if value is not None:
                found[field] = value
        return found, self._at

    def _value(self, kind: int, depth: int) -> Any:
        if depth > self._MAX_DEPTH:
            raise DatasetError("a page header of the Parquet file is nested too deep")
        if kind in (1, 2):  # a boolean is its type
            return None
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 7:
            return self._skip(8)
        if kind == 8:
            return self._skip(self._unsigned())
        if kind in (9, 10):
            return self._list(depth)
        if kind == 12:
            return self.fields(depth + 1)[0]
        raise DatasetError("a page header of the Parquet file is damaged")

    def _list(self, depth: int) -> None:
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._unsigned()
        for _ in range(size):
            if head & 15 in (1, 2):
                self._skip(1)
            else:
                self._value(head & 15, depth + 1)

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise IndexError

    def _unsigned(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise DatasetError("a page header of the Parquet file is damaged")
        return value | byte << shift

    def _signed(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)
