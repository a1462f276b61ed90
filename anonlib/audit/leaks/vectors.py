"""Whether something is an embedding: a long list of numbers, floats as bytes, or a column by one of our own names.

An embedding is what recognizers compare, so a kept field is no excuse for it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from anonlib.audit.leaks.containers import is_picture
from anonlib.audit.leaks.index import parsed_json, text_of
from anonlib.workspace.schemas import RESTRICTED_COLUMNS

LEAST = 64
"""Numbers of an embedding; recognizers give 128 and more, landmarks and boxes have fewer."""

_PACKED = re.compile(r"[0-9A-Za-z+/_-]{256,}={0,2}")
_CONTAINERS = (b"\x93NUMPY", b"PK\x03\x04", b"\x80\x04", b"\x80\x05", b"\x1f\x8b")
"""NumPy, zip (npz, torch), pickle, gzip."""
_KINDS = ("<f4", "<f2", "<f8")
_LARGEST, _SMALLEST = 1e3, 1e-8


def in_member(content: bytes, kept: Collection[str] = ()) -> bool:
    """Whether a member that is no image holds one; `kept` are the fields whose names the job chose."""
    if is_picture(content):
        return False
    text = text_of(content)
    if text is None:
        return content.startswith(_CONTAINERS) or are_floats(content)
    document = parsed_json(text)
    if document is None:
        numbers = re.findall(r"(?<![\w.])-?\d+\.\d+(?:[eE][-+]?\d+)?(?![\w.])", text)
        return len(numbers) >= LEAST or _packed(text)
    return in_value(document, kept)


def in_value(value: Any, kept: Collection[str] = ()) -> bool:
    """Whether a cell or a JSON value holds one."""
    if isinstance(value, Mapping):
        # The method `embedding` names its network, with hash and terms, by that word.
        named = [name for name in RESTRICTED_COLUMNS - frozenset(kept) if not isinstance(value.get(name, {}), Mapping)]
        return bool(named) or any(in_value(one, kept) for one in value.values())
    if isinstance(value, bytes):
        return in_member(value, kept)
    if isinstance(value, str):
        return _packed(value)
    if isinstance(value, list | tuple):
        numbers = list(_numbers(value))
        if len(numbers) >= LEAST and (
            any(isinstance(one, float) and not one.is_integer() for one in numbers)
            or len(numbers) & (len(numbers) - 1) == 0
        ):
            return True
        return any(in_value(one, kept) for one in value if not isinstance(one, int | float))
    return False


def restricted_columns(found: pa.Schema, ours: pa.Schema | None = None, kept: Collection[str] = ()) -> list[str]:
    """Columns, nested ones too, by the name of what must stay in the workspace, or lists of floats that no table of
    ours has; `ours` is the schema that a table of ours should have."""
    names = []
    for field in found:
        if ours is not None and field.name in ours.names and ours.field(field.name).type.equals(field.type):
            continue
        if field.name in kept:
            continue
        if RESTRICTED_COLUMNS & set(_names(field)) or (ours is not None and _has_floats(field.type)):
            names.append(field.name)
    return names


def are_floats(content: bytes) -> bool:
    """Whether bytes read as floats of a plausible size, which no other data does."""
    for kind in _KINDS:
        size = np.dtype(kind).itemsize
        if len(content) % size or len(content) < LEAST * size:
            continue
        with np.errstate(invalid="ignore"):
            values = np.frombuffer(content, kind).astype(np.float64)
        sizes = np.abs(values[values != 0])
        if (
            np.isfinite(values).all()
            and len(sizes) >= LEAST // 2
            and sizes.max() <= _LARGEST
            and sizes.min() >= _SMALLEST
            and len(np.unique(values)) > LEAST // 4
        ):
            return True
    return False


def _packed(text: str) -> bool:
    """Whether base64 or hex in a text reads as floats."""
    for token in _PACKED.findall(text):
        plain = token.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except binascii.Error:
            raw = b""
        if are_floats(raw) or raw.startswith(_CONTAINERS):
            return True
        if re.fullmatch("[0-9a-fA-F]+", token) and len(token) % 2 == 0 and are_floats(bytes.fromhex(token)):
            return True
    return False


def _numbers(value: Any) -> Iterator[int | float]:
    for one in value:
        if isinstance(one, list | tuple):
            yield from _numbers(one)
        elif isinstance(one, int | float) and not isinstance(one, bool):
            yield one


def _names(field: pa.Field) -> Iterator[str]:
    yield field.name
    for number in range(field.type.num_fields):
        yield from _names(field.type.field(number))


def _has_floats(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or any(_has_floats(kind.field(one).type) for one in range(kind.num_fields))
