"""Whether data holds an embedding: a long list of fractions, a file of arrays, or one of the workspace's names.

An embedding is what recognizers compare, so it is a leak in a kept field, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa

from anonlib.workspace.schemas import RESTRICTED_COLUMNS

LEAST = 64
"""Numbers of an embedding; recognizers give 128 and more, landmarks and boxes have fewer."""

_ARRAY_FILES = (b"\x93NUMPY", b"PK\x03\x04", b"\x80\x04", b"\x80\x05", b"\x1f\x8b")
"""How NumPy, zip (npz, torch), pickle and gzip files begin."""


def is_array_file(content: bytes) -> bool:
    """Whether a file may hold arrays, by its first bytes."""
    return content.startswith(_ARRAY_FILES)


def in_value(value: Any, kept: Collection[str] = ()) -> bool:
    """Whether a cell or a JSON value holds an embedding; `kept` are the fields whose names the job chose."""
    if isinstance(value, Mapping):
        # The method `embedding` has its network under that name, with hash and terms.
        named = [name for name in RESTRICTED_COLUMNS - frozenset(kept) if not isinstance(value.get(name, {}), Mapping)]
        return bool(named) or any(in_value(part, kept) for part in value.values())
    if isinstance(value, bytes):
        return is_array_file(value)
    if isinstance(value, list | tuple):
        numbers = list(_numbers(value))
        if len(numbers) >= LEAST and any(isinstance(number, float) and not number.is_integer() for number in numbers):
            return True
        return any(in_value(part, kept) for part in value if not isinstance(part, int | float))
    return False


def restricted_columns(found: pa.Schema, ours: pa.Schema | None = None, kept: Collection[str] = ()) -> list[str]:
    """Columns, nested ones too, by the name of what must stay in the workspace, or with floats that `ours` lacks.

    `ours` is the schema that a table of ours should have, None for a table of the dataset.
    """
    names = []
    for field in found:
        if ours is not None and field.name in ours.names and ours.field(field.name).type.equals(field.type):
            continue
        if field.name in kept:
            continue
        if RESTRICTED_COLUMNS & set(_names(field)) or (ours is not None and _has_floats(field.type)):
            names.append(field.name)
    return names


def _numbers(value: Any) -> Iterator[int | float]:
    for part in value:
        if isinstance(part, list | tuple):
            yield from _numbers(part)
        elif isinstance(part, int | float) and not isinstance(part, bool):
            yield part


def _names(field: pa.Field) -> Iterator[str]:
    yield field.name
    for number in range(field.type.num_fields):
        yield from _names(field.type.field(number))


def _has_floats(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or any(_has_floats(kind.field(part).type) for part in range(kind.num_fields))
