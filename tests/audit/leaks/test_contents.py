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


# ---- embeddings -----------------------------------------------------------------------------------------------

VECTOR = (np.random.default_rng(1).normal(size=128) / 11).tolist()


def test_long_lists_of_fractions_and_array_files_are_embeddings() -> None:
    out = io.BytesIO()
    np.savez(out, VECTOR)
    assert holds_embedding(VECTOR) and holds_embedding({"a": [[number, 0] for number in VECTOR]})
    assert holds_embedding(out.getvalue()) and holds_embedding(gzip.compress(b"anything"))
    assert not holds_embedding(VECTOR[:63]) and not holds_embedding(list(range(500)))
    assert not holds_embedding("0.5 " * 500)
    assert not holds_embedding(photos.jpeg(photos.nobody())) and not holds_embedding(b"a caption")


def test_a_field_of_a_restricted_name_is_one_unless_the_job_keeps_it() -> None:
    assert holds_embedding({"a": {"embedding": 1}}) and not holds_embedding({"label": "dog"}, ("label",))
    assert holds_embedding({"label": VECTOR}, ("label",))


def test_a_model_of_that_name_is_none_but_what_hides_below_it_is() -> None:
    models = {"models": {"embedding": {"sha256": "ab" * 32, "licence": "research only"}}}
    assert not holds_embedding(models)
    assert holds_embedding({"embedding": [0.5, 0.25]}) and holds_embedding({"embedding": "AAAA"})
    assert holds_embedding({"embedding": {"values": VECTOR}})


def test_columns_of_the_workspace_are_restricted_and_those_of_the_release_are_not() -> None:
    assert restricted_columns(MANIFEST, MANIFEST) == restricted_columns(CERTIFIED_CLASSES, CERTIFIED_CLASSES) == []
    assert {"embedding", "crop", "mesh", "landmarks", "label"} <= set(restricted_columns(FACES))
    more = MANIFEST.append(pa.field("v", pa.list_(pa.float32())))
    assert restricted_columns(more, MANIFEST) == ["v"]
    nested = pa.schema([("a", pa.struct([("template", pa.string())]))])
    assert restricted_columns(nested) == ["a"] and restricted_columns(nested, kept=("a",)) == []
