"""Parquet files with an image column, as Hugging Face datasets and table exporters write them.

A unit of work is a whole file, so that the release has the same files. Only a file above UNIT_BYTES is split
into runs of row groups, because one worker would hold it for too long; its output is then a folder of parts.
A column is read page by page, so memory is bounded by a page (at most 1,024 images in most files) even where a
row group is the whole file; what pages and dictionaries unpack to is bounded before they are read (parquet_pages.py).

A file's metadata is free text that travels unseen (pandas indexes, a data set's description, names of classes, the
paths that Hugging Face keeps beside the bytes), so only the types of the kept columns pass, made anew, and for Hugging
Face readers that one column is an Image. Samples that are left out make their row group shorter; they do not move the
others. A row group has to be held in memory while it is filled (the format keeps columns together), so one that
outgrows FLUSH_BYTES is closed early.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import available_timezones

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.codes import Problem, Reason
from anonlib.datasets.base import MAX_SAMPLE_BYTES, Dataset, Item, Sample, Shard, ShardWriter
from anonlib.datasets.names import key_spellings, printable, renamed_value, shard_id, unique_key, without_suffix
from anonlib.datasets.parquet_pages import check_column, rows_at_once
from anonlib.errors import DatasetError, DecompressionBomb
from anonlib.storage import Storage, UriPattern

UNIT_BYTES = 1 << 30
ROWS_AT_ONCE = 16
BUFFER_BYTES = 4 << 20
FLUSH_BYTES = 128 << 20
# Arrow closes a page only between batches; its 1,024 rows would make pages that readers must hold whole.
ROWS_PER_PAGE_CHECK = 16
KEY_COLUMNS = ("key", "__key__", "id")
HUGGING_FACE = b"huggingface"
NEW_IMAGE = "image"
"""The image column's name in a release with new keys whose job does not name it."""

_EXTENSIONS = {"arrow.uuid", "arrow.bool8"}
"""Arrow's extension types without a word of their own; others become what they are stored as."""
_OFFSET = re.compile(r"[+-]\d\d:\d\d")
_UNREADABLE = (pa.ArrowException, OSError, DatasetError)
_WRITER = "parquet-cpp-arrow version "


class ParquetDataset(Dataset):
    """Parquet files; keys come from a key column, or are the row's number in its file (9 digits)."""

    format, noun, media_type = "parquet", "Parquet file", "application/x-parquet"
    suffixes = (".parquet",)
    damage = (pa.ArrowException, OSError, ValueError)

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
        name_id = shard_id(source.name, self.suffixes, ".parquet")
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

    @classmethod
    def _items(cls, storage: Storage, path: str) -> Iterator[Item]:
        """The schema, other metadata, the footer's text (writer, least and greatest values), and every cell."""
        with (
            storage.open_read(path, seekable=True) as stream,
            pq.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False) as file,
        ):
            schema: pa.Schema = file.schema_arrow
            yield Item(path, None, "", schema)
            for name, value in (file.metadata.metadata or {}).items():
                if name != b"ARROW:schema":
                    word = name.decode(errors="replace")
                    yield Item(f"{path}: metadata", None, word, value, odd=not _is_image_note(name, value))
            strange = any(map(_has_metadata, schema)) or not file.metadata.created_by.startswith(_WRITER)
            footer = json.dumps(file.metadata.to_dict(), ensure_ascii=False, default=str)
            yield Item(f"{path}: footer", None, "", Footer(footer), odd=strange)
            number = 0
            for batch in file.iter_batches(ROWS_AT_ONCE, use_threads=False):
                for row in batch.to_pylist():
                    for name, value in row.items():
                        yield Item(f"{path}: row {number}, {name}", None, name, value)
                    number += 1

    def read(self, shard: Shard) -> Iterator[Sample]:
        """See Dataset. After an unreadable page the rest of its row group is one sample with a problem."""
        name = self.name_of(shard)
        stem = without_suffix(name.rpartition("/")[2], self.suffixes)
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
        old = self.name_of(shard)
        if shard.start is None:
            return f"data/{old}"
        return f"data/{without_suffix(old, self.suffixes)}/part-{shard.start:05d}.parquet"

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
            message = f"rows {row} to {end - 1} of the Parquet file cannot be read ({printable(str(error))})"
            key = unique_key(f"{stem}#rows-{row}", seen)
            yield Sample(key, None, layout.image, {}, Problem(Reason.UNREADABLE, message), row - before)
        row = end


