"""Identification, verification and pairs give the numbers that a person would count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anonlib.audit.attacks.similarity import (
    BINS,
    auc,
    dot,
    found_within,
    pair_scores,
    places,
    threshold_at_far,
)
from tests.support.evidence import units

LEVELS = st.lists(st.integers(0, 5), min_size=1, max_size=8)


def of(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 9))
def test_the_first_place_is_what_a_loop_finds_and_all_places_hold_everybody(seed: int, count: int, people: int) -> None:
    random = np.random.default_rng(seed)
    probes, gallery = units(count, seed), units(people, seed + 1)
    who, subjects = random.integers(0, people, count), random.permutation(people)
    expected = [
        float(subjects[max(range(people), key=lambda row: float(probe @ gallery[row]))] == person)
        for probe, person in zip(probes, who, strict=True)
    ]
    ranks = places(dot(probes, gallery), np.arange(count), np.argsort(subjects)[who])
    assert found_within(1, *ranks).tolist() == expected
    assert (found_within(people, *ranks) == 1).all()


@given(st.lists(st.sampled_from([-0.5, 0.0, 0.1, 0.2, 0.5, 0.9]), min_size=1, max_size=60), st.floats(0.0, 1.0))
def test_the_threshold_is_the_least_that_keeps_the_far(values: list[float], far: float) -> None:
    impostors = np.array(values, np.float32)
    threshold = threshold_at_far(impostors, far)
    assert (impostors >= threshold).mean() <= far + 1e-9
    below = impostors[impostors < threshold]
    assert not len(below) or (impostors >= below.max()).mean() > far


def counts(genuine: list[int], impostor: list[int]) -> np.ndarray:
    return np.concatenate([np.bincount(values, minlength=BINS) for values in (genuine, impostor)])[None].astype(float)


@given(LEVELS, LEVELS)
def test_auc_is_the_share_of_pairs_won_and_half_the_ties(genuine: list[int], impostor: list[int]) -> None:
    wins = [(a > b) + 0.5 * (a == b) for a in genuine for b in impostor]
    assert auc(counts(genuine, impostor))[0] == pytest.approx(np.mean(wins))


def test_pairs_are_counted_by_person_in_the_bin_of_their_cosine_and_never_with_themselves() -> None:
    found = pair_scores(units(10, 1), np.array([3, 3, 3, 5, 5, 8, 8, 8, 8, 9]))
    assert found[:, :BINS].sum(axis=1).tolist() == [6, 2, 12, 0]
    assert found[:, BINS:].sum(axis=1).tolist() == [21, 16, 24, 9]
    assert found[:, BINS - 1].sum() == 0
    found = pair_scores(np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.6, 0.8]], np.float32), of(0, 0, 1, 2))
    assert np.flatnonzero(found[0]).tolist() == [BINS - 1, BINS, BINS + int(0.8 * BINS)]
