"""Statistics of cosines: the most similar photo, pairs above a threshold, and how well pairs separate.

Vectors are unit rows, so a product is a cosine. Nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.statistics import Numbers, Shares

FAR = 1e-3
BINS = 1000
"""Equal steps of cosine in which pairs are counted; pairs within one step are a tie."""
_ROWS = 1024

Vectors = NDArray[np.float32]
Scores = NDArray[np.float32]
Score = Callable[[Numbers], Scores]
"""Rows of probes (r,) -> how well each candidate fits (r, g): higher is better, all equal where nothing is known."""


def dot(probes: Vectors, candidates: Vectors) -> Score:
    """The cosines of probes (n, d) to candidates (g, d)."""
    return lambda rows: probes[rows] @ candidates.T


def first_of_each(subjects: Numbers) -> NDArray[np.bool_]:
    """(n,) True at the first photo of each person: the gallery; the others are probes."""
    chosen = np.zeros(len(subjects), bool)
    chosen[np.unique(subjects, return_index=True)[1]] = True
    return chosen


def places(score: Score, rows: Numbers, right: Numbers) -> tuple[Numbers, Numbers]:
    """How many candidates fit probes `rows` (r,) better than the right one (r,), and how many as well, itself too."""
    better, tied = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    for start in range(0, len(rows), _ROWS):
        block = slice(start, start + _ROWS)
        scores = score(rows[block])
        own = scores[np.arange(len(scores)), right[block]][:, None]
        better[block], tied[block] = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
    return better, tied


def found_within(ranks: int, better: Numbers, tied: Numbers) -> Shares:
    """(n,) The chance that a probe's person is among the first `ranks`, if those who tie stand in any order; NaN for a
    probe whose person was not looked for."""
    return np.where(tied > 0, np.clip((ranks - better) / np.maximum(tied, 1), 0.0, 1.0), np.nan)


def impostor_pairs(vectors: Vectors, subjects: Numbers) -> Vectors:
    """(pairs,) Cosines of every two photos (n, d) of two people, each pair once."""
    return np.asarray((vectors @ vectors.T)[np.triu(subjects[:, None] != subjects[None, :], 1)])


def threshold_at_far(impostors: Vectors, far: float) -> float:
    """The least cosine such that accepting at or above it accepts at most a share `far` of `impostors` (n,), n > 0."""
    allowed = int(np.floor(far * len(impostors) + 1e-9))
    if allowed >= len(impostors):
        return -1.0
    refused = np.partition(impostors, len(impostors) - 1 - allowed)[len(impostors) - 1 - allowed]
    return float(np.nextafter(refused, np.asarray(np.inf, impostors.dtype)))


def accepted_at(similarities: Shares, threshold: float) -> Shares:
    """(n,) 1 where the cosine reaches the threshold, 0 where not, NaN where there is none."""
    return np.where(np.isnan(similarities), np.nan, (similarities >= threshold).astype(np.float64))


def nearest_donor(
    outputs: Vectors, people: Numbers, worn: Numbers, donors: Vectors, donor_people: Numbers, donor_classes: Numbers
) -> Shares:
    """(n,) Highest cosine of each of `outputs` (n, d) to a donor (m, d) of the class whose surrogate it shows.

    The person `people` (n,) in the photo is left out: the question is whether another person is framed. NaN where no
    donor is left, or no surrogate is shown (-1).
    """
    nearest = np.full(len(outputs), np.nan)
    for number in np.unique(worn[worn >= 0]):
        rows, members = np.flatnonzero(worn == number), np.flatnonzero(donor_classes == number)
        if len(members):
            similarity = outputs[rows] @ donors[members].T
            similarity[people[rows, None] == donor_people[members][None, :]] = -np.inf
            best = similarity.max(axis=1).astype(np.float64)
            nearest[rows] = np.where(np.isfinite(best), best, np.nan)
    return nearest


def pair_scores(photos: Vectors, who: Numbers) -> NDArray[np.float32]:
    """Every photo (n, d) with every other. (people, 2 BINS): counts of the cosines of each person's photos to photos of
    that person, then to others', the people in order."""
    people, person = np.unique(who, return_inverse=True)
    counts = np.zeros((2, len(people) * BINS), np.float32)
    for start in range(0, len(photos), _ROWS):
        block = slice(start, start + _ROWS)
        # A cell is a person and a step of cosine, so that one bincount counts all people at once.
        step = np.clip((photos[block] @ photos.T + 1) * (BINS / 2), 0, BINS - 1).astype(np.int64)
        cell, same = person[block, None] * BINS + step, who[block, None] == who[None, :]
        counted = np.ones(cell.shape, bool)
        counted[np.arange(len(counted)), np.arange(start, start + len(counted))] = False
        counts[0] += np.bincount(cell[same & counted], minlength=counts.shape[1])
        counts[1] += np.bincount(cell[~same & counted], minlength=counts.shape[1])
    return np.concatenate(counts.reshape(2, len(people), BINS), axis=1)


def auc(sums: Shares) -> Shares:
    """(r,) The chance that a genuine pair is more alike than an impostor's, ties counted half: the area under the ROC
    curve (Hanley and McNeil 1982). `sums` (r, 2 BINS): counts of genuine pairs, then of impostors."""
    genuine, impostor = sums[:, :BINS], sums[:, BINS:]
    below = np.cumsum(impostor, axis=1) - impostor / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((genuine * below).sum(axis=1) / (genuine.sum(axis=1) * impostor.sum(axis=1)), np.float64)
