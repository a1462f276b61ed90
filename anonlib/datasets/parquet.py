"""Parquet files with an image column, as Hugging Face datasets and table exporters write them.

Memory is bounded by a page, even where a row group is the whole file, and what pages unpack to is bounded before they
are read (parquet_pages.py). A file's metadata is free text that travels unseen, so only the types of the kept columns
pass, made anew, and for Hugging Face readers that one column is an Image.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import available_timezones

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.codes import Note, Problem, Reason
from anonlib.datasets.base import MAX_SAMPLE_BYTES, Dataset, Item, Part, Sample, Shard, ShardWriter, digest_of
from anonlib.datasets.names import (
    begins_as_image,
    holds_image,
    key_spellings,
    printable,
    renamed_value,
    suffix_of,
    unique_key,
    why_unsafe,
    without_suffix,
)
from anonlib.datasets.parquet_footer import Footer, Table, open_table
from anonlib.datasets.parquet_pages import check_column, leaves_of, rows_at_once
from anonlib.errors import (
    AccessDenied,
    Changed,
    DamagedTable,
    DatasetError,
    DecompressionBomb,
    LinkRefused,
    NotAFile,
    NotFound,
    StorageError,
)
from anonlib.storage import Storage, StoredObject, open_storage

ROWS_AT_ONCE = 16
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
_LINKED = "+"
"""Between a Parquet file's own etag and the digest of the image files that it names."""
_LOGS = (
    ("_delta_log/", "", "Delta Lake"),
    (".hoodie/", "", "Apache Hudi"),
    ("metadata/", ".metadata.json", "Apache Iceberg"),
)
"""Where a table's log lies, how a file of it ends, and what the table is called."""
_PATHS_AT_ONCE = 1024
_WRITER = "parquet-cpp-arrow version "


@contextmanager
def _opened(storage: Storage, name: str, etag: str | None = None) -> Iterator[Table]:
    with storage.open_read(name, etag, seekable=True) as stream, open_table(stream) as table:
        yield table


