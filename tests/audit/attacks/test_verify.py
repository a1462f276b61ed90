"""A threshold lets as many strangers pass as it says, and is never fixed on people who are reported on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anonlib.audit.attacks import verify
from anonlib.audit.attacks.verify import (
    accepted_at,
    genuine_similarities,
    impostor_pairs,
    impostor_similarities,
    nearest_donor,
    reported,
    threshold_at_far,
    threshold_of,
)
from anonlib.audit.evidence.evidence import CLEAR
from anonlib.faces.embed import THRESHOLDS
from tests.support.evidence import NAME, evidence, looking, units

AXES = np.eye(4, dtype=np.float32)


def of(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


def test_a_person_is_on_one_side_with_all_photos_and_the_sides_are_about_equal() -> None:
    names = np.repeat([f"person {number}" for number in range(400)], 3)
    half = reported(names)
    assert (half.reshape(400, 3).sum(axis=1) % 3 == 0).all()
    assert 0.4 < half.mean() < 0.6
    np.testing.assert_array_equal(half[::-1], reported(names[::-1]))
    assert (half != reported(names, seed=1)).any()


def test_a_threshold_does_not_depend_on_the_people_who_are_reported_on() -> None:
    whole = evidence()
    found = threshold_of(whole, NAME)
    half = reported(whole.names)
    assert found.measured_here and found.people == len(set(whole.subjects[~half].tolist()))
    alike = np.where(half[:, None], units(1, 5), whole.clear.vectors[NAME]).astype(np.float32)
    assert threshold_of(looking(whole, CLEAR, vectors=alike), NAME) == found
    alike = np.where(~half[:, None], units(1, 5), whole.clear.vectors[NAME]).astype(np.float32)
    assert threshold_of(looking(whole, CLEAR, vectors=alike), NAME).cosine > found.cosine + 0.05


def test_a_threshold_accepts_a_thousandth_of_the_strangers_it_was_fixed_on() -> None:
    whole = evidence()
    others = ~reported(whole.names)
    pairs = impostor_pairs(whole.clear.vectors[NAME][others], whole.subjects[others])
    found = threshold_of(whole, NAME)
    assert found.pairs == len(pairs) >= verify.ENOUGH_IMPOSTORS
    assert (pairs >= found.cosine).sum() == int(len(pairs) * found.far)


def test_few_strangers_leave_the_threshold_to_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "ENOUGH_IMPOSTORS", 10_000)
    judged = threshold_of(evidence(), NAME)
    assert judged.pairs < 10_000 and not judged.measured_here
    assert judged.cosine == THRESHOLDS[NAME]


def test_a_large_dataset_gives_as_many_photos_as_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_MOST_PHOTOS", 40)
    assert threshold_of(evidence(), NAME).pairs <= 40 * 39 / 2


def test_every_two_photos_of_two_people_are_one_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, subjects = units(9, 1), of(0, 0, 1, 1, 1, 2, 3, 3, 3)
    expected = [
        float(vectors[one] @ vectors[two]) for one in range(9) for two in range(one) if subjects[one] != subjects[two]
    ]
    np.testing.assert_allclose(sorted(impostor_pairs(vectors, subjects)), sorted(expected), rtol=1e-5)
    monkeypatch.setattr(verify, "_ROWS", 4)
    np.testing.assert_allclose(sorted(impostor_pairs(vectors, subjects)), sorted(expected), rtol=1e-5)


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


def test_a_pair_that_is_missing_is_neither_accepted_nor_refused() -> None:
    np.testing.assert_array_equal(accepted_at(np.array([0.5, 0.4, np.nan]), 0.5), [1.0, 0.0, np.nan])


def test_a_donor_counts_if_its_class_is_worn_and_it_is_somebody_else() -> None:
    donors, people, classes = AXES[[0, 1, 2]], of(0, 1, 2), of(0, 0, 1)
    outputs = np.repeat(np.array([[0.8, 0.36, 0.48, 0.0]], np.float32), 5, axis=0)
    nearest = nearest_donor(outputs, of(9, 0, 9, 2, 9), of(0, 0, 1, 1, -1), donors, people, classes)
    np.testing.assert_allclose(nearest, [0.8, 0.36, 0.48, np.nan, np.nan], atol=1e-6)
