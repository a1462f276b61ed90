"""A marker is claimed once, and says what it vouches for; the same rows are the same bytes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonlib.storage import open_storage
from anonlib.workspace import schemas
from anonlib.workspace.layout import JobStores, json_bytes, plan_store, release_store, scan_store
from anonlib.workspace.schemas import IMAGES
from anonlib.workspace.tables import from_bytes, to_bytes

SCHEMAS = {name: schema for name, schema in vars(schemas).items() if isinstance(schema, pa.Schema)}
ROWS = [{"key": f"k{number}", "position": number, "problem": None, "faces": 2} for number in range(600)]


@pytest.fixture
def stores(tmp_path: Path) -> JobStores:
    return JobStores(open_storage(str(tmp_path / "workspace")), open_storage(str(tmp_path / "release")))


def test_a_marker_has_one_author_and_stores_do_not_see_each_other(stores: JobStores) -> None:
    store = scan_store(stores, "a" * 64)
    assert store.committed("00000") is None and store.done() == set()
    assert store.commit("00000", {"images": 1})
    assert not store.commit("00000", {"images": 2})
    assert store.committed("00000") == {"images": 1}
    for other in (plan_store(stores, "a" * 64), release_store(stores), scan_store(stores, "b" * 64)):
        assert other.done() == set()


def test_markers_come_in_the_order_asked_for_and_the_missing_are_left_out(stores: JobStores) -> None:
    store, units = release_store(stores), ("b", "train/a", "surrogates/block-00000")
    for unit in units:
        store.commit(unit, {"unit": unit})
    store.storage.publish("commits/notes.txt", b"")
    assert store.done() == set(units)
    assert [marker["unit"] for marker in store.markers(["train/a", "nobody", "b"])] == ["train/a", "b"]


def test_the_same_rows_are_the_same_bytes_and_come_back() -> None:
    data = to_bytes(ROWS, IMAGES)
    assert data == to_bytes([dict(row) for row in ROWS], IMAGES)
    table = from_bytes(data)
    assert table.schema.equals(IMAGES)
    assert table.column("key").to_pylist() == [row["key"] for row in ROWS]
    assert from_bytes(data, ["faces"]).column_names == ["faces"]
    assert pq.ParquetFile(pa.BufferReader(data)).num_row_groups == 3, "a crop can be read without its neighbours"
    assert json_bytes({"b": 1, "a": "é"}) == json_bytes({"a": "é", "b": 1}) == '{"a": "é", "b": 1}\n'.encode()
