"""Lists, bytes and columns that are embeddings are told from text, boxes, pictures and ordinary bytes."""

from __future__ import annotations

import base64
import gzip
import io

import numpy as np
import pyarrow as pa
import pytest

from anonlib.audit.leaks.vectors import are_floats, in_member, in_value, restricted_columns
from anonlib.workspace.schemas import CERTIFIED_CLASSES, FACES, MANIFEST
from tests.support import photos

VECTOR = np.random.default_rng(1).normal(size=128) / 11


@pytest.mark.parametrize("kind", ["<f4", "<f2", "<f8"])
def test_floats_are_known_as_bytes_and_as_text(kind: str) -> None:
    raw = VECTOR.astype(kind).tobytes()
    assert are_floats(raw) and in_member(raw) and in_value(raw)
    assert in_value(base64.b64encode(raw).decode()) and in_value({"x": [raw.hex()]})


def test_files_that_hold_arrays_are_known() -> None:
    out = io.BytesIO()
    np.savez(out, VECTOR)
    assert in_member(out.getvalue()) and in_member(gzip.compress(b"anything"))
    assert in_member(" ".join(f"{one:.5f}" for one in VECTOR).encode())


def test_other_bytes_are_no_floats() -> None:
    noise = np.random.default_rng(2).integers(0, 256, 4096, np.uint8).tobytes()
    assert not are_floats(noise) and not are_floats(bytes(4096)) and not in_member(noise)
    assert not in_member(photos.jpeg(photos.nobody())) and not in_member(b"a caption, 1.5 m by 2.5 m" * 20)
    assert not in_value(base64.b64encode(noise).decode())


def test_a_field_by_one_of_our_names_is_known_unless_the_job_keeps_it() -> None:
    assert in_value({"a": {"embedding": 1}}) and not in_value({"label": "dog"}, ("label",))
    assert in_value({"label": VECTOR.tolist()}, ("label",))


def test_columns_of_the_workspace_are_known_and_the_releases_own_are_not() -> None:
    assert restricted_columns(MANIFEST, MANIFEST) == restricted_columns(CERTIFIED_CLASSES, CERTIFIED_CLASSES) == []
    assert {"embedding", "crop", "mesh", "landmarks", "label"} <= set(restricted_columns(FACES))
    more = MANIFEST.append(pa.field("v", pa.list_(pa.float32())))
    assert restricted_columns(more, MANIFEST) == ["v"]
    nested = pa.schema([("a", pa.struct([("template", pa.string())]))])
    assert restricted_columns(nested) == ["a"] and restricted_columns(nested, kept=("a",)) == []


def test_a_model_of_that_name_is_none_and_what_hides_below_it_is() -> None:
    models = {"models": {"embedding": {"sha256": "ab" * 32, "licence": "research only"}}}
    assert not in_value(models)
    assert in_value({"embedding": [0.5, 0.25]}) and in_value({"embedding": "AAAA"})
    assert in_value({"embedding": {"values": [number / 7 for number in range(128)]}})
