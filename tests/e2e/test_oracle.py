"""Releases are what they were: byte for byte where machines compute alike, and in everything else everywhere.

How they are pinned, and written anew where they are meant to change: oracle.py.
"""

from __future__ import annotations

import copy

import pytest

from tests.support import oracle


@pytest.fixture(scope="module")
def known() -> oracle.Document:
    return oracle.load()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> oracle.Document:
    return oracle.collect(tmp_path_factory.mktemp("oracle"))


def test_every_machine_releases_what_was_released(known: oracle.Document, found: oracle.Document) -> None:
    assert not oracle.wrong_portable(known, found)


def test_a_machine_that_computes_alike_releases_the_same_bytes(known: oracle.Document, found: oracle.Document) -> None:
    """Where no digests are known for this machine, the portable part has been all that can be held."""
    wrong = oracle.wrong_exact(known, found)
    assert not wrong
    assert wrong is not None or found["fingerprint"] not in known["exact"]


def test_little_depends_on_the_machine(known: oracle.Document) -> None:
    """An oracle that lets everything pass is none."""
    assert len(known["varies"]) <= 40 and oracle.FILE.stat().st_size < 130_000
    assert len(known["portable"]) >= 14 and known["exact"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("k-diff", "images", "holiday-000", "faces", 0, "box", 0), 1000),
        (("k-diff", "images", "holiday-000", "faces", 0, "wears"), 99),
        (("k-diff", "images", "holiday-000", "thumb"), 45 * "0"),
        (("odd", "images", "broken", "is", 1), "another reason"),
        (("k-same", "plan", "classes"), {}),
    ],
)
def test_a_change_is_seen(path: tuple[str | int, ...], value: object, known: oracle.Document) -> None:
    changed = copy.deepcopy(known)
    place = changed["portable"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert not oracle.wrong_portable(known, known)
    assert oracle.wrong_portable(known, changed)
