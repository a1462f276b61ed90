"""Parquet datasets keep their shape, and lose what is not allowed."""

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonlib.datasets import open_dataset
from anonlib.datasets.folder import metadata_rows
from anonlib.datasets.parquet_columns import plain_type
from anonlib.errors import DatasetError, StorageError
from anonlib.storage import StorageOptions, open_storage
from tests.faults.proxy import FaultProxy
from tests.support.s3server import REGION, S3Server


def hugging_face(rows: int) -> pa.Table:
    table = pa.table(
        {
            "image": pa.array(
                [{"bytes": b"img%d" % i, "path": f"Ada_{i}.jpg"} for i in range(rows)],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "key": pa.array([f"k{i}" for i in range(rows)]),
            "caption": pa.array([f"caption {i}" for i in range(rows)], pa.large_string()),
            "person": pa.array([{"name": f"Ada {i}"} for i in range(rows)]),
            "taken": pa.array([datetime(2026, 1, 1, 0, 0, i % 60) for i in range(rows)], pa.timestamp("ns")),
            "kind": pa.array(["a", "b"] * (rows // 2)).dictionary_encode(),
            "scores": pa.array([[0.5, float(i)] for i in range(rows)], pa.list_(pa.float32())),
        }
    )
    note = {"info": {"features": {"image": {"_type": "Image"}}}}
    return table.replace_schema_metadata({"huggingface": json.dumps(note)})


def write_input(path: Path, table: pa.Table, **options: Any) -> Path:
    pq.write_table(table, path, **({"row_group_size": 4} | options))
    return path


def copy(
    source: Path, target: Path, keep: Iterable[str] = (), leave_out: Iterable[int] = (), **keys: str
) -> pq.ParquetFile:
    dataset = open_dataset(str(source))
    (shard,) = dataset.shards()
    with dataset.writer(shard, target, frozenset(keep)) as writer:
        for sample in dataset.read(shard):
            image = None if sample.position in set(leave_out) else b"new-" + (sample.image or b"")
            writer.write(sample, image, keys.get(sample.key))
    assert writer.outputs() == [(f"data/{source.name}", target)]
    return pq.ParquetFile(target)


def test_the_output_keeps_order_types_row_groups_and_compression_of_what_is_allowed(tmp_path: Path) -> None:
    source = write_input(tmp_path / "a.parquet", hugging_face(10), compression={"image.bytes": "NONE", "key": "ZSTD"})
    keep = ("caption", "taken", "kind", "scores")
    out = copy(source, tmp_path / "out.parquet", keep, leave_out=[1, 4, 5, 6, 7])
    before, after = pq.read_table(source), out.read()
    assert after.column_names == ["image", "key", *keep]
    assert [out.metadata.row_group(i).num_rows for i in range(out.num_row_groups)] == [3, 2]
    rows = [0, 2, 3, 8, 9]
    for name in ("key", *keep):
        assert after.column(name).type == before.column(name).type
        assert after.column(name).to_pylist() == before.column(name).take(rows).to_pylist()
    assert after.column("image").to_pylist() == [{"bytes": b"new-img%d" % i, "path": None} for i in rows]
    columns = [out.metadata.row_group(0).column(i) for i in range(3)]
    codecs = {column.path_in_schema: column.compression for column in columns}
    assert codecs["image.bytes"] == "UNCOMPRESSED" and codecs["key"] == "ZSTD"


def test_a_row_group_that_outgrows_the_memory_is_closed_early_without_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anonlib.datasets.parquet_columns.FLUSH_BYTES", 20)
    out = copy(write_input(tmp_path / "a.parquet", hugging_face(10)), tmp_path / "out.parquet")
    assert [out.metadata.row_group(i).num_rows for i in range(out.num_row_groups)] == [2, 2, 2, 2, 2]
    assert out.read(["key"]).to_pydict() == {"key": [f"k{i}" for i in range(10)]}


def strange_table() -> pa.Table:
    """Words of strangers wherever Arrow and Hugging Face have room for them beside the values."""
    named = {b"comment": b"Quill"}
    table = pa.table(
        {
            "image": pa.array(
                [{"bytes": b"1", "path": "Quill.jpg", "Quill": "x"}],
                pa.struct([("bytes", pa.binary()), ("path", pa.string()), ("Quill", pa.string())]),
            ),
            "key": ["k0"],
            "kind": pa.DictionaryArray.from_arrays(pa.array([1], pa.int8()), pa.array(["Quill", "cat"])),
            "berlin": pa.array([0], pa.timestamp("us", "Europe/Berlin")),
            "deep": pa.array([[{"n": 1}]], pa.list_(pa.struct([pa.field("n", pa.int8(), metadata=named)]))),
            "tensor": pa.ExtensionArray.from_storage(
                pa.fixed_shape_tensor(pa.int8(), [2], dim_names=["Quill"]), pa.array([[1, 2]], pa.list_(pa.int8(), 2))
            ),
            "class": [0],
        }
    )  # fmt: skip
    fields = [field.with_metadata(named) for field in table.schema]
    features = {"image": {"_type": "Image", "id": "Quill"}, "class": {"_type": "ClassLabel", "names": ["Quill"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "pandas": '{"column_indexes": "Quill"}'}
    return table.cast(pa.schema(fields, metadata=metadata))


def test_no_word_that_stands_beside_the_values_passes(tmp_path: Path) -> None:
    source = write_input(tmp_path / "a.parquet", strange_table())
    kept = ("kind", "berlin", "deep", "class")
    out = copy(source, tmp_path / "out.parquet", kept)
    assert set(out.schema_arrow.metadata) == {b"huggingface"}
    note = json.loads(out.schema_arrow.metadata[b"huggingface"])
    assert note == {"info": {"features": {"image": {"_type": "Image"}}}}
    assert b"Quill" in source.read_bytes()
    content, schema = (tmp_path / "out.parquet").read_bytes(), out.schema_arrow
    assert b"Quill" not in content and "Quill" not in str(out.metadata.to_dict()) + schema.to_string()
    assert out.read().drop(["image"]).to_pylist()[0]["kind"] == "cat" and schema.names == ["image", "key", *kept]
    assert schema.field("berlin").type.tz == "Europe/Berlin"
    assert plain_type(pq.read_schema(source).field("tensor").type) == pa.list_(pa.int8(), 2)
    assert plain_type(pa.timestamp("us", "Quill/Home")) == pa.timestamp("us", "UTC")


def test_a_new_key_replaces_the_key_column_and_copies_of_it(tmp_path: Path) -> None:
    table = hugging_face(2).append_column("file_name", pa.array(["k0", "other"]))
    out = copy(write_input(tmp_path / "a.parquet", table), tmp_path / "out", ["file_name"], k0="new-0", k1="new-1")
    assert out.read(["key", "file_name"]).to_pydict() == {"key": ["new-0", "new-1"], "file_name": ["new-0", "other"]}


def test_without_unique_text_keys_the_row_number_is_the_key(tmp_path: Path) -> None:
    table = pa.table({"jpg": [b"1", b"2", b"3"], "id": ["x", "x", "y"], "key": [1, 2, 3]})
    dataset = open_dataset(str(write_input(tmp_path / "a.parquet", table)))
    assert [sample.key for sample in dataset.read(dataset.shards()[0])] == ["000000000", "000000001", "000000002"]
    named = open_dataset(str(tmp_path / "a.parquet"), key_field="id")
    first, second, third = named.read(named.shards()[0])
    assert (first.key, second.key, third.key) == ("x", "x#2", "y")
    assert first.problem is None and second.problem is not None and second.image is None
    numbers = open_dataset(str(tmp_path / "a.parquet"), key_field="key")
    (shard,) = numbers.shards()
    sample = next(iter(numbers.read(shard)))
    assert sample.key == "1"
    with pytest.raises(DatasetError, match="key_field"), numbers.writer(shard, tmp_path / "o", frozenset()) as writer:
        writer.write(sample, b"new", "new-key")
    assert not (tmp_path / "o").exists()


def test_rows_without_bytes_or_key_are_problems(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([None, {"bytes": None, "path": "x.jpg"}, {"bytes": b"1", "path": None}, {"bytes": b"2"}], kind)
    table = pa.table({"image": images, "name": ["a", "b", None, "d\n"]})
    dataset = open_dataset(str(write_input(tmp_path / "a.parquet", table)), key_field="name")
    samples = list(dataset.read(dataset.shards()[0]))
    assert [sample.problem is not None and sample.image is None for sample in samples] == [True] * 4
    assert "only a path" in str(samples[1].problem) and "key" in str(samples[2].problem)
    assert all(sample.key.isprintable() for sample in samples)


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        ({"a": [b"1"], "b": [b"2"]}, {}, "a, b"),
        ({"a": ["text"]}, {}, "no column is binary"),
        ({"a": [b"1"]}, {"image_field": "z"}, "no column 'z'"),
        ({"a": [b"1"], "b": ["x"]}, {"image_field": "b"}, "not the bytes"),
    ],
)
def test_columns_that_do_not_fit_are_refused_in_a_sentence(
    tmp_path: Path, columns: dict[str, list[Any]], options: dict[str, str], words: str
) -> None:
    write_input(tmp_path / "a.parquet", pa.table(columns))
    with pytest.raises(DatasetError, match=words):
        open_dataset(str(tmp_path), **options).shards()  # type: ignore[arg-type]


def test_an_unreadable_file_is_one_problem_and_a_damaged_page_costs_its_row_group(tmp_path: Path) -> None:
    path = write_input(tmp_path / "a.parquet", hugging_face(12), compression="zstd", use_dictionary=False)
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    for offset in range(chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size):
        data[offset] ^= 0x5A
    path.write_bytes(data)
    dataset = open_dataset(str(path))
    samples = list(dataset.read(dataset.shards()[0]))
    assert [sample.key for sample in samples] == [f"k{i}" for i in (0, 1, 2, 3)] + ["a#rows-4"] + [
        f"k{i}" for i in (8, 9, 10, 11)
    ]
    assert "rows 4 to 7" in str(samples[4].problem)
    path.write_bytes(data[:-20])
    dataset = open_dataset(str(path))
    (shard,) = dataset.shards()
    (only,) = dataset.read(shard)
    assert only.key == "a#unreadable" and only.problem
    with dataset.writer(shard, tmp_path / "out", frozenset()) as writer:
        writer.write(only, None)
    assert writer.outputs() == []


def test_names_of_columns_that_are_no_text_are_a_problem_of_the_file(tmp_path: Path) -> None:
    path = write_input(tmp_path / "a.parquet", pa.table({"picture": [b"1"], "wxyz": ["x"]}), store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"wxyz", b"w\xff\xfez"))
    dataset = open_dataset(str(path))
    (only,) = dataset.read(dataset.shards()[0])
    assert only.key == "a#unreadable" and "not UTF-8" in str(only.problem)


def test_a_value_that_python_cannot_hold_costs_only_its_row(tmp_path: Path) -> None:
    taken = pa.array([0, 2**50, 1], pa.timestamp("ms"))
    dataset = open_dataset(str(write_input(tmp_path / "a.parquet", pa.table({"jpg": [b"1"] * 3, "taken": taken}))))
    samples = list(dataset.read(dataset.shards()[0]))
    assert [sample.problem is None for sample in samples] == [True, False, True]
    assert samples[1].key == "000000001#unreadable"
    born = pa.array([0, -1_000_000], pa.int32()).view(pa.date32())
    write_input(tmp_path / "a.parquet", pa.table({"jpg": [b"1"] * 2, "born": born}))
    assert list(dataset.items(dataset.storage, "a.parquet"))[-1].odd
    named = pa.table({"file_name": ["a.jpg", "b.jpg"], "born": born})
    content = write_input(tmp_path / "metadata.parquet", named).read_bytes()
    assert metadata_rows(content, "metadata.parquet") == [{"file_name": "a.jpg", "born": "1970-01-01"}]
    assert metadata_rows(content[:-9], "metadata.parquet") == []


def test_a_storage_that_fails_in_the_middle_is_an_error_and_no_problem_of_a_sample(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("anonlib.storage.objects.FIRST_PAUSE_S", 0.001)
    table = pa.table({"image": [bytes([i]) * 300_000 for i in range(20)]})
    path = write_input(tmp_path / "a.parquet", table, row_group_size=5, compression="none", use_dictionary=False)
    bucket = s3.bucket()
    with s3.acting_as(), FaultProxy(s3.endpoint) as proxy:
        open_storage(f"s3://{bucket}", s3.options).publish("a.parquet", path)
        dataset = open_dataset(f"s3://{bucket}/a.parquet", options=StorageOptions(proxy.endpoint, REGION))
        (shard,) = dataset.shards()
        samples = dataset.read(shard)
        assert next(samples).problem is None
        proxy.inject("reset-before", "GET *", times=-1)
        with pytest.raises(StorageError):
            list(samples)
