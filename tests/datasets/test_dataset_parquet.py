"""Parquet datasets keep their shape, and lose what is not allowed."""

import io
import json
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonlib.datasets import Sample, open_dataset, parquet
from anonlib.datasets.folder import metadata_rows
from anonlib.datasets.parquet_columns import plain_type
from anonlib.datasets.parquet_footer import (
    BYTES,
    I16,
    I32,
    I64,
    _page_header,
    _page_headers,
    fields,
    open_table,
    read_struct,
    rows_at_once,
)
from anonlib.errors import DamagedTable, DatasetError, StorageError
from anonlib.storage import StorageOptions, open_storage
from tests.faults.proxy import FaultProxy
from tests.support import bombs
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
    s3: S3Server, hurried: None, tmp_path: Path
) -> None:
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


RNG = np.random.default_rng(5)
TABLE = pa.table(
    {
        "key": [f"k{number:05d}" for number in range(3000)],
        "image": pa.array([{"bytes": RNG.bytes(200), "path": None} for _ in range(3000)]),
        "caption": ["one of few"] * 3000,
        "tags": [["a", None], [], None] * 1000,
        "boxes": pa.array([[{"x": 1.5, "name": "a"}]] * 3000),
        "age": pa.array([None, 7, 8] * 1000, pa.int32()),
    }
)
CODECS = {"UNCOMPRESSED": "none", "LZ4": "lz4_raw"}


def written(table: pa.Table, **options: Any) -> io.BytesIO:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream


def read(path: Path) -> list[Sample]:
    dataset = open_dataset(str(path))
    return [sample for shard in dataset.shards() for sample in dataset.read(shard)]


@pytest.mark.parametrize("codec", ["NONE", "SNAPPY", "GZIP", "BROTLI", "LZ4", "ZSTD"])
@pytest.mark.parametrize(
    "options",
    [{"data_page_version": "2.0"}, {"use_dictionary": False, "write_statistics": False, "write_page_index": True}],
)
def test_footer_and_page_headers_say_what_arrow_reads_in_them(codec: str, options: dict[str, Any]) -> None:
    long_note = {"note": "n" * 100_000}  # so that the footer is longer than the first read of a file's end
    table = TABLE.replace_schema_metadata(long_note)
    stream = written(table, compression=codec, row_group_size=1250, data_page_size=4096, **options)
    with open_table(stream) as found:
        metadata = found.file.metadata
        assert found.file.read().equals(table)
        assert found.writer == metadata.created_by and "n" * 100_000 in found.footer_text
        assert [group.rows for group in found.groups] == [1250, 1250, 500]
        for number, group in enumerate(found.groups):
            assert rows_at_once(found, number, 16) == 16
            for leaf, chunk in enumerate(group.chunks):
                said = metadata.row_group(number).column(leaf)
                name = CODECS.get(said.compression, said.compression.lower())
                start = said.dictionary_page_offset if said.has_dictionary_page else None
                nulls = said.statistics.null_count if said.statistics else None
                sizes = (said.num_values, said.total_compressed_size, said.data_page_offset)
                assert chunk == (name, *sizes, start, nulls)
                pages = list(_page_headers(stream, chunk))
                assert all(at + header[3] < later for (header, at), (_, later) in pairwise(pages))
                # The footer counts the headers, too: they are what lies between the pages.
                at_last = pages[-1][1] + pages[-1][0][3]
                assert at_last == min(filter(None, (chunk.dictionary_page, chunk.data_page))) + chunk.size
                headers = chunk.size - sum(header[3] for header, _ in pages)
                assert sum(header[2] for header, _ in pages) + headers == said.total_uncompressed_size