def _as_sample(cells: pa.RecordBatch, layout: Layout, row: int, position: int, seen: dict[str, int]) -> Sample:
    if cells.nbytes > MAX_SAMPLE_BYTES:
        key = unique_key(f"{row:09d}#too-large", seen)
        too_large = Problem(Reason.TOO_LARGE, f"the row is larger than {MAX_SAMPLE_BYTES >> 20} MiB")
        return Sample(key, None, layout.image, {}, too_large, position)
    try:
        values: dict[str, Any] = cells.to_pylist()[0]
    except (ValueError, OverflowError) as error:
        key = unique_key(f"{row:09d}#unreadable", seen)
        unreadable = Problem(Reason.UNREADABLE, f"a value of the row cannot be read ({error})")
        return Sample(key, None, layout.image, {}, unreadable, position)
    image, problem = layout.image_of(values.pop(layout.image))
    stored = f"{row:09d}"
    if layout.key is not None:
        if values[layout.key] is None:
            problem = problem or Problem(Reason.NO_KEY, "the key is empty")
            stored = f"{stored}#no-key"
        else:
            stored = str(values[layout.key])
    key = unique_key(printable(stored), seen)
    if problem is None and key != stored:
        message = f"the key {key!r} is in this shard already or has control characters"
        problem = Problem(Reason.DUPLICATE_KEY, message)
    return Sample(key, None if problem else image, layout.image, values, problem, position)


@dataclass(frozen=True)
class Layout:
    """The image column, whether it is a struct {bytes, path}, and the key column (None: the row number)."""

    image: str
    in_struct: bool
    key: str | None

    def image_of(self, value: Any) -> tuple[bytes | None, Problem | None]:
        """(bytes, None) of a cell, or (None, why there are none)."""
        if value is None:
            return None, Problem(Reason.NO_IMAGE, "there is no image")
        if not self.in_struct:
            return value, None
        if value.get("bytes") is None:
            return None, Problem(Reason.ONLY_A_PATH if value.get("path") else Reason.NO_IMAGE)
        return value["bytes"], None


