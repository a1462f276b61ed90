from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anonlib.privacy import classes
from anonlib.privacy.classes import (
    LARGEST,
    Stratum,
    alike,
    averages,
    common,
    deal,
    effective_k,
    form_classes,
    may_be_shown,
    microaggregate,
    prevailing,
    shuffled,
)
from anonlib.privacy.keys import Keyring
from tests.privacy.made_people import lookalikes, people, strata
from tests.support.oracles import candidates, faults, order_faults

KEYS = Keyring(b"k" * 32, "release")


def ids(count: int) -> list[str]:
    return [f"person {number}" for number in range(count)]


@pytest.mark.parametrize(
    ("photos", "k"),
    [([1] * 5, 5), ([3, 3, 3, 3, 3], 5), ([9, 1, 1, 1, 1], 1), ([4, 2, 2, 2, 2], 3), ([0, 0], 0), ([], 0)],
)
def test_effective_k_is_bounded_by_the_most_photographed_person(photos: list[int], k: int) -> None:
    assert effective_k(photos) == k


photo_counts = st.lists(st.one_of(st.integers(0, 4), st.integers(0, 300)), max_size=120)


@settings(deadline=None, max_examples=200)
@given(st.integers(2, 6), photo_counts, st.integers(0, 1000))
def test_every_class_hides_each_photo_among_k_persons(k: int, photos: list[int], seed: int) -> None:
    counts = np.array(photos, np.int64)
    classes, left = form_classes(counts, strata(len(counts), seed), shuffled(ids(len(counts)), KEYS), k=k)
    assert not faults([cls.members for cls in classes], counts, k=k, left=left)
    for cls in classes:
        assert cls.effective_k == effective_k(counts[list(cls.members)]) >= k


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 5), st.integers(1, 60), st.integers(0, 1000))
def test_people_with_one_photo_each_are_all_hidden_in_classes_of_k_to_2k_less_1(k: int, count: int, seed: int) -> None:
    ones = np.ones(count, np.int64)
    classes, left = form_classes(ones, [("all",)] * count, shuffled(ids(count), KEYS), k=k)
    assert len(left) == (count if count < k else 0)
    assert all(k <= len(cls.members) < 2 * k for cls in classes)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 5), st.integers(0, 80), st.integers(0, 1000))
