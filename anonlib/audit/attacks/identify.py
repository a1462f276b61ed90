"""Identification: whose photo in a gallery is the most similar one?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.rates import Numbers, Shares

_ROWS = 1024

Vectors = NDArray[np.float32]


def first_of_each(subjects: Numbers) -> NDArray[np.bool_]:
    """(n,) True at the first photo of each person: the gallery; the others are probes."""
    chosen = np.zeros(len(subjects), bool)
    chosen[np.unique(subjects, return_index=True)[1]] = True
    return chosen


def rank_one(
    probes: Vectors,
    probe_subjects: Numbers,
    gallery: Vectors,
    gallery_subjects: Numbers,
    groups: tuple[Numbers, Numbers] | None = None,
) -> Shares:
    """(n,) Whether the most similar of `gallery` (g, d) is the person of each of `probes` (n, d): 1, 0, or in a tie
    the share of the tied that are. With `groups` (of probes, of gallery) only the probe's own group is searched; a
    probe with nobody to be compared with is NaN.
    """
    hits = np.full(len(probes), np.nan)
    for start in range(0, len(probes) if len(gallery) else 0, _ROWS):
        rows = slice(start, start + _ROWS)
        similarity = probes[rows] @ gallery.T
        if groups is not None:
            similarity[groups[0][rows, None] != groups[1][None, :]] = -np.inf
        best = similarity.max(axis=1, keepdims=True)
        tied = (similarity == best) & np.isfinite(best)
        own = tied & (probe_subjects[rows, None] == gallery_subjects[None, :])
        count = tied.sum(axis=1)
        hits[rows] = np.where(count > 0, own.sum(axis=1) / np.maximum(count, 1), np.nan)
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

    NaN where the class is not known or has nobody else in the gallery, since then there is nothing to guess.
    """
    people = np.array([np.unique(gallery_subjects[gallery_classes == one]).size for one in probe_classes], np.int64)
    counted = (probe_classes >= 0) & (people >= 2)
    hits = rank_one(probes, probe_subjects, gallery, gallery_subjects, (probe_classes, gallery_classes))
    return np.where(counted, hits, np.nan), np.where(counted, 1 / np.maximum(people, 1), np.nan)


def places(
    probes: Vectors, probe_subjects: Numbers, gallery: Vectors, gallery_subjects: Numbers
) -> tuple[Numbers, Numbers]:
    """How many of `gallery`, one photo a person, are more similar to each probe than its own person, and how many just
    as similar, that person among them; both (n,). Nobody is as similar (0) where the person is not in the gallery.
    """
    better, tied = np.zeros(len(probes), np.int64), np.zeros(len(probes), np.int64)
    for start in range(0, len(probes) if len(gallery) else 0, _ROWS):
        rows = slice(start, start + _ROWS)
        similarity = probes[rows] @ gallery.T
        same = probe_subjects[rows, None] == gallery_subjects[None, :]
        own = np.where(same, similarity, -np.inf).max(axis=1, keepdims=True)
        better[rows], tied[rows] = (similarity > own).sum(axis=1), (similarity == own).sum(axis=1)
    return better, tied


def found_within(ranks: int, better: Numbers, tied: Numbers) -> Shares:
    """(n,) The chance that a probe's person is among the first `ranks`, if those who tie stand in any order; NaN where
    the person is not in the gallery."""
    return np.where(tied > 0, np.clip((ranks - better) / np.maximum(tied, 1), 0.0, 1.0), np.nan)
