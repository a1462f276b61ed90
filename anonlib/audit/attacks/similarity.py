"""Statistics of cosines: the most similar photo, and who is accepted.

Vectors are unit rows, so a product is a cosine. Nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.statistics import Numbers, Shares

FAR = 1e-3
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
