"""Attacks give the numbers that a person would count by hand, chance where there is nothing to find, 1 where all is."""

from __future__ import annotations

import numpy as np
import pytest
from evidence import NAME, blurred, evidence, looking, units
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anonlib.audit import attacks
from anonlib.audit.attacks import (
    accepted_at,
    attack,
    bootstrap_interval,
    first_of_each,
    genuine_similarities,
    impostor_similarities,
    nearest_donor,
    rank_one,
    rate,
    tar_at_far,
    threshold_at_far,
    within_class_rank_one,
)
from anonlib.audit.evidence import RELEASED

AXES = np.eye(4, dtype=np.float32)


def of(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


# ---- identification -------------------------------------------------------------------------------------------


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
    monkeypatch.setattr(attacks, "_ROWS", 7)
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


# ---- verification ---------------------------------------------------------------------------------------------


def test_genuine_and_impostor_pairs_are_told_apart_by_name() -> None:
    probes, gallery = AXES[[0, 1, 3]], AXES[[1, 0]]
    genuine = genuine_similarities(probes, of(5, 6, 9), gallery, of(6, 5))
    assert genuine[:2].tolist() == [1.0, 1.0]
    assert np.isnan(genuine[2])
    assert sorted(impostor_similarities(probes, of(5, 6, 9), gallery, of(6, 5)).tolist()) == [0.0] * 4


def test_the_threshold_of_a_thousand_impostors_lets_one_pass() -> None:
    impostors = np.arange(1000, dtype=np.float32) / 1000
    threshold = threshold_at_far(impostors, 1e-3)
    assert (impostors >= threshold).sum() == 1
    assert threshold == pytest.approx(0.998, abs=1e-6)


@given(st.lists(st.sampled_from([-0.5, 0.0, 0.1, 0.2, 0.5, 0.9]), min_size=1, max_size=60), st.floats(0.0, 1.0))
def test_the_threshold_is_the_least_that_keeps_the_far(values: list[float], far: float) -> None:
    impostors = np.array(values, np.float32)
    threshold = threshold_at_far(impostors, far)
    assert (impostors >= threshold).mean() <= far + 1e-9
    below = impostors[impostors < threshold]
    if len(below):
        assert (impostors >= below.max()).mean() > far


def test_a_threshold_needs_impostors() -> None:
    with pytest.raises(ValueError, match="at least one"):
        threshold_at_far(np.zeros(0, np.float32), 1e-3)


def test_tar_is_one_if_all_are_told_apart_and_the_far_if_none_is() -> None:
    lot = np.random.default_rng(9)
    impostors = lot.normal(0, 0.1, 100_000).astype(np.float32)
    assert tar_at_far(np.full(10, 0.9), impostors, 1e-3) == 1.0
    assert tar_at_far(lot.normal(0, 0.1, 100_000), impostors, 1e-3) == pytest.approx(1e-3, abs=5e-4)


def test_a_pair_that_is_missing_is_neither_accepted_nor_refused() -> None:
    np.testing.assert_array_equal(accepted_at(np.array([0.5, 0.4, np.nan]), 0.5), [1.0, 0.0, np.nan])


def test_a_donor_counts_if_its_class_is_worn_and_it_is_somebody_else() -> None:
    donors, people, classes = AXES[[0, 1, 2]], of(0, 1, 2), of(0, 0, 1)
    outputs = np.repeat(np.array([[0.8, 0.36, 0.48, 0.0]], np.float32), 5, axis=0)
    nearest = nearest_donor(outputs, of(9, 0, 9, 2, 9), of(0, 0, 1, 1, -1), donors, people, classes)
    np.testing.assert_allclose(nearest, [0.8, 0.36, 0.48, np.nan, np.nan], atol=1e-6)


# ---- intervals ------------------------------------------------------------------------------------------------


def test_an_interval_holds_its_mean_and_is_the_same_again() -> None:
    values, who = np.random.default_rng(10).random(300), np.arange(300) % 30
    low, high = bootstrap_interval(values, who, seed=3)
    assert low < values.mean() < high
    assert (low, high) == bootstrap_interval(values, who, seed=3)
    assert (low, high) != bootstrap_interval(values, who, seed=4)


def test_an_interval_is_as_wide_as_that_of_a_mean() -> None:
    values = (np.random.default_rng(11).random(4000) < 0.3).astype(float)
    low, high = bootstrap_interval(values, np.arange(4000), resamples=2000)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.3 * 0.7 / 4000), rel=0.1)


