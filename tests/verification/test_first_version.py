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


def without_one(row: FirstClassRow, k: int) -> FirstClassRow:
    people = k - 1
    return replace(
        row, people=row.people[:people], weights=(1 / people,) * people if people else (), k=people, effective_k=people
    )


def last_heavier(row: FirstClassRow, k: int) -> FirstClassRow:
    """The mean of a mean and the last member: what normalizing inside the averaging loop makes of a class."""
    count = sum(weight > 0 for weight in row.weights)
    weights, seen = [], 0
    for weight in row.weights:
        seen += weight > 0
        weights.append(0.0 if weight == 0 else 1 / 2 ** min(count - seen + 1, count - 1))
    return replace(row, weights=tuple(weights))


DEFECTS: dict[str, tuple[Callable[[FirstClassRow, int], FirstClassRow], str]] = {
    "fewer than k": (without_one, "fewer than k"),
    "an effective k below k": (lambda row, k: replace(row, effective_k=k - 1), "effective k"),
    "an effective k above k": (lambda row, k: replace(row, effective_k=row.k + 1), "effective k"),
    "more people said than listed": (lambda row, k: replace(row, k=row.k + 1), "and lists"),
    "a weight a little off": (
        lambda row, k: replace(
            row, weights=tuple(weight * (1 + 1e-15) + (weight > 0) * 1e-16 for weight in row.weights)
        ),
        "not uniform",
    ),
    "weights that add up to more": (
        lambda row, k: replace(row, weights=tuple(weight * 2 for weight in row.weights)),
        "not uniform",
    ),
    "no weights": (lambda row, k: replace(row, weights=()), "not of at least k"),
    "donors fewer than k": (
        lambda row, k: replace(row, weights=(1 / (k - 1),) * (k - 1) + (0.0,) * (row.k - k + 1)),
        "not of at least k",
    ),
    "a negative weight": (lambda row, k: replace(row, weights=(-row.weights[0] or -1.0, *row.weights[1:])), "weights"),
    "a name of no pseudonym": (lambda row, k: replace(row, name=row.name.upper() + "z"), "no pseudonym"),
    "a digest of no digest": (lambda row, k: replace(row, average="Ada"), "no digest"),
    "a person twice": (lambda row, k: replace(row, people=(row.people[0], *row.people[:-1])), "one person twice"),
}


@pytest.mark.parametrize("what", DEFECTS)
@settings(deadline=None)
@given(plans(most=3), st.data())
def test_a_defect_in_any_class_of_any_plan_is_seen(
    what: str, plan: tuple[MethodConfig, list[FirstClassRow]], data: st.DataObject
) -> None:
    method, rows = plan
    spoil, sentence = DEFECTS[what]
    at = data.draw(st.integers(0, len(rows) - 1))
    with pytest.raises(VerificationError, match=sentence):
        table(method, [*rows[:at], spoil(rows[at], method.k), *rows[at + 1 :]])


@settings(deadline=None)
@given(plans())
def test_normalizing_inside_the_averaging_loop_is_seen(plan: tuple[MethodConfig, list[FirstClassRow]]) -> None:
    method, rows = plan
    spoiled = last_heavier(rows[0], method.k)
    if len(set(spoiled.weights) - {0.0}) > 1:
        with pytest.raises(VerificationError, match="not uniform"):
            table(method, [spoiled, *rows[1:]])


@settings(deadline=None)
@given(plans())
def test_overlapping_groups_are_seen(plan: tuple[MethodConfig, list[FirstClassRow]]) -> None:
    """Each query's own k nearest neighbours, instead of a partition."""
    method, rows = plan
    last = rows[-1]
    people = sorted((*last.people, rows[0].people[0]))
    shared = replace(last, people=tuple(people), weights=(1 / len(people),) * len(people), k=len(people))
    with pytest.raises(VerificationError, match="is in two classes"):
        table(method, [*rows[:-1], shared])


@settings(deadline=None)
@given(plans())
def test_two_surrogates_of_one_class_are_seen(plan: tuple[MethodConfig, list[FirstClassRow]]) -> None:
    method, rows = plan
    with pytest.raises(VerificationError, match="two surrogates"):
        table(method, [rows[0], replace(rows[0], surrogate=digest("other")), *rows[1:]])


@settings(deadline=None)
@given(plans())
def test_two_classes_with_one_average_are_seen(plan: tuple[MethodConfig, list[FirstClassRow]]) -> None:
    method, rows = plan
    twin = replace(
        rows[1], average=rows[0].average, surrogate=rows[0].average if method.name == "k-same" else digest("other")
    )
    with pytest.raises(VerificationError, match="said to have one average"):
        table(method, [rows[0], twin, *rows[2:]])


@settings(deadline=None)
@given(plans())
def test_whose_surrogate_is_worn_is_the_methods(plan: tuple[MethodConfig, list[FirstClassRow]]) -> None:
    method, rows = plan
    with pytest.raises(VerificationError, match="own average"):
        table(MethodConfig(name="k-same" if method.name == "k-diff" else "k-diff", k=method.k), rows)


def test_a_class_may_go_bare_only_where_it_is_alone() -> None:
    method = MethodConfig(k=2)
    bare = FirstClassRow(name(1), tuple(sorted((name(2), name(3)))), (0.5, 0.5), 2, 2, digest(1), None)
    table(method, [bare])
    other = replace(
        bare, people=tuple(sorted((name(4), name(5)))), name="f" * 24, average=digest(2), surrogate=digest(1)
    )
    with pytest.raises(VerificationError, match="no surrogate to wear"):
        table(method, [bare, other])


@settings(deadline=None)
@given(plans())
def test_a_face_must_wear_what_a_class_of_its_size_was_dealt(plan: tuple[MethodConfig, list[FirstClassRow]]) -> None:
    method, rows = plan
    classes, row = table(method, rows), rows[0]
    good = ClaimedFace(method.name, row.k, None, row.surrogate, None)
    classes.check_assigned(good)
    for wrong in (
        replace(good, digest=digest("x")),
        replace(good, digest=None),
        replace(good, k=99),
        replace(good, k=None),
    ):
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
