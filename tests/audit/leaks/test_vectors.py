"""Lists, array files and columns that are embeddings are told from boxes, pictures and ordinary fields."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pyarrow as pa

from anonlib.audit.leaks.vectors import in_value, restricted_columns
from anonlib.workspace.schemas import CERTIFIED_CLASSES, FACES, MANIFEST
from tests.support import photos

VECTOR = (np.random.default_rng(1).normal(size=128) / 11).tolist()


def test_long_lists_of_fractions_and_array_files_are_embeddings() -> None:
    out = io.BytesIO()
    np.savez(out, VECTOR)
    assert in_value(VECTOR) and in_value({"a": [[number, 0] for number in VECTOR]})
    assert in_value(out.getvalue()) and in_value(gzip.compress(b"anything"))
    assert not in_value(VECTOR[:63]) and not in_value(list(range(500))) and not in_value("0.5 " * 500)
    assert not in_value(photos.jpeg(photos.nobody())) and not in_value(b"a caption")


def test_a_field_of_a_restricted_name_is_one_unless_the_job_keeps_it() -> None:
    assert in_value({"a": {"embedding": 1}}) and not in_value({"label": "dog"}, ("label",))
    assert in_value({"label": VECTOR}, ("label",))


def test_a_model_of_that_name_is_none_but_what_hides_below_it_is() -> None:
    models = {"models": {"embedding": {"sha256": "ab" * 32, "licence": "research only"}}}
    assert not in_value(models)
    assert in_value({"embedding": [0.5, 0.25]}) and in_value({"embedding": "AAAA"})
    assert in_value({"embedding": {"values": VECTOR}})


def test_columns_of_the_workspace_are_restricted_and_those_of_the_release_are_not() -> None:
    assert restricted_columns(MANIFEST, MANIFEST) == restricted_columns(CERTIFIED_CLASSES, CERTIFIED_CLASSES) == []
    assert {"embedding", "crop", "mesh", "landmarks", "label"} <= set(restricted_columns(FACES))
    more = MANIFEST.append(pa.field("v", pa.list_(pa.float32())))
    assert restricted_columns(more, MANIFEST) == ["v"]
    nested = pa.schema([("a", pa.struct([("template", pa.string())]))])
    assert restricted_columns(nested) == ["a"] and restricted_columns(nested, kept=("a",)) == []
