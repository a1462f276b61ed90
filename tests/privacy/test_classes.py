from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.privacy.classes import LARGEST, effective_k, form_classes
from anonlib.privacy.keys import Keyring
from anonlib.privacy.surrogate_choice import alike, shuffled
from tests.privacy.made_people import people, strata
from tests.support.oracles import faults

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
    assert not faults([one.members for one in classes], counts, k=k, left=left)
    for one in classes:
        assert one.effective_k == effective_k(counts[list(one.members)]) >= k


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 5), st.integers(1, 60), st.integers(0, 1000))
def test_people_with_one_photo_each_are_all_hidden_in_classes_of_k_to_2k_less_1(k: int, count: int, seed: int) -> None:
    ones = np.ones(count, np.int64)
    classes, left = form_classes(ones, [("all",)] * count, shuffled(ids(count), KEYS), k=k)
    assert len(left) == (count if count < k else 0)
    assert all(k <= len(one.members) < 2 * k for one in classes)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 5), st.integers(0, 80), st.integers(0, 1000))
def test_classes_of_look_alikes_hide_as_well_and_have_k_donors(k: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    photos, donors = rng.integers(0, 9, count), rng.random(count) < 0.7
    classes, left = form_classes(photos, strata(count, seed), alike(people(count, seed), k), k=k, donors=donors)
    assert not faults([one.members for one in classes], photos, k=k, left=left)
    assert all(donors[list(one.members)].sum() >= k for one in classes)


def test_one_person_with_most_of_the_photos_does_not_cost_the_others_their_classes() -> None:
    photos = np.array([10_000, *[1] * 40])
    classes, left = form_classes(photos, [("all",)] * 41, shuffled(ids(41), KEYS), k=5)
    assert left == [0]
    assert sum(len(one.members) for one in classes) == 40


def test_no_class_grows_without_bound_around_one_person() -> None:
    photos = np.array([500, *[1] * 3000])
    classes, left = form_classes(photos, [("all",)] * 3001, shuffled(ids(3001), KEYS), k=5)
    assert left == [0]
    assert max(len(one.members) for one in classes) <= LARGEST * 5


def test_the_most_photographed_share_a_class_with_those_next_to_them() -> None:
    photos = np.array([*[40] * 10, *[1] * 50])
    classes, left = form_classes(photos, [("all",)] * 60, shuffled(ids(60), KEYS), k=5)
    assert not left
    assert all(len(set(photos[list(one.members)].tolist())) == 1 for one in classes)


def test_classes_stay_inside_a_stratum_where_it_has_enough_people() -> None:
    kinds = [("female", "age-0")] * 11 + [("male", "age-1")] * 3 + [("male", "age-2")] * 4
    classes, left = form_classes(np.ones(18, np.int64), kinds, shuffled(ids(18), KEYS), k=5)
    assert not left
    assert Counter(one.stratum for one in classes) == {("female", "age-0"): 2, ("male",): 1}


def test_who_shares_a_class_depends_on_the_key_and_on_nothing_else() -> None:
    photos, kinds = np.ones(60, np.int64), [("all",)] * 60

    def formed(keys: Keyring, order: np.ndarray) -> set[frozenset[str]]:
        names = [ids(60)[number] for number in order]
        classes, _ = form_classes(photos, kinds, shuffled(names, keys), k=5)
        return {frozenset(names[member] for member in one.members) for one in classes}

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
        for one in classes:
            for first in one.members:
                for second in one.members:
                    together[first, second] += 1
    share = together[np.triu_indices(12, 1)] / runs
    assert np.abs(share - 2 / 11).max() < 5 * np.sqrt(2 / 11 * 9 / 11 / runs)
