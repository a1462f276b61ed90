"""The conditions let every sound table pass, and no table with a known defect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.config import MethodConfig
from anonlib.errors import VerificationError
from anonlib.verification.certificate import CertifiedCounts
from anonlib.verification.conditions import (
    ClaimedFace,
    ClassRow,
    ClassTable,
    DrawRow,
    DrawTable,
    NoTable,
    ReleaseCounter,
    SurrogateRow,
    claim_of,
)
from anonlib.workspace.schemas import CERTIFIED_CLASSES, CERTIFIED_DRAWS, CERTIFIED_SURROGATES
from tests.support.pseudonyms import digest, name

VECTORS = {
    "dp-laplace": {"epsilon": 10.0},
    "dp-vmf": {"kappa": 0.3},
    "dp-purkayastha": {"epsilon": 2.0},
    "dp-uniform": {},
    "sampling": {},
    "surrogate": {},
}


def draws_method(method: str) -> MethodConfig:
    return MethodConfig(name=method, decoder="x", **VECTORS[method])  # type: ignore[arg-type]


@st.composite
def plans(draw: st.DrawFn, most: int = 8) -> tuple[MethodConfig, list[ClassRow]]:
    """A class method and a sound table for it; several classes may wear one surrogate."""
    k = draw(st.integers(2, 5))
    method = MethodConfig(name=draw(st.sampled_from(("k-diff", "k-same"))), k=k)
    sizes = draw(st.lists(st.integers(k, 2 * k), min_size=1, max_size=most))
    rows = [
        ClassRow(
            name("class", number),
            tuple(sorted(name("person", number, member) for member in range(size))),
            size,
            draw(st.integers(k, size)),
            digest(draw(st.integers(0, len(sizes) - 1))),
        )
        for number, size in enumerate(sizes)
    ]
    return method, sorted(rows, key=lambda row: row.name)


def worn(method: MethodConfig, rows: list[ClassRow]) -> list[SurrogateRow]:
    return [SurrogateRow(one, method.k) for one in sorted({row.surrogate for row in rows})]


def table(method: MethodConfig, rows: list[ClassRow], surrogates: list[SurrogateRow] | None = None) -> ClassTable:
    classes = ClassTable(method.k)
    for row in rows:
        classes.add(row)
    for one in worn(method, rows) if surrogates is None else surrogates:
        classes.add_surrogate(one)
    classes.close()
    return classes


@settings(deadline=None)
@given(plans())
def test_every_sound_plan_passes(plan: tuple[MethodConfig, list[ClassRow]]) -> None:
    method, rows = plan
    classes = table(method, rows)
    assert classes.people == sum(row.k for row in rows) and classes.rows == len(rows)
    for row in rows:
        classes.check_assigned(ClaimedFace(method.name, method.k, None, row.surrogate, None))


DEFECTS: dict[str, tuple[Callable[[ClassRow, int], ClassRow], str]] = {
    "fewer than k": (
        lambda row, k: replace(row, people=row.people[: k - 1], k=k - 1, effective_k=k - 1),
        "fewer than k",
    ),
    "an effective k below k": (lambda row, k: replace(row, effective_k=k - 1), "effective k"),
    "an effective k above the persons": (lambda row, k: replace(row, effective_k=row.k + 1), "effective k"),
    "more people said than listed": (lambda row, k: replace(row, k=row.k + 1), "and lists"),
    "a name of no pseudonym": (lambda row, k: replace(row, name=row.name.upper() + "z"), "no pseudonym"),
    "a person of no pseudonym": (lambda row, k: replace(row, people=("Ada", *row.people[1:])), "no pseudonym"),
    "a person twice": (lambda row, k: replace(row, people=(row.people[0], *row.people[:-1])), "one person twice"),
    "people out of order": (lambda row, k: replace(row, people=row.people[::-1]), "order may speak"),
}


@settings(deadline=None, max_examples=200)
@given(plans(most=3), st.data())
def test_a_defect_in_any_class_of_any_plan_is_seen(
    plan: tuple[MethodConfig, list[ClassRow]], data: st.DataObject
) -> None:
    method, rows = plan
    spoil, sentence = DEFECTS[data.draw(st.sampled_from(sorted(DEFECTS)))]
    at = data.draw(st.integers(0, len(rows) - 1))
    with pytest.raises(VerificationError, match=sentence):
        table(method, [*rows[:at], spoil(rows[at], method.k), *rows[at + 1 :]])


@settings(deadline=None)
@given(plans(), st.data())
def test_a_person_in_two_classes_is_seen(plan: tuple[MethodConfig, list[ClassRow]], data: st.DataObject) -> None:
    """Each query's own k nearest neighbours, instead of a partition."""
    method, rows = plan
    extra = ClassRow("f" * 24, tuple(sorted((rows[0].people[0], *(name("new", one) for one in range(method.k))))),
                     method.k + 1, method.k, rows[0].surrogate)  # fmt: skip
    with pytest.raises(VerificationError, match="is in two classes"):
        table(method, [*rows, extra])


def test_what_the_surrogates_table_says_is_checked() -> None:
    method = MethodConfig(k=2)
    row = ClassRow(name(1), tuple(sorted((name(2), name(3)))), 2, 2, digest(1))
    one, two = (SurrogateRow(each, 2) for each in sorted((digest(1), digest(2))))
    table(method, [row], [SurrogateRow(digest(1), 2)])
    for surrogates, sentence in (
        ([], "in no row of surrogates"),
        ([one, two], "no class wears"),
        ([two, one], "order"),
        ([SurrogateRow(digest(1), 1)], "made of 1 people"),
        ([SurrogateRow("Ada", 2)], "no digest"),
    ):
        with pytest.raises(VerificationError, match=sentence):
            table(method, [row], surrogates)


