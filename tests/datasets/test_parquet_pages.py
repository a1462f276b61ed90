"""What a Parquet file would take is known from its page headers, and a small file that asks for gigabytes gets none."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonlib.datasets import Sample, open_dataset, parquet_rows
from anonlib.datasets.parquet_footer import open_table
from anonlib.datasets.parquet_pages import _page_header, _page_headers, rows_at_once
from anonlib.errors import DamagedTable, DatasetError
from tests.support import bombs

RNG = np.random.default_rng(5)
TABLE = pa.table(
    {
        "key": [f"k{number:05d}" for number in range(3000)],
        "image": pa.array([RNG.bytes(200) for _ in range(3000)], pa.binary()),
        "caption": ["one of few"] * 3000,
        "numbers": pa.array([list(range(number % 5)) for number in range(3000)], pa.list_(pa.int64())),
        "boxes": pa.array([[{"x": 1.5, "name": "a"}]] * 3000),
        "age": pa.array([None, 7, 8] * 1000, pa.int32()),
    }
)
READ = """
from anonlib.datasets import open_dataset
dataset = open_dataset(sys.argv[1])
for shard in dataset.shards():
    for sample in dataset.read(shard): print(sample.key, '|', len(sample.image or b''), '|', sample.problem)
"""


def written(table: pa.Table, **options: Any) -> io.BytesIO:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream


def read(path: Path) -> list[Sample]:
    dataset = open_dataset(str(path))
    return [sample for shard in dataset.shards() for sample in dataset.read(shard)]


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "lz4", "brotli"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_the_headers_of_all_pages_are_found_and_say_what_the_footer_says(
    compression: str, version: str, dictionary: bool
) -> None:
    how = {"compression": compression, "data_page_version": version, "use_dictionary": dictionary}
    stream = written(TABLE, data_page_size=4096, **how)
    with open_table(stream) as table:
        for number, chunk in enumerate(table.footer.groups[0].chunks):
            pages = list(_page_headers(stream, chunk))
            assert all(start + header[3] < later for (header, start), (_, later) in pairwise(pages))
            # The footer counts the headers, too: they are what lies between the pages.
            ends = [start + header[3] for header, start in pages]
            assert ends[-1] == min(filter(None, (chunk.dictionary_page, chunk.data_page))) + chunk.size
            headers = chunk.size - sum(header[3] for header, _ in pages)
            unpacked = table.file.metadata.row_group(0).column(number).total_uncompressed_size
            assert sum(header[2] for header, _ in pages) + headers == unpacked
        assert rows_at_once(table, 0, 16) == 16


def test_rows_that_share_a_large_value_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    bomb = bombs.dictionary_parquet(tmp_path / "bomb.parquet", rows=64, mebibytes=32)
    assert bomb.stat().st_size < 8192
    with bomb.open("rb") as stream, open_table(stream) as table:
        assert rows_at_once(table, 0, 16) == 4
    said, peak = bombs.peak_of(READ, bomb)
    assert said.splitlines() == [f"{number:09d} | {32 << 20} | None" for number in range(64)]
    assert peak < 700


def test_a_value_that_no_batch_can_hold_is_a_problem_of_its_rows(tmp_path: Path) -> None:
    said, peak = bombs.peak_of(READ, bombs.dictionary_parquet(tmp_path / "bomb.parquet", rows=16, mebibytes=200))
    assert said.startswith("bomb#rows-0 | 0 | rows 0 to 15") and "unpacks to" in said
    assert peak < 200


def test_a_list_without_end_is_a_problem_of_its_rows(tmp_path: Path) -> None:
    numbers = pa.ListArray.from_arrays([0, 50_000_000], pa.nulls(50_000_000, pa.int8()))
    pq.write_table(pa.table({"image": pa.array([b"x"]), "numbers": numbers}), tmp_path / "a.parquet")
    (bad,) = read(tmp_path)
    assert bad.key == "a#rows-0" and "unpacks to" in str(bad.problem)


def test_millions_of_rows_in_no_bytes_are_one_problem(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.nulls(3_000_000, pa.binary())}), tmp_path / "a.parquet", 1 << 22)
    (bad,) = read(tmp_path)
    assert "3,000,000 rows in" in str(bad.problem)


def test_a_key_column_that_unpacks_to_gigabytes_is_a_problem_of_its_file(tmp_path: Path) -> None:
    same = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["k" * (1 << 20)]))
    table = pa.table({"image": pa.array([b"x"] * 2000), "id": same})
    pq.write_table(table, tmp_path / "a.parquet", store_schema=False)
    (bad,) = read(tmp_path)
    assert bad.key == "a#unreadable" and "the column 'id'" in str(bad.problem)


def test_a_row_that_is_larger_than_a_sample_may_be_is_a_problem_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_rows, "MAX_SAMPLE_BYTES", 1 << 20)
    rows = pa.array([b"x" * (2 << 20), b"y"], pa.binary())
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet")
    large, small = read(tmp_path)
    assert str(large.problem) == "the row is larger than 1 MiB" and large.image is None
    assert (small.image, small.problem) == (b"y", None)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_page_header_or_a_sentence(data: bytes) -> None:
    try:
        fields, length = _page_header(io.BytesIO(data), 0)
    except DamagedTable:
        return
    assert length <= len(data) and all(isinstance(field, int) for field in fields)


def test_a_damaged_page_header_costs_its_row_group(tmp_path: Path) -> None:
    stream = written(TABLE.select(["image"]), row_group_size=1000)
    data = bytearray(stream.getvalue())
    start = pq.ParquetFile(stream).metadata.row_group(1).column(0).data_page_offset
    data[start : start + 8] = b"\xff" * 8
    (tmp_path / "a.parquet").write_bytes(data)
    samples = read(tmp_path)
    assert [one.key for one in samples if one.problem] == ["a#rows-1000"]
    assert len(samples) == 2001 and issubclass(DamagedTable, DatasetError)


def test_a_dictionary_that_says_it_has_billions_of_values_is_not_looked_through_for_them(tmp_path: Path) -> None:
    stream = written(pa.table({"image": [b"x", b"yy"] * 8}), compression="none")
    with open_table(stream) as table:
        (header, start), *_ = _page_headers(stream, table.footer.groups[0].chunks[0])
        assert header[1] == 2 and header[7][1] == 2
        count = stream.getvalue().index(b"\x15\x04", start - 12)
        stream.seek(0)
        data = stream.read()
    # 2 values in one byte, zigzag, become 2**31 - 1 in five: what follows moves, which only this column's end sees.
    stream = io.BytesIO(data[:count] + b"\x15\xfe\xff\xff\xff\x0f" + data[count + 2 :])
    with open_table(stream) as table:
        assert _page_header(stream, 4)[0][7][1] == 2**31 - 1
        assert rows_at_once(table, 0, 16) == 16


def test_a_damaged_page_header_of_a_key_is_a_problem_of_its_file_and_not_of_the_data_set(tmp_path: Path) -> None:
    data = bytearray(written(TABLE.select(["key", "image"]), use_dictionary=False).getvalue())
    data[4:12] = b"\xff" * 8
    (tmp_path / "a.parquet").write_bytes(data)
    pq.write_table(TABLE, tmp_path / "b.parquet")
    bad, *good = read(tmp_path)
    assert bad.key == "a#unreadable" and "its metadata" in str(bad.problem)
    assert len(good) == len(TABLE) and not any(sample.problem for sample in good)
