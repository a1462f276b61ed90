"""Which columns of a Parquet file are what, and what of its schema may leave the building.

A file's metadata is free text that travels unseen (pandas indexes, a data set's description, the paths that
Hugging Face keeps beside the bytes), so only the types of the kept columns and, for Hugging Face readers,
their features pass.
"""

import json
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.datasets.base import DatasetError
from anonlib.datasets.parquet_pages import check_column

KEY_COLUMNS = ("key", "__key__", "id")
HUGGING_FACE = b"huggingface"


@dataclass(frozen=True)
class Layout:
    """The image column, whether it is a struct {bytes, path}, and the key column (None: the row number)."""

    image: str
    in_struct: bool
    key: str | None

    def image_of(self, value: Any) -> tuple[bytes | None, str | None]:
        """(bytes, None) of a cell, or (None, why there are none)."""
        if value is None:
            return None, "there is no image"
        if not self.in_struct:
            return value, None
        if value.get("bytes") is None:
            return None, "the image is only a path to another file" if value.get("path") else "there is no image"
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


def released_schema(schema: pa.Schema, layout: Layout, keep: frozenset[str]) -> pa.Schema:
    """The image, key and allow-listed columns, in their order, without any metadata but their features."""
    kept = [field for field in schema if field.name in keep | {layout.image, layout.key}]
    features = {name: value for name, value in _features(schema).items() if name in {one.name for one in kept}}
    metadata = None
    if features:
        metadata = {HUGGING_FACE: json.dumps({"info": {"features": features}}).encode()}
    return pa.schema([field.remove_metadata() for field in kept], metadata=metadata)


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
