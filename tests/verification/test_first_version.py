"""The class table of schema version 1: every sound one passes, and none with a known defect."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.config import MethodConfig
from anonlib.errors import VerificationError
from anonlib.storage import open_storage
from anonlib.verification.conditions import ClaimedFace
from anonlib.verification.first_version import CLASSES_1, TELLS_MORE, FirstClassRow, FirstClassTable
from anonlib.verification.release import unproved, verify
from tests.support.pseudonyms import digest, name


@st.composite
def plans(draw: st.DrawFn, most: int = 8) -> tuple[MethodConfig, list[FirstClassRow]]:
    """A class method and a sound table for it: classes of k and more, some of them guests."""
    k = draw(st.integers(2, 5))
    method = MethodConfig(name=draw(st.sampled_from(("k-diff", "k-same"))), k=k)
    donors = draw(st.lists(st.integers(k, 2 * k), min_size=2, max_size=most))
    rows = []
    for number, count in enumerate(donors):
        guests = draw(st.integers(0, 3))
        people = sorted(
            (name("person", number, member), 1 / count if member < count else 0.0) for member in range(count + guests)
        )
        worn = number if method.name == "k-same" else (number + 1) % len(donors)
        rows.append(
            FirstClassRow(
                name("class", number),
                tuple(one for one, _ in people),
                tuple(weight for _, weight in people),
                count + guests,
                draw(st.integers(k, count)),
                digest(number),
                digest(worn),
            )
        )
    return method, sorted(rows, key=lambda row: row.name)


def table(method: MethodConfig, rows: list[FirstClassRow]) -> FirstClassTable:
    classes = FirstClassTable(method.k, own_average=method.name == "k-same")
    for row in rows:
        classes.add(row)
    classes.close()
    return classes


@settings(deadline=None)
@given(plans())
def test_every_sound_plan_passes(plan: tuple[MethodConfig, list[FirstClassRow]]) -> None:
    method, rows = plan
    classes = table(method, rows)
    assert classes.people == sum(row.k for row in rows) and classes.rows == len(rows)
    for row in rows:
        classes.check_assigned(ClaimedFace(method.name, row.k, None, row.surrogate, None))
        classes.check_next_surrogate(ClaimedFace(method.name, row.k, None, rows[0].average, "next-surrogate"))


def last_heavier(row: FirstClassRow, k: int) -> FirstClassRow:
    """The mean of a mean and the last member: what normalizing inside the averaging loop makes of a class."""
    count = sum(weight > 0 for weight in row.weights)
    weights, seen = [], 0
    for weight in row.weights:
        seen += weight > 0
        weights.append(0.0 if weight == 0 else 1 / 2 ** min(count - seen + 1, count - 1))
    return replace(row, weights=tuple(weights))


def few_donors(row: FirstClassRow, k: int) -> FirstClassRow:
    return replace(row, weights=(1 / (k - 1),) * (k - 1) + (0.0,) * (row.k - k + 1))


DEFECTS: dict[str, tuple[Callable[[FirstClassRow, int], FirstClassRow], str]] = {
    "weights that add up to more": (
        lambda row, k: replace(row, weights=tuple(weight * 2 for weight in row.weights)),
        "not uniform",
    ),
    "no weights": (lambda row, k: replace(row, weights=()), "not of at least k"),
    "donors fewer than k": (few_donors, "not of at least k"),
    "a negative weight": (lambda row, k: replace(row, weights=(-row.weights[0] or -1.0, *row.weights[1:])), "weights"),
    "a digest of no digest": (lambda row, k: replace(row, average="Ada"), "no digest"),
    "a person twice": (lambda row, k: replace(row, people=(row.people[0], *row.people[:-1])), "one person twice"),
}


@settings(deadline=None)
@given(plans(most=4), st.data())
def test_a_defect_in_any_class_of_any_plan_is_seen(
    plan: tuple[MethodConfig, list[FirstClassRow]], data: st.DataObject
) -> None:
    method, rows = plan
    at = data.draw(st.integers(0, len(rows) - 1))
    spoil, sentence = DEFECTS[data.draw(st.sampled_from(sorted(DEFECTS)))]
    with pytest.raises(VerificationError, match=sentence):
        table(method, [*rows[:at], spoil(rows[at], method.k), *rows[at + 1 :]])
    heavier = last_heavier(rows[0], method.k)
    if len(set(heavier.weights) - {0.0}) > 1:
        with pytest.raises(VerificationError, match="not uniform"):
            table(method, [heavier, *rows[1:]])


@settings(deadline=None)
@given(plans())
def test_each_class_has_one_average_and_the_surrogate_that_its_method_assigns(
    plan: tuple[MethodConfig, list[FirstClassRow]],
) -> None:
    method, rows = plan
    surrogate = rows[0].average if method.name == "k-same" else digest("other")
    twin = replace(rows[1], average=rows[0].average, surrogate=surrogate)
    with pytest.raises(VerificationError, match="said to have one average"):
        table(method, [rows[0], twin, *rows[2:]])
    with pytest.raises(VerificationError, match="own average"):
        table(MethodConfig(name="k-same" if method.name == "k-diff" else "k-diff", k=method.k), rows)


def test_a_class_has_no_surrogate_only_where_it_is_alone() -> None:
    method = MethodConfig(k=2)
    bare = FirstClassRow(name(1), tuple(sorted((name(2), name(3)))), (0.5, 0.5), 2, 2, digest(1), None)
    table(method, [bare])
    people = tuple(sorted((name(4), name(5))))
    other = replace(bare, people=people, name="f" * 24, average=digest(2), surrogate=digest(1))
    with pytest.raises(VerificationError, match="no surrogate to wear"):
        table(method, [bare, other])


@settings(deadline=None)
@given(plans())
def test_a_face_carries_what_a_class_of_its_size_was_assigned(plan: tuple[MethodConfig, list[FirstClassRow]]) -> None:
    method, rows = plan
    classes, row = table(method, rows), rows[0]
    good = ClaimedFace(method.name, row.k, None, row.surrogate, None)
    for wrong in (replace(good, digest=digest("x")), replace(good, digest=None), replace(good, k=99)):
        with pytest.raises(VerificationError):
            classes.check_assigned(wrong)
        with pytest.raises(VerificationError):
            classes.check_next_surrogate(wrong)


# ---- a release that anonlib 0.1.0 made, of generated faces ------------------------------------------------------


@pytest.fixture
def release(tmp_path: Path) -> Path:
    with tarfile.open(Path(__file__).with_name("release-0.1.0.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "release"


def test_a_release_of_before_is_verified_with_a_sentence_that_it_tells_too_much(release: Path) -> None:
    found = verify(open_storage(str(release)))
    assert (found.certificate.anonlib, found.certificate.version, found.classes) == ("0.1.0", 1, 2)
    assert TELLS_MORE in unproved(found)


def test_a_changed_release_of_before_is_refused(release: Path) -> None:
    path = release / "classes.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[0]["wears"] = rows[0]["made"]
    pq.write_table(pa.Table.from_pylist(rows, CLASSES_1), path)
    with pytest.raises(VerificationError, match=r"classes\.parquet is not the one that was signed"):
        verify(open_storage(str(release)))