def test_no_released_table_says_of_which_class_a_surrogate_was_made() -> None:
    """A row with two digests would lead from a released face to the average of its own class."""
    for schema in (CERTIFIED_CLASSES, CERTIFIED_SURROGATES, CERTIFIED_DRAWS):
        assert sum(field in schema.names for field in ("wears", "made", "digest")) == 1
    assert set(CERTIFIED_CLASSES.names).isdisjoint(CERTIFIED_SURROGATES.names)


@settings(deadline=None)
@given(plans())
def test_a_face_must_wear_what_a_class_was_dealt_and_count_k(plan: tuple[MethodConfig, list[ClassRow]]) -> None:
    method, rows = plan
    classes = table(method, rows)
    good = ClaimedFace(method.name, method.k, None, rows[0].surrogate, None)
    classes.check_assigned(good)
    for wrong in (
        replace(good, digest=digest("x")),
        replace(good, digest=None),
        replace(good, k=method.k + 1),
        replace(good, k=None),
        replace(good, epsilon=0.0),
    ):
        with pytest.raises(VerificationError):
            classes.check_assigned(wrong)


@settings(deadline=None)
@given(plans())
def test_a_face_with_a_surrogate_of_its_own_ends_the_claim(plan: tuple[MethodConfig, list[ClassRow]]) -> None:
    method, rows = plan
    face = ClaimedFace(method.name, method.k, None, rows[0].surrogate, "next-surrogate")
    with pytest.raises(VerificationError, match="chosen for it alone"):
        ReleaseCounter(method.name, table(method, rows)).add_image("released", [face])


@pytest.mark.parametrize("method", VECTORS)
def test_a_face_of_a_vector_method_carries_a_draw_and_the_claims_epsilon(method: str) -> None:
    draws = DrawTable(claim_of(draws_method(method)).epsilon)
    epsilon = next(iter(VECTORS[method].values()), 0.0 if method == "dp-uniform" else None)
    for one in sorted(digest(number) for number in range(4)):
        draws.add(DrawRow(one, epsilon))
    stored = None if epsilon is None else float(np.float32(epsilon))
    good = ClaimedFace(method, None, stored, digest(0), None)
    draws.check_assigned(good)
    for wrong in (replace(good, digest=digest(9)), replace(good, epsilon=0.125), replace(good, k=5)):
        with pytest.raises(VerificationError):
            draws.check_assigned(wrong)
    again = replace(good, digest=digest(9), epsilon=None, fallback="next-surrogate")
    if epsilon is None:
        draws.check_next_surrogate(again)
        with pytest.raises(VerificationError, match="claims epsilon"):
            draws.check_next_surrogate(replace(again, epsilon=1.0))
    else:
        with pytest.raises(VerificationError, match="drawn for it alone"):
            draws.check_next_surrogate(again)
        DrawTable(epsilon, redraws=True).check_next_surrogate(again)


def test_a_draw_is_dealt_once_and_at_the_claims_epsilon() -> None:
    def dealt(*rows: DrawRow) -> None:
        draws = DrawTable(10.0)
        for row in rows:
            draws.add(row)

    one, two = (DrawRow(each, 10.0) for each in sorted((digest(1), digest(2))))
    dealt(one, two)
    for rows, sentence in (
        ((one, one), "two people"),
        ((two, one), "order"),
        ((replace(one, epsilon=1.0),), "has epsilon 1.0, the claim 10.0"),
        ((replace(one, epsilon=None),), "epsilon None"),
        ((replace(one, digest="Ada"),), "no digest"),
    ):
        with pytest.raises(VerificationError, match=sentence):
            dealt(*rows)


def test_faces_are_counted_by_what_the_claim_covers() -> None:
    counter = ReleaseCounter("solid", NoTable())
    plain = ClaimedFace("solid", None, None, None, None)
    counter.add_shard()
    counter.add_image("released", [plain, plain])
    counter.add_image("no_face", [])
    counter.add_image("quarantined", [replace(plain, method="anything", k=3)])
    assert counter.counts == CertifiedCounts(
        shards=1, images=3, released=1, no_face=1, quarantined=1, faces=3, replaced=2, withheld=1
    )


@pytest.mark.parametrize(
    ("status", "face", "sentence"),
    [
        ("lost", None, "status 'lost'"),
        ("released", None, "released with 0 faces"),
        ("no_face", ClaimedFace("blur", None, None, None, None), "no_face with 1 faces"),
        ("released", ClaimedFace("none", None, None, None, None), "replaced by none"),
        ("released", ClaimedFace("solid", None, None, None, None), "replaced by solid"),
        ("released", ClaimedFace("solid", 5, None, None, "solid"), "redacted face claims"),
        ("released", ClaimedFace("solid", 5, None, None, "review"), "redacted face claims"),
        ("released", ClaimedFace("blur", None, 0.1, None, None), "redacted face claims"),
        ("released", ClaimedFace("blur", None, None, None, "next-surrogate"), "there is none"),
        ("released", ClaimedFace("blur", None, None, None, "solid"), "fallback 'solid' without its method"),
    ],
)
def test_an_image_or_face_that_cannot_be_is_seen(status: str, face: ClaimedFace | None, sentence: str) -> None:
    with pytest.raises(VerificationError, match=sentence):
        ReleaseCounter("blur", NoTable()).add_image(status, [face] if face else [])
