"""The words and digests that a release shows, indexed, so that each original can be looked up as it streams by.

What must not be there, names and hashes of originals, is never collected: a dataset has too many of them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

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
