"""Parquet files with an image column, as Hugging Face datasets and table exporters write them.

Each image of a row is a sample; a row without one is a sample with the reason. An image may be in the row, or be a file
below the input that the row names by its path, as `to_parquet` of Hugging Face's datasets writes images of local files.
Memory is bounded by a page, even where a row group is the whole file, and the size of unpacked pages is bounded before
they are read (parquet_footer.py). parquet_columns.py finds the columns and writes files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from anonlib.codes import Note, Problem, Reason
from anonlib.datasets import names
from anonlib.datasets.base import MAX_SAMPLE_BYTES, Dataset, Item, Sample, Shard, ShardWriter
from anonlib.datasets.parquet_columns import (
    HUGGING_FACE,
    ImageColumn,
    Layout,
    NoOutput,
    ParquetShardWriter,
    declared_images,
    has_metadata,
    image_column,
    image_note,
    layout_of,
    parts_of,
    path_of,
)
from anonlib.datasets.parquet_footer import UNREADABLE, Table, leaves_of, open_table, raise_if_of_the_disk, rows_at_once
from anonlib.errors import AccessDenied, DamagedTable, DatasetError, LinkRefused, StorageError
from anonlib.storage import Storage, StoredObject, open_storage

ROWS_AT_ONCE = 16
NEW_IMAGE = "image"
"""The image column's name in a release with new keys whose job does not name it."""

_PATHS_AT_ONCE = 1024
_LOGS = (
    ("_delta_log/", "", "Delta Lake"),
    (".hoodie/", "", "Apache Hudi"),
    ("metadata/", ".metadata.json", "Apache Iceberg"),
)
"""Where a table's log lies, how the name of a file of it ends, and the name of the format."""
_WRITER = "parquet-cpp-arrow version "


@contextmanager
def _opened(storage: Storage, name: str, etag: str | None = None) -> Iterator[Table]:
    with storage.open_read(name, etag, seekable=True) as stream, open_table(stream) as table:
        yield table


@contextmanager
def _its_own_problem(*more: type[Exception]) -> Iterator[None]:
    """Goes on where a file cannot be read, which is a problem of its own shard and not of the data set."""
    try:
        yield
    except (pa.ArrowException, OSError, DamagedTable, *more) as error:
        raise_if_of_the_disk(error)
    except StorageError as error:
        if not error.of_the_file:
            raise


class ParquetDataset(Dataset):
    """Parquet files; keys come from a key column, or are the row's number in its file (9 digits)."""

    format, noun, media_type = "parquet", "Parquet file", "application/x-parquet"
    suffixes = (".parquet",)
    damage = (*UNREADABLE, ValueError, OverflowError)
    _checked = False

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
        with _its_own_problem(), _opened(self.storage, first.path, first.etag) as table:
            layout_of(table, self.image_field, self.key_field)
        return super().shards()

    def _used(self) -> set[str]:
        """See Dataset; with the image files that rows show."""
        sources, known = self.sources(), {file.path: file for file in self.listing().files}
        used = {file.path for file in sources}
        for source in sources if any(map(names.is_media, known.keys() - used)) else ():
            with _its_own_problem(DatasetError), _opened(self.storage, source.path, source.etag) as table:
                layout = layout_of(table, self.image_field, self.key_field)
                used |= set(_Links(self, source.path, known).shown(table, layout))
        return used

    @classmethod
    def _items(cls, storage: Storage, path: str) -> Iterator[Item]:
        """The schema, other metadata, the footer's text (writer, least and greatest values), and every cell."""
        with _opened(storage, path) as table:
            schema: pa.Schema = table.file.schema_arrow
            yield Item(path, None, "", schema)
            for name, value in (table.file.metadata.metadata or {}).items():
                if name != b"ARROW:schema":
                    odd = name != HUGGING_FACE or value != image_note(schema, declared_images(schema))
                    yield Item(f"{path}: metadata", None, name.decode(errors="replace"), value, odd)
            strange = any(map(has_metadata, schema)) or not table.writer.startswith(_WRITER)
            yield Item(f"{path}: footer", None, "", table, odd=strange)
            number = 0
            for batch in table.file.iter_batches(ROWS_AT_ONCE, use_threads=False):
                for row in batch.to_pylist():
                    for name, cell in row.items():
                        for value in cell if isinstance(cell, list) and image_column(schema, name) else [cell]:
                            yield Item(f"{path}: row {number}, {name}", None, name, value)
                    number += 1

    def read(self, shard: Shard, left_out: Counter[str] | None = None) -> Iterator[Sample]:
        """See Dataset. After an unreadable page the rest of its row group is one sample with a problem."""
        name = self._readable_name(shard)
        stem = names.without_suffix(name.rpartition("/")[2], self.suffixes)
        position = 0
        try:
            with _opened(self.storage, name, shard.etag) as table:
                layout = layout_of(table, self.image_field, self.key_field)
                for sample in _RowReader(table, layout, self.fields, _Links(self, name, {})).samples(stem):
                    sample.position = position
                    position += 1
                    yield sample
        except UNREADABLE as error:
            raise_if_of_the_disk(error)
            problem = Problem(Reason.UNREADABLE, f"the Parquet file cannot be read ({names.printable(str(error))})")
            yield Sample(f"{stem}#unreadable", None, self.image_field or "", {}, problem, position)

    def writer(
        self, shard: Shard, local_path: Path, keep_fields: frozenset[str], name: str | None = None
    ) -> ShardWriter:
        """See Dataset; takes the schema from the input. A file that cannot be read has no output."""
        release_path = self.output_path(shard, name)
        try:
            with _opened(self.storage, self.name_of(shard), shard.etag) as table:
                layout = layout_of(table, self.image_field, self.key_field)
        except UNREADABLE as error:
            raise_if_of_the_disk(error)
            return NoOutput(local_path, release_path)
        called = {column.name: column.name for column in layout.images}
        if name is not None and not self.image_field:
            called = {old: f"{NEW_IMAGE}{number or ''}" for number, old in enumerate(called)}
        return ParquetShardWriter(local_path, release_path, layout, table, keep_fields, called)


