"""What cosines say: whose photo is most similar, whether two photos pass a threshold, and how pairs separate.

Vectors are unit rows, so a product is a cosine. Nothing here reads a file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.findings import Figure
from anonlib.audit.statistics import Numbers, Shares, Statistic, figure_of_sums

FAR = 1e-3
BINS = 1000
"""Equal steps of cosine in which pairs are counted; pairs within one step are a tie."""
_ROWS = 1024

Vectors = NDArray[np.float32]


# ---- identification: whose photo in a gallery is the most similar? ----------------------------------------------


def first_of_each(subjects: Numbers) -> NDArray[np.bool_]:
    """(n,) True at the first photo of each person: the gallery; the others are probes."""
    chosen = np.zeros(len(subjects), bool)
    chosen[np.unique(subjects, return_index=True)[1]] = True
    return chosen


def places(
    probes: Vectors, probe_subjects: Numbers, gallery: Vectors, gallery_subjects: Numbers
) -> tuple[Numbers, Numbers]:
    """How many of `gallery`, one photo a person, are more similar to each probe than its own person, and how many just
    as similar, that person among them; both (n,). None is as similar (0) where the person is not in the gallery.
    """
    better, tied = np.zeros(len(probes), np.int64), np.zeros(len(probes), np.int64)
    for start in range(0, len(probes) if len(gallery) else 0, _ROWS):
        rows = slice(start, start + _ROWS)
        similarity = probes[rows] @ gallery.T
        same = probe_subjects[rows, None] == gallery_subjects[None, :]
        right = np.where(same, similarity, -np.inf).max(axis=1, keepdims=True)
        better[rows], tied[rows] = (similarity > right).sum(axis=1), (similarity == right).sum(axis=1)
    return better, tied


def found_within(ranks: int, better: Numbers, tied: Numbers) -> Shares:
    """(n,) The chance that a probe's person is among the first `ranks`, if those who tie stand in any order; NaN where
    the person is not in the gallery."""
    return np.where(tied > 0, np.clip((ranks - better) / np.maximum(tied, 1), 0.0, 1.0), np.nan)


def rank_one(
    probes: Vectors,
    probe_subjects: Numbers,
    gallery: Vectors,
    gallery_subjects: Numbers,
    groups: tuple[Numbers, Numbers] | None = None,
) -> Shares:
    """(n,) Whether the most similar of `gallery` (g, d) is the person of each of `probes` (n, d): 1, 0, or in a tie
    the share of the tied that are. With `groups` (of probes, of gallery) only the probe's own group is searched; a
    probe without any photo to be compared with is NaN.
    """
    hits = np.full(len(probes), np.nan)
    for start in range(0, len(probes) if len(gallery) else 0, _ROWS):
        rows = slice(start, start + _ROWS)
        similarity = probes[rows] @ gallery.T
        if groups is not None:
            similarity[groups[0][rows, None] != groups[1][None, :]] = -np.inf
        best = similarity.max(axis=1, keepdims=True)
        tied = (similarity == best) & np.isfinite(best)
        same = tied & (probe_subjects[rows, None] == gallery_subjects[None, :])
        count = tied.sum(axis=1)
        hits[rows] = np.where(count > 0, same.sum(axis=1) / np.maximum(count, 1), np.nan)
    return hits


def within_class_rank_one(
    probes: Vectors,
    probe_subjects: Numbers,
    probe_classes: Numbers,
    gallery: Vectors,
    gallery_subjects: Numbers,
    gallery_classes: Numbers,
) -> tuple[Shares, Shares]:
    """Rank-one among the people of the probe's own class, and its chance 1/people, both (n,); class -1 is none.

    NaN where the class is not known or has one person in the gallery, since then there is nothing to guess.
    """
    people = np.array([np.unique(gallery_subjects[gallery_classes == cls]).size for cls in probe_classes], np.int64)
    counted = (probe_classes >= 0) & (people >= 2)
    hits = rank_one(probes, probe_subjects, gallery, gallery_subjects, (probe_classes, gallery_classes))
    return np.where(counted, hits, np.nan), np.where(counted, 1 / np.maximum(people, 1), np.nan)


# ---- verification: are two photos accepted as one person? -------------------------------------------------------


def genuine_similarities(probes: Vectors, probe_subjects: Numbers, gallery: Vectors, subjects: Numbers) -> Shares:
    """(n,) Cosine of each probe to the one gallery photo of its person; NaN where the gallery has none."""
    if len(gallery) == 0:
        return np.full(len(probes), np.nan)
    order = np.argsort(subjects, kind="stable")
    position = np.minimum(np.searchsorted(subjects[order], probe_subjects), len(order) - 1)
    mate = order[position]
    similarity = np.einsum("ij,ij->i", probes, gallery[mate]).astype(np.float64)
    return np.where(subjects[mate] == probe_subjects, similarity, np.nan)


def impostor_pairs(vectors: Vectors, subjects: Numbers) -> Vectors:
    """(pairs,) Cosines of every two photos (n, d) of two people."""
    parts = [np.zeros(0, np.float32)]
    for start in range(0, len(vectors), _ROWS):
        rows = slice(start, start + _ROWS)
        # Each unordered pair once: columns after the row's own number.
        later = np.arange(len(vectors))[None, :] > np.arange(start, min(start + _ROWS, len(vectors)))[:, None]
        parts.append((vectors[rows] @ vectors.T)[later & (subjects[rows, None] != subjects[None, :])])
    return np.concatenate(parts)


def threshold_at_far(impostors: Vectors, far: float) -> float:
    """The least cosine such that accepting at or above it accepts at most a share `far` of `impostors` (n,)."""
    if len(impostors) == 0:
        raise ValueError("a threshold needs at least one impostor pair")
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
        if len(members) == 0:
            continue
        similarity = outputs[rows] @ donors[members].T
        similarity[people[rows, None] == donor_people[members][None, :]] = -np.inf
        best = similarity.max(axis=1).astype(np.float64)
        nearest[rows] = np.where(np.isfinite(best), best, np.nan)
    return nearest


# ---- all pairs of photos: area under the ROC curve, equal error rate --------------------------------------------


@dataclass(frozen=True)
class PairScores:
    """Counts (people, BINS) of the cosines of each person's photos to photos of that person, and of the others."""

    genuine: NDArray[np.float32]
    impostor: NDArray[np.float32]


