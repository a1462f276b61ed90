"""Parquet files with an image column, as Hugging Face datasets and table exporters write them.

Memory is bounded by a page, even where a row group is the whole file, and what pages unpack to is bounded before they
are read (parquet_pages.py). A file's metadata is free text that travels unseen, so only the types of the kept columns
pass, made anew, and for Hugging Face readers that one column is an Image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from zoneinfo import available_timezones

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.codes import Problem, Reason
from anonlib.datasets.base import MAX_SAMPLE_BYTES, Dataset, Item, Sample, Shard, ShardWriter
from anonlib.datasets.names import key_spellings, printable, renamed_value, unique_key, without_suffix
from anonlib.datasets.parquet_pages import check_column, rows_at_once
from anonlib.errors import DatasetError, DecompressionBomb
from anonlib.storage import Storage

ROWS_AT_ONCE = 16
BUFFER_BYTES = 4 << 20
FLUSH_BYTES = 128 << 20
"""The format keeps columns together, so a row group is held in memory while it is filled; a larger one ends early."""
ROWS_PER_PAGE_CHECK = 16
"""Arrow closes a page only between batches; its 1,024 rows would make pages that readers must hold whole."""
KEY_COLUMNS = ("key", "__key__", "id")
HUGGING_FACE = b"huggingface"
NEW_IMAGE = "image"
"""The image column's name in a release with new keys whose job does not name it."""

_EXTENSIONS = {"arrow.uuid", "arrow.bool8"}
"""Arrow's extension types without a word of their own; others become what they are stored as."""
_OFFSET = re.compile(r"[+-]\d\d:\d\d")
_UNREADABLE = (pa.ArrowException, OSError, DatasetError)
_WRITER = "parquet-cpp-arrow version "


@contextmanager
def _opened(storage: Storage, name: str, etag: str | None = None) -> Iterator[tuple[pq.ParquetFile, BinaryIO]]:
    """The file, and the stream that it reads."""
    with (
        storage.open_read(name, etag, seekable=True) as stream,
        pq.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False) as file,
    ):
        yield file, stream


class ParquetDataset(Dataset):
    """Parquet files; keys come from a key column, or are the row's number in its file (9 digits)."""

    format, noun, media_type = "parquet", "Parquet file", "application/x-parquet"
    suffixes = (".parquet",)
    damage = (pa.ArrowException, OSError, ValueError)

    def shards(self) -> list[Shard]:
        """See Dataset; checks the columns of the first file, and raises DatasetError if they do not fit."""
        first = self.sources()[0]
        try:
            with _opened(self.storage, first.path, first.etag) as opened:
                layout_of(*opened, self.image_field, self.key_field)
        except (pa.ArrowException, OSError, DecompressionBomb) as error:
            _raise_if_of_the_disk(error)
            # An unreadable file is a problem of its own shard, not of the data set.
        return super().shards()

    @classmethod
    def _items(cls, storage: Storage, path: str) -> Iterator[Item]:
        """The schema, other metadata, the footer's text (writer, least and greatest values), and every cell."""
        with _opened(storage, path) as (file, _):
            schema: pa.Schema = file.schema_arrow
            yield Item(path, None, "", schema)
            notes = [_image_note(name) for name in schema.names]
            for name, value in (file.metadata.metadata or {}).items():
                if name != b"ARROW:schema":
                    odd = name != HUGGING_FACE or value not in notes
                    yield Item(f"{path}: metadata", None, name.decode(errors="replace"), value, odd)
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
            with _opened(self.storage, name, shard.etag) as (file, stream):
                layout = layout_of(file, stream, self.image_field, self.key_field)
                yield from _samples(file, stream, layout, stem)
        except _UNREADABLE as error:
            _raise_if_of_the_disk(error)
            problem = Problem(Reason.UNREADABLE, f"the Parquet file cannot be read ({printable(str(error))})")
            yield Sample(f"{stem}#unreadable", None, self.image_field or "", {}, problem, 0)

    def writer(
        self, shard: Shard, local_path: Path, keep_fields: frozenset[str], name: str | None = None
    ) -> ShardWriter:
        """See Dataset; takes the schema from the input. A file that cannot be read has no output."""
        release_path = self.output_path(shard, name)
        try:
            with _opened(self.storage, self.name_of(shard), shard.etag) as (file, stream):
                layout = layout_of(file, stream, self.image_field, self.key_field)
                schema, metadata = file.schema_arrow, file.metadata
        except _UNREADABLE as error:
            _raise_if_of_the_disk(error)
            return NoOutput(local_path, release_path)
        image = layout.image if name is None or self.image_field else NEW_IMAGE
        return ParquetShardWriter(local_path, release_path, layout, schema, metadata, keep_fields, image)


