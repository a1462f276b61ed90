"""What a Parquet footer says is read without Arrow's accessors: as Arrow reads it, or not at all."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonlib.datasets.parquet_footer import open_table
from anonlib.datasets.thrift import BYTES, I16, I32, I64, fields, read_struct
from anonlib.errors import DamagedTable

TABLE = pa.table(
    {
        "key": [f"k{number}" for number in range(60)],
        "image": pa.array([{"bytes": b"x" * number, "path": None} for number in range(60)]),
        "tags": [["a", None], [], None] * 20,
        "age": pa.array([None, 7, 8] * 20, pa.int32()),
    }
)
CODECS = {"UNCOMPRESSED": "none", "LZ4": "lz4_raw"}


@pytest.mark.parametrize("codec", ["NONE", "SNAPPY", "GZIP", "BROTLI", "LZ4", "ZSTD"])
@pytest.mark.parametrize(
    "options", [{}, {"use_dictionary": False, "write_statistics": False, "write_page_index": True}]
)
def test_a_footer_says_what_arrow_reads_in_it(codec: str, options: dict[str, Any]) -> None:
    stream = io.BytesIO()
    long_note = {"note": "n" * 100_000}  # so that the footer is longer than the first read of a file's end
    table = TABLE.replace_schema_metadata(long_note)
    pq.write_table(table, stream, compression=codec, row_group_size=25, data_page_version="2.0", **options)
    with open_table(stream) as (file, _, footer):
        metadata = file.metadata
        assert file.read().equals(table)
        assert footer.writer == metadata.created_by and "n" * 100_000 in footer.text
        assert [group.rows for group in footer.groups] == [25, 25, 10]
        for number, group in enumerate(footer.groups):
            for leaf, chunk in enumerate(group.chunks):
                said = metadata.row_group(number).column(leaf)
                codec = CODECS.get(said.compression, said.compression.lower())
                start = said.dictionary_page_offset if said.has_dictionary_page else None
                nulls = said.statistics.null_count if said.statistics else None
                sizes = (said.num_values, said.total_compressed_size, said.data_page_offset)
                assert chunk == (codec, *sizes, start, nulls)


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
