"""Figures that are no means but functions of sums, with their intervals by people."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.rates import RESAMPLES, Numbers, Shares
from anonlib.audit.findings import Figure


def figure_of_sums(
    columns: NDArray[np.float64],
    subjects: Numbers,
    statistic: Callable[[NDArray[np.float64]], Shares],
    *,
    count: int,
    chance: float | None = None,
    seed: int = 0,
) -> Figure:
    """`statistic` of the column sums of `columns` (n, m), its 95 % percentile interval by resampling people.

    `statistic`: (r, m) sums -> (r,) values. `count`: how many rows say something. None if the value is NaN, which it
    is where nothing could be read.
    """
    value = float(statistic(columns.sum(axis=0)[None])[0])
    if np.isnan(value):
        return Figure(value=None, low=None, high=None, count=0, chance=chance)
    names, person = np.unique(subjects, return_inverse=True)
    sums = np.stack([np.bincount(person, column, len(names)) for column in columns.T], axis=1)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    low, high = np.nanquantile(statistic(drawn.astype(np.float64) @ sums), (0.025, 0.975))
    return Figure(value=value, low=float(low), high=float(high), count=count, chance=chance)
