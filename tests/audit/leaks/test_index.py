"""Names are found however they are spelled and digests however they are written; a part of either is neither."""

from __future__ import annotations

import base64
import hashlib

import pytest

from anonlib.audit.leaks.index import ReleaseIndex, contains, text_of, without

CONTENT = b"an original"


def stack(text: str) -> ReleaseIndex:
    found = ReleaseIndex()
    found.add("elsewhere", "a photo of a place")
    found.add("here", text)
    return found


@pytest.mark.parametrize(
    "text", ["by Aaron_Peirsol.", "aaron peirsol", "x/AARON-PEIRSOL_0001.jpg", '{"of": "Aaron Peirsol"}']
)
def test_a_name_is_found_in_any_spelling(text: str) -> None:
    assert stack(text).find("Aaron_Peirsol") == "here"


@pytest.mark.parametrize("text", ["Aaron Smith Peirsol", "Aaronx Peirsol", "Peirsol Aaron", ""])
def test_a_part_of_a_name_is_no_name(text: str) -> None:
    assert stack(text).find("Aaron_Peirsol") is None


def test_names_that_say_too_little_are_not_looked_for() -> None:
    assert stack("p1 and 12 and 20261121").find("p1") is None
    assert stack("p1 and 12 and 20261121").find("12") is None
    assert stack("p1 and 12 and 20261121").find("20261121") == "here"
    assert stack("nothing").find("-") is None


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_a_digest_is_found_however_it_is_written(algorithm: str) -> None:
    digest = hashlib.new(algorithm, CONTENT).digest()
    plain, safe = base64.b64encode(digest).decode(), base64.urlsafe_b64encode(digest).decode().rstrip("=")
    for text in (digest.hex(), digest.hex().upper(), f"{algorithm}:{digest.hex()}", f'"{plain}"', f"id={safe} "):
        assert stack(text).find_digest_of(CONTENT) == "here", text
    raw = ReleaseIndex()
    raw.add_digest("raw", digest)
    assert raw.find_digest_of(CONTENT) == "raw"
    assert stack(digest.hex()[:-2]).find_digest_of(CONTENT) is None
    assert stack(digest.hex()).find_digest_of(CONTENT + b"!") is None


def test_a_text_is_read_with_its_escapes_and_without_its_own_key() -> None:
    assert text_of(b'{"a": "Zo\\u00eb"}') == '{"a": "Zo\u00eb"}'
    assert text_of(b"\xff\xfe") is None and text_of(b"a\0b") is None
    assert not contains(without("see a/Ada_Quill.1.jpg and Ada_Quill", "a/Ada_Quill.1.jpg"), "jpg")
    assert contains(without("see Ada_Quill_2", "Ada_Quill_1"), "Ada Quill")
