"""Which columns of a Parquet table hold the images and the key, the schema of the released table, and its writer.

A file's metadata is free text that travels unseen, so only the types of the kept columns pass, made anew, and for
Hugging Face readers that a column is an Image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import available_timezones

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.datasets.base import Sample, ShardWriter
from anonlib.datasets.names import holds_image, key_spellings, renamed_value
from anonlib.datasets.parquet_footer import Table, bounded_batches
from anonlib.errors import DatasetError

KEY_COLUMNS = ("key", "__key__", "id")
HUGGING_FACE = b"huggingface"
FLUSH_BYTES = 128 << 20
"""The format keeps columns together, so a row group is held in memory while it is filled; a larger one ends early."""
ROWS_PER_PAGE_CHECK = 16
"""Arrow closes a page only between batches; its 1,024 rows would make pages that readers must hold whole."""

_KEYS_AT_ONCE = 1024
_EXTENSIONS = {"arrow.uuid", "arrow.bool8"}
"""Arrow's extension types without a word of their own; others become what they are stored as."""
_OFFSET = re.compile(r"[+-]\d\d:\d\d")


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

    Images are in the columns of `image_field` ('*': in all that may hold them), or in those that Hugging Face's
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
        named = found if image_field == "*" else declared_images(schema) or found
        if not found:
            raise DatasetError("In the Parquet file no column is binary; name the image's with image_field.")
        if len(named) > 1 and image_field is None and plain and not declared_images(schema):
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
    has_path = in_struct and kind.get_field_index("path") >= 0 and is_text(kind.field("path").type)
    return ImageColumn(name, in_struct, has_path, listed) if _is_image(kind) else None


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_image(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_key(table: Table, name: str) -> bool:
    schema = table.file.schema_arrow
    if name not in schema.names or not is_text(schema.field(name).type):
        return False
    seen: set[bytes | None] = {None}
    for batch in bounded_batches(table, _KEYS_AT_ONCE, names=[name]):
        before = len(seen)
        seen.update(batch.column(0).cast(pa.large_binary()).to_pylist())
        if len(seen) < before + batch.num_rows:
            return False
    return True


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
            # A value that turns out to be an image becomes null.
            fields.append(_plain_field(field).with_nullable(True))
    if len({field.name for field in fields}) != len(fields):
        called = ", ".join(sorted(names.values()))
        raise DatasetError(f"A kept column is called as an image will be ({called}); name the images by image_field.")
    released = pa.schema(fields)
    declared = [names[name] for name in declared_images(schema) if name in names]
    return released.with_metadata({HUGGING_FACE: image_note(released, declared)}) if declared else released


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


def declared_images(schema: pa.Schema) -> list[str]:
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


def image_note(schema: pa.Schema, names: Iterable[str]) -> bytes:
    """The only metadata of a released file: that columns are Images, or lists of them."""
    image = {"_type": "Image"}
    features = {}
    for name in names:
        column = image_column(schema, name)
        features[name] = {"feature": image, "_type": "Sequence"} if column and column.listed else image
    return json.dumps({"info": {"features": features}}).encode("ascii")


def has_metadata(field: pa.Field) -> bool:
    """Whether a field, or a field inside it, has metadata beside Parquet's field number."""
    inner = [field.type.field(number) for number in range(field.type.num_fields)]
    return bool(set(field.metadata or {}) - {b"PARQUET:field_id"}) or any(map(has_metadata, inner))


def parts_of(cell: Any, column: ImageColumn) -> list[Any]:
    """The images of a cell as Arrow has them."""
    if not column.listed:
        return [cell]
    return list(cell.values) if cell.is_valid else []


def path_of(part: Any) -> str:
    """The path beside an image; '' where it is missing or no text."""
    try:
        return (part["path"].as_py() or "") if part.is_valid else ""
    except UnicodeDecodeError:
        return ""


class ParquetShardWriter(ShardWriter):
    """One Parquet file at `local_path`; equal samples give equal bytes.

    `table` is the input file, of which only what its footer says is asked. Samples that are left out make their row
    group shorter and do not move the others; an image that is left out of a row is null. `names`: those of the image
    columns in the release.
    """

    def __init__(
        self,
        local_path: Path,
        release_path: str,
        layout: Layout,
        table: Table,
        keep_fields: frozenset[str],
        names: Mapping[str, str],
    ) -> None:
        super().__init__(local_path, release_path)
        self._layout, self._names = layout, names
        self._columns = {column.name: column for column in layout.images}
        self._schema = released_schema(table.file.schema_arrow, layout, keep_fields, names)
        self._ends = list(accumulate(group.rows for group in table.groups))
        self._group, self._bytes = 0, 0
        self._rows: list[dict[str, Any]] = []
        codecs: dict[str, str] = {}
        dictionaries: list[str] = []
        for number, leaf in enumerate(table.groups[0].chunks if table.groups else ()):
            top, dot, below = table.file.schema.column(number).path.partition(".")
            name = names.get(top, top)
            if name in self._schema.names:
                codecs[f"{name}{dot}{below}"] = leaf.codec
                if leaf.dictionary_page is not None and top not in names:
                    dictionaries.append(f"{name}{dot}{below}")
        self._file = pq.ParquetWriter(
            self._temporary,
            self._schema,
            compression=codecs or "snappy",
            write_batch_size=ROWS_PER_PAGE_CHECK,
            use_dictionary=dictionaries,
        )
        self._files.callback(self._file.close)

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
            place, length = sample.place
            cell = [cell if index == place else None for index in range(length)]
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
