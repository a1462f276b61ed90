"""Which columns of a Parquet file are what, and what of its schema may leave the building.

A file's metadata is free text that travels unseen (pandas indexes, a data set's description, names of classes, the
paths that Hugging Face keeps beside the bytes), so only the types of the kept columns pass, made anew, and for Hugging
Face readers that one column is an Image.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, BinaryIO
from zoneinfo import available_timezones

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.codes import Problem, Reason
from anonlib.datasets.parquet_pages import check_column
from anonlib.errors import DatasetError

KEY_COLUMNS = ("key", "__key__", "id")
HUGGING_FACE = b"huggingface"
NEW_IMAGE = "image"
"""The image column's name in a release with new keys whose job does not name it."""

_EXTENSIONS = {"arrow.uuid", "arrow.bool8"}
"""Arrow's extension types without a word of their own; others become what they are stored as."""
_OFFSET = re.compile(r"[+-]\d\d:\d\d")


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
    """An Arrow type made anew, without metadata and without words that a stranger chose, but for nested names."""
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
    return {name: one for name, one in features.items() if isinstance(one, dict)}
