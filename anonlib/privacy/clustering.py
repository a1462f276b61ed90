"""Who is who: faces into subjects, by the dataset's labels or by clustering their embeddings.

Two clusters are as similar as the mean cosine over all pairs of their faces, so one lucky pair cannot chain two people
together: average linkage (Sokal and Michener 1958). It is the product of the unscaled means; scaling the means to unit
length first, which looks harmless, removes the scatter and with it the resistance (on labelled photos of 840 people
BCubed F fell from .956 to .910 at best). Clusters that are each other's best partner are joined, all such pairs at
once, until no pair reaches the bar. For average linkage that gives the very tree of joining the best pair first
(Bruynooghe 1977; Murtagh 1983), but takes dozens of vectorized rounds where the latter takes a step for every join.

Only pairs of a graph of nearest neighbours are looked at. What has been joined asks again for its neighbours, as a
mean finds what single faces, crowded by themselves, did not see.

The bar rises as clusters grow: the mean over many pairs scatters less than one cosine does, so the same loss is had at
a higher bar. Ties go to the lower number. The result depends on the embeddings alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.knn import EXACT_BELOW, Numbers, Vectors, close_pairs

RISE = 0.01
"""How much higher the bar is for two large clusters than for two faces."""

_NEIGHBOURS = 32
_ROWS = 32_768
_SEED = 20


def normalized(vectors: Vectors) -> Vectors:
    """Rows scaled to unit length; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


def bar(threshold: float, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Mean cosine (n,) from which clusters of `first` and `second` faces (n,) are one person."""
    return np.asarray(threshold + RISE * (1.0 - 0.5 * (1.0 / first + 1.0 / second)), np.float64)


def cluster(
    embeddings: Vectors, *, threshold: float, neighbours: int = _NEIGHBOURS, exact_below: int = EXACT_BELOW
) -> Numbers:
    """Cluster numbers (N,), in order of first face, for unit embeddings (N, d).

    `threshold`: cosine from which two faces alone are one person. `exact_below`: faces up to which the graph of
    neighbours is exact.
    """
    means = np.ascontiguousarray(embeddings, np.float32)
    first, number = np.unique(_first_copies(means), return_inverse=True)
    sizes = np.bincount(number).astype(np.float64)
    if len(first) < len(means):
        means = means[first]
    sums, asking = means * sizes[:, None].astype(np.float32), None
    while True:
        pairs = close_pairs(means, asking, count=neighbours, floor=threshold, exact_below=exact_below)
        root = _joined(sums, sizes, *pairs, threshold)
        alive, joined = np.unique(root, return_inverse=True)
        if len(alive) == len(root):
            return np.asarray(number, np.int64)
        number = joined[number]
        grown = np.bincount(joined, minlength=len(alive)) > 1
        sums, sizes = sums[alive], sizes[alive]
        means, asking = normalized(sums), np.flatnonzero(grown)


def _first_copies(rows: Vectors) -> Numbers:
    """(n,) The first row equal to each: copies of a photo are one face many times, and would all tie."""
    own = np.arange(len(rows))
    weights = np.random.default_rng(_SEED).integers(1 << 63, size=rows.shape[1], dtype=np.uint64) | np.uint64(1)
    hashed = np.zeros(len(rows), np.uint64)
    for start in range(0, len(rows), _ROWS):
        hashed[start : start + _ROWS] = rows[start : start + _ROWS].view(np.uint32).astype(np.uint64) @ weights
    _, first, group = np.unique(hashed, return_index=True, return_inverse=True)
    candidate = first[group]
    repeated = np.flatnonzero(candidate != own)
    equal = repeated[(rows[repeated] == rows[candidate[repeated]]).all(axis=1)]
    own[equal] = candidate[equal]
    return own


def _joined(sums: Vectors, sizes: NDArray[np.float64], first: Numbers, second: Numbers, threshold: float) -> Numbers:
    """(n,) The lowest member of the cluster each of n ends in; `sums` and `sizes` of these grow in place."""
    parent = np.arange(len(sums))
    best = np.empty(len(sums))
    partner = np.empty(len(sums), np.int64)
    margin = margins(sums, sizes, first, second, threshold)
    while True:
        near = margin >= 0
        first, second, margin = first[near], second[near], margin[near]
        if len(first) == 0:
            break
        best[first] = best[second] = -1.0
        np.maximum.at(best, first, margin)
        np.maximum.at(best, second, margin)
        mutual = np.flatnonzero((margin == best[first]) & (margin == best[second]))
        one, two = first[mutual], second[mutual]
        partner[one] = partner[two] = len(sums)
        np.minimum.at(partner, one, two)
        np.minimum.at(partner, two, one)
        agreed = (partner[one] == two) & (partner[two] == one)
        one, two = one[agreed], two[agreed]
        sums[one] += sums[two]
        sizes[one] += sizes[two]
        parent[two] = one
        partner[first] = partner[second] = -1
        partner[one] = partner[two] = 0
        touched = (partner[first] == 0) | (partner[second] == 0)
        moved = parent[first[touched]], parent[second[touched]]
        keys = np.minimum(*moved) * len(sums) + np.maximum(*moved)
        low, high = np.divmod(np.unique(keys[moved[0] != moved[1]]), len(sums))
        margin = np.concatenate([margin[~touched], margins(sums, sizes, low, high, threshold)])
        first, second = np.concatenate([first[~touched], low]), np.concatenate([second[~touched], high])
    while (parent != parent[parent]).any():
        parent = parent[parent]
    return parent


def margins(
    sums: Vectors, sizes: NDArray[np.float64], first: Numbers, second: Numbers, threshold: float
) -> NDArray[np.float64]:
    """(m,) How far the mean cosine of each pair of clusters lies above its bar."""
    margin = np.empty(len(first))
    for start in range(0, len(first), _ROWS):
        a, b = first[start : start + _ROWS], second[start : start + _ROWS]
        cosine = np.einsum("ij,ij->i", sums[a], sums[b]) / (sizes[a] * sizes[b])
        margin[start : start + _ROWS] = cosine - bar(threshold, sizes[a], sizes[b])
    return margin


def templates(embeddings: NDArray[np.float32], subject: NDArray[np.int64], subjects: int) -> NDArray[np.float32]:
    """Unit mean embedding (subjects, d) of each subject's faces; `subject` (N,) numbers them from 0."""
    sums = np.zeros((subjects, embeddings.shape[1]), np.float64)
    np.add.at(sums, subject, embeddings)
    return normalized(sums.astype(np.float32))


def by_label(labels: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Subject numbers (N,) and the sorted labels they stand for."""
    names = sorted(set(labels))
    number = {name: index for index, name in enumerate(names)}
    return np.array([number[label] for label in labels], np.int64), names
