"""Means over photos with intervals by people, since photos of one person stand or fall together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.findings import Figure

RESAMPLES = 500
CONFIDENCE = 0.95
FEWEST = 3
"""Photos below which a person's or a class's own rate is not worth naming."""

Numbers = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """A mean over `count` photos with its 95 % interval by people; `chance` is what guessing gives. NaN if none."""

    value: float
    low: float
    high: float
    count: int
    chance: float | None = None


def rate(values: Shares, subjects: Numbers, *, chance: float | None = None, seed: int = 0) -> Rate:
    """The mean of `values` (n,) with its interval; NaN are not counted.

    Where all photos agree on 0 or on 1, resampling has no width to show; the interval is then that of as many trials
    as there are people.
    """
    counted = ~np.isnan(values)
    if not counted.any():
        return Rate(math.nan, math.nan, math.nan, 0, chance)
    values, subjects = values[counted], subjects[counted]
    value = float(values.mean())
    if (values == values[0]).all() and value in (0.0, 1.0):
        people = np.unique(subjects).size
        low, high = binomial_interval(value * people, people)
    else:
        low, high = bootstrap_interval(values, subjects, seed=seed)
    return Rate(value, low, high, len(values), chance)


def difference(values: Shares, others: Shares, subjects: Numbers, *, seed: int = 0) -> Rate:
    """The mean of `values` - `others`, both (n,) and of the same photos, with its interval; pairs with a NaN go.

    Where no photo differs, the interval reaches as far both ways as that of as many trials as there are people.
    """
    apart = values - others
    counted = ~np.isnan(apart)
    if not counted.any():
        return Rate(math.nan, math.nan, math.nan, 0)
    apart, subjects = apart[counted], subjects[counted]
    if not apart.any():
        _, high = binomial_interval(0, np.unique(subjects).size)
        low = -high
    else:
        low, high = bootstrap_interval(apart, subjects, seed=seed)
    return Rate(float(apart.mean()), low, high, len(apart))


def worst(values: Shares, groups: Numbers) -> Rate:
    """The highest mean of `values` (n,) that any of `groups` (n,) with FEWEST photos has; -1 is no group.

    Of several such groups it is the one with most photos. The interval is that of its photos alone: who is worst was
    not known beforehand, so it says how sure this rate is, and not how likely somebody fares so.
    """
    counted = ~np.isnan(values) & (groups >= 0)
    _, number = np.unique(groups[counted], return_inverse=True)
    counts = np.bincount(number)
    means = np.where(counts >= FEWEST, np.bincount(number, values[counted]) / np.maximum(counts, 1), -1.0)
    if not (means >= 0).any():
        return Rate(math.nan, math.nan, math.nan, 0)
    row = int(np.lexsort((counts, means))[-1])
    low, high = binomial_interval(float(means[row] * counts[row]), int(counts[row]))
    return Rate(float(means[row]), low, high, int(counts[row]))


def bootstrap_interval(
    values: Shares, subjects: Numbers, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` (n,), resampling people with all their photos (Efron 1979)."""
    if len(values) == 0:
        return math.nan, math.nan
    _, person = np.unique(subjects, return_inverse=True)
    drawn = draws(int(person.max()) + 1, resamples=resamples, seed=seed)
    return percentiles((drawn @ np.bincount(person, values)) / (drawn @ np.bincount(person)))


def draws(people: int, *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.int64]:
    """(resamples, people) How often each person is in each resample; the same for the same seed."""
    lot = np.random.default_rng(seed)
    return np.asarray(lot.multinomial(people, np.full(people, 1 / people), size=resamples), np.int64)


def percentiles(resampled: Shares) -> tuple[float, float]:
    """The middle 95 % of a statistic over resamples (r,)."""
    low, high = np.quantile(resampled, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)


def binomial_interval(hits: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, hits, count - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, count - hits)) if hits < count else 1.0
    return low, high


def figure(one: Rate) -> Figure:
    """As it stands in a report; None where there is nothing."""
    value, low, high = (None if math.isnan(number) else number for number in (one.value, one.low, one.high))
    return Figure(value=value, low=low, high=high, count=one.count, chance=one.chance)
