"""Thrift's compact protocol (thrift-compact-protocol.md of apache/thrift), read at least as strictly as Arrow reads it.

Arrow reads a damaged field as the type that it expects, or skips it. This reader must never understand a file otherwise
than Arrow, so it refuses a field that comes twice, is of another type, or is out of range.
"""

from __future__ import annotations

import struct
from typing import Any

from anonlib.errors import DamagedTable

BOOL, BYTE, I16, I32, I64, DOUBLE, BYTES = 1, 3, 4, 5, 6, 7, 8
_FALSE, _LIST, _SET, _STRUCT = 2, 9, 10, 12

Fields = dict[int, tuple[int, Any]]
"""The fields of a struct by their ids: the number of a type, and for its parts Fields or such a pair."""
Type = int | list[Any] | Fields
"""One of the numbers above, [the type of its values] of a list, the fields of a struct."""

_ANY = (0, None)
_MAX_DEPTH = 16
_BITS = {I16: 15, I32: 31, I64: 63}


def fields(*types: Type) -> Fields:
    """A struct's fields, numbered from 1."""
    return {number: _field(each) for number, each in enumerate(types, 1)}


def _field(of: Type) -> tuple[int, Any]:
    if isinstance(of, int):
        return of, None
    return (_LIST, _field(of[0])) if isinstance(of, list) else (_STRUCT, of)


def read_struct(data: bytes, at: int, known: Fields, depth: int = 0) -> tuple[dict[int, Any], int]:
    """The struct at `at`, field id -> value (integers, floats, bytes, lists, dicts), and where it ends.

    Fields that are not `known` are read by the type that they say. Raises DamagedTable, and IndexError where the bytes
    end.
    """
    found: dict[int, Any] = {}
    field = 0
    while head := data[at]:
        at += 1
        if head > 15:
            field += head >> 4
        else:
            field, at = _integer(data, at, I16)
        kind = head & 15
        expected, inner = known.get(field, _ANY)
        if field in found or not 0 < field < 1 << 15 or (kind != expected and expected and {kind, expected} != {1, 2}):
            raise DamagedTable("a field of its metadata comes twice or is of another type")
        if kind <= _FALSE:  # a boolean is its type
            found[field] = kind == BOOL
        else:
            found[field], at = _value(data, at, kind, inner, depth)
    return found, at + 1


def _value(data: bytes, at: int, kind: int, inner: Any, depth: int) -> tuple[Any, int]:
    if I16 <= kind <= I64:
        return _integer(data, at, kind)
    if kind == BYTES:
        length, at = _unsigned(data, at)
        end = at + length
        if end > len(data):
            raise IndexError
        return data[at:end], end
    if depth > _MAX_DEPTH:
        raise DamagedTable("its metadata is nested too deep")
    if kind == _STRUCT:
        return read_struct(data, at, inner or {}, depth + 1)
    if kind in (_LIST, _SET):
        head, at = data[at], at + 1
        count, kind = head >> 4, head & 15
        if count == 15:
            count, at = _unsigned(data, at)
        expected, inner = inner or _ANY
        if kind != expected and expected:
            raise DamagedTable("a list in its metadata is of another type")
        if kind in (BOOL, _FALSE):  # in a list each has a byte
            kind = BYTE
        values = []
        for _ in range(count):
            value, at = _value(data, at, kind, inner, depth + 1)
            values.append(value)
        return values, at
    if kind == BYTE:
        return data[at], at + 1
    if kind == DOUBLE:
        if at + 8 > len(data):
            raise IndexError
        return struct.unpack_from("<d", data, at)[0], at + 8
    raise DamagedTable("a field of its metadata has no type")


def _integer(data: bytes, at: int, kind: int) -> tuple[int, int]:
    value = data[at]
    if value < 128:
        return value >> 1 ^ -(value & 1), at + 1
    value, at = _unsigned(data, at)
    value = value >> 1 ^ -(value & 1)
    if value >> _BITS[kind] not in (0, -1):
        raise DamagedTable("a number in its metadata is too large")
    return value, at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := data[at]) > 127:
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if shift > 63:
            raise DamagedTable("a number in its metadata is too long")
    return value | byte << shift, at + 1
