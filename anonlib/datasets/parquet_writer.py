"""Parquet out: the input's columns, types, compression and row groups, less what the job does not allow.

Samples that are left out make their row group shorter; they do not move the others. A row group has to be
held in memory while it is filled (the format keeps columns together), so one that outgrows FLUSH_BYTES is
closed early.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.datasets.base import Sample, ShardWriter
from anonlib.datasets.fields import key_spellings, renamed_value
from anonlib.datasets.parquet_layout import Layout, released_schema
from anonlib.errors import DatasetError

FLUSH_BYTES = 128 << 20
# Arrow closes a page only between batches; its 1,024 rows would make pages that readers must hold whole.
ROWS_PER_PAGE_CHECK = 16


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
