"""All pairs of photos at once: equal error rate and area under the ROC curve, with intervals by people.

Neither is a mean over photos, so resampling needs the pairs of each person apart. They are counted person by person in
BINS equal steps of cosine; a resample is then a weighted sum of counts, and pairs within one step are a tie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.identify import Vectors
from anonlib.audit.attacks.rates import Numbers, Rate, Shares, draws, percentiles

BINS = 1000
_ROWS = 1024


@dataclass(frozen=True)
class PairScores:
    """Counts (people, BINS) of the cosines of each person's photos to photos of that person, and of the others."""

    genuine: NDArray[np.float32]
    impostor: NDArray[np.float32]


Statistic = Callable[[Shares, Shares], Shares]


def pairs(
    probes: Vectors,
    probe_subjects: Numbers,
    gallery: Vectors | None = None,
    gallery_subjects: Numbers | None = None,
    groups: tuple[Numbers, Numbers] | None = None,
) -> PairScores:
    """Every probe (n, d) with every photo of `gallery` (g, d), or with every other probe if there is none.

    People are those of the probes, in the order of their numbers. With `groups` (of probes, of gallery) only pairs
    within a group count.
    """
    against, theirs = (probes, probe_subjects) if gallery is None else (gallery, gallery_subjects)
    assert theirs is not None
    people, person = np.unique(probe_subjects, return_inverse=True)
    counts = np.zeros((2, len(people) * BINS), np.float32)
    for start in range(0, len(probes), _ROWS):
        rows = slice(start, start + _ROWS)
        similarity = probes[rows] @ against.T
        step = np.clip((similarity + 1) * (BINS / 2), 0, BINS - 1).astype(np.int64) + person[rows, None] * BINS
        same = probe_subjects[rows, None] == theirs[None, :]
        counted = np.ones_like(same) if groups is None else groups[0][rows, None] == groups[1][None, :]
        if gallery is None:
            counted[np.arange(len(counted)), np.arange(start, start + len(counted))] = False
        counts[0] += np.bincount(step[same & counted], minlength=counts.shape[1])
        counts[1] += np.bincount(step[~same & counted], minlength=counts.shape[1])
    return PairScores(*counts.reshape(2, len(people), BINS))


def auc(genuine: Shares, impostor: Shares) -> Shares:
    """(r,) The chance that a genuine pair is more alike than an impostor's, ties counted half, from counts (r, BINS).

    The area under the ROC curve (Hanley and McNeil 1982): .5 tells nothing apart, 1 everything.
    """
    below = np.cumsum(impostor, axis=1) - impostor / 2
    return np.asarray((genuine * below).sum(axis=1) / (genuine.sum(axis=1) * impostor.sum(axis=1)), np.float64)


def equal_error(genuine: Shares, impostor: Shares) -> Shares:
    """(r,) The error rate at the threshold where as many genuine pairs are refused as impostors are accepted."""
    nothing = np.zeros((len(genuine), 1))
    refused = np.concatenate([nothing, np.cumsum(genuine, axis=1)], axis=1) / genuine.sum(axis=1, keepdims=True)
    accepted = 1 - np.concatenate([nothing, np.cumsum(impostor, axis=1)], axis=1) / impostor.sum(axis=1, keepdims=True)
    # The two cross between two thresholds; in between, both are taken for straight lines.
    after = np.maximum((refused >= accepted).argmax(axis=1), 1)
    row = np.arange(len(genuine))
    gap_before = accepted[row, after - 1] - refused[row, after - 1]
    gap_after = refused[row, after] - accepted[row, after]
    share = gap_before / np.maximum(gap_before + gap_after, 1e-12)
    return np.asarray(refused[row, after - 1] + share * (refused[row, after] - refused[row, after - 1]), np.float64)


def rated(these: PairScores, statistic: Statistic, *, chance: float | None = None, seed: int = 0) -> Rate:
    """A statistic of the pairs with its interval by people; the count is that of genuine pairs."""
    return _rated(these, None, statistic, chance, seed)


def excess(these: PairScores, others: PairScores, statistic: Statistic, *, seed: int = 0) -> Rate:
    """By how much a statistic is higher than that of the same people's `others`, with its interval."""
    return _rated(these, others, statistic, None, seed)


def _rated(these: PairScores, others: PairScores | None, statistic: Statistic, chance: float | None, seed: int) -> Rate:
    several = [these] if others is None else [these, others]
    if any(one.genuine.sum() == 0 or one.impostor.sum() == 0 for one in several):
        return Rate(float("nan"), float("nan"), float("nan"), 0, chance)
    people = len(these.genuine)
    weights = np.concatenate([np.ones((1, people)), draws(people, seed=seed)]).astype(np.float32)
    kinds = [
        ((weights @ one.genuine).astype(np.float64), (weights @ one.impostor).astype(np.float64)) for one in several
    ]
    # A resample may hold nobody with two photos, and then says nothing.
    usable = np.all([(kind.sum(axis=1) > 0) for one in kinds for kind in one], axis=0)
    values = [statistic(genuine[usable], impostor[usable]) for genuine, impostor in kinds]
    found = values[0] if others is None else values[0] - values[1]
    low, high = percentiles(found[1:])
    return Rate(float(found[0]), low, high, int(these.genuine.sum()), chance)