def _raise_if_of_the_disk(error: Exception) -> None:
    """Arrow calls damaged content an OSError too, but without a number; with one it is the system's."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _samples(file: pq.ParquetFile, stream: BinaryIO, layout: Layout, stem: str) -> Iterator[Sample]:
    seen: dict[str, int] = {}
    row = 0
    for number in range(file.num_row_groups):
        end = row + file.metadata.row_group(number).num_rows
        try:
            rows = rows_at_once(file, stream, number, ROWS_AT_ONCE)
            for batch in file.iter_batches(rows, row_groups=[number], use_threads=False):
                for index in range(batch.num_rows):
                    yield _as_sample(batch.slice(index, 1), layout, row, seen)
                    row += 1
                del batch  # before the next is read
        except _UNREADABLE as error:
            _raise_if_of_the_disk(error)
            message = f"rows {row} to {end - 1} of the Parquet file cannot be read ({printable(str(error))})"
            key = unique_key(f"{stem}#rows-{row}", seen)
            yield Sample(key, None, layout.image, {}, Problem(Reason.UNREADABLE, message), row)
        row = end


def _as_sample(cells: pa.RecordBatch, layout: Layout, row: int, seen: dict[str, int]) -> Sample:
    sample = Sample(f"{row:09d}", None, layout.image, position=row)
    try:
        if cells.nbytes > MAX_SAMPLE_BYTES:
            sample.problem = Problem(Reason.TOO_LARGE, f"the row is larger than {MAX_SAMPLE_BYTES >> 20} MiB")
            sample.key = unique_key(f"{row:09d}#too-large", seen)
            return sample
        sample.fields = cells.to_pylist()[0]
    except (ValueError, OverflowError) as error:
        sample.problem = Problem(Reason.UNREADABLE, f"a value of the row cannot be read ({error})")
        sample.key = unique_key(f"{row:09d}#unreadable", seen)
        return sample
    image = sample.fields.pop(layout.image)
    if image is not None and layout.in_struct:
        only_a_path = image["bytes"] is None and image.get("path")
        image = image["bytes"]
        sample.problem = Problem(Reason.ONLY_A_PATH) if only_a_path else None
    if image is None:
        sample.problem = sample.problem or Problem(Reason.NO_IMAGE, "there is no image")
    stored = sample.key
    if layout.key is not None and sample.fields[layout.key] is None:
        sample.problem = sample.problem or Problem(Reason.NO_KEY, "the key is empty")
        stored = f"{stored}#no-key"
    elif layout.key is not None:
        stored = str(sample.fields[layout.key])
    sample.key = unique_key(printable(stored), seen)
    if sample.problem is None and sample.key != stored:
        message = f"the key {sample.key!r} is in this shard already or has control characters"
        sample.problem = Problem(Reason.DUPLICATE_KEY, message)
    sample.image = None if sample.problem else image
    return sample


class Layout(NamedTuple):
    """The image column, whether it is a struct {bytes, path}, and the key column (None: the row number)."""

    image: str
    in_struct: bool
    key: str | None


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
    image = image_field
    if image is None:
        found = [str(field.name) for field in schema if _is_image(field.type)]
        candidates = [name for name in found if _declared(schema, name)] or found
        if len(candidates) != 1:
            what = f"several columns may be the image ({', '.join(candidates)})" if found else "no column is binary"
            raise DatasetError(f"In the Parquet file {what}; name it with image_field.")
        (image,) = candidates
    kind = schema.field(image).type
    if not _is_image(kind):
        raise DatasetError(f"The column '{image}' holds {kind}, not the bytes of an image.")
    key = key_field or next((name for name in KEY_COLUMNS if name != image and _is_key(file, stream, name)), None)
    return Layout(image, pa.types.is_struct(kind), key)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_image(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_key(file: pq.ParquetFile, stream: BinaryIO, name: str) -> bool:
    schema = file.schema_arrow
    if name not in schema.names or not _is_text(schema.field(name).type):
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
            kind = plain_type(field.type)
            if layout.in_struct:  # the bytes, and for Hugging Face readers a path that is always null
                inner = [name for name in ("bytes", "path") if kind.get_field_index(name) >= 0]
                kind = pa.struct([pa.field(name, kind.field(name).type) for name in inner])
            fields.append(pa.field(image, kind, field.nullable))
        elif field.name in keep | {layout.key}:
            fields.append(_plain_field(field))
    if len({field.name for field in fields}) != len(fields):
        raise DatasetError(f"A kept column is called '{image}' as the image will be; name the image's by image_field.")
    return pa.schema(fields, {HUGGING_FACE: _image_note(image)} if _declared(schema, layout.image) else None)


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


def _declared(schema: pa.Schema, column: str) -> bool:
    """Whether Hugging Face's description of the columns says that this is an Image."""
    try:
        stored = json.loads((schema.metadata or {}).get(HUGGING_FACE, b"{}"))
        return bool(stored["info"]["features"][column]["_type"] == "Image")
    except (ValueError, KeyError, TypeError):
        return False


