"""The same rows are the same bytes."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonlib.workspace.schemas import IMAGES, MANIFEST, RESTRICTED
from anonlib.workspace.tables import from_bytes, to_bytes

ROWS = [{"key": f"k{number}", "position": number, "problem": None, "faces": 2} for number in range(600)]


def test_the_same_rows_are_the_same_bytes_and_come_back() -> None:
    data = to_bytes(ROWS, IMAGES)
    assert data == to_bytes([dict(row) for row in ROWS], IMAGES)
    table = from_bytes(data)
    assert table.schema.equals(IMAGES)
    assert table.column("key").to_pylist() == [row["key"] for row in ROWS]
    assert from_bytes(data, ["faces"]).column_names == ["faces"]


@pytest.mark.parametrize("schema", [*RESTRICTED.values(), MANIFEST], ids=[*RESTRICTED, "manifest"])
def test_an_empty_table_keeps_its_schema(schema: pa.Schema) -> None:
    table = from_bytes(to_bytes([], schema))
    assert table.num_rows == 0 and table.schema.equals(schema)


def test_row_groups_are_small_enough_to_read_one_crop_without_its_neighbours() -> None:
    file = pq.ParquetFile(pa.BufferReader(to_bytes(ROWS, IMAGES)))
    assert file.num_row_groups == 3


def test_a_value_that_does_not_fit_is_an_error() -> None:
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        to_bytes([{"key": "a", "position": "first"}], IMAGES)
