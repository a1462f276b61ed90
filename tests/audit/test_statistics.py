"""Intervals are as wide as mathematics says, by people and not by photos, and few people never look like many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom

from anonlib.audit.findings import Figure
from anonlib.audit.statistics import binomial_interval, difference, nothing, rate, upper_bound, worst


def of(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


def interval(figure: Figure) -> NDArray[np.float64]:
    return np.array([figure.low, figure.high], float)


def width(figure: Figure) -> float:
    return float(np.ptp(interval(figure)))


def test_an_interval_is_as_wide_as_that_of_a_mean_and_depends_on_the_seed_alone() -> None:
    values, who = (np.random.default_rng(11).random(4000) < 0.3).astype(float), np.arange(4000)
    figure = rate(values, who, seed=3)
    low, high = interval(figure)
    assert low < values.mean() < high
    assert width(figure) == pytest.approx(2 * 1.96 * np.sqrt(0.3 * 0.7 / 4000), rel=0.1)
    assert figure == rate(values, who, seed=3) and figure != rate(values, who, seed=4)


def test_photos_of_one_person_count_as_one_draw() -> None:
    values = np.repeat((np.random.default_rng(12).random(40) < 0.5).astype(float), 25)
    assert width(rate(values, np.repeat(np.arange(40), 25))) > 4 * width(rate(values, np.arange(1000)))


@pytest.mark.parametrize(("people", "upper"), [(10, 0.31), (1000, 0.0037)])
def test_where_nobody_is_found_the_interval_is_that_of_as_many_trials_as_people(people: int, upper: float) -> None:
    who = np.arange(5 * people) // 5
    none, all_of_them = rate(np.zeros(5 * people), who), rate(np.ones(5 * people), who)
    assert (none.value, none.low, none.high) == (0.0, 0.0, pytest.approx(upper, rel=0.03))
    assert all_of_them.low == pytest.approx(1 - upper, rel=0.01)


@given(st.integers(0, 40), st.integers(1, 40))
def test_the_binomial_interval_leaves_two_and_a_half_percent_at_either_end(hits: int, count: int) -> None:
    hits = min(hits, count)
    low, high = binomial_interval(hits, count)
    assert low <= hits / count <= high
    if hits > 0:
        assert binom.sf(hits - 1, count, low) == pytest.approx(0.025, abs=1e-6)
    if hits < count:
        assert binom.cdf(hits, count, high) == pytest.approx(0.025, abs=1e-6)
        assert binomial_interval(hits + 0.5, count) == (low, binomial_interval(hits + 1, count)[1])


def test_a_difference_is_paired_by_photo() -> None:
    random = np.random.default_rng(1)
    who, values = np.arange(2000) // 2, random.random(2000)
    apart = difference(values, values - 0.1 + 0.01 * random.normal(size=2000), who)
    low, high = interval(apart)
    assert low < 0.1 < high and width(apart) < width(rate(values, who)) / 10
    assert difference(np.array([1.0, np.nan]), np.array([0.0, 0.0]), of(0, 1)).count == 1


def test_the_worst_group_is_the_one_found_most_often_of_those_with_enough_photos() -> None:
    hits = np.array([1.0, 1.0, 1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1])
    groups = of(0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, -1, -1, -1)
    figure = worst(hits, groups)
    low, high = interval(figure)
    assert (figure.value, figure.count) == (0.75, 4)  # group 0 is two photos, and -1 is none
    assert low < 0.75 < high < 1
    assert worst(hits[:2], groups[:2]) == nothing()
    assert worst(np.ones(9), of(0, 0, 0, 1, 1, 1, 1, 1, 1)).count == 6  # of two as bad the one with more photos


@given(st.integers(0, 400), st.integers(1, 400))
def test_a_share_above_the_upper_bound_would_seldom_show_so_few(wrong: int, more: int) -> None:
    upper = upper_bound(wrong, wrong + more)
    assert wrong / (wrong + more) < upper <= 1
    assert binom.cdf(wrong, wrong + more, upper) == pytest.approx(0.05, rel=1e-6)
    assert upper_bound(0, 0) == upper_bound(more, more) == 1.0
