"""Identification finds whom a person would find by hand, and nobody by anything but chance in noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anonlib.audit.attacks import identify, rate
from anonlib.audit.attacks.identify import first_of_each, found_within, places, rank_one, within_class_rank_one
from tests.support.evidence import units

AXES = np.eye(4, dtype=np.float32)


def of(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


def test_the_gallery_is_the_first_photo_of_each_person() -> None:
    assert first_of_each(of(7, 3, 7, 3, 5)).tolist() == [True, True, False, False, True]


def test_a_probe_is_found_if_its_person_is_the_most_similar() -> None:
    hits = rank_one(AXES[[0, 1, 2]], of(10, 11, 10), AXES[[0, 1, 2]], of(10, 11, 12))
    assert hits.tolist() == [1.0, 1.0, 0.0]


def test_a_tie_counts_as_the_guess_that_it_is() -> None:
    same = np.repeat(AXES[:1], 4, axis=0)
    assert rank_one(same[:1], of(2), same, of(1, 2, 3, 4)).tolist() == [0.25]


def test_outputs_that_all_look_alike_give_nothing_but_chance() -> None:
    same = np.repeat(AXES[:1], 50, axis=0)
    assert rank_one(same, np.arange(50), same, np.arange(50)).mean() == pytest.approx(1 / 50)


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 9))
def test_rank_one_is_what_a_loop_finds(seed: int, count: int, people: int) -> None:
    lot = np.random.default_rng(seed)
    probes, gallery = units(count, seed), units(people, seed + 1)
    probe_subjects, subjects = lot.integers(0, people, count), lot.permutation(people)
    expected = [
        float(subjects[max(range(people), key=lambda one: float(probe @ gallery[one]))] == person)
        for probe, person in zip(probes, probe_subjects, strict=True)
    ]
    assert rank_one(probes, probe_subjects, gallery, subjects).tolist() == expected


def test_the_order_of_probes_and_gallery_does_not_matter_beyond_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    probes, gallery, who = units(50, 3), units(20, 4), np.arange(50) % 20
    whole = rank_one(probes, who, gallery, np.arange(20))
    monkeypatch.setattr(identify, "_ROWS", 7)
    np.testing.assert_array_equal(whole, rank_one(probes, who, gallery, np.arange(20)))
    turned = rank_one(probes[::-1], who[::-1], gallery[::-1], np.arange(20)[::-1])
    np.testing.assert_array_equal(whole, turned[::-1])


def test_random_vectors_are_found_by_chance() -> None:
    people, photos = 50, 80
    who = np.repeat(np.arange(people), photos)
    found = rate(rank_one(units(len(who), 5), who, units(people, 6), np.arange(people)), who)
    assert found.low <= 1 / people <= found.high
    assert found.high < 3 / people


def test_within_a_class_only_its_people_are_asked() -> None:
    gallery, subjects, classes = AXES, of(0, 1, 2, 3), of(0, 0, 1, 1)
    probe = np.array([[0.6, 0.0, 0.8, 0.0]], np.float32)
    assert rank_one(probe, of(0), gallery, subjects).tolist() == [0.0]
    hits, chance = within_class_rank_one(probe, of(0), of(0), gallery, subjects, classes)
    assert (hits.tolist(), chance.tolist()) == ([1.0], [0.5])


def test_a_class_of_one_or_none_is_no_guess() -> None:
    hits, chance = within_class_rank_one(AXES[:3], of(0, 1, 2), of(0, 1, -1), AXES, of(0, 1, 2, 3), of(0, 1, -1, -1))
    assert np.isnan(hits).all()
    assert np.isnan(chance).all()


def test_the_chance_within_a_class_counts_people_and_not_photos() -> None:
    _, chance = within_class_rank_one(AXES[:1], of(0), of(0), AXES, of(0, 0, 0, 1), of(0, 0, 0, 0))
    assert chance.tolist() == [0.5]


def test_random_vectors_within_classes_of_five_are_found_one_in_five_times() -> None:
    who = np.repeat(np.arange(100), 40)
    hits, chance = within_class_rank_one(
        units(len(who), 7), who, who // 5, units(100, 8), np.arange(100), np.arange(100) // 5
    )
    found = rate(hits, who)
    assert np.unique(chance).tolist() == [0.2]
    assert found.low <= 0.2 <= found.high


def test_a_place_is_the_number_of_people_who_are_more_similar() -> None:
    probe = np.array([[0.9, 0.3, 0.3, 0.1]], np.float32)
    placed = [tuple(int(one[0]) for one in places(probe, of(who), AXES, of(0, 1, 2, 3))) for who in range(4)]
    assert placed == [(0, 1), (1, 2), (1, 2), (3, 1)]
    assert [one.tolist() for one in places(probe, of(7), AXES, of(0, 1, 2, 3))][1] == [0]


def test_those_who_tie_share_the_places_that_they_take() -> None:
    better, tied = of(0, 1, 1, 3, 0), of(1, 2, 2, 1, 0)
    np.testing.assert_array_equal(found_within(1, better, tied), [1, 0, 0, 0, np.nan])
    np.testing.assert_array_equal(found_within(2, better, tied), [1, 0.5, 0.5, 0, np.nan])
    np.testing.assert_array_equal(found_within(4, better, tied), [1, 1, 1, 1, np.nan])


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 9))
def test_the_first_place_is_rank_one_and_all_places_hold_everybody(seed: int, count: int, people: int) -> None:
    probes, gallery, who = units(count, seed), units(people, seed + 1), np.arange(count) % people
    ranks = places(probes, who, gallery, np.arange(people))
    np.testing.assert_array_equal(found_within(1, *ranks), rank_one(probes, who, gallery, np.arange(people)))
    assert (found_within(people, *ranks) == 1).all()


def test_places_are_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    probes, gallery, who = units(50, 3), units(20, 4), np.arange(50) % 20
    whole = places(probes, who, gallery, np.arange(20))
    monkeypatch.setattr(identify, "_ROWS", 7)
    np.testing.assert_array_equal(whole, places(probes, who, gallery, np.arange(20)))