def layout_of(file: pq.ParquetFile, stream: BinaryIO, image_field: str | None, key_field: str | None) -> Layout:
    """Find the image and key columns of an open file, which reads `stream`.

    The image is `image_field`, or the one column of binary type or {bytes, path} (or the one that Hugging
    Face's features call an Image). The key is `key_field`, or the first of KEY_COLUMNS that holds unique
    strings. Raises DatasetError.
    """
    schema = file.schema_arrow
    if len(set(schema.names)) != len(schema.names):
        raise DatasetError("Two columns of the Parquet file have the same name; rename one of them.")
    for name in (image_field, key_field):
        if name is not None and name not in schema.names:
            raise DatasetError(f"There is no column '{name}'; the columns are {', '.join(schema.names)}.")
    image = image_field or _guess_image(schema)
    if not _is_image(schema.field(image).type):
        raise DatasetError(f"The column '{image}' holds {schema.field(image).type}, not the bytes of an image.")
    key = key_field or next((name for name in KEY_COLUMNS if _is_key(file, stream, name, image)), None)
    return Layout(image, pa.types.is_struct(schema.field(image).type), key)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_image(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _guess_image(schema: pa.Schema) -> str:
    declared = [name for name, feature in _features(schema).items() if feature.get("_type") == "Image"]
    found = [str(field.name) for field in schema if _is_image(field.type)]
    candidates = [name for name in found if name in declared] or found
    if len(candidates) != 1:
        what = f"several columns may be the image ({', '.join(candidates)})" if candidates else "no column is binary"
        raise DatasetError(f"In the Parquet file {what}; name it with image_field.")
    return candidates[0]


def _is_key(file: pq.ParquetFile, stream: BinaryIO, name: str, image: str) -> bool:
    schema = file.schema_arrow
    if name not in schema.names or name == image:
        return False
    kind = schema.field(name).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return False
    check_column(file, stream, name)
    column = file.read(columns=[name]).column(name)
    return bool(column.null_count == 0 and len(column.unique()) == len(column))


def released_schema(schema: pa.Schema, layout: Layout, keep: frozenset[str], image: str) -> pa.Schema:
    """The image, key and allow-listed columns, in their order and with types made anew; the image's is named `image`.

    Raises DatasetError if a kept column has that name.
    """
    fields = []
    for field in schema:
        if field.name == layout.image:
            fields.append(pa.field(image, _image_type(field.type), field.nullable))
        elif field.name in keep | {layout.key}:
            fields.append(pa.field(field.name, plain_type(field.type), field.nullable))
    if len({field.name for field in fields}) != len(fields):
        raise DatasetError(f"A kept column is called '{image}' as the image will be; name the image's by image_field.")
    declared = _features(schema).get(layout.image, {}).get("_type") == "Image"
    features = {"info": {"features": {image: {"_type": "Image"}}}}
    return pa.schema(fields, metadata={HUGGING_FACE: json.dumps(features)} if declared else None)


def _image_type(kind: pa.DataType) -> pa.DataType:
    """Of a struct only the bytes, and for Hugging Face readers a path that is always null."""
    if not pa.types.is_struct(kind):
        return plain_type(kind)
    names = [name for name in ("bytes", "path") if kind.get_field_index(name) >= 0]
    return pa.struct([pa.field(name, plain_type(kind.field(name).type)) for name in names])


def plain_type(kind: pa.DataType) -> pa.DataType:
    """An Arrow type made anew, without metadata and without free text, but for nested names."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return kind if kind.extension_name in _EXTENSIONS else plain_type(kind.storage_type)
    if types.is_struct(kind):
        return pa.struct([_plain_field(kind.field(number)) for number in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(plain_type(kind.key_type), plain_type(kind.item_type), kind.keys_sorted)
    if types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    if types.is_list(kind):
        return pa.list_(_plain_field(kind.value_field))
    if types.is_large_list(kind):
        return pa.large_list(_plain_field(kind.value_field))
    if types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, plain_type(kind.value_type), kind.ordered)
    if types.is_timestamp(kind) and kind.tz is not None:
        known = _OFFSET.fullmatch(kind.tz) or kind.tz in available_timezones()
        return pa.timestamp(kind.unit, kind.tz if known else "UTC")
    return kind


def _plain_field(field: pa.Field) -> pa.Field:
    return pa.field(field.name, plain_type(field.type), field.nullable)


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Hugging Face's description of the columns, {} where the file has none that can be read."""
    try:
        stored = json.loads((schema.metadata or {}).get(HUGGING_FACE, b"{}"))
        features = stored["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


@dataclass(frozen=True)
class Footer:
    """A Parquet file's footer as text: who wrote it, names of columns, least and greatest values."""

    text: str


def _is_image_note(name: bytes, value: bytes) -> bool:
    """Whether a file's metadata says that one column is an Image, and no more."""
    if name != HUGGING_FACE:
        return False
    try:
        features = json.loads(value)["info"]["features"]
        return bool(json.loads(value) == {"info": {"features": {column: {"_type": "Image"} for column in features}}})
    except (ValueError, KeyError, TypeError):
        return False


def _has_metadata(field: pa.Field) -> bool:
    """Whether a field, or one that it holds, has metadata beside what Parquet numbers fields by."""
    inner = [field.type.field(number) for number in range(field.type.num_fields)]
    return bool(set(field.metadata or {}) - {b"PARQUET:field_id"}) or any(map(_has_metadata, inner))


class ParquetShardWriter(ShardWriter):
    """One Parquet file at `local_path`; equal samples give equal bytes.

    schema and metadata are the input file's; row_groups is the range of its groups that this shard covers. The image
    column is called `image`, by its own name if that is None.
    """

    def __init__(
        self,
        local_path: Path,
        release_path: str,
        layout: Layout,
        schema: pa.Schema,
        metadata: pq.FileMetaData,
        row_groups: tuple[int, int],
        keep_fields: frozenset[str],
        image: str | None = None,
    ) -> None:
        super().__init__(local_path, release_path)
        self._layout, self._image = layout, image or layout.image
        self._schema = released_schema(schema, layout, keep_fields, self._image)
        self._ends: list[int] = []
        for number in range(*row_groups):
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + metadata.row_group(number).num_rows)
        self._group, self._bytes = 0, 0
        self._rows: list[dict[str, Any]] = []
        codecs, dictionaries = _encodings(metadata, set(self._schema.names), {layout.image: self._image})
        self._file = pq.ParquetWriter(
            self._temporary,
            self._schema,
            compression=codecs or "snappy",
            write_batch_size=ROWS_PER_PAGE_CHECK,
            use_dictionary=[path for path in dictionaries if path.partition(".")[0] != self._image],
        )

    def _add(self, position: int, entry: dict[str, Any]) -> None:
        if position < 0:
            raise ValueError("a sample has no position, so its row group is not known")
        while position >= self._ends[self._group]:
            self._flush()
            self._group += 1
        cell = entry[self._image]
        size = len(cell["bytes"] if self._layout.in_struct else cell)
        if self._bytes + size > FLUSH_BYTES:
            self._flush()
        self._rows.append(entry)
        self._bytes += size

    def _entry(self, sample: Sample, image: bytes, key: str | None) -> dict[str, Any]:
        renamed = None if key is None else key_spellings(sample.key, "", key)
        row: dict[str, Any] = {}
        for field in self._schema:
            if field.name == self._image:
                row[field.name] = {"bytes": image} if self._layout.in_struct else image
            elif field.name == self._layout.key and key is not None:
                if not (pa.types.is_string(field.type) or pa.types.is_large_string(field.type)):
                    raise DatasetError(
                        f"The key column '{field.name}' holds {field.type}, so samples cannot get new keys; "
                        "choose a text column with key_field."
                    )
                row[field.name] = key
            else:
                row[field.name] = renamed_value(field.name, sample.fields.get(field.name), renamed)
        return row

    def _flush(self) -> None:
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=self._schema)
            self._rows, self._bytes = [], 0
            self._file.write_table(table, row_group_size=table.num_rows)

    def _finish(self) -> None:
        self._flush()
        self._file.close()
        self._temporary.replace(self._path)

    def _abandon(self) -> None:
        # On a full disk closing fails as well, and what is closed here is thrown away.
        with suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)
        if self._closed:
            self._path.unlink()


