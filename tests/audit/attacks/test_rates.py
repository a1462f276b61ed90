"""Intervals are as wide as mathematics says, by people and not by photos, and few people never look like many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom

from anonlib.audit.attacks.rates import Rate, binomial_interval, bootstrap_interval, difference, figure, rate, worst


def of(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


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


@pytest.mark.parametrize(("people", "upper"), [(10, 0.31), (100, 0.037), (1000, 0.0037)])
def test_where_nobody_is_found_the_upper_bound_is_that_of_so_many_trials(people: int, upper: float) -> None:
    found = rate(np.zeros(5 * people), np.arange(5 * people) // 5)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(upper, rel=0.03)
    everyone = rate(np.ones(5 * people), np.arange(5 * people) // 5)
    assert everyone.low == pytest.approx(1 - upper, rel=0.01)


def test_values_that_agree_on_something_between_have_no_width() -> None:
    found = rate(np.full(9, 0.25), np.arange(9))
    assert (found.low, found.high) == (0.25, 0.25)


@given(st.integers(0, 40), st.integers(1, 40))
def test_the_binomial_interval_leaves_two_and_a_half_percent_at_either_end(hits: int, count: int) -> None:
    hits = min(hits, count)
    low, high = binomial_interval(hits, count)
    assert low <= hits / count <= high
    if hits > 0:
        assert binom.sf(hits - 1, count, low) == pytest.approx(0.025, abs=1e-6)
    if hits < count:
        assert binom.cdf(hits, count, high) == pytest.approx(0.025, abs=1e-6)


def test_a_difference_is_of_the_same_photo_and_narrower_than_two_rates() -> None:
    lot = np.random.default_rng(1)
    who = np.arange(2000) // 2
    one = lot.random(2000)
    other = one - 0.1 + 0.01 * lot.normal(size=2000)
    apart = difference(one, other, who)
    assert apart.low < 0.1 < apart.high
    alone = rate(one, who)
    assert apart.high - apart.low < (alone.high - alone.low) / 10
    assert difference(np.array([1.0, np.nan]), np.array([0.0, 0.0]), of(0, 1)).count == 1


def test_no_difference_of_few_people_is_not_surely_none() -> None:
    few, many = (difference(np.ones(count), np.ones(count), np.arange(count)) for count in (10, 1000))
    assert (few.value, many.value) == (0.0, 0.0)
    assert few.high == -few.low > 0.3
    assert many.high < 0.01


def test_the_worst_is_whoever_is_found_most_often_of_those_with_enough_photos() -> None:
    hits = np.array([1.0, 1.0, 1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1])
    groups = of(0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, -1, -1, -1)
    found = worst(hits, groups)
    assert (found.value, found.count) == (0.75, 4)  # group 0 is two photos, and -1 is none
    assert found.low < 0.75 < found.high < 1
    assert worst(hits[:2], groups[:2]).count == 0


def test_of_two_who_are_as_bad_the_one_with_more_photos_is_named() -> None:
    assert worst(np.ones(9), of(0, 0, 0, 1, 1, 1, 1, 1, 1)).count == 6


def test_a_figure_has_none_where_there_is_nothing() -> None:
    nothing = figure(Rate(float("nan"), float("nan"), float("nan"), 0, 0.5))
    assert (nothing.value, nothing.low, nothing.high, nothing.count, nothing.chance) == (None, None, None, 0, 0.5)
    assert figure(Rate(0.5, 0.4, 0.6, 7)).value == 0.5
