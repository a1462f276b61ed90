"""Tables to bytes and back: the same rows give the same bytes, so that a rerun can be compared by hash."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Row = Mapping[str, Any]

_ROWS_A_GROUP = 256
_LARGE = 8 << 20
_ROWS_AT_ONCE = 50_000


def to_bytes(rows: Sequence[Row], schema: pa.Schema) -> bytes:
    return table_bytes(of_rows(rows, schema))


def of_rows(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """The rows as a table; what a row does not name is null."""
    starts = range(0, max(len(rows), 1), _ROWS_AT_ONCE)
    parts = ([dict(row) for row in rows[start : start + _ROWS_AT_ONCE]] for start in starts)
    return pa.concat_tables([pa.Table.from_pylist(part, schema=schema) for part in parts])


def table_bytes(table: pa.Table) -> bytes:
    """Parquet bytes of a table; small row groups, so that a crop can be read without its neighbours."""
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", row_group_size=_ROWS_A_GROUP)
    pa.default_memory_pool().release_unused()  # buffers that it would keep for the next table
    return sink.getvalue()


def from_bytes(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table in `data`, with only `columns` if given."""
    # A process that ends right after reading a small table can die of Arrow's threads, which it did not need.
    wanted, large = list(columns) if columns else None, len(data) > _LARGE
    return pq.read_table(io.BytesIO(data), columns=wanted, use_threads=large, pre_buffer=large)


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table, with lists of numbers as arrays: as Python's numbers they would take ten times the room."""
    columns = [_values(table.column(name).combine_chunks()) for name in table.column_names]
    return [dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(column: pa.Array) -> list[Any]:
    kind = column.type
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        rows = zip(*(_values(column.field(name)) for name in names), strict=True)
        known = column.is_valid().to_pylist()
        return [dict(zip(names, row, strict=True)) if one else None for row, one in zip(rows, known, strict=True)]
    if pa.types.is_nested(kind) and pa.types.is_floating(kind.value_type):
        lists = (one.values for one in column)
        return [None if one is None else one.to_numpy(zero_copy_only=False) for one in lists]
    return list(column.to_pylist())


def column(table: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(table.column(name).to_numpy(), np.float64)


def halves(table: pa.Table, name: str) -> NDArray[np.float16]:
    """A fixed-size list of float16 a row (n, d), as it lies in memory; (0, 1) of an empty table."""
    flat = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float16).reshape(table.num_rows, -1 if table.num_rows else 1)


def matrix(table: pa.Table, name: str) -> NDArray[np.float32]:
    """A fixed-size list a row (n, d); (0, 1) of an empty table."""
    flat = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(table.num_rows, -1 if table.num_rows else 1)
