"""What a release's fields and tables say: words and digests, indexed to look originals up in, and embeddings.

What must not be there, names and hashes of originals, is never collected: a dataset has too many of them. Each original
is looked up as it streams by.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa

from anonlib.workspace.schemas import RESTRICTED_COLUMNS

_WORD = re.compile(r"[^\W_]+")
# MD5, SHA-1 and SHA-256: 16, 20 and 32 bytes.
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{64})(?![0-9A-Za-z])")
_BASE64 = re.compile(r"(?<![\w+/-])([\w+/-]{22}|[\w+/-]{27}|[\w+/-]{43})(?![\w+/-])", re.ASCII)


class ReleaseIndex:
    """What files of a release hold: `add` texts, then find phrases and digests; `digests` may get raw ones.

    `rows`: the manifest's by key; `vouched`: those with an output, by its sha256; `contents`: where each content is, by
    its sha256.
    """

    def __init__(self, rows: Collection[Mapping[str, Any]] = ()) -> None:
        self.rows = {str(row["key"]): row for row in rows}
        self.vouched = {row["output_sha256"]: row for row in rows if row["output_sha256"] is not None}
        self._shown = {re.sub(r"#\d+$", "", str(row["key"])) for row in self.vouched.values()}
        self.contents: dict[str, str] = {}
        self.digests: dict[bytes, str] = {}
        self._texts: list[tuple[str, list[str]]] = []
        self._places: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def shows_another(self, key: str) -> bool:
        """Whether another image of the tar sample or row of this key is in the release."""
        return key in self._shown

    def add(self, where: str, text: str) -> None:
        """Index a text's words, and the digests in it."""
        for token in _HEX.findall(text):
            self.digests.setdefault(bytes.fromhex(token), where)
        for token in _BASE64.findall(text):
            self.digests.setdefault(base64.b64decode(f"{token}==", altchars=b"-_"), where)
        words = words_of(_HEX.sub(" ", text))
        for position, word in enumerate(words):
            self._places[word].append((len(self._texts), position))
        self._texts.append((where, words))

    def find(self, phrase: str) -> str | None:
        """Where the words of a phrase stand one after another, whatever is between them; None if it says too little."""
        phrase_words = words_of(phrase) if tells(phrase) else []
        for text, position in self._places.get(phrase_words[0], ()) if phrase_words else ():
            where, words = self._texts[text]
            if words[position : position + len(phrase_words)] == phrase_words:
                return where
        return None

    def find_digest_of(self, content: bytes) -> str | None:
        """Where a plain hash of `content` stands."""
        hashes = (hashlib.new(name, content, usedforsecurity=False).digest() for name in ("md5", "sha1", "sha256"))
        return next((self.digests[digest] for digest in hashes if digest in self.digests), None)


def words_of(text: str) -> list[str]:
    """Its letters and digits, in lower case, where anything else parts them."""
    return _WORD.findall(text.lower())


def tells(phrase: str) -> bool:
    """Whether a name has enough letters or digits to be looked for; a shorter one would be found everywhere."""
    return sum(map(str.isalpha, phrase)) >= 3 or sum(map(str.isdigit, phrase)) >= 6


def contains(text: str, phrase: str) -> bool:
    """Whether a text has the words of a phrase one after another, as in ReleaseIndex.find."""
    return tells(phrase) and f" {' '.join(words_of(phrase))} " in f" {' '.join(words_of(text))} "


def text_of(content: bytes) -> tuple[str | None, Any]:
    """A member's text, None if it is none, and its document, None if it is no JSON; escapes of JSON are resolved."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None, None
    if "\0" in text:
        return None, None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return text, None
    return json.dumps(document, ensure_ascii=False), document


def without(text: str, key: str) -> str:
    """A text without a sample's own key, which a release that keeps its keys may repeat."""
    for spelling in sorted(filter(None, spellings(key)), key=len, reverse=True):
        text = text.replace(spelling, " ")
    return text


def spellings(key: str) -> set[str]:
    """A key and its last part, each with and without an ending."""
    names = {key, key.rpartition("/")[2]}
    return names | {name.rpartition(".")[0] for name in names if "." in name}


# ---- embeddings -----------------------------------------------------------------------------------------------

_LEAST_NUMBERS = 64
"""Numbers of an embedding; recognizers give 128 and more, landmarks and boxes have fewer."""

_ARRAY_FILES = (b"\x93NUMPY", b"PK\x03\x04", b"\x80\x04", b"\x80\x05", b"\x1f\x8b")
"""How NumPy, zip (npz, torch), pickle and gzip files begin."""


def holds_embedding(value: Any, kept: Collection[str] = ()) -> bool:
    """Whether a cell, a JSON value or a file holds an embedding: a long list of fractions, arrays, a restricted name.

    `kept` are the fields whose names the job chose; an embedding is a leak in them, too, since recognizers compare it.
    """
    if isinstance(value, Mapping):
        # The method `embedding` has its network under that name, with hash and terms.
        named = [name for name in RESTRICTED_COLUMNS - set(kept) if not isinstance(value.get(name, {}), Mapping)]
        return bool(named) or any(holds_embedding(part, kept) for part in value.values())
    if isinstance(value, bytes):
        return value.startswith(_ARRAY_FILES)
    if isinstance(value, list | tuple):
        numbers = list(_numbers(value))
        fractions = any(isinstance(number, float) and not number.is_integer() for number in numbers)
        long = fractions and len(numbers) >= _LEAST_NUMBERS
        return long or any(holds_embedding(part, kept) for part in value if not isinstance(part, int | float))
    return False


def restricted_columns(found: pa.Schema, ours: pa.Schema | None = None, kept: Collection[str] = ()) -> list[str]:
    """Columns, nested ones too, by the name of what must stay in the workspace, or with floats that `ours` lacks.

    `ours` is the schema that a table of ours should have, None for a table of the dataset.
    """
    names = []
    for field in found:
        expected = ours is not None and field.name in ours.names and ours.field(field.name).type.equals(field.type)
        if not expected and field.name not in kept:
            nested = list(_nested(field))
            floats = any(pa.types.is_floating(part.type) for part in nested)
            if (ours is not None and floats) or any(part.name in RESTRICTED_COLUMNS for part in nested):
                names.append(field.name)
    return names


def _numbers(value: Any) -> Iterator[int | float]:
    for part in value:
        if isinstance(part, list | tuple):
            yield from _numbers(part)
        elif isinstance(part, int | float) and not isinstance(part, bool):
            yield part


def _nested(field: pa.Field) -> Iterator[pa.Field]:
    """A field and all that it holds."""
    yield field
    for number in range(field.type.num_fields):
        yield from _nested(field.type.field(number))
