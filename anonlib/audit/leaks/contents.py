"""What a release's fields and tables say: words and digests, indexed to look originals up in, and embeddings.

What must not be there, names and hashes of originals, is never collected: a dataset has too many of them. Each original
is looked up as it streams by.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa

from anonlib.workspace.schemas import RESTRICTED_COLUMNS

LEAST_LETTERS, LEAST_DIGITS = 3, 6
"""A name with fewer letters and fewer digits would be found everywhere."""

WORD = re.compile(r"[^\W_]+")
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{64})(?![0-9A-Za-z])")
_BASE64 = re.compile(r"(?<![0-9A-Za-z+/_-])[0-9A-Za-z+/_-]{22,43}={0,2}(?![0-9A-Za-z+/_=-])")
_DIGEST_BYTES = (16, 20, 32)
_ALGORITHMS = ("md5", "sha1", "sha256")


class ReleaseIndex:
    """Texts by where they stand: `add` them, then find phrases and digests."""

    def __init__(self) -> None:
        self._texts: list[tuple[str, list[str]]] = []
        self._places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._digests: dict[bytes, str] = {}

    def add(self, where: str, text: str) -> None:
        """Index a text's words, and the digests in it."""
        for token in _HEX.findall(text):
            self.add_digest(where, bytes.fromhex(token))
        for token in _BASE64.findall(text):
            raw = _from_base64(token)
            if len(raw) in _DIGEST_BYTES:
                self.add_digest(where, raw)
        words = WORD.findall(_HEX.sub(" ", text).lower())
        for position, word in enumerate(words):
            self._places[word].append((len(self._texts), position))
        self._texts.append((where, words))

    def add_digest(self, where: str, raw: bytes) -> None:
        """Index a digest that stands somewhere as raw bytes."""
        self._digests.setdefault(raw, where)

    def find(self, phrase: str) -> str | None:
        """Where the words of a phrase stand one after another, whatever is between them; None if it says too little."""
        words = WORD.findall(phrase.lower())
        if not tells(phrase):
            return None
        for text, position in self._places.get(words[0], ()):
            where, found = self._texts[text]
            if found[position : position + len(words)] == words:
                return where
        return None

    def find_digest_of(self, content: bytes) -> str | None:
        """Where a plain hash of `content` stands."""
        found = (self._digests.get(hashlib.new(name, content, usedforsecurity=False).digest()) for name in _ALGORITHMS)
        return next((where for where in found if where is not None), None)


def tells(phrase: str) -> bool:
    """Whether a name has enough letters or digits to be looked for."""
    letters, digits = sum(char.isalpha() for char in phrase), sum(char.isdigit() for char in phrase)
    return letters >= LEAST_LETTERS or digits >= LEAST_DIGITS


def contains(text: str, phrase: str) -> bool:
    """Whether the words of a phrase stand in a text one after another, as in ReleaseIndex.find."""
    index = ReleaseIndex()
    index.add("", text)
    return index.find(phrase) is not None


def text_of(content: bytes) -> str | None:
    """A member's text, JSON with its escapes resolved; None if it is no text."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    parsed = parsed_json(text)
    return text if parsed is None else json.dumps(parsed, ensure_ascii=False)


def parsed_json(text: str) -> Any:
    """The document, None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def without(text: str, key: str) -> str:
    """A text without a sample's own key, which a release that keeps its keys may repeat."""
    for spelling in sorted(filter(None, spellings(key)), key=len, reverse=True):
        text = text.replace(spelling, " ")
    return text


def spellings(key: str) -> Iterator[str]:
    """A key and its last part, each with and without an ending."""
    for name in (key, key.rpartition("/")[2]):
        yield name
        stem, dot, _ = name.rpartition(".")
        if dot:
            yield stem


def _from_base64(token: str) -> bytes:
    plain = token.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        return b""


# ---- embeddings -----------------------------------------------------------------------------------------------

_LEAST_NUMBERS = 64
"""Numbers of an embedding; recognizers give 128 and more, landmarks and boxes have fewer."""

_ARRAY_FILES = (b"\x93NUMPY", b"PK\x03\x04", b"\x80\x04", b"\x80\x05", b"\x1f\x8b")
"""How NumPy, zip (npz, torch), pickle and gzip files begin."""


def is_array_file(content: bytes) -> bool:
    """Whether a file may hold arrays, by its first bytes."""
    return content.startswith(_ARRAY_FILES)


def holds_embedding(value: Any, kept: Collection[str] = ()) -> bool:
    """Whether a cell, a JSON value or a file holds an embedding: a long list of fractions, arrays, a restricted name.

    `kept` are the fields whose names the job chose; an embedding is a leak in them, too, since recognizers compare it.
    """
    if isinstance(value, Mapping):
        # The method `embedding` has its network under that name, with hash and terms.
        named = [name for name in RESTRICTED_COLUMNS - frozenset(kept) if not isinstance(value.get(name, {}), Mapping)]
        return bool(named) or any(holds_embedding(part, kept) for part in value.values())
    if isinstance(value, bytes):
        return is_array_file(value)
    if isinstance(value, list | tuple):
        numbers = list(_numbers(value))
        fractions = any(isinstance(number, float) and not number.is_integer() for number in numbers)
        if fractions and len(numbers) >= _LEAST_NUMBERS:
            return True
        return any(holds_embedding(part, kept) for part in value if not isinstance(part, int | float))
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
