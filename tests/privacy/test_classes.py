from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.privacy.classes import LARGEST, effective_k, form_classes, may_be_shown
from anonlib.privacy.keys import Keyring
from anonlib.privacy.surrogate_choice import alike, shuffled
from tests.privacy.made_people import people, strata
from tests.support.oracles import candidates, faults

KEYS = Keyring(b"k" * 32, "release")


def ids(count: int) -> list[str]:
    return [f"person {number}" for number in range(count)]


@pytest.mark.parametrize(
    ("photos", "k"),
    [([1] * 5, 5), ([3, 3, 3, 3, 3], 5), ([9, 1, 1, 1, 1], 1), ([4, 2, 2, 2, 2], 3), ([0, 0], 0), ([], 0)],
)
def test_effective_k_is_bounded_by_the_most_photographed_person(photos: list[int], k: int) -> None:
    assert effective_k(photos) == k


@settings(deadline=None, max_examples=200)
@given(
    st.integers(2, 6),
    st.lists(st.one_of(st.integers(0, 4), st.integers(0, 300)), max_size=120),
    st.integers(0, 1000),
)
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


def test_a_person_with_most_of_the_photos_is_left_over_and_the_others_keep_their_classes() -> None:
    photos = np.array([10_000, *[1] * 40])
    classes, left = form_classes(photos, [("all",)] * 41, shuffled(ids(41), KEYS), k=5)
    assert left == [0]
    assert sum(len(cls.members) for cls in classes) == 40


def test_no_class_grows_without_bound_around_one_person() -> None:
    photos = np.array([500, *[1] * 3000])
    classes, left = form_classes(photos, [("all",)] * 3001, shuffled(ids(3001), KEYS), k=5)
    assert left == [0]
    assert max(len(cls.members) for cls in classes) <= LARGEST * 5


def test_people_share_classes_with_people_of_similar_numbers_of_photos() -> None:
    photos = np.array([*[40] * 10, *[1] * 50])
    classes, left = form_classes(photos, [("all",)] * 60, shuffled(ids(60), KEYS), k=5)
    assert not left
    assert all(len(set(photos[list(cls.members)].tolist())) == 1 for cls in classes)


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


def present(*persons: int) -> np.ndarray:
    """Photos (20,) of each person in a release that shows these, one each."""
    return np.bincount(persons, minlength=20)


@pytest.mark.parametrize(
    ("members", "now", "absences_known", "shown"),
    [
        (5, range(5), True, True),
        (5, [0], True, False),
        (5, [0], False, True),
        (10, range(5), True, True),
        (10, range(6), True, False),
        (5, [0] * 9 + [1, 2, 3, 4], True, False),
    ],
    ids=["whole", "one member", "absences unknown", "k present, k absent", "4 absent", "one with most photos"],
)
def test_an_old_class_is_shown_if_all_with_the_same_appearances_are_k(
    members: int, now: list[int], absences_known: bool, shown: bool
) -> None:
    earlier = [set(range(members))]
    assert may_be_shown(range(members), earlier, present(*now), k=5, absences_known=absences_known) == shown


@settings(deadline=None, max_examples=200)
@given(
    st.integers(2, 4),
    st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=3),
    st.sets(st.integers(0, 9), min_size=1),
    st.booleans(),
)
def test_a_class_that_may_be_shown_leaves_everybody_k_candidates(
    k: int, earlier: list[set[int]], now: set[int], known: bool
) -> None:
    members = sorted(set().union(now, *earlier))
    shown = may_be_shown(members, earlier, present(*now), k=k, absences_known=known)
    releases = [*earlier, now]
    left = [len(candidates(person, [[members]] * len(releases), releases, known)) for person in members]
    if shown:
        assert min(left) >= k
    elif known:
        assert min(left) < k or len(now) < k
