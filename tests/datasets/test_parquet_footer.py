"""What a Parquet file says of itself is read as Arrow reads it or not at all; one that asks for gigabytes gets none."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
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
from anonlib.errors import DamagedTable
from tests.support import bombs

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
    [
        {"data_page_version": "2.0"},
        {"use_dictionary": False, "write_statistics": False, "write_page_index": True},
    ],
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


def test_fields_of_a_later_format_are_read_by_their_own_type() -> None:
    data = b"\x15\x02\x81\x1c\x18\x01a\0\x19\x21\x01\x02\x17" + bytes(8) + b"\0rest"
    found, end = read_struct(data, 0, KNOWN)
    assert found == {1: 1, 9: True, 10: {1: b"a"}, 11: [1, 2], 12: 0.0} and data[end:] == b"rest"


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


def test_a_damaged_page_header_costs_its_row_group_and_one_of_a_key_its_file(tmp_path: Path) -> None:
    stream = written(TABLE.select(["key", "image"]), row_group_size=1000, use_dictionary=False)
    for column, key, good in ((1, "a#rows-1000", 2000), (0, "a#unreadable", 0)):
        data = bytearray(stream.getvalue())
        start = pq.ParquetFile(stream).metadata.row_group(1).column(column).data_page_offset
        data[start : start + 8] = b"\xff" * 8
        (tmp_path / "a.parquet").write_bytes(data)
        samples = read(tmp_path)
        assert [one.key for one in samples if one.problem] == [key] and len(samples) == good + 1


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