class ParquetDataset(Dataset):
    """Parquet files; keys come from a key column, or are the row's number in its file (9 digits)."""

    format, noun, media_type = "parquet", "Parquet file", "application/x-parquet"
    suffixes = (".parquet",)
    damage = (pa.ArrowException, DamagedTable, OSError, ValueError)
    _checked = False
    _shown: set[str] | None = None
    """The image files that rows show, once the shards were listed."""

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_shown": None}

    def sources(self) -> list[StoredObject]:
        """See Dataset; raises DatasetError also for tables whose log says which of their files are valid."""
        found = super().sources()
        if not self._checked:
            folders = {"".join(f"{part}/" for part in file.path.split("/")[:-1]) for file in found}
            above = {"/".join(folder.split("/")[:end]) for folder in folders for end in range(folder.count("/") + 1)}
            for folder in sorted(above):
                if "=" not in folder.rpartition("/")[2]:  # a partition has no log of its own
                    self._refuse_log(self.storage, folder and f"{folder}/")
            base = self.base.rstrip("/")
            while "=" in (name := base.rpartition("/")[2]) or name == "data":
                base = base.rpartition("/")[0]
                with suppress(AccessDenied):
                    self._refuse_log(open_storage(base, self.options), "")
            self._checked = True
        return found

    def _refuse_log(self, storage: Storage, folder: str) -> None:
        for log, ending, table in _LOGS:
            if any(file.path.endswith(ending) for file in storage.list(f"{folder}{log}")):
                raise DatasetError(
                    f"'{self.uri}' belongs to a table of {table}, whose log says which files and rows are valid: read "
                    "as plain files, deleted rows would come back. Export a snapshot of the table to plain Parquet "
                    "files, and give their folder."
                )

    def shards(self) -> list[Shard]:
        """See Dataset; checks the columns of the first file, and raises DatasetError if they do not fit."""
        first = self.sources()[0]
        linked, self._shown = False, set()
        try:
            with _opened(self.storage, first.path, first.etag) as table:
                layout = layout_of(table, self.image_field, self.key_field)
                linked = _names_files(table, layout)
        except (pa.ArrowException, OSError, DecompressionBomb, DamagedTable) as error:
            _raise_if_of_the_disk(error)
            # An unreadable file is a problem of its own shard, not of the data set.
        except StorageError as error:
            if not error.of_the_file:
                raise
        return [self._with_links(shard) if linked else shard for shard in super().shards()]

    def _used(self) -> set[str]:
        """See Dataset; with the image files that rows show."""
        if self._shown is None:
            self.shards()
        return {file.path for file in self.sources()} | (self._shown or set())

    def _with_links(self, shard: Shard) -> Shard:
        """The shard whose etag stands for the image files that it names, too."""
        links = _Links(self, self.name_of(shard), {file.path: file for file in self.listing().files})
        try:
            with _opened(self.storage, self.name_of(shard), shard.etag) as table:
                for column in layout_of(table, self.image_field, self.key_field).images:
                    if column.has_path:
                        links.enter(table, column)
        except _UNREADABLE as error:
            _raise_if_of_the_disk(error)
            return shard
        except StorageError as error:
            if not error.of_the_file:
                raise
            return shard
        finally:
            self._shown = (self._shown or set()) | links.shown
        return replace(shard, etag=f"{shard.etag}{_LINKED}{links.digest()}")

    @classmethod
    def _items(cls, storage: Storage, path: str) -> Iterator[Item]:
        """The schema, other metadata, the footer's text (writer, least and greatest values), and every cell."""
        with _opened(storage, path) as (file, _, footer):
            schema: pa.Schema = file.schema_arrow
            yield Item(path, None, "", schema)
            for name, value in (file.metadata.metadata or {}).items():
                if name != b"ARROW:schema":
                    odd = name != HUGGING_FACE or value != _image_note(schema, _declared(schema))
                    yield Item(f"{path}: metadata", None, name.decode(errors="replace"), value, odd)
            strange = any(map(_has_metadata, schema)) or not footer.writer.startswith(_WRITER)
            yield Item(f"{path}: footer", None, "", footer, odd=strange)
            number = 0
            for batch in file.iter_batches(ROWS_AT_ONCE, use_threads=False):
                for row in batch.to_pylist():
                    for name, cell in row.items():
                        for value in cell if isinstance(cell, list) and image_column(schema, name) else [cell]:
                            yield Item(f"{path}: row {number}, {name}", None, name, value)
                    number += 1

    def read(self, shard: Shard, left_out: Counter[str] | None = None) -> Iterator[Sample]:
        """See Dataset. After an unreadable page the rest of its row group is one sample with a problem."""
        name = self._readable_name(shard)
        stem = without_suffix(name.rpartition("/")[2], self.suffixes)
        etag, _, linked = shard.etag.partition(_LINKED)
        links = _Links(self, name, {}) if linked else None
        position = 0
        try:
            with _opened(self.storage, name, etag) as table:
                layout = layout_of(table, self.image_field, self.key_field)
                for sample in _samples(table, layout, stem, self.fields, links):
                    sample.position = position
                    position += 1
                    yield sample
        except _UNREADABLE as error:
            _raise_if_of_the_disk(error)
            problem = Problem(Reason.UNREADABLE, f"the Parquet file cannot be read ({printable(str(error))})")
            yield Sample(f"{stem}#unreadable", None, self.image_field or "", {}, problem, position)
            return
        if links and links.digest() != linked:
            raise Changed(f"Images that {shard.uri} names have changed since they were listed; start a new run.")

    def writer(
        self, shard: Shard, local_path: Path, keep_fields: frozenset[str], name: str | None = None
    ) -> ShardWriter:
        """See Dataset; takes the schema from the input. A file that cannot be read has no output."""
        release_path = self.output_path(shard, name)
        try:
            with _opened(self.storage, self.name_of(shard), shard.etag.partition(_LINKED)[0]) as table:
                layout, schema = layout_of(table, self.image_field, self.key_field), table.file.schema_arrow
                paths = [table.file.schema.column(leaf).path for leaf in range(table.file.metadata.num_columns)]
        except _UNREADABLE as error:
            _raise_if_of_the_disk(error)
            return NoOutput(local_path, release_path)
        names = {column.name: column.name for column in layout.images}
        if name is not None and not self.image_field:
            names = {old: f"{NEW_IMAGE}{number or ''}" for number, old in enumerate(names)}
        return ParquetShardWriter(local_path, release_path, layout, schema, table.footer, paths, keep_fields, names)


