"""The memory that a Parquet file would take, read from its page headers before any page is read.

A page says how large it unpacks to, and a dictionary's value stands once in the file however often it is used: six
kilobytes can ask for gigabytes. The footer says so too, but it is the page headers that Arrow obeys, so those are read
(parquet.thrift of apache/parquet-format), and rows are taken a few at a time, or refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.datasets.base import MAX_SAMPLE_BYTES
from anonlib.datasets.parquet_footer import STATISTICS, ColumnChunk, Table
from anonlib.datasets.thrift import BOOL, I32, fields, read_struct
from anonlib.errors import DamagedTable

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
_PLAIN_PAGE = fields(I32, I32, I32, I32, STATISTICS)
_PAGE_V2 = fields(*[I32] * 6, BOOL, STATISTICS)
_HEADER = fields(*[I32] * 4, _PLAIN_PAGE, {}, fields(I32, I32, BOOL), _PAGE_V2)


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
    table: Table, group: int, most: int, budget: int = BUDGET, names: Collection[str] | None = None
) -> int:
    """How many rows of a row group may be read together, `most` if all is well; `names`: of these columns alone.

    The position of the table's stream is changed. Raises DamagedTable if not even one row may be read, or
    where a page header is damaged.
    """
    leaves = range(table.file.metadata.num_columns) if names is None else leaves_of(table.file, names)
    columns = list(_columns(table, group, leaves))
    rows, stored = table.footer.groups[group].rows, sum(column.stored for column in columns)
    if rows > max(MAX_ROWS, stored):
        raise DamagedTable(f"a row group says that it has {rows:,} rows in {stored:,} bytes")
    while True:
        taken = 0
        for column in columns:
            values = column.values if column.nested else min(most, column.values)
            # Arrow has a dictionary twice, and the pages in which the rows lie.
            taken += 2 * column.dictionary + column.page + values * (column.widest + _SLOT)
        if taken <= max(budget, MAX_RATIO * stored):
            return most
        if most == 1:
            raise DamagedTable(f"a row group of {stored:,} bytes unpacks to {taken:,} bytes and more")
        most //= 2


def bounded_batches(table: Table, most: int, budget: int = BUDGET) -> Iterator[pa.RecordBatch]:
    """Batches of up to `most` rows, of fewer where they would take too much; raises DatasetError where one does."""
    for group in range(table.file.num_row_groups):
        rows = rows_at_once(table, group, most, budget)
        yield from table.file.iter_batches(rows, row_groups=[group], use_threads=False)


def check_column(table: Table, name: str) -> None:
    """Whether a whole column may be read at once.

    Raises DamagedTable, also where a page header is damaged.
    """
    numbers = leaves_of(table.file, [name])
    columns = [column for group in range(table.file.num_row_groups) for column in _columns(table, group, numbers)]
    stored = sum(column.stored for column in columns)
    taken = sum(column.dictionary + column.pages + column.values * (column.widest + _SLOT) for column in columns)
    if taken > max(BUDGET, MAX_RATIO * stored):
        raise DamagedTable(f"the column {name!r} of {stored:,} bytes unpacks to {taken:,} bytes and more")


def _columns(table: Table, group: int, numbers: Sequence[int]) -> Iterator[_Column]:
    stream = table.stream
    for number in numbers:
        chunk, leaf = table.footer.groups[group].chunks[number], table.file.schema.column(number)
        dictionary = largest = pages = values = widest = 0
        for header, start in _page_headers(stream, chunk):
            size = _whole(header, 2)
            if header.get(1) == _DICTIONARY:
                dictionary = max(dictionary, size)
                widest = max(widest, _widest(stream, chunk, leaf.physical_type, header, start))
            elif header.get(1) in (_DATA, _DATA_V2):
                largest, pages, values = max(largest, size), pages + size, values + _count(header)
        yield _Column(chunk.size, dictionary, largest, pages, values, widest, leaf.max_repetition_level > 0)


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
        start += length + _whole(header, 3)


def _page_header(stream: BinaryIO, start: int) -> tuple[dict[int, Any], int]:
    """The fields of the page header there by their ids, and its length."""
    for length in (_FIRST_READ, _MAX_HEADER):
        stream.seek(start)
        with suppress(IndexError):
            return read_struct(stream.read(length), 0, _HEADER)
    raise DamagedTable("the header of a page is damaged or too large")


def _whole(header: dict[int, Any], field: int) -> int:
    """A count or size, 0 if there is none; raises DamagedTable."""
    value = header.get(field, 0)
    if value < 0:
        raise DamagedTable("the header of a page has a negative number")
    return int(value)


def _count(header: dict[int, Any]) -> int:
    """Values of a page: a data page's, a dictionary's, or a data page's of version 2."""
    return _whole(next((header[field] for field in (5, 7, 8) if field in header), {}), 1)


def _widest(stream: BinaryIO, chunk: ColumnChunk, kind: str, header: dict[int, Any], start: int) -> int:
    """Bytes of the longest value of a dictionary page: looked up where it pays, else no more than the page has."""
    size, count = _whole(header, 2), max(_count(header), 1)
    if kind != "BYTE_ARRAY":
        return size // count
    if size > _WIDEST_READ or count == 1:
        return size
    stream.seek(start)
    page = stream.read(_whole(header, 3))
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
