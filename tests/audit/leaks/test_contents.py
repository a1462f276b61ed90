"""Names are found in any spelling, digests in any writing, embeddings as lists, array files and columns."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io

import numpy as np
import pyarrow as pa
import pytest

from anonlib.audit.leaks.contents import ReleaseIndex, contains, holds_embedding, restricted_columns, text_of, without
from anonlib.workspace.schemas import CERTIFIED_CLASSES, FACES, MANIFEST
from tests.support import photos

CONTENT = b"an original"
VECTOR = (np.random.default_rng(1).normal(size=128) / 11).tolist()


def stack(text: str) -> ReleaseIndex:
    index = ReleaseIndex()
    index.add("elsewhere", "a photo of a place")
    index.add("here", text)
    return index


NAMES = {
    "by Aaron_Peirsol.": True,
    "x/AARON-PEIRSOL_0001.jpg": True,
    '{"of": "Aaron Peirsol"}': True,
    "Aaron Smith Peirsol": False,
    "Aaronx Peirsol": False,
    "Peirsol Aaron": False,
    "": False,
}


@pytest.mark.parametrize("text", NAMES)
def test_a_name_is_found_in_any_spelling_and_a_part_of_it_is_none(text: str) -> None:
    assert stack(text).find("Aaron_Peirsol") == ("here" if NAMES[text] else None)
    assert contains(text, "Aaron_Peirsol") is NAMES[text]


def test_names_that_say_too_little_are_not_looked_for() -> None:
    found = [stack("p1 and 12 and 20261121 -").find(name) for name in ("p1", "12", "-", "20261121")]
    assert found == [None, None, None, "here"]


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_a_digest_is_found_however_it_is_written(algorithm: str) -> None:
    for content in (CONTENT, *(b"%d" % number for number in range(20))):
        digest = hashlib.new(algorithm, content).digest()
        plain, safe = base64.b64encode(digest).decode(), base64.urlsafe_b64encode(digest).decode().rstrip("=")
        for text in (digest.hex(), digest.hex().upper(), f"{algorithm}:{digest.hex()}", f'"{plain}"', f"id={safe} "):
            assert stack(text).find_digest_of(content) == "here", text
        assert stack(digest.hex()[:-2]).find_digest_of(content) is None
        assert stack(digest.hex()).find_digest_of(content + b"!") is None


def test_a_text_is_read_with_its_escapes_and_without_its_own_key() -> None:
    assert text_of(b'{"a": "Zo\\u00eb"}') == ('{"a": "Zo\u00eb"}', {"a": "Zo\u00eb"})
    assert text_of(b"\xff\xfe") == text_of(b"a\0b") == (None, None)
    assert not contains(without("see a/Ada_Quill.1.jpg and Ada_Quill", "a/Ada_Quill.1.jpg"), "jpg")
    assert contains(without("see Ada_Quill_2", "Ada_Quill_1"), "Ada Quill")


def test_long_lists_of_fractions_and_array_files_are_embeddings() -> None:
    out = io.BytesIO()
    np.savez(out, VECTOR)
    assert holds_embedding(VECTOR) and holds_embedding({"a": [[number, 0] for number in VECTOR]})
    assert holds_embedding(out.getvalue()) and holds_embedding(gzip.compress(b"anything"))
    harmless = (VECTOR[:63], list(range(500)), "0.5 " * 500, photos.jpeg(photos.nobody()), b"a caption")
    assert not any(map(holds_embedding, harmless))


def test_a_restricted_name_is_one_unless_the_job_keeps_it_or_a_model_has_it() -> None:
    assert holds_embedding({"a": {"embedding": 1}}) and not holds_embedding({"label": "dog"}, ("label",))
    assert holds_embedding({"label": VECTOR}, ("label",))
    assert not holds_embedding({"models": {"embedding": {"sha256": "ab" * 32, "licence": "research only"}}})
    assert holds_embedding({"embedding": "AAAA"}) and holds_embedding({"embedding": {"values": VECTOR}})


def test_columns_of_the_workspace_are_restricted_and_those_of_the_release_are_not() -> None:
    assert restricted_columns(MANIFEST, MANIFEST) == restricted_columns(CERTIFIED_CLASSES, CERTIFIED_CLASSES) == []
    assert {"embedding", "crop", "mesh", "landmarks", "label"} <= set(restricted_columns(FACES))
    assert restricted_columns(MANIFEST.append(pa.field("v", pa.list_(pa.float32()))), MANIFEST) == ["v"]
    nested = pa.schema([("a", pa.struct([("template", pa.string())]))])
    assert restricted_columns(nested) == ["a"] and restricted_columns(nested, kept=("a",)) == []