class _Links:
    """The image files below the input that a Parquet file names by their paths; `known`: files of the listing."""

    def __init__(self, dataset: Dataset, name: str, known: dict[str, StoredObject]) -> None:
        self._storage, self._base, self._known = dataset.storage, dataset.base.rstrip("/"), known
        self._folder = name.rpartition("/")[0]

    def shown(self, table: Table, layout: Layout) -> Iterator[str]:
        """The files that stand for an image without bytes; bytes are read only where some images have them."""
        for column in (column for column in layout.images if column.has_path):
            leaves = {table.file.schema.column(leaf).path: leaf for leaf in leaves_of(table.file, [column.name])}
            paths, contents = ([path for path in leaves if path.endswith(name)] for name in (".path", ".bytes"))
            for number, group in enumerate(table.groups):
                chunk = group.chunks[leaves[contents[0]]]
                if chunk.nulls == 0:
                    continue
                wanted = paths if chunk.nulls == chunk.values else paths + contents
                rows = rows_at_once(table, number, _PATHS_AT_ONCE, names=wanted)
                for batch in table.file.iter_batches(rows, row_groups=[number], columns=wanted, use_threads=False):
                    for part in (part for cell in batch.column(column.name) for part in parts_of(cell, column)):
                        has_bytes = wanted != paths and part.is_valid and part["bytes"].is_valid
                        if not has_bytes and (found := self.entry(path_of(part))):
                            yield found.path

    def entry(self, path: str) -> StoredObject | None:
        """The file of a path beside the Parquet file or below the input, an absolute one below the input alone."""
        if not path:
            return None
        inside = path.removeprefix("file://").removeprefix(f"{self._base}/").removeprefix("./")
        # A path may begin with the folder's own name, as seen from where it lies.
        below = inside.removeprefix(f"{self._base.rpartition('/')[2]}/")
        for place in dict.fromkeys((f"{self._folder}/{inside}".removeprefix("/"), inside, below)):
            if names.why_unsafe(place) is not None:
                continue
            try:
                found = self._known.get(place) or self._storage.stat(place)
            except StorageError as error:  # S3 may deny access to an object that is missing
                if not self._storage.judged(error, place).of_the_file:
                    raise
                continue
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


