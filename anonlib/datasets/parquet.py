"""Parquet files with an image column, as Hugging Face datasets and table exporters write them.

A unit of work is a whole file, so that the release has the same files. Only a file above UNIT_BYTES is split
into runs of row groups, because one worker would hold it for too long; its output is then a folder of parts.
A column is read page by page, so memory is bounded by a page (at most 1,024 images in most files) even where a
row group is the whole file; what pages and dictionaries unpack to is bounded before they are read (parquet_pages.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.codes import Problem, Reason
from anonlib.datasets.base import MAX_SAMPLE_BYTES, Dataset, Sample, Shard, ShardWriter
from anonlib.datasets.names import PARQUET_SUFFIXES, printable, shard_id, unique_key, without_suffix
from anonlib.datasets.parquet_layout import NEW_IMAGE, Layout, layout_of
from anonlib.datasets.parquet_pages import rows_at_once
from anonlib.datasets.parquet_writer import NoOutput, ParquetShardWriter
from anonlib.errors import DatasetError, DecompressionBomb
from anonlib.storage import UriPattern

UNIT_BYTES = 1 << 30
ROWS_AT_ONCE = 16
BUFFER_BYTES = 4 << 20
_UNREADABLE = (pa.ArrowException, OSError, DatasetError)


class ParquetDataset(Dataset):
    """Parquet files; keys come from a key column, or are the row's number in its file (9 digits)."""

    format = "parquet"

    def shards(self) -> list[Shard]:
        """See Dataset; checks the columns of the first file, and raises DatasetError if they do not fit."""
        sources = self.sources()
        try:
            with self._opened(sources[0].name, sources[0].etag) as opened:
                layout_of(*opened, self.image_field, self.key_field)
        except (pa.ArrowException, OSError, DecompressionBomb) as error:
            _raise_if_of_the_disk(error)
            # An unreadable file is a problem of its own shard, not of the data set.
        shards = [shard for source in sources for shard in self._units(source)]
        return self._distinct(shards)

    def _units(self, source: UriPattern) -> list[Shard]:
        name_id = shard_id(source.name, PARQUET_SUFFIXES, ".parquet")
        whole = [Shard(name_id, source.uri, source.etag, source.size, self.format)]
        if source.size <= UNIT_BYTES:
            return whole
        try:
            with self._opened(source.name, source.etag) as (file, _):
                sizes = [_group_bytes(file.metadata.row_group(i)) for i in range(file.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            _raise_if_of_the_disk(error)
            return whole
        starts = _starts(sizes)
        if len(starts) < 2:
            return whole
        return [
            Shard(
                f"{name_id}.rg{start:05d}",
                source.uri,
                source.etag,
                sum(sizes[start:stop]),
                self.format,
                start,
                stop,
            )
            for start, stop in zip(starts, [*starts[1:], len(sizes)], strict=True)
        ]

    @contextmanager
    def _opened(self, name: str, etag: str) -> Iterator[tuple[pq.ParquetFile, BinaryIO]]:
        """The file, and the stream that it reads."""
        with (
            self.storage.open_read(name, etag, seekable=True) as stream,
            pq.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False) as file,
        ):
            yield file, stream

    def read(self, shard: Shard) -> Iterator[Sample]:
        """See Dataset. After an unreadable page the rest of its row group is one sample with a problem."""
        name = self.name_of(shard)
        stem = without_suffix(name.rpartition("/")[2], PARQUET_SUFFIXES)
        try:
            with self._opened(name, shard.etag) as (file, stream):
                layout = layout_of(file, stream, self.image_field, self.key_field)
                yield from _samples(file, stream, layout, shard, stem)
        except _UNREADABLE as error:
            _raise_if_of_the_disk(error)
            problem = Problem(Reason.UNREADABLE, f"the Parquet file cannot be read ({printable(str(error))})")
            yield Sample(f"{stem}#unreadable", None, self.image_field or "", {}, problem, 0)

    def output_path(self, shard: Shard, name: str | None = None) -> str:
        """data/NAME.parquet, or for a part of a file data/NAME/part-START.parquet (its first row group).

        Under another name a part is a file like any other.
        """
        if name is not None:
            return f"data/{name}.parquet"
        own = self.name_of(shard)
        if shard.start is None:
            return f"data/{own}"
        return f"data/{without_suffix(own, PARQUET_SUFFIXES)}/part-{shard.start:05d}.parquet"

    def writer(
        self, shard: Shard, local_path: Path, keep_fields: frozenset[str], name: str | None = None
    ) -> ShardWriter:
        """See Dataset; takes the schema from the input. A file that cannot be read has no output."""
        release_path = self.output_path(shard, name)
        try:
            with self._opened(self.name_of(shard), shard.etag) as (file, stream):
                layout = layout_of(file, stream, self.image_field, self.key_field)
                schema, metadata, groups = file.schema_arrow, file.metadata, _range(shard, file)
        except _UNREADABLE as error:
            _raise_if_of_the_disk(error)
            return NoOutput(local_path, release_path)
        image = layout.image if name is None or self.image_field else NEW_IMAGE
        return ParquetShardWriter(local_path, release_path, layout, schema, metadata, groups, keep_fields, image)


def _raise_if_of_the_disk(error: Exception) -> None:
    """Arrow calls damaged content an OSError too, but without a number; with one it is the system's."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _group_bytes(group: pq.RowGroupMetaData) -> int:
    return sum(group.column(i).total_compressed_size for i in range(group.num_columns))


def _starts(sizes: list[int]) -> list[int]:
    """The first row group of each unit: as many consecutive groups as fit into UNIT_BYTES, at least one."""
    starts, filled = [], UNIT_BYTES
    for number, size in enumerate(sizes):
        if filled + size > UNIT_BYTES:
            starts.append(number)
            filled = 0
        filled += size
    return starts


def _range(shard: Shard, file: pq.ParquetFile) -> tuple[int, int]:
    if shard.start is None or shard.stop is None:
        return 0, file.num_row_groups
    return shard.start, shard.stop


def _samples(file: pq.ParquetFile, stream: BinaryIO, layout: Layout, shard: Shard, stem: str) -> Iterator[Sample]:
    first, last = _range(shard, file)
    seen: dict[str, int] = {}
    # Row numbers count in the whole file, positions in the unit.
    row = before = sum(file.metadata.row_group(number).num_rows for number in range(first))
    for number in range(first, last):
        end = row + file.metadata.row_group(number).num_rows
        try:
            rows = rows_at_once(file, stream, number, ROWS_AT_ONCE)
            for batch in file.iter_batches(rows, row_groups=[number], use_threads=False):
                for index in range(batch.num_rows):
                    yield _as_sample(batch.slice(index, 1), layout, row, row - before, seen)
                    row += 1
                del batch  # before the next is read
        except _UNREADABLE as error:
            _raise_if_of_the_disk(error)
            said = f"rows {row} to {end - 1} of the Parquet file cannot be read ({printable(str(error))})"
            key = unique_key(f"{stem}#rows-{row}", seen)
            yield Sample(key, None, layout.image, {}, Problem(Reason.UNREADABLE, said), row - before)
        row = end


def _as_sample(one: pa.RecordBatch, layout: Layout, row: int, position: int, seen: dict[str, int]) -> Sample:
    if one.nbytes > MAX_SAMPLE_BYTES:
        key = unique_key(f"{row:09d}#too-large", seen)
        too_large = Problem(Reason.TOO_LARGE, f"the row is larger than {MAX_SAMPLE_BYTES >> 20} MiB")
        return Sample(key, None, layout.image, {}, too_large, position)
    try:
        values: dict[str, Any] = one.to_pylist()[0]
    except (ValueError, OverflowError) as error:
        key = unique_key(f"{row:09d}#unreadable", seen)
        said = f"a value of the row cannot be read ({error})"
        return Sample(key, None, layout.image, {}, Problem(Reason.UNREADABLE, said), position)
    image, problem = layout.image_of(values.pop(layout.image))
    own = f"{row:09d}"
    if layout.key is not None:
        if values[layout.key] is None:
            problem = problem or Problem(Reason.NO_KEY, "the key is empty")
            own = f"{own}#no-key"
        else:
            own = str(values[layout.key])
    key = unique_key(printable(own), seen)
    if problem is None and key != own:
        said = f"the key {key!r} is in this shard already or has control characters"
        problem = Problem(Reason.DUPLICATE_KEY, said)
    return Sample(key, None if problem else image, layout.image, values, problem, position)
