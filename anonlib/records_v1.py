"""Schemas of released tables before schema version 2, for `verify`; nothing writes them any more."""

from __future__ import annotations

import pyarrow as pa

from anonlib.records import MANIFEST, SIMILARITY

_FACE = pa.struct(
    [
        ("box", pa.list_(pa.float32())),
        ("score", pa.float32()),
        ("method", pa.string()),
        ("method_version", pa.string()),
        ("k", pa.int32()),
        ("epsilon", pa.float32()),
        ("surrogate_digest", pa.string()),
        ("mask_coverage", pa.float32()),
        ("similarity", pa.list_(SIMILARITY)),
        ("detected_again", pa.bool_()),
        ("fallback", pa.string()),
        ("reason", pa.string()),
    ]
)

MANIFEST_1 = pa.schema([pa.field("faces", pa.list_(_FACE)) if field.name == "faces" else field for field in MANIFEST])

CLASSES_1 = pa.schema(
    [
        ("class", pa.string()),
        ("people", pa.list_(pa.string())),
        ("weights", pa.list_(pa.float64())),
        ("k", pa.int32()),
        ("effective_k", pa.int32()),
        ("made", pa.string()),
        ("wears", pa.string()),
    ]
)
