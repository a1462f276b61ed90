"""Group faces into subjects: by the dataset's labels, by clustering their embeddings, or by joining known subjects.

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

A subject that is known from labels or from an earlier release never moves: clustering everything anew for each release
would shift people between subjects, and two releases together would then narrow down the person behind a face. So new
faces are clustered among themselves, and each group joins the one known subject it is most like, or becomes a new one.
A group that is like two known subjects does not unite them. All groups meet the known subjects as they stood before, so
the order of faces does not matter; the order of releases does.

Large tables may come as a float16 `np.memmap`: it is mapped once more, copy-on-write, and the sums of joined faces take
the places of these faces there, so that memory holds the table once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.knn import EXACT_BELOW, Numbers, Rows, Vectors, close_pairs, nearest

RISE = 0.01
"""How much higher the bar is for two large clusters than for two faces."""

_NEIGHBOURS = 32
_ROWS = 32_768
_CANDIDATES = 8
_SEED = 20


def normalized(vectors: Vectors) -> Vectors:
    """Rows scaled to unit length; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


def bar(threshold: float, first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Mean cosine (n,) from which clusters of `first` and `second` faces (n,) are one person."""
    return np.asarray(threshold + RISE * (1.0 - 0.5 * (1.0 / first + 1.0 / second)), np.float64)


def cluster(
    embeddings: Rows, *, threshold: float, neighbours: int = _NEIGHBOURS, exact_below: int = EXACT_BELOW
) -> Numbers:
    """Cluster numbers (N,), in order of first face, for unit embeddings (N, d), float32 or float16.

    `threshold`: cosine from which two faces alone are one person. `exact_below`: faces up to which the graph of
    neighbours is exact.
    """
    first, number = np.unique(_first_copies(embeddings), return_inverse=True)
    sizes = np.bincount(number).astype(np.float64)
    means: Rows = embeddings if len(first) == len(embeddings) else embeddings[first]
    sums: Rows
    if isinstance(means, np.memmap):
        means = sums = np.memmap(str(means.filename), means.dtype, "c", means.offset, means.shape)
    else:
        sums = means * sizes[:, None].astype(means.dtype)
    asking = None
    while True:
        pairs = close_pairs(means, asking, count=neighbours, floor=threshold, exact_below=exact_below)
        root = _joined(sums, sizes, *pairs, threshold)
        alive, joined = np.unique(root, return_inverse=True)
        if len(alive) == len(root):
            return np.asarray(number, np.int64)
        number = joined[number]
        grown = np.bincount(joined, minlength=len(alive)) > 1
        sums, sizes, asking = np.asarray(sums[alive]), sizes[alive], np.flatnonzero(grown)
        means = normalized(sums) if sums.dtype == np.float32 else sums


def _first_copies(rows: Rows) -> Numbers:
    """(n,) The first row equal to each: copies of a photo are one face many times, and would all tie."""
    own = np.arange(len(rows))
    words = rows.shape[1] * rows.itemsize // 4
    weights = np.random.default_rng(_SEED).integers(1 << 63, size=words, dtype=np.uint64) | np.uint64(1)
    hashed = np.zeros(len(rows), np.uint64)
    for start in range(0, len(rows), _ROWS):
        block = np.ascontiguousarray(rows[start : start + _ROWS])
        hashed[start : start + _ROWS] = block.view(np.uint32).astype(np.uint64) @ weights
    _, first, group = np.unique(hashed, return_index=True, return_inverse=True)
    candidate = first[group]
    repeated = np.flatnonzero(candidate != own)
    for start in range(0, len(repeated), _ROWS):
        block = repeated[start : start + _ROWS]
        equal = block[(rows[block] == rows[candidate[block]]).all(axis=1)]
        own[equal] = candidate[equal]
    return own


def _joined(sums: Rows, sizes: NDArray[np.float64], first: Numbers, second: Numbers, threshold: float) -> Numbers:
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
    sums: Rows, sizes: NDArray[np.float64], first: Numbers, second: Numbers, threshold: float
) -> NDArray[np.float64]:
    """(m,) How far the mean cosine of each pair of clusters lies above its bar."""
    margin = np.empty(len(first))
    for start in range(0, len(first), _ROWS):
        a, b = first[start : start + _ROWS], second[start : start + _ROWS]
        products = np.einsum("ij,ij->i", sums[a].astype(np.float32), sums[b].astype(np.float32))
        cosine = products / (sizes[a] * sizes[b])
        margin[start : start + _ROWS] = cosine - bar(threshold, sizes[a], sizes[b])
    return margin


def means_of(embeddings: Rows, subject: Numbers, subjects: int) -> Vectors:
    """The mean (subjects, d) of each subject's embeddings (n, d); `subject` (n,) numbers them from 0."""
    faces = np.maximum(np.bincount(subject, minlength=subjects), 1)
    means = np.empty((subjects, embeddings.shape[1]), np.float32)
    for rows, sums in _sums_of(embeddings, subject, subjects):
        means[rows] = sums / faces[rows, None]
    return means


def templates(embeddings: Rows, subject: Numbers, subjects: int) -> Vectors:
    """Unit mean embedding (subjects, d) of each subject's faces; `subject` (n,) numbers them from 0."""
    units = np.empty((subjects, embeddings.shape[1]), np.float32)
    for rows, sums in _sums_of(embeddings, subject, subjects):
        units[rows] = normalized(sums.astype(np.float32))
    return units


def _sums_of(embeddings: Rows, subject: Numbers, subjects: int) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Blocks of subjects and the sums (block, d) of their embeddings, added in the order of faces."""
    order = np.argsort(subject, kind="stable")
    bounds = np.searchsorted(subject[order], np.arange(subjects + 1))
    for start in range(0, subjects, _ROWS):
        stop = min(start + _ROWS, subjects)
        sums = np.zeros((stop - start, embeddings.shape[1]))
        held = np.flatnonzero(np.diff(bounds[start : stop + 1]))
        if len(held):
            rows = embeddings[order[bounds[start] : bounds[stop]]].astype(np.float64)
            sums[held] = np.add.reduceat(rows, bounds[start:stop][held] - bounds[start], axis=0)
        yield slice(start, stop), sums


def by_label(labels: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Subject numbers (N,) and the sorted labels they stand for."""
    names = sorted(set(labels))
    number = {name: index for index, name in enumerate(names)}
    return np.array([number[label] for label in labels], np.int64), names


@dataclass(frozen=True)
class KnownSubjects:
    """Known subjects: `means` (m, d) of unit embeddings, not scaled to unit length, and `faces` (m,) behind each."""

    means: Vectors
    faces: Numbers

    def __post_init__(self) -> None:
        if len(self.means) != len(self.faces) or (self.faces < 1).any():
            raise ValueError("known subjects need a mean and at least one face each")

    def __len__(self) -> int:
        return len(self.faces)


def known_subjects(embeddings: Rows, subject: Numbers, subjects: int) -> KnownSubjects:
    """The subjects (n,), numbered from 0 and each with a face at least, of unit embeddings (n, d)."""
    return KnownSubjects(means_of(embeddings, subject, subjects), np.bincount(subject, minlength=subjects))


def join(known: KnownSubjects, embeddings: Rows, *, threshold: float) -> Numbers:
    """(n,) The subject of each unit embedding (n, d): a known one's number, or from len(known) on a new one's.

    `threshold`: as `cluster` has it. New subjects are numbered by their first face.
    """
    group = cluster(embeddings, threshold=threshold)
    if len(known) == 0:
        return group
    groups = int(group.max(initial=-1)) + 1
    arrived = known_subjects(embeddings, group, groups)
    like = _most_like(arrived, known, threshold)
    fresh = like < 0
    like[fresh] = len(known) + np.arange(np.count_nonzero(fresh))
    return like[group]


def _most_like(arrived: KnownSubjects, known: KnownSubjects, threshold: float) -> Numbers:
    """(groups,) The subject of `known` that each group looks like most, the lower number in a tie; -1 if like none."""
    units = normalized(arrived.means), normalized(known.means)
    found = nearest(*units, count=min(_CANDIDATES, len(known)), floor=threshold).astype(np.int64)
    found.sort(axis=1)
    cosine = np.einsum("ij,ikj->ik", arrived.means, known.means[found])
    margin = cosine - bar(threshold, arrived.faces[:, None], known.faces[found])
    margin[found < 0] = -1.0
    best = margin.argmax(axis=1)[:, None]
    chosen = np.where(np.take_along_axis(margin, best, axis=1) >= 0, np.take_along_axis(found, best, axis=1), -1)
    return chosen[:, 0]
