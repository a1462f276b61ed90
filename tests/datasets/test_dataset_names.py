"""Strangers' names are split, checked and made safe."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext  # type: ignore[import-untyped]

from anonlib.datasets.names import printable, shard_id, split_member, unique_key, why_unsafe

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