class _Links:
    """The image files below the input that a Parquet file names by their paths, and a digest over what they are."""

    def __init__(self, dataset: ParquetDataset, name: str, known: dict[str, StoredObject]) -> None:
        self._storage, self._base, self._known = dataset.storage, dataset.base.rstrip("/"), known
        self._folder = name.rpartition("/")[0]
        self._found: dict[str, StoredObject] = {}
        self.shown: set[str] = set()
        """Those that stand for an image without bytes."""

    def enter(self, table: Table, column: ImageColumn) -> None:
        """Look up every path of a column; bytes are read only in row groups where some images have them."""
        leaves = {table.file.schema.column(leaf).path: leaf for leaf in leaves_of(table.file, [column.name])}
        paths, contents = ([path for path in leaves if path.endswith(name)] for name in (".path", ".bytes"))
        for number, group in enumerate(table.footer.groups):
            (nulls, values), *_ = (
                (group.chunks[leaves[path]].nulls, group.chunks[leaves[path]].values) for path in contents
            )
            wanted = paths if nulls in (0, values) else paths + contents
            rows = rows_at_once(table, number, _PATHS_AT_ONCE, names=wanted)
            for batch in table.file.iter_batches(rows, row_groups=[number], columns=wanted, use_threads=False):
                for cell in batch.column(column.name):
                    for part in _parts(cell, column):
                        found = self.entry(_path_of(part))
                        has_bytes = nulls == 0 if wanted == paths else part.is_valid and part["bytes"].is_valid
                        if found and not has_bytes:
                            self.shown.add(found.path)

    def entry(self, path: str) -> StoredObject | None:
        """The file of a path beside the Parquet file or below the input, an absolute one below the input alone."""
        if not path:
            return None
        inside = path.removeprefix("file://").removeprefix(f"{self._base}/").removeprefix("./")
        # A path may begin with the folder's own name, as seen from where it lies.
        below = inside.removeprefix(f"{self._base.rpartition('/')[2]}/")
        for place in dict.fromkeys((f"{self._folder}/{inside}".removeprefix("/"), inside, below)):
            if why_unsafe(place) is not None:
                continue
            try:
                found = self._known.get(place) or self._storage.stat(place)
            except (NotFound, NotAFile, LinkRefused):
                continue
            self._found[place] = found
            return found
        return None

    def read(self, path: str) -> bytes | Problem:
        entry = self.entry(path)
        if entry is None:
            return Problem(Reason.ONLY_A_PATH, "the image is only a path, and there is no such file below the input")
        if entry.size > MAX_SAMPLE_BYTES:
            return Problem(Reason.TOO_LARGE, f"the file is larger than {MAX_SAMPLE_BYTES >> 20} MiB")
        try:
            return self._storage.read(entry.path, entry.etag)
        except LinkRefused as error:
            return Problem(Reason.LINK, str(error))

    def digest(self) -> str:
        return digest_of(self._found[path] for path in sorted(self._found))


def _names_files(table: Table, layout: Layout) -> bool:
    """Whether a file has images without bytes beside a path, as far as its footer tells."""
    leaves = leaves_of(table.file, [column.name for column in layout.images if column.has_path])
    contents = [leaf for leaf in leaves if table.file.schema.column(leaf).path.endswith(".bytes")]
    return any(group.chunks[leaf].nulls != 0 for group in table.footer.groups for leaf in contents)