KNOWN = fields(I32, [I32], I64, {}, BYTES, I16)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x15\x02\x05\x02\x02\0", id="a field twice"),
        pytest.param(b"\x16\x02\0", id="another whole number"),
        pytest.param(b"\x18\x01a\0", id="bytes for a number"),
        pytest.param(b"\x15\x80\x80\x80\x80\x10\0", id="33 bits"),
        pytest.param(b"\x36" + b"\xff" * 10 + b"\x01\0", id="more bits than 64"),
        pytest.param(b"\x29\x18\x01a\0", id="a list of bytes for one of numbers"),
        pytest.param(b"\x05\x01\x02\0", id="a field below 0"),
        pytest.param(b"\x6d\x02\0", id="a type that there is not"),
        pytest.param(b"\x4c" + b"\x1c" * 50, id="too deep"),
        pytest.param(b"\x99" + b"\x19" * 50, id="lists too deep"),
    ],
)
def test_what_arrow_could_read_otherwise_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedTable):
        read_struct(data, 0, KNOWN)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_struct_cut_off_or_damaged(data: bytes) -> None:
    try:
        found, end = read_struct(data, 0, KNOWN)
    except (DamagedTable, IndexError):
        return
    assert end <= len(data) and all(0 < field < 1 << 15 for field in found)


# ---- memory ---------------------------------------------------------------------------------------------------


def test_rows_that_share_a_large_value_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    bomb = bombs.dictionary_parquet(tmp_path / "bomb.parquet", rows=64, mebibytes=32)
    assert bomb.stat().st_size < 8192
    with bomb.open("rb") as stream, open_table(stream) as table:
        assert rows_at_once(table, 0, 16) == 4
    code = (
        "from anonlib.datasets import open_dataset; dataset = open_dataset(sys.argv[1])\n"
        "for sample in dataset.read(*dataset.shards()): print(sample.key, len(sample.image), sample.problem)"
    )
    said, peak = bombs.peak_of(code, bomb)
    assert said.splitlines() == [f"{number:09d} {32 << 20} None" for number in range(64)]
    assert peak < 700


def endless_list() -> pa.Table:
    numbers = pa.ListArray.from_arrays([0, 50_000_000], pa.nulls(50_000_000, pa.int8()))
    return pa.table({"image": pa.array([b"x"]), "numbers": numbers})


def same(count: int, value: Any) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value]))


@pytest.mark.parametrize(
    ("make", "key", "sentence"),
    [
        (lambda: pa.table({"image": same(16, b"x" * (200 << 20))}), "a#rows-0", "rows 0 to 15 .* unpacks to"),
        (endless_list, "a#rows-0", "unpacks to"),
        (lambda: pa.table({"image": pa.nulls(3_000_000, pa.binary())}), "a#rows-0", "3,000,000 rows in"),
    ],
    ids=["one value", "a list", "rows"],
)
def test_what_unpacks_to_gigabytes_is_a_problem(
    tmp_path: Path, make: Callable[[], pa.Table], key: str, sentence: str
) -> None:
    pq.write_table(make(), tmp_path / "a.parquet", 1 << 22, compression="zstd", store_schema=False)
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20
    (bad,) = read(tmp_path)
    assert bad.key == key and bad.image is None and re.search(sentence, str(bad.problem))


def test_a_row_that_is_larger_than_a_sample_may_be_is_a_problem_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MAX_SAMPLE_BYTES", 1 << 20)
    rows = pa.array([b"x" * (2 << 20), b"y"], pa.binary())
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet")
    large, small = read(tmp_path)
    assert str(large.problem) == "the row is larger than 1 MiB" and large.image is None
    assert (small.image, small.problem) == (b"y", None)


def test_a_dictionary_that_says_it_has_billions_of_values_is_not_looked_through_for_them() -> None:
    stream = written(pa.table({"image": [b"x", b"yy"] * 8}), compression="none")
    with open_table(stream) as table:
        (header, start), *_ = _page_headers(stream, table.groups[0].chunks[0])
        assert header[1] == 2 and header[7][1] == 2
        count = stream.getvalue().index(b"\x15\x04", start - 12)
        stream.seek(0)
        data = stream.read()
    # 2 values in one byte, zigzag, become 2**31 - 1 in five: what follows moves, which only this column's end sees.
    stream = io.BytesIO(data[:count] + b"\x15\xfe\xff\xff\xff\x0f" + data[count + 2 :])
    with open_table(stream) as table:
        assert _page_header(stream, 4)[0][7][1] == 2**31 - 1
        assert rows_at_once(table, 0, 16) == 16