class NoOutput(ShardWriter):
    """The writer of a shard none of whose samples can be read: a file without a schema cannot be mirrored."""

    def _entry(self, sample: Sample, image: bytes, key: str | None) -> None:
        raise ValueError("a file without a schema has no output, so no sample of it can be written")

    def _add(self, position: int, entry: None) -> None:
        """Nothing is ever added."""

    def _finish(self) -> None:
        pass

    def _abandon(self) -> None:
        pass

    def _outputs(self) -> list[tuple[str, Path]]:
        return []


def _encodings(
    metadata: pq.FileMetaData, kept: set[str], renamed: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """({leaf path: codec}, leaf paths with a dictionary) of the kept columns, from the first row group."""
    if metadata.num_row_groups == 0:
        return {}, []
    group = metadata.row_group(0)
    codecs: dict[str, str] = {}
    dictionaries = []
    for leaf in (group.column(number) for number in range(group.num_columns)):
        top, dot, below = leaf.path_in_schema.partition(".")
        name = renamed.get(top, top)
        if name in kept:
            codecs[f"{name}{dot}{below}"] = "NONE" if leaf.compression == "UNCOMPRESSED" else leaf.compression
            dictionaries += [f"{name}{dot}{below}"] if leaf.has_dictionary_page else []
    return codecs, dictionaries
