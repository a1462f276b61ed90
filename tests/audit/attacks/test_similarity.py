"""Identification and verification give the numbers that a person would count by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from anonlib.audit.attacks.similarity import dot, found_within, places, threshold_at_far
from tests.support.evidence import units


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
