import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_people import lookalikes, people, strata
from numpy.typing import NDArray
from oracles import faults, order_faults

from anonlib.privacy.classes import form_classes, with_guests

cases = st.tuples(st.integers(2, 6), st.integers(0, 60), st.integers(0, 10_000))


@settings(deadline=None, max_examples=80)
@given(cases, st.floats(0.4, 0.999), st.booleans())
def test_classes_of_any_subjects_have_no_fault(case: tuple[int, int, int], same_person: float, ties: bool) -> None:
    k, count, seed = case
    templates = (lookalikes if ties else people)(count, seed)
    classes, left = form_classes(templates, strata(count, seed), k=k, same_person=same_person)
    members = [one.members for one in classes]
    assert not faults(members, count, k=k, left=left, templates=templates, same_person=same_person)
    assert all(one.effective_k >= k for one in classes)
    assert len(left) in (0, count)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5), st.integers(0, 10_000))
def test_a_person_split_in_two_never_counts_twice(k: int, seed: int) -> None:
    singles = people(6 * k, seed)
    templates = np.concatenate([singles, singles[: 2 * k]])
    classes, left = form_classes(templates, [()] * len(templates), k=k, same_person=0.999)
    for one in classes:
        assert len({member if member < 6 * k else member - 6 * k for member in one.members}) >= k
    assert not left


def test_strata_stay_apart_where_they_can_fill_a_class() -> None:
    kinds = [("female", "young")] * 7 + [("male", "young")] * 9
    classes, left = form_classes(people(16, 1), kinds, k=3, same_person=0.999)
    assert not left
    for one in classes:
        assert len({kinds[member] for member in one.members}) == 1


def test_a_small_stratum_joins_its_gender_before_the_other() -> None:
    kinds = [("female", "young")] * 2 + [("female", "old")] * 2 + [("male", "young")] * 6
    classes, _ = form_classes(people(10, 2), kinds, k=4, same_person=0.999)
    women = next(one for one in classes if 0 in one.members)
    assert women.members == (0, 1, 2, 3)
    assert women.stratum == ("female",)


def test_a_small_stratum_without_kin_in_waiting_joins_a_class_of_its_gender() -> None:
    genders = ("female", "male", "unsure")
    kinds = [(gender, age) for gender in genders for age, many in (("young", 2), ("old", 10)) for _ in range(many)]
    classes, left = form_classes(people(36, 4), kinds, k=4, same_person=0.999)
    assert not left
    for one in classes:
        assert one.stratum[:1] == kinds[one.members[0]][:1]
        assert len({kinds[member][0] for member in one.members}) == 1


@pytest.mark.parametrize("k", [2, 5])
def test_the_order_of_the_list_changes_no_class(k: int) -> None:
    assert not order_faults(lambda some: _members(some, k), people(300, 9))


def test_fewer_people_than_k_are_left_over_whatever_their_subjects() -> None:
    templates = np.repeat(people(3, 6), 5, axis=0)
    assert form_classes(templates, [()] * 15, k=4, same_person=0.99) == ([], list(range(15)))
    assert form_classes(templates[:0], [], k=4, same_person=0.99) == ([], [])


@settings(deadline=None, max_examples=40)
@given(cases, st.integers(0, 100))
def test_guests_join_the_most_similar_class_of_their_closest_kin(case: tuple[int, int, int], share: int) -> None:
    k, count, seed = case
    templates, kinds = people(count, seed), strata(count, seed)
    donor = np.random.default_rng(seed).integers(0, 100, size=count) < share
    classes, wearers = with_guests(templates, kinds, donor, k=k, same_person=0.99)
    assert all(donor[list(one.members)].all() for one in classes)
    worn = sorted(member for members in wearers for member in members)
    assert worn == (list(range(count)) if classes else [])
    for one, members in zip(classes, wearers, strict=True):
        assert members == sorted(members) and set(one.members) <= set(members)
        for guest in set(members) - set(one.members):
            closest = max(_kin(kinds[guest], other.stratum) for other in classes)
            assert _kin(kinds[guest], one.stratum) == closest
            rivals = [other for other in classes if _kin(kinds[guest], other.stratum) == closest]
            similarity = [float(templates[list(other.members)].mean(axis=0) @ templates[guest]) for other in rivals]
            assert similarity[rivals.index(one)] >= max(similarity) - 1e-6


def _kin(stratum: tuple[str, ...], other: tuple[str, ...]) -> int:
    return next((part for part in (2, 1) if stratum[:part] == other[:part] and len(stratum[:part]) == part), 0)


def _members(templates: NDArray[np.float32], k: int) -> list[tuple[int, ...]]:
    classes, _ = form_classes(templates, [()] * len(templates), k=k, same_person=0.999)
    return [one.members for one in classes]