def pair_scores(
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
    against, their_subjects = (probes, probe_subjects) if gallery is None else (gallery, gallery_subjects)
    assert their_subjects is not None
    people, person = np.unique(probe_subjects, return_inverse=True)
    counts = np.zeros((2, len(people) * BINS), np.float32)
    for start in range(0, len(probes), _ROWS):
        rows = slice(start, start + _ROWS)
        # A cell is a person and a step of cosine, so that one bincount counts all people at once.
        step = np.clip((probes[rows] @ against.T + 1) * (BINS / 2), 0, BINS - 1).astype(np.int64)
        cell = step + person[rows, None] * BINS
        same = probe_subjects[rows, None] == their_subjects[None, :]
        counted = np.ones_like(same) if groups is None else groups[0][rows, None] == groups[1][None, :]
        if gallery is None:
            counted[np.arange(len(counted)), np.arange(start, start + len(counted))] = False
        counts[0] += np.bincount(cell[same & counted], minlength=counts.shape[1])
        counts[1] += np.bincount(cell[~same & counted], minlength=counts.shape[1])
    return PairScores(*counts.reshape(2, len(people), BINS))


def auc(sums: Shares) -> Shares:
    """(r,) The chance that a genuine pair is more alike than an impostor's, ties counted half.

    `sums` (r, 2 BINS): counts of genuine pairs, then of impostors. The area under the ROC curve (Hanley and McNeil
    1982): .5 separates nothing, 1 everything.
    """
    genuine, impostor = sums[:, :BINS], sums[:, BINS:]
    below = np.cumsum(impostor, axis=1) - impostor / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((genuine * below).sum(axis=1) / (genuine.sum(axis=1) * impostor.sum(axis=1)), np.float64)


def equal_error(sums: Shares) -> Shares:
    """(r,) The error rate at the threshold where as many genuine pairs are refused as impostors are accepted.

    `sums` (r, 2 BINS) as of `auc`.
    """
    genuine, impostor = sums[:, :BINS], sums[:, BINS:]
    zero = np.zeros((len(sums), 1))
    with np.errstate(invalid="ignore"):
        refused = np.concatenate([zero, np.cumsum(genuine, axis=1)], axis=1) / genuine.sum(axis=1, keepdims=True)
        passed = np.concatenate([zero, np.cumsum(impostor, axis=1)], axis=1) / impostor.sum(axis=1, keepdims=True)
    accepted = 1 - passed
    # The two cross between two thresholds; in between, both are taken for straight lines.
    after = np.maximum((refused >= accepted).argmax(axis=1), 1)
    row = np.arange(len(sums))
    gap_before = accepted[row, after - 1] - refused[row, after - 1]
    gap_after = refused[row, after] - accepted[row, after]
    share = gap_before / np.maximum(gap_before + gap_after, 1e-12)
    return np.asarray(refused[row, after - 1] + share * (refused[row, after] - refused[row, after - 1]), np.float64)


def pair_figure(scores: PairScores, statistic: Statistic, *, chance: float | None = None, seed: int = 0) -> Figure:
    """`auc` or `equal_error` of the pairs, with its interval by people; the count is that of genuine pairs."""
    columns = np.concatenate([scores.genuine, scores.impostor], axis=1)
    count = int(scores.genuine.sum())
    return figure_of_sums(columns, None, statistic, count=count, chance=chance, seed=seed)


def pair_excess(scores: PairScores, others: PairScores, statistic: Statistic, *, seed: int = 0) -> Figure:
    """By how much a statistic is higher than that of the same people's `others`, with its interval."""
    columns = np.concatenate([scores.genuine, scores.impostor, others.genuine, others.impostor], axis=1)

    def apart(sums: Shares) -> Shares:
        return statistic(sums[:, : 2 * BINS]) - statistic(sums[:, 2 * BINS :])

    return figure_of_sums(columns, None, apart, count=int(scores.genuine.sum()), seed=seed)