def test_photos_of_one_person_count_as_one_draw() -> None:
    values = np.repeat((np.random.default_rng(12).random(40) < 0.5).astype(float), 25)
    low, high = bootstrap_interval(values, np.repeat(np.arange(40), 25))
    apart = bootstrap_interval(values, np.arange(1000))
    assert high - low > 4 * (apart[1] - apart[0])


def test_a_rate_leaves_out_what_is_not_known() -> None:
    found = rate(np.array([1.0, np.nan, 0.0, 1.0, 1.0]), of(0, 1, 2, 3, 4))
    assert (found.value, found.count) == (0.75, 4)
    empty = rate(np.array([np.nan]), of(0))
    assert empty.count == 0
    assert np.isnan([empty.value, empty.low, empty.high]).all()


# ---- all of them ----------------------------------------------------------------------------------------------


def test_a_release_of_the_originals_is_as_bad_as_the_originals() -> None:
    rates = attack(evidence(), NAME).rates
    for clear, released in (("rank-1 clear", "rank-1 naive"), ("TAR clear", "TAR naive")):
        assert rates[released] == rates[clear]
        assert rates[released].value > 0.99
    assert rates["rank-1 naive"].count == 240
    assert rates["rank-1 naive"].chance == pytest.approx(1 / 60)
    assert rates["within class parrot"].chance == pytest.approx(1 / 5)


def test_a_release_of_noise_gives_chance() -> None:
    rates = attack(looking(evidence(), RELEASED, vectors=units(300, 13)), NAME).rates
    for name in ("rank-1 naive", "rank-1 parrot", "within class naive", "within class parrot"):
        chance = rates[name].chance
        assert chance is not None
        assert rates[name].low <= chance <= rates[name].high
    assert rates["TAR naive"].value < 0.02


def test_a_pseudonym_for_each_person_hides_the_name_but_links_the_photos() -> None:
    worn = blurred(units(60, 14), 5, 0.05, 15)
    rates = attack(looking(evidence(), RELEASED, vectors=worn), NAME).rates
    assert rates["rank-1 naive"].high < 0.1
    assert rates["rank-1 parrot"].value > 0.99


def test_a_surrogate_that_is_its_donor_frames_them() -> None:
    clear = evidence().clear.vectors[NAME]
    framing = np.roll(clear, -25, axis=0)
    rates = attack(looking(evidence(), RELEASED, vectors=framing), NAME).rates
    assert rates["donors' portraits"].value > 0.99
    assert rates["donors' other photos"].value > 0.99
    assert rates["donors' portraits, clear"].value < 0.1
    assert rates["donors' other photos, clear"].value < 0.1


def test_faces_under_an_ellipse_do_not_flatter_the_others() -> None:
    found = evidence()
    noise = units(300, 16)
    solid = np.arange(300) % 2 == 0
    mixed = np.where(solid[:, None], noise, found.clear.vectors[NAME]).astype(np.float32)
    rates = attack(looking(evidence(replaced=~solid), RELEASED, vectors=mixed), NAME).rates
    assert rates["rank-1 naive"].value < 0.6
    assert rates["rank-1 naive, replaced"].value > 0.99
    assert rates["rank-1 naive, replaced"].count == int((~solid & ~first_of_each(found.subjects)).sum())


def test_few_impostors_leave_the_threshold_to_the_catalogue() -> None:
    small = attack(evidence(), NAME)
    assert small.measured_here
    assert small.impostors == 240 * 59
    few = evidence(subjects=np.arange(300) // 100, people=np.arange(300) // 100)
    judged = attack(few, NAME)
    assert not judged.measured_here
    assert judged.threshold == attacks.THRESHOLDS[NAME]


def test_without_a_second_photo_of_anyone_nothing_is_claimed() -> None:
    alone = attack(evidence(subjects=np.arange(300), people=np.arange(300)), NAME).rates
    assert alone["rank-1 naive"].count == 0
    assert np.isnan(alone["rank-1 naive"].value)
