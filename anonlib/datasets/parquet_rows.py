"""Rows of a Parquet table as samples: an image each, or the reason why there is none.

An image may be in the row, or be a file below the input that the row names by its path, as `to_parquet` of Hugging
Face's datasets writes images of local files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from anonlib.codes import Note, Problem, Reason
from anonlib.datasets.base import MAX_SAMPLE_BYTES, Dataset, Sample, digest_of
from anonlib.datasets.names import MEDIA_HEAD, begins_as_media, printable, suffix_of, unique_key, why_unsafe
from anonlib.datasets.parquet_columns import ImageColumn, Layout, parts_of, path_of
from anonlib.datasets.parquet_footer import UNREADABLE, Table, raise_if_of_the_disk
from anonlib.datasets.parquet_pages import leaves_of, rows_at_once
from anonlib.errors import LinkRefused, NotAFile, NotFound
from anonlib.storage import StoredObject

ROWS_AT_ONCE = 16
_PATHS_AT_ONCE = 1024


class Links:
    """The image files below the input that a Parquet file names by their paths, and a digest over what they are."""

    def __init__(self, dataset: Dataset, name: str, known: dict[str, StoredObject]) -> None:
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
            chunk = group.chunks[leaves[contents[0]]]
            wanted = paths if chunk.nulls in (0, chunk.values) else paths + contents
            rows = rows_at_once(table, number, _PATHS_AT_ONCE, names=wanted)
            for batch in table.file.iter_batches(rows, row_groups=[number], columns=wanted, use_threads=False):
                for cell in batch.column(column.name):
                    for part in parts_of(cell, column):
                        found = self.entry(path_of(part))
                        has_bytes = chunk.nulls == 0 if wanted == paths else part.is_valid and part["bytes"].is_valid
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


def names_files(table: Table, layout: Layout) -> bool:
    """Whether a file has images without bytes beside a path, as far as its footer tells."""
    leaves = leaves_of(table.file, [column.name for column in layout.images if column.has_path])
    contents = [leaf for leaf in leaves if table.file.schema.column(leaf).path.endswith(".bytes")]
    return any(group.chunks[leaf].nulls != 0 for group in table.footer.groups for leaf in contents)


def samples_of(
    table: Table, layout: Layout, stem: str, fields: frozenset[str] | None, links: Links | None
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
        except UNREADABLE as error:
            raise_if_of_the_disk(error)
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
        links: Links | None,
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
        parts = parts_of(cells.column(column.name)[0], column)
        for place, part in enumerate(parts):
            content = (part["bytes"] if column.in_struct else part).as_py() if part.is_valid else None
            path = path_of(part) if column.has_path and (self._links or content is None) else ""
            if content is None and path:
                content = self._links.read(path) if self._links else Problem(Reason.ONLY_A_PATH)
            elif self._links:
                self._links.entry(path)
            if content is not None:
                yield column.name, content, place, len(parts)


def _ending(name: str) -> str:
    return suffix_of(f"x.{name}")


def _is_file(value: Any) -> bool:
    """Whether a cell of another column is an image or clip, as bytes or with a path beside them."""
    values = value if isinstance(value, list) else [value]
    contents = [part.get("bytes") if isinstance(part, dict) else part for part in values]
    return any(isinstance(content, bytes) and begins_as_media(content[:MEDIA_HEAD]) for content in contents)
