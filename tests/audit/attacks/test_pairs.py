"""Pairs in bins give the areas and error rates that pairs one by one would, with intervals by people."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonlib.audit.attacks import pairs as module
from anonlib.audit.attacks.pairs import BINS, PairScores, auc, equal_error, excess, pairs, rated
from tests.support.evidence import blurred, units


def counts(values: list[int]) -> np.ndarray:
    return np.bincount(values, minlength=BINS)[None].astype(float)


LEVELS = st.lists(st.integers(0, 5), min_size=1, max_size=8)


@given(LEVELS, LEVELS)
def test_auc_is_the_share_of_pairs_won_and_half_the_ties(genuine: list[int], impostor: list[int]) -> None:
    wins = [(a > b) + 0.5 * (a == b) for a in genuine for b in impostor]
    assert auc(counts(genuine), counts(impostor))[0] == pytest.approx(np.mean(wins))


@given(LEVELS, LEVELS)
def test_at_the_equal_error_rate_as_many_are_refused_as_accepted(genuine: list[int], impostor: list[int]) -> None:
    rate = float(equal_error(counts(genuine), counts(impostor))[0])
    edges = [
        (np.mean(np.array(genuine) < threshold), np.mean(np.array(impostor) >= threshold)) for threshold in range(7)
    ]
    # No threshold makes both errors smaller, and none makes both larger.
    assert not any(refused < rate - 1e-9 and accepted < rate - 1e-9 for refused, accepted in edges)
    assert not any(refused > rate + 1e-9 and accepted > rate + 1e-9 for refused, accepted in edges)


def test_the_equal_error_rate_of_two_bells_is_where_they_cross() -> None:
    lot = np.random.default_rng(0)
    genuine, impostor = (lot.normal(middle, 50, 200_000).astype(int) for middle in (600, 400))
    assert equal_error(counts(genuine.tolist()), counts(impostor.tolist()))[0] == pytest.approx(0.0228, abs=2e-3)
    assert equal_error(counts([9]), counts([1]))[0] == 0.0
    assert equal_error(counts([1]), counts([9]))[0] == 1.0
    assert equal_error(counts([5]), counts([5]))[0] == 0.5


def test_pairs_are_counted_once_by_person_and_never_with_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, who = units(10, 1), np.array([3, 3, 3, 5, 5, 8, 8, 8, 8, 9])
    found = pairs(vectors, who)
    assert found.genuine.sum(axis=1).tolist() == [6, 2, 12, 0]
    assert found.impostor.sum(axis=1).tolist() == [21, 16, 24, 9]
    assert found.genuine[:, -1].sum() == 0
    monkeypatch.setattr(module, "_ROWS", 3)
    again = pairs(vectors, who)
    np.testing.assert_array_equal(found.genuine, again.genuine)
    np.testing.assert_array_equal(found.impostor, again.impostor)


def test_a_pair_lies_in_the_bin_of_its_cosine() -> None:
    probe = np.array([[1.0, 0.0]], np.float32)
    gallery = np.array([[1.0, 0.0], [-1.0, 0.0], [0.6, 0.8]], np.float32)
    found = pairs(probe, np.array([0]), gallery, np.array([0, 1, 2]))
    assert np.flatnonzero(found.genuine[0]).tolist() == [BINS - 1]
    assert np.flatnonzero(found.impostor[0]).tolist() == [0, int(0.8 * BINS)]


def test_only_pairs_within_a_group_count_if_there_are_groups() -> None:
    vectors, who = units(6, 1), np.array([0, 0, 1, 1, 2, 2])
    group = np.array([0, 1, 0, 0, 1, 1])
    found = pairs(vectors, who, vectors, who, (group, group))
    assert found.genuine.sum(axis=1).tolist() == [2, 4, 4]
    assert found.impostor.sum(axis=1).tolist() == [4, 2, 2]


def test_people_who_are_told_apart_are_linked_and_noise_is_not() -> None:
    who = np.repeat(np.arange(60), 5)
    assert rated(pairs(blurred(units(60, 1), 5, 0.05, 2), who), auc).low > 0.99
    noise = rated(pairs(units(300, 3), who), auc)
    assert noise.low < 0.5 < noise.high
    assert noise.count == 60 * 20
    assert 0.02 < noise.high - noise.low < 0.2


def test_an_excess_over_the_same_is_none_and_over_noise_is_the_rest() -> None:
    who = np.repeat(np.arange(60), 5)
    known, noise = pairs(blurred(units(60, 1), 5, 0.05, 2), who), pairs(units(300, 3), who)
    same = excess(known, known, auc)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    assert excess(known, noise, auc).value == pytest.approx(rated(known, auc).value - rated(noise, auc).value)


def test_without_a_second_photo_of_anyone_there_is_nothing_to_link() -> None:
    alone = rated(pairs(units(20, 1), np.arange(20)), auc, chance=0.5)
    assert np.isnan(alone.value) and alone.count == 0 and alone.chance == 0.5
    nobody = PairScores(np.zeros((0, BINS), np.float32), np.zeros((0, BINS), np.float32))
    assert rated(nobody, auc).count == 0