def test_classes_of_look_alikes_hide_as_well_and_have_k_donors(k: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    photos, donors = rng.integers(0, 9, count), rng.random(count) < 0.7
    classes, left = form_classes(photos, strata(count, seed), alike(people(count, seed), k), k=k, donors=donors)
    assert not faults([cls.members for cls in classes], photos, k=k, left=left)
    assert all(donors[list(cls.members)].sum() >= k for cls in classes)


def test_no_class_grows_without_bound_around_one_person() -> None:
    photos = np.array([500, *[1] * 3000])
    classes, left = form_classes(photos, [("all",)] * 3001, shuffled(ids(3001), KEYS), k=5)
    assert left == [0]
    assert max(len(cls.members) for cls in classes) <= LARGEST * 5


def test_classes_stay_inside_a_stratum_where_it_has_enough_people() -> None:
    kinds = [("female", "age-0")] * 11 + [("male", "age-1")] * 3 + [("male", "age-2")] * 4
    classes, left = form_classes(np.ones(18, np.int64), kinds, shuffled(ids(18), KEYS), k=5)
    assert not left
    assert Counter(cls.stratum for cls in classes) == {("female", "age-0"): 2, ("male",): 1}


def test_membership_depends_on_the_key_and_not_on_the_order_of_persons() -> None:
    photos, kinds = np.ones(60, np.int64), [("all",)] * 60

    def formed(keys: Keyring, order: np.ndarray) -> set[frozenset[str]]:
        names = [ids(60)[number] for number in order]
        classes, _ = form_classes(photos, kinds, shuffled(names, keys), k=5)
        return {frozenset(names[member] for member in cls.members) for cls in classes}

    listed = np.arange(60)
    assert formed(KEYS, listed) == formed(KEYS, listed[::-1])
    assert formed(KEYS, listed) != formed(Keyring(b"l" * 32, "release"), listed)


def test_every_pair_of_people_of_a_band_shares_a_class_equally_often() -> None:
    """Given stratum and photo counts, classes say nothing of who is in them: all pairs are alike, within 5 sigma."""
    together = np.zeros((12, 12))
    runs = 2000
    for run in range(runs):
        keys = Keyring(run.to_bytes(32, "big"), "release")
        classes, _ = form_classes(np.full(12, 2, np.int64), [("all",)] * 12, shuffled(ids(12), keys), k=3)
        for cls in classes:
            for first in cls.members:
                for second in cls.members:
                    together[first, second] += 1
    share = together[np.triu_indices(12, 1)] / runs
    assert np.abs(share - 2 / 11).max() < 5 * np.sqrt(2 / 11 * 9 / 11 / runs)


# --- classes over several releases --------------------------------------------------------------------------------


def test_an_old_class_is_shown_if_no_member_has_most_photos_or_absences_are_not_known() -> None:
    members = list(range(5))
    assert may_be_shown(members, [members], Counter(members), 5, absences_known=True)
    assert not may_be_shown(members, [members], Counter([*members, 0, 0]), 5, absences_known=True)
    assert may_be_shown(members, [members], Counter([0]), 5, absences_known=False)


persons = st.sets(st.integers(0, 9))


@settings(deadline=None, max_examples=200)
@given(st.integers(2, 4), st.lists(persons, min_size=1, max_size=3), persons.filter(bool), st.booleans())
def test_a_class_that_may_be_shown_leaves_everybody_k_candidates(
    k: int, earlier: list[set[int]], now: set[int], known: bool
) -> None:
    members = sorted(set().union(now, *earlier))
    shown = may_be_shown(members, earlier, Counter(now), k=k, absences_known=known)
    releases = [*earlier, now]
    left = [len(candidates(person, [[members]] * len(releases), releases, known)) for person in members]
    if shown:
        assert min(left) >= k
    elif known:
        assert min(left) < k or len(now) < k


# --- which surrogate a class wears --------------------------------------------------------------------------------


def drawn_classes(count: int, seed: int) -> tuple[list[Stratum], list[list[int]]]:
    rng = np.random.default_rng(seed)
    kinds = [(str(rng.integers(2)), str(rng.integers(3))) for _ in range(count)]
    return kinds, [[10 * number + person for person in range(rng.integers(0, 8))] for number in range(count)]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 40), st.integers(0, 10_000))
def test_a_surrogate_has_k_donors_of_its_kind_and_no_class_wears_its_own_persons(count: int, seed: int) -> None:
    kinds, donors = drawn_classes(count, seed)
    surrogates = averages(kinds, donors, 5)
    for average in surrogates:
        assert len(average.donors) >= 5
        assert sorted(average.donors) == sorted(donor for number in average.classes for donor in donors[number])
        assert all(kinds[number] == average.kind for number in average.classes)
    used = [donor for average in surrogates for donor in average.donors]
    assert len(used) == len(set(used))
    worn = deal(surrogates, kinds, [f"class {number}" for number in range(count)], KEYS)
    assert len(worn) == count
    for number, chosen in enumerate(worn):
        if chosen is not None:
            assert set(surrogates[chosen].donors).isdisjoint(donors[number])
            others = [one for one in surrogates if one.kind == kinds[number] and number not in one.classes]
            assert surrogates[chosen].kind == kinds[number] or not others
        else:
            assert all(number in average.classes for average in surrogates)


def test_every_other_surrogate_of_the_kind_is_equally_likely() -> None:
    """The distribution of what a person wears is the same for all persons outside its donors: epsilon 0."""
    kinds: list[Stratum] = [("female",)] * 4
    surrogates = averages(kinds, [[0, 1], [2, 3], [4, 5], [6, 7]], 2)
    seen = np.zeros((4, 4))
    runs = 3000
    for run in range(runs):
        worn = deal(surrogates, kinds, ["a", "b", "c", "d"], Keyring(run.to_bytes(32, "big"), "release"))
        for number, chosen in enumerate(worn):
            assert chosen is not None
            seen[number, chosen] += 1
    share = seen / runs
    assert (np.diag(share) == 0).all()
    assert np.abs(share[~np.eye(4, dtype=bool)] - 1 / 3).max() < 5 * np.sqrt(2 / 9 / runs)