def _image_note(column: str) -> bytes:
    """The only metadata of a released file: that one column is an Image."""
    return json.dumps({"info": {"features": {column: {"_type": "Image"}}}}).encode("ascii")


@dataclass(frozen=True)
class Footer:
    """A Parquet file's footer as text: who wrote it, names of columns, least and greatest values."""

    text: str


def _has_metadata(field: pa.Field) -> bool:
    """Whether a field, or one that it holds, has metadata beside what Parquet numbers fields by."""
    inner = [field.type.field(number) for number in range(field.type.num_fields)]
    return bool(set(field.metadata or {}) - {b"PARQUET:field_id"}) or any(map(_has_metadata, inner))


class ParquetShardWriter(ShardWriter):
    """One Parquet file at `local_path`; equal samples give equal bytes.

    schema and metadata are the input file's. Samples that are left
    out make their row group shorter and do not move the others. The image column is called `image`.
    """

    def __init__(
        self,
        local_path: Path,
        release_path: str,
        layout: Layout,
        schema: pa.Schema,
        metadata: pq.FileMetaData,
        keep_fields: frozenset[str],
        image: str,
    ) -> None:
        super().__init__(local_path, release_path)
        self._layout, self._image = layout, image
        self._schema = released_schema(schema, layout, keep_fields, image)
        self._ends: list[int] = []
        for number in range(metadata.num_row_groups):
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + metadata.row_group(number).num_rows)
        self._group, self._bytes = 0, 0
        self._rows: list[dict[str, Any]] = []
        codecs, dictionaries = self._encodings(metadata)
        self._file = pq.ParquetWriter(
            self._temporary,
            self._schema,
            compression=codecs or "snappy",
            write_batch_size=ROWS_PER_PAGE_CHECK,
            use_dictionary=dictionaries,
        )
        self._files.callback(self._file.close)

    def _encodings(self, metadata: pq.FileMetaData) -> tuple[dict[str, str], list[str]]:
        """({leaf path: codec}, leaf paths with a dictionary) of the kept columns, from the first row group."""
        codecs: dict[str, str] = {}
        dictionaries: list[str] = []
        leaves = range(metadata.num_columns if metadata.num_row_groups else 0)
        for leaf in (metadata.row_group(0).column(number) for number in leaves):
            top, dot, below = leaf.path_in_schema.partition(".")
            name = self._image if top == self._layout.image else top
            if name in self._schema.names:
                codecs[f"{name}{dot}{below}"] = "NONE" if leaf.compression == "UNCOMPRESSED" else leaf.compression
                if leaf.has_dictionary_page and name != self._image:
                    dictionaries.append(f"{name}{dot}{below}")
        return codecs, dictionaries

    def _add(self, position: int, entry: dict[str, Any]) -> None:
        while position >= self._ends[self._group]:
            self._finish()
            self._group += 1
        cell = entry[self._image]
        size = len(cell["bytes"] if self._layout.in_struct else cell)
        if self._bytes + size > FLUSH_BYTES:
            self._finish()
        self._rows.append(entry)
        self._bytes += size

    def _entry(self, sample: Sample, image: bytes, key: str | None) -> dict[str, Any]:
        renamed = None if key is None else key_spellings(sample.key, "", key)
        row: dict[str, Any] = {}
        for field in self._schema:
            if field.name == self._image:
                row[field.name] = {"bytes": image} if self._layout.in_struct else image
            elif field.name != self._layout.key or key is None:
                row[field.name] = renamed_value(field.name, sample.fields.get(field.name), renamed)
            elif _is_text(field.type):
                row[field.name] = key
            else:
                raise DatasetError(
                    f"The key column '{field.name}' holds {field.type}, so samples cannot get new keys; "
                    "choose a text column with key_field."
                )
        return row

    def _finish(self) -> None:
        """Close the row group that is being filled."""
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=self._schema)
            self._rows, self._bytes = [], 0
            self._file.write_table(table, row_group_size=table.num_rows)


class NoOutput(ShardWriter):
    """The writer of a shard none of whose samples can be read: a file without a schema cannot be mirrored."""

    def _entry(self, sample: Sample, image: bytes, key: str | None) -> None:
        raise ValueError("a file without a schema has no output, so no sample of it can be written")

    def _add(self, position: int, entry: None) -> None:
        """Nothing is ever added."""

    def _outputs(self) -> list[tuple[str, Path]]:
        return []