class _RowReader:
    """Makes samples of a file's rows. Only the columns of images, of the key and of what the job needs are read."""

    def __init__(self, table: Table, layout: Layout, fields: frozenset[str] | None, links: _Links) -> None:
        images, every = {column.name for column in layout.images}, table.file.schema_arrow.names
        needed = [n for n in every if fields is None or {n, names.suffix_of(f"x.{n}")} & fields or n == layout.key]
        self._fields = [name for name in needed if name not in images]
        self._columns = [*images, *self._fields]
        self._table, self._layout, self._links, self._kept = table, layout, links, fields or frozenset()
        self._seen: dict[str, int] = {}

    def samples(self, stem: str) -> Iterator[Sample]:
        row = 0
        for number, group in enumerate(self._table.groups):
            end, columns = row + group.rows, self._columns
            try:
                rows = rows_at_once(self._table, number, ROWS_AT_ONCE, names=columns)
                batches = self._table.file.iter_batches(rows, row_groups=[number], columns=columns, use_threads=False)
                for batch in batches:
                    for index in range(batch.num_rows):
                        yield from self._samples_of(batch.slice(index, 1), row)
                        row += 1
                    del batch  # before the next is read
            except UNREADABLE as error:
                raise_if_of_the_disk(error)
                message = f"rows {row} to {end - 1} of the Parquet file cannot be read ({names.printable(str(error))})"
                yield self._lost(f"{stem}#rows-{row}", Reason.UNREADABLE, message)
            row = end

    def _lost(self, key: str, reason: Reason, message: str) -> Sample:
        column = self._layout.images[0].name
        return Sample(names.unique_key(key, self._seen), None, column, {}, Problem(reason, message))

    def _samples_of(self, cells: pa.RecordBatch, row: int) -> Iterator[Sample]:
        """A sample an image of one row, or one sample with a problem."""
        number = f"{row:09d}"
        if cells.nbytes > MAX_SAMPLE_BYTES:
            message = f"the row is larger than {MAX_SAMPLE_BYTES >> 20} MiB"
            yield self._lost(f"{number}#too-large", Reason.TOO_LARGE, message)
            return
        try:
            values = {name: cells.column(name)[0].as_py() for name in self._fields}
            images = [image for column in self._layout.images for image in self._images(cells, column)]
        except (ValueError, OverflowError) as error:
            message = f"a value of the row cannot be read ({error})"
            yield self._lost(f"{number}#unreadable", Reason.UNREADABLE, message)
            return
        key, problem = self._key(number, values)
        if problem is None and not images:
            problem = Problem(Reason.NO_IMAGE, "there is no image")
        fields = {name: value for name, value in values.items() if not _is_file(value)}
        sample = Sample(key, None, self._layout.images[0].name, fields, problem)
        if self._kept & (values.keys() - fields.keys()):
            sample.notes = (Note.NOT_KEPT,)
        if problem is not None:
            yield sample
            return
        for part in sample.parts(images, row, self._seen):
            missing: Any = part.image
            if isinstance(missing, Problem):
                part.problem, part.image = missing, None
            yield part

    def _key(self, number: str, values: dict[str, Any]) -> tuple[str, Problem | None]:
        """The key of a row with this number, unique in the file, and what is wrong with it."""
        stored, problem, column = number, None, self._layout.key
        if column is not None and values[column] is None:
            stored, problem = f"{number}#no-key", Problem(Reason.NO_KEY, "the key is empty")
        elif column is not None:
            stored = str(values[column])
        key = names.unique_key(names.printable(stored), self._seen)
        if problem is None and key != stored:
            message = f"the key {key!r} is in this shard already or has control characters"
            problem = Problem(Reason.DUPLICATE_KEY, message)
        return key, problem

    def _images(self, cells: pa.RecordBatch, column: ImageColumn) -> Iterator[tuple[str, bytes | Problem, int, int]]:
        """(column, bytes or why there are none, index and length of the list) of every image in a cell."""
        parts = parts_of(cells.column(column.name)[0], column)
        for place, part in enumerate(parts):
            content = (part["bytes"] if column.in_struct else part).as_py() if part.is_valid else None
            if content is None and column.has_path and (path := path_of(part)):
                content = self._links.read(path)
            if content is not None:
                yield column.name, content, place, len(parts)


def _is_file(value: Any) -> bool:
    """Whether a cell of another column is an image or clip, as bytes or with a path beside them."""
    values = value if isinstance(value, list) else [value]
    contents = [part.get("bytes") if isinstance(part, dict) else part for part in values]
    return any(
        isinstance(content, bytes) and names.begins_as_media(content[: names.MEDIA_HEAD]) for content in contents
    )