# --- strata -------------------------------------------------------------------------------------------------------


def test_a_stratum_is_what_all_have_in_common_and_a_kind_what_more_than_half_have() -> None:
    assert common([("female", "old"), ("female", "young")]) == ("female",)
    assert common([("female", "old")] * 3) == ("female", "old")
    assert common([("a", "x"), ("b", "x")]) == common([]) == ()
    women = [("female", "age-0")] * 4
    assert prevailing([*women, ("unsure", "age-0")]) == ("female", "age-0")
    assert prevailing([*women, *[("female", "age-1")] * 3, ("male", "age-0")]) == ("female",)
    assert prevailing([*women, *[("male", "age-0")] * 4]) == prevailing([]) == ()
    assert prevailing([("female",), ("female", "age-0")]) == ("female",)


Aggregate = Callable[[NDArray[np.float32], int], list[NDArray[np.int64]]]
Draw = Callable[[int, int], NDArray[np.float32]]


def mdav(templates: NDArray[np.float32], k: int) -> list[NDArray[np.int64]]:
    """One cell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classes, "_CELL", len(templates))
        return microaggregate(templates, k)


sizes = st.integers(2, 6), st.integers(2, 80), st.integers(0, 1000)


def textbook_mdav(templates: NDArray[np.float32], k: int) -> set[tuple[int, ...]]:
    """As Domingo-Ferrer and Torra write it down, with distances and lists."""
    left, groups = list(range(len(templates))), set()
    points = templates.astype(np.float64)

    def far(point: NDArray[np.float64]) -> int:
        return max(left, key=lambda one: float(((points[one] - point) ** 2).sum()))

    def take(centre: int) -> None:
        nearest = sorted(left, key=lambda one: float(((points[one] - points[centre]) ** 2).sum()))[:k]
        groups.add(tuple(sorted(nearest)))
        left[:] = [one for one in left if one not in nearest]

    while len(left) >= 2 * k:
        both = len(left) >= 3 * k
        first = far(points[left].mean(axis=0))
        take(first)
        if both:
            take(far(points[first]))
    return groups | {tuple(left)}


@given(*sizes)
@settings(deadline=None, max_examples=40)
def test_mdav_forms_the_groups_of_the_textbook(k: int, count: int, seed: int) -> None:
    templates = people(max(count, k), seed)
    assert {tuple(group.tolist()) for group in mdav(templates, k)} == textbook_mdav(templates, k)
    with pytest.raises(ValueError, match="cannot form a class"):
        microaggregate(templates[: k - 1], k)


def twins(count: int, seed: int) -> NDArray[np.float32]:
    return np.repeat(people(1, seed), count, axis=0)


def far_off(count: int, seed: int) -> NDArray[np.float32]:
    """Three who form a cell too small for a group, which joins its neighbour."""
    templates = people(count, seed)
    templates[:3] *= 100
    return templates


@pytest.mark.parametrize("draw", [people, lookalikes, twins, far_off])
@pytest.mark.parametrize("k", [2, 5, 40])
def test_many_cells_keep_the_sizes_too(monkeypatch: pytest.MonkeyPatch, draw: Draw, k: int) -> None:
    monkeypatch.setattr(classes, "_CELL", 60)
    groups = microaggregate(draw(1500, 4), k)
    assert sorted(np.concatenate(groups).tolist()) == list(range(1500))
    assert all(k <= len(group) <= 2 * k - 1 for group in groups)


@pytest.mark.parametrize("aggregate", [mdav, microaggregate])
def test_the_order_of_the_list_changes_no_group(monkeypatch: pytest.MonkeyPatch, aggregate: Aggregate) -> None:
    monkeypatch.setattr(classes, "_CELL", 64)
    assert not order_faults(lambda templates: aggregate(templates, 4), people(700, 5))
