"""What the allow-list lets through, and where a person's label is found."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonlib.datasets import Sample, label
from anonlib.datasets.names import kept_members, key_spellings

values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
sidecars = st.dictionaries(st.text("abcd", min_size=1, max_size=2), values | st.lists(values, max_size=2), max_size=6)


@given(sidecars, st.frozensets(st.text("abcd", min_size=1, max_size=2)), st.booleans())
def test_a_sidecar_keeps_exactly_the_named_keys_in_their_order(
    sidecar: dict[str, Any], names: frozenset[str], prefixed: bool
) -> None:
    keep = frozenset(f"json:{name}" for name in names) if prefixed else names
    kept = kept_members({"json": json.dumps(sidecar).encode()}, keep)
    expected = [(name, value) for name, value in sidecar.items() if name in names]
    assert list(json.loads(kept["json"]).items() if kept else []) == expected


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_sidecar_that_is_no_json_object_passes_only_as_a_whole(content: bytes) -> None:
    assert kept_members({"json": content}, frozenset({"caption"})) == {}
    assert kept_members({"json": content}, frozenset({"json"})) == {"json": content}


def test_old_keys_are_replaced_only_in_fields_that_are_named_like_keys() -> None:
    renamed = key_spellings("dir/7", "jpg", "new", "jpg")
    sidecar = {"id": "7", "filename": "dir/7.jpg", "path": "elsewhere/7.jpg", "count": "7", "key": 7}
    kept = kept_members({"json": json.dumps(sidecar).encode()}, frozenset(sidecar), renamed)
    expected = {"id": "new", "filename": "new.jpg", "path": "elsewhere/7.jpg", "count": "7", "key": 7}
    assert json.loads(kept["json"]) == expected


@pytest.mark.parametrize(
    ("fields", "name", "found"),
    [
        ({"json": b'{"person": "Ada"}'}, "person", "Ada"),
        ({"json": b'{"person": "Ada"}'}, "json:person", "Ada"),
        ({"json": b'{"meta": {"person": {"id": 7}}}'}, "meta.person.id", "7"),
        ({"json": b'{"meta.person": "dotted"}'}, "json:meta.person", "dotted"),
        ({"txt": b" Ada \n"}, "txt", "Ada"),
        ({"person": 12.0}, "person", "12"),
        ({"meta": {"person": "Ada"}}, "meta.person", "Ada"),
        ({"person": "column", "json": b'{"person": "sidecar"}'}, "person", "column"),
        ({"person": "column", "json": b'{"person": "sidecar"}'}, "json:person", "sidecar"),
        ({"person": "  "}, "person", None),
        ({"person": True}, "person", None),
        ({"person": ["Ada"]}, "person", None),
        ({"txt": b"\xff"}, "txt", None),
    ],
)
def test_the_label_is_found_where_the_dataset_keeps_it(fields: dict[str, Any], name: str, found: str | None) -> None:
    assert label(Sample("a/b/key", None, "jpg", fields), name) == found


def test_the_folder_that_holds_an_image_can_be_its_label() -> None:
    assert label(Sample("x/ada/1.jpg", None, "jpg"), "folder:parent") == "ada"
    assert label(Sample("1.jpg", None, "jpg"), "folder:parent") is None
