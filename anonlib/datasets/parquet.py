"""Parquet files with an image column, as Hugging Face datasets and table exporters write them.

Memory is bounded by a page, even where a row group is the whole file, and the size of unpacked pages is bounded before
they are read (parquet_pages.py). parquet_columns.py finds the columns, parquet_rows.py turns rows into samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.codes import Problem, Reason
from anonlib.datasets.base import Dataset, Item, Part, Sample, Shard, ShardWriter
from anonlib.datasets.names import holds_image, key_spellings, printable, renamed_value, without_suffix
from anonlib.datasets.parquet_columns import (
    HUGGING_FACE,
    Layout,
    declared_images,
    has_metadata,
    image_column,
    image_note,
    is_text,
    layout_of,
    released_schema,
)
from anonlib.datasets.parquet_footer import UNREADABLE, Footer, Table, open_table, raise_if_of_the_disk
from anonlib.datasets.parquet_rows import ROWS_AT_ONCE, Links, names_files, samples_of
from anonlib.errors import AccessDenied, Changed, DamagedTable, DatasetError, StorageError
from anonlib.storage import Storage, StoredObject, open_storage

FLUSH_BYTES = 128 << 20
"""The format keeps columns together, so a row group is held in memory while it is filled; a larger one ends early."""
ROWS_PER_PAGE_CHECK = 16
"""Arrow closes a page only between batches; its 1,024 rows would make pages that readers must hold whole."""
NEW_IMAGE = "image"
"""The image column's name in a release with new keys whose job does not name it."""

_LINKED = "+"
"""Between a Parquet file's own etag and the digest of the image files that it names."""
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
        with _its_own_problem(), _opened(self.storage, first.path, first.etag) as table:
            linked = names_files(table, layout_of(table, self.image_field, self.key_field))
        return [self._with_links(shard) if linked else shard for shard in super().shards()]

    def _used(self) -> set[str]:
        """See Dataset; with the image files that rows show."""
        if self._shown is None:
            self.shards()
        return {file.path for file in self.sources()} | (self._shown or set())

    def _with_links(self, shard: Shard) -> Shard:
        """The shard whose etag stands for the image files that it names, too."""
        links = Links(self, self.name_of(shard), {file.path: file for file in self.listing().files})
        with _its_own_problem(DatasetError), _opened(self.storage, self.name_of(shard), shard.etag) as table:
            for column in layout_of(table, self.image_field, self.key_field).images:
                if column.has_path:
                    links.enter(table, column)
            shard = replace(shard, etag=f"{shard.etag}{_LINKED}{links.digest()}")
        self._shown = (self._shown or set()) | links.shown
        return shard

    @classmethod
    def _items(cls, storage: Storage, path: str) -> Iterator[Item]:
        """The schema, other metadata, the footer's text (writer, least and greatest values), and every cell."""
        with _opened(storage, path) as (file, _, footer):
            schema: pa.Schema = file.schema_arrow
            yield Item(path, None, "", schema)
            for name, value in (file.metadata.metadata or {}).items():
                if name != b"ARROW:schema":
                    odd = name != HUGGING_FACE or value != image_note(schema, declared_images(schema))
                    yield Item(f"{path}: metadata", None, name.decode(errors="replace"), value, odd)
            strange = any(map(has_metadata, schema)) or not footer.writer.startswith(_WRITER)
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
        links = Links(self, name, {}) if linked else None
        position = 0
        try:
            with _opened(self.storage, name, etag) as table:
                layout = layout_of(table, self.image_field, self.key_field)
                for sample in samples_of(table, layout, stem, self.fields, links):
                    sample.position = position
                    position += 1
                    yield sample
        except UNREADABLE as error:
            raise_if_of_the_disk(error)
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
        except UNREADABLE as error:
            raise_if_of_the_disk(error)
            return NoOutput(local_path, release_path)
        names = {column.name: column.name for column in layout.images}
        if name is not None and not self.image_field:
            names = {old: f"{NEW_IMAGE}{number or ''}" for number, old in enumerate(names)}
        return ParquetShardWriter(local_path, release_path, layout, schema, table.footer, paths, keep_fields, names)


class ParquetShardWriter(ShardWriter):
    """One Parquet file at `local_path`; equal samples give equal bytes.

    schema, footer and the paths of its leaves are the input file's. Samples that are left out make their row group
    shorter and do not move the others; an image that is left out of a row is null. `names`: those of the
    image columns in the release.
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

    def _entry(self, sample: Sample, image: bytes | Path, key: str | None) -> dict[str, Any]:
        if isinstance(image, Path):  # a cell is held whole, here and by every reader
            image = image.read_bytes()
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
            elif is_text(field.type):
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

    def _entry(self, sample: Sample, image: bytes | Path, key: str | None) -> None:
        raise ValueError("a file without a schema has no output, so no sample of it can be written")

    def _add(self, position: int, entry: None) -> None:
        """Nothing is ever added."""

    def _outputs(self) -> list[tuple[str, Path]]:
        return []


def _bytes_in(cell: Any) -> int:
    """Bytes of the images in a released cell."""
    parts = cell if isinstance(cell, list) else [cell]
    return sum(len(part["bytes"] if isinstance(part, dict) else part) for part in parts if part is not None)
