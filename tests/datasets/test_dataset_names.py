"""Strangers' names are split, checked and made safe; what the allow-list lets through, and where a label is found."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext  # type: ignore[import-untyped]

from anonlib.datasets import Sample, label
from anonlib.datasets.names import (
    kept_members,
    key_spellings,
    printable,
    shard_id,
    split_member,
    unique_key,
    why_unsafe,
)

paths = st.lists(st.text("aB. -é", max_size=4), min_size=1, max_size=3).map("/".join)


@given(paths)
def test_a_member_splits_as_webdataset_splits_it(name: str) -> None:
    key, extension = base_plus_ext(name)
    ours = split_member(name)
    # It takes dir/.hidden.jpg for a sample named dir/, which nobody means; for us such a name has no key.
    if ours is None:
        assert not key or not extension or key.endswith("/") or name.rpartition("/")[2].startswith(".")
    else:
        assert ours == (key, extension.lower())


@given(st.text(max_size=20))
def test_printable_text_is_printable_and_plain_text_stays(name: str) -> None:
    assert printable(name).isprintable()
    assert printable(printable(name)) == printable(name)
    if name.isprintable():
        assert printable(name) == name and (name[:1] == "/" or ".." in name or why_unsafe(name) is None)


@pytest.mark.parametrize("name", ["/a", "..", "a/..", "../a", "a/../b", "a\0", "a\x7f", "a\n", "\udc80", "a\u2028b"])
def test_these_names_are_unsafe(name: str) -> None:
    assert why_unsafe(name)


@given(st.lists(st.text("ab", max_size=2), max_size=12))
def test_unique_keys_are_unique_and_the_first_keeps_its_name(keys: list[str]) -> None:
    seen: dict[str, int] = {}
    made = [unique_key(key, seen) for key in keys]
    assert len(set(made)) == len(made)
    assert [made[keys.index(key)] for key in keys] == keys


@given(st.sets(st.text("aB1. /é-", min_size=1, max_size=8).map(lambda stem: stem + ".tar"), max_size=20))
def test_shard_ids_are_safe_and_distinct(names: set[str]) -> None:
    ids = {shard_id(name, (".tar",)) for name in names}
    assert len(ids) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", one) and one not in (".", "..") for one in ids)


# ---- fields ---------------------------------------------------------------------------------------------------

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
