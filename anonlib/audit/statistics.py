"""Figures of an audit: statistics of sums by person, with 95 % intervals from resampled people.

Photos of one person stand or fall together, so a resample draws people with all of their photos (cluster bootstrap;
Efron 1979). It is a row of multinomial weights: times the sums of each person it gives the sums of the resample, and
every figure here is a function of sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.findings import Figure

RESAMPLES = 500
CONFIDENCE = 0.95
FEWEST = 3
"""Photos below which the rate of one person or class is not reported."""

Numbers = NDArray[np.int64]
Shares = NDArray[np.float64]
Statistic = Callable[[Shares], Shares]
"""Sums (r, m) of r resamples -> values (r,), NaN where a resample says nothing."""


def nothing(chance: float | None = None) -> Figure:
    """The figure of something that could not be measured."""
    return Figure(value=None, low=None, high=None, count=0, chance=chance)


def figure_of_sums(
    columns: NDArray[np.floating[Any]],
    subjects: Numbers | None,
    statistic: Statistic,
    *,
    count: int,
    chance: float | None = None,
    seed: int = 0,
) -> Figure:
    """`statistic` of the column sums of `columns` (n, m), with the percentile interval over resampled people.

    `subjects` (n,) number the people; None: each row is a person. The figure is empty where the statistic is NaN.
    """
    value = float(statistic(columns.sum(axis=0, dtype=np.float64)[None])[0]) if len(columns) else math.nan
    if math.isnan(value):
        return nothing(chance)
    if subjects is not None:
        people, person = np.unique(subjects, return_inverse=True)
        columns = np.stack([np.bincount(person, column, len(people)) for column in columns.T], axis=1)
    weights = np.random.default_rng(seed).multinomial(len(columns), np.full(len(columns), 1 / len(columns)), RESAMPLES)
    resampled = statistic((weights.astype(columns.dtype) @ columns).astype(np.float64))
    low, high = np.nanquantile(resampled, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Figure(value=value, low=float(low), high=float(high), count=count, chance=chance)


def rate(values: Shares, subjects: Numbers, *, chance: float | None = None, seed: int = 0) -> Figure:
    """The mean of `values` (n,), NaN left out, of the people `subjects` (n,).

    Where all values are 0 or all are 1, resampling has no width to show; the interval is then that of as many trials
    as there are people.
    """
    known = ~np.isnan(values)
    values, subjects = values[known], subjects[known]
    if len(values) and values[0] in (0.0, 1.0) and (values == values[0]).all():
        people = np.unique(subjects).size
        low, high = binomial_interval(float(values[0]) * people, people)
        return Figure(value=float(values[0]), low=low, high=high, count=len(values), chance=chance)
    return _mean(values, subjects, chance, seed)


def difference(values: Shares, others: Shares, subjects: Numbers, *, seed: int = 0) -> Figure:
    """The mean of `values` - `others` (n,), paired by photo; pairs with a NaN are left out.

    Where no photo differs, the interval reaches as far both ways as that of as many trials as there are people.
    """
    apart = values - others
    known = ~np.isnan(apart)
    apart, subjects = apart[known], subjects[known]
    if len(apart) and not apart.any():
        _, high = binomial_interval(0, np.unique(subjects).size)
        return Figure(value=0.0, low=-high, high=high, count=len(apart))
    return _mean(apart, subjects, None, seed)


def worst(values: Shares, groups: Numbers) -> Figure:
    """The highest mean of `values` (n,) among the `groups` (n,) with FEWEST photos, -1 being none; of ties the largest.

    The interval is that of its photos alone: it says how sure this rate is, and not how likely such a worst rate is.
    """
    known = ~np.isnan(values) & (groups >= 0)
    _, number = np.unique(groups[known], return_inverse=True)
    counts, sums = np.bincount(number), np.bincount(number, values[known])
    means = np.where(counts >= FEWEST, sums / np.maximum(counts, 1), -1.0)
    if not (means >= 0).any():
        return nothing()
    row = int(np.lexsort((counts, means))[-1])
    low, high = binomial_interval(float(sums[row]), int(counts[row]))
    return Figure(value=float(means[row]), low=low, high=high, count=int(counts[row]))


def binomial_interval(hits: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Clopper and Pearson 1934); a fraction of a hit, from ties, is rounded outwards."""
    low, high = (_clopper_pearson(whole, count, "two-sided") for whole in (math.floor(hits), math.ceil(hits)))
    return low[0], high[1]


def upper_bound(wrong: int, judged: int) -> float:
    """The largest share of wrong images that `wrong` among `judged` leave possible; 1 if none was judged.

    The one-sided 95 % bound of Clopper and Pearson 1934 (Biometrika 26(4)). It is exact for draws with replacement;
    drawing without it, and from a few images, only makes the truth lie lower.
    """
    return _clopper_pearson(wrong, judged, "less")[1] if judged else 1.0


def _clopper_pearson(hits: int, count: int, alternative: str) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(hits, count, alternative=alternative).proportion_ci(CONFIDENCE, "exact")
    return float(interval.low), float(interval.high)


def _mean(values: Shares, subjects: Numbers, chance: float | None, seed: int) -> Figure:
    columns = np.stack([values, np.ones(len(values))], axis=1)

    def mean(sums: Shares) -> Shares:
        with np.errstate(invalid="ignore"):
            return np.asarray(sums[:, 0] / sums[:, 1], np.float64)

    return figure_of_sums(columns, subjects, mean, count=len(values), chance=chance, seed=seed)