def _raise_if_of_the_disk(error: Exception) -> None:
    """Arrow calls damaged content an OSError too, but without a number; with one it is the system's."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _samples(
    table: Table, layout: Layout, stem: str, fields: frozenset[str] | None, links: _Links | None
) -> Iterator[Sample]:
    seen: dict[str, int] = {}
    row = 0
    file = table.file
    reader = _Row(layout, file.schema_arrow, fields, links, seen)
    for number, group in enumerate(table.footer.groups):
        end = row + group.rows
        try:
            rows = rows_at_once(table, number, ROWS_AT_ONCE, names=reader.columns)
            for batch in file.iter_batches(rows, row_groups=[number], columns=reader.columns, use_threads=False):
                for index in range(batch.num_rows):
                    yield from reader.samples(batch.slice(index, 1), row)
                    row += 1
                del batch  # before the next is read
        except _UNREADABLE as error:
            _raise_if_of_the_disk(error)
            message = f"rows {row} to {end - 1} of the Parquet file cannot be read ({printable(str(error))})"
            key = unique_key(f"{stem}#rows-{row}", seen)
            yield Sample(key, None, layout.images[0].name, {}, Problem(Reason.UNREADABLE, message))
        row = end


class _Row:
    """Makes samples of rows. Only the columns of images, of the key and of what the job needs are read."""

    def __init__(
        self,
        layout: Layout,
        schema: pa.Schema,
        fields: frozenset[str] | None,
        links: _Links | None,
        seen: dict[str, int],
    ) -> None:
        images = {column.name for column in layout.images}
        needed = [n for n in schema.names if fields is None or {n, _ending(n)} & fields or n == layout.key]
        self.fields = [name for name in needed if name not in images]
        self.columns = [*images, *self.fields]
        self._layout, self._links, self._seen, self._kept = layout, links, seen, fields or frozenset()

    def samples(self, cells: pa.RecordBatch, row: int) -> Iterator[Sample]:
        """An image each of one row, or one sample with a problem."""
        sample = Sample(f"{row:09d}", None, self._layout.images[0].name)
        if cells.nbytes > MAX_SAMPLE_BYTES:
            sample.problem = Problem(Reason.TOO_LARGE, f"the row is larger than {MAX_SAMPLE_BYTES >> 20} MiB")
            sample.key = unique_key(f"{row:09d}#too-large", self._seen)
            yield sample
            return
        try:
            values = {name: cells.column(name)[0].as_py() for name in self.fields}
            images = [image for column in self._layout.images for image in self._images(cells, column)]
        except (ValueError, OverflowError) as error:
            sample.problem = Problem(Reason.UNREADABLE, f"a value of the row cannot be read ({error})")
            sample.key = unique_key(f"{row:09d}#unreadable", self._seen)
            yield sample
            return
        sample.fields = {name: value for name, value in values.items() if not _is_file(value)}
        if self._kept & (values.keys() - sample.fields.keys()):
            sample.notes = (Note.NOT_KEPT,)
        self._name(sample, row, values)
        if sample.problem is None and not images:
            sample.problem = Problem(Reason.NO_IMAGE, "there is no image")
        if sample.problem is not None:
            yield sample
            return
        for part in sample.parts(images, row, self._seen):
            missing: Any = part.image
            if isinstance(missing, Problem):
                part.problem, part.image = missing, None
            yield part

    def _name(self, sample: Sample, row: int, values: Mapping[str, Any]) -> None:
        stored = sample.key
        if self._layout.key is not None and values[self._layout.key] is None:
            sample.problem = Problem(Reason.NO_KEY, "the key is empty")
            stored = f"{stored}#no-key"
        elif self._layout.key is not None:
            stored = str(values[self._layout.key])
        sample.key = unique_key(printable(stored), self._seen)
        if sample.problem is None and sample.key != stored:
            message = f"the key {sample.key!r} is in this shard already or has control characters"
            sample.problem = Problem(Reason.DUPLICATE_KEY, message)

    def _images(self, cells: pa.RecordBatch, column: ImageColumn) -> Iterator[tuple[str, bytes | Problem, int, int]]:
        """(column, bytes or why there are none, index and length of the list) of every image in a cell."""
        parts = _parts(cells.column(column.name)[0], column)
        for place, part in enumerate(parts):
            content = (part["bytes"] if column.in_struct else part).as_py() if part.is_valid else None
            path = _path_of(part) if column.has_path and (self._links or content is None) else ""
            if content is None and path:
                content = self._links.read(path) if self._links else Problem(Reason.ONLY_A_PATH)
            elif self._links:
                self._links.entry(path)
            if content is not None:
                yield column.name, content, place, len(parts)


def _parts(cell: Any, column: ImageColumn) -> list[Any]:
    """The images of a cell as Arrow has them."""
    if not column.listed:
        return [cell]
    return list(cell.values) if cell.is_valid else []


def _path_of(part: Any) -> str:
    """The path beside an image; '' where there is none, or none that is text."""
    try:
        return (part["path"].as_py() or "") if part.is_valid else ""
    except UnicodeDecodeError:
        return ""


def _ending(name: str) -> str:
    return suffix_of(f"x.{name}")


def _is_file(value: Any) -> bool:
    """Whether a cell of another column is an image file, as bytes or with a path beside them."""
    values = value if isinstance(value, list) else [value]
    contents = [part.get("bytes") if isinstance(part, dict) else part for part in values]
    return any(isinstance(content, bytes) and begins_as_image(content[:32]) for content in contents)


class ImageColumn(NamedTuple):
    """A column of images: bytes or {bytes, path}, one a row or a list of them."""

    name: str
    in_struct: bool
    has_path: bool
    listed: bool


class Layout(NamedTuple):
    """The image columns, and the key column (None: the row number)."""

    images: tuple[ImageColumn, ...]
    key: str | None


def layout_of(table: Table, image_field: str | None, key_field: str | None) -> Layout:
    """Find the image and key columns of an open file.

    Images are in the columns of `image_field` ('*': in every one that may hold them), or in those that Hugging Face's
    features call so, or in the one column of binary type, or in all of {bytes, path} and lists of it. The key is
    `key_field`, or the first of KEY_COLUMNS that holds unique strings. Raises DatasetError.
    """
    schema = table.file.schema_arrow
    if len(set(schema.names)) != len(schema.names):
        raise DatasetError("Two columns of the Parquet file have the same name; rename one of them.")
    named = [] if image_field in (None, "*") else _listed_names(schema, image_field)
    for name in (*named, key_field):
        if name is not None and name not in schema.names:
            raise DatasetError(f"There is no column '{name}'; the columns are {', '.join(schema.names)}.")
    if not named:
        columns = [column for name in schema.names if (column := image_column(schema, name))]
        found, plain = [column.name for column in columns], any(not column.in_struct for column in columns)
        named = found if image_field == "*" else _declared(schema) or found
        if not found:
            raise DatasetError("In the Parquet file no column is binary; name the image's with image_field.")
        if len(named) > 1 and image_field is None and plain and not _declared(schema):
            what = f"several columns may be the image ({', '.join(named)})"
            raise DatasetError(f"In the Parquet file {what}; name one or several with image_field, or all by '*'.")
    images = []
    for name in named:
        column = image_column(schema, name)
        if column is None:
            raise DatasetError(f"The column '{name}' holds {schema.field(name).type}, not the bytes of an image.")
        images.append(column)
    images.sort(key=lambda column: schema.get_field_index(column.name))
    names = [name for name in KEY_COLUMNS if name not in named]
    key = key_field or next((name for name in names if _is_key(table, name)), None)
    return Layout(tuple(images), key)


def _listed_names(schema: pa.Schema, image_field: str) -> list[str]:
    if image_field in schema.names:
        return [image_field]
    names = []
    for wanted in filter(None, image_field.split(",")):
        choices = [name.strip() for name in wanted.split(";")]
        names.append(next((name for name in choices if name in schema.names), choices[0]))
    return list(dict.fromkeys(names))


def image_column(schema: pa.Schema, name: str) -> ImageColumn | None:
    """How a column may hold images, by its type."""
    types = pa.types
    kind = schema.field(name).type
    listed = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    kind = kind.value_type if listed else kind
    in_struct = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    has_path = in_struct and kind.get_field_index("path") >= 0 and _is_text(kind.field("path").type)
    return ImageColumn(name, in_struct, has_path, listed) if _is_image(kind) else None


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_image(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_key(table: Table, name: str) -> bool:
    schema = table.file.schema_arrow
    if name not in schema.names or not _is_text(schema.field(name).type):
        return False
    check_column(table, name)
    column = table.file.read(columns=[name]).column(name)
    return bool(column.null_count == 0 and len(column.unique()) == len(column))


def released_schema(schema: pa.Schema, layout: Layout, keep: frozenset[str], names: Mapping[str, str]) -> pa.Schema:
    """The image, key and allow-listed columns, in their order and with types made anew; the images' get new `names`.

    Raises DatasetError if a kept column has one of these names.
    """
    columns = {column.name: column for column in layout.images}
    several = len(columns) > 1 or any(column.listed for column in columns.values())
    fields = []
    for field in schema:
        if field.name in columns:
            kind = _released_type(field.type)
            fields.append(pa.field(names[field.name], kind, field.nullable or several))
        elif field.name == layout.key:
            fields.append(_plain_field(field))
        elif field.name in keep:
            # What turns out to be an image becomes null.
            fields.append(_plain_field(field).with_nullable(True))
    if len({field.name for field in fields}) != len(fields):
        called = ", ".join(sorted(names.values()))
        raise DatasetError(f"A kept column is called as an image will be ({called}); name the images by image_field.")
    released = pa.schema(fields)
    declared = [names[name] for name in _declared(schema) if name in names]
    return released.with_metadata({HUGGING_FACE: _image_note(released, declared)}) if declared else released


def _released_type(kind: pa.DataType) -> pa.DataType:
    """Of an image the bytes, and for Hugging Face readers a path that is always null; of a list of images the same."""
    types, plain = pa.types, plain_type(kind)
    if types.is_list(plain) or types.is_large_list(plain) or types.is_fixed_size_list(plain):
        value = pa.field(plain.value_field.name, _released_type(plain.value_type), True)
        if types.is_fixed_size_list(plain):
            return pa.list_(value, plain.list_size)
        return pa.large_list(value) if types.is_large_list(plain) else pa.list_(value)
    if not types.is_struct(plain):
        return plain
    inner = [name for name in ("bytes", "path") if plain.get_field_index(name) >= 0]
    return pa.struct([pa.field(name, plain.field(name).type) for name in inner])


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


def _declared(schema: pa.Schema) -> list[str]:
    """The columns that Hugging Face's description calls an Image, or a list of them."""
    try:
        features = json.loads((schema.metadata or {}).get(HUGGING_FACE, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return []
    return [name for name in schema.names if isinstance(features, dict) and _says_image(features.get(name))]


def _says_image(feature: Any) -> bool:
    if isinstance(feature, list) and len(feature) == 1:
        return _says_image(feature[0])
    if not isinstance(feature, dict):
        return False
    return feature.get("_type") == "Image" or (
        feature.get("_type") in ("Sequence", "List", "LargeList") and _says_image(feature.get("feature"))
    )


def _image_note(schema: pa.Schema, declared: Iterable[str]) -> bytes:
    """The only metadata of a released file: that columns are Images, or lists of them."""
    image = {"_type": "Image"}
    features = {}
    for name in declared:
        column = image_column(schema, name)
        features[name] = {"feature": image, "_type": "Sequence"} if column and column.listed else image
    return json.dumps({"info": {"features": features}}).encode("ascii")


def _has_metadata(field: pa.Field) -> bool:
    """Whether a field, or one that it holds, has metadata beside what Parquet numbers fields by."""
    inner = [field.type.field(number) for number in range(field.type.num_fields)]
    return bool(set(field.metadata or {}) - {b"PARQUET:field_id"}) or any(map(_has_metadata, inner))


class ParquetShardWriter(ShardWriter):
    """One Parquet file at `local_path`; equal samples give equal bytes.

    schema, footer and the paths of its leaves are the input file's. Samples that are left out make their row group
    shorter and do not move the others; an image that is left out of a row is null. `names`: what the image columns are
    called.
    """

    def __init__(
        self,
        local_path: Path,
        release_path: str,
        layout: Layout,
        schema: pa.Schema,
        footer: Footer,
        paths: Sequence[str],
        keep_fields: frozenset[str],
        names: Mapping[str, str],
    ) -> None:
        super().__init__(local_path, release_path)
        self._layout, self._names = layout, names
        self._columns = {column.name: column for column in layout.images}
        self._schema = released_schema(schema, layout, keep_fields, names)
        self._ends: list[int] = []
        for group in footer.groups:
            self._ends.append(group.rows + (self._ends[-1] if self._ends else 0))
        self._group, self._bytes = 0, 0
        self._rows: list[dict[str, Any]] = []
        codecs, dictionaries = self._encodings(footer, paths)
        self._file = pq.ParquetWriter(
            self._temporary,
            self._schema,
            compression=codecs or "snappy",
            write_batch_size=ROWS_PER_PAGE_CHECK,
            use_dictionary=dictionaries,
        )
        self._files.callback(self._file.close)

    def _encodings(self, footer: Footer, paths: Sequence[str]) -> tuple[dict[str, str], list[str]]:
        """({leaf path: codec}, leaf paths with a dictionary) of the kept columns, from the first row group."""
        codecs: dict[str, str] = {}
        dictionaries: list[str] = []
        for path, leaf in zip(paths, footer.groups[0].chunks if footer.groups else [], strict=False):
            top, dot, below = path.partition(".")
            name = self._names.get(top, top)
            if name in self._schema.names:
                codecs[f"{name}{dot}{below}"] = leaf.codec
                if leaf.dictionary_page is not None and top not in self._names:
                    dictionaries.append(f"{name}{dot}{below}")
        return codecs, dictionaries

    def _add(self, position: int, entry: dict[str, Any]) -> None:
        # Under new keys there may be more rows than in the input, an image each.
        while position >= self._ends[self._group] and self._group + 1 < len(self._ends):
            self._finish()
            self._group += 1
        size = sum(_bytes_in(entry[name]) for name in self._names.values())
        if self._bytes + size > FLUSH_BYTES:
            self._finish()
        self._rows.append(entry)
        self._bytes += size

    def _entry(self, sample: Sample, image: bytes, key: str | None) -> dict[str, Any]:
        renamed = None if key is None else key_spellings(sample.own_key, "", key)
        row: dict[str, Any] = dict.fromkeys(self._names.values())
        column = self._columns[sample.image_field]
        cell: Any = {"bytes": image} if column.in_struct else image
        if column.listed:
            part = sample.part or Part(sample.position, sample.key)
            cell = [cell if index == part.place else None for index in range(part.length)]
        row[self._names[column.name]] = cell
        for field in self._schema:
            if field.name in self._names.values():
                continue
            if field.name != self._layout.key or key is None:
                value = renamed_value(field.name, sample.fields.get(field.name), renamed)
                row[field.name] = value if field.name == self._layout.key or not holds_image(value) else None
            elif _is_text(field.type):
                row[field.name] = key
            else:
                raise DatasetError(
                    f"The key column '{field.name}' holds {field.type}, so samples cannot get new keys; "
                    "choose a text column with key_field."
                )
        return row

    def _joined(self, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        for name in self._names.values():
            one, other = first[name], second[name]
            if isinstance(one, list) and isinstance(other, list):
                first[name] = [a if b is None else b for a, b in zip(one, other, strict=True)]
            elif other is not None:
                first[name] = other
        return first

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


def _bytes_in(cell: Any) -> int:
    """Bytes of the images in a released cell."""
    parts = cell if isinstance(cell, list) else [cell]
    return sum(len(part["bytes"] if isinstance(part, dict) else part) for part in parts if part is not None)
