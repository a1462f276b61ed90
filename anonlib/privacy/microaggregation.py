"""Microaggregation: templates into groups of k to 2k-1 that lose as little as possible.

MDAV (Domingo-Ferrer and Mateo-Sanz 2002; Domingo-Ferrer and Torra 2005) takes the subject furthest from the
mean and its k-1 nearest, then the subject furthest from that one and its k-1 nearest, until fewer than 2k are
left, which form the last group. It is the reference, and quadratic in the number of subjects.

`microaggregate` is nearly linear: k-means cuts the templates into cells of bounded size, MDAV groups each cell, and
neighbouring groups then exchange members. Every round of exchanges has cells of another cut, so that no border
between cells stays one. The exchange more than repays what the cut costs: the last groups that MDAV forms are
scattered leftovers, and they gain most.

Both work in an order that the templates themselves give, so the order in which subjects are listed changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.swaps import Group, exchanged

_CELL = 2048
"""Most subjects in a cell: MDAV takes time in proportion to it."""
_FAN_OUT = 64
_ROUNDS = 2


def mdav(templates: NDArray[np.float32], k: int) -> list[Group]:
    """Partition templates (n, d) into groups of k to 2k-1; one group if n < 2k. ValueError if n < k."""
    _require(templates, k)
    order = canonical_order(templates)
    return [np.sort(order[group]) for group in _mdav(np.ascontiguousarray(templates[order]), k)]


def microaggregate(templates: NDArray[np.float32], k: int) -> list[Group]:
    """Partition templates (n, d) into groups of k to 2k-1, one group if n < 2k, in nearly linear time.

    ValueError if n < k.
    """
    _require(templates, k)
    order = canonical_order(templates)
    points = np.ascontiguousarray(templates[order], np.float32)
    most = max(_CELL, 8 * k)
    groups = [cell[group] for cell in _cells(points, most, 2 * k, seed=0) for group in _mdav(points[cell], k)]
    for seed in range(1, _ROUNDS + 1):
        cells = _cells(group_means(points, groups).astype(np.float32), most // k, 2, seed=seed)
        groups = [group for cell in cells for group in exchanged(points, [groups[number] for number in cell], k)]
    return [np.sort(order[group]) for group in groups]


def group_means(points: NDArray[np.float32], groups: Sequence[Sequence[int] | Group]) -> NDArray[np.float64]:
    """The mean (g, d) of each group of row numbers of `points` (n, d); no group may be empty."""
    if not groups:
        return np.zeros((0, points.shape[1]))
    sizes = np.array([len(group) for group in groups])
    members = np.concatenate([np.asarray(group, np.int64) for group in groups])
    starts = np.cumsum(sizes) - sizes
    return np.asarray(np.add.reduceat(points[members].astype(np.float64), starts, axis=0) / sizes[:, None])


def information_loss(templates: NDArray[np.float32], groups: Sequence[Sequence[int] | Group]) -> float:
    """SSE / SST of templates (n, d): the share of their variance that is lost if each became its group's mean.

    Over the subjects that are in a group; 0 where they do not vary at all. Domingo-Ferrer and Mateo-Sanz 2002.
    """
    if not groups:
        return 0.0
    sizes = [len(group) for group in groups]
    points = templates[np.concatenate([np.asarray(group, np.int64) for group in groups])].astype(np.float64)
    total = float(((points - points.mean(axis=0)) ** 2).sum())
    within = float(((points - np.repeat(group_means(templates, groups), sizes, axis=0)) ** 2).sum())
    return within / total if total > 0 else 0.0


def canonical_order(templates: NDArray[np.float32]) -> NDArray[np.int64]:
    """The order (n,) of the rows by their leading coordinates: how they are listed no longer matters."""
    return np.asarray(np.lexsort(templates[:, :4].T[::-1]), np.int64)


def _require(templates: NDArray[np.float32], k: int) -> None:
    if k < 1 or len(templates) < k:
        raise ValueError(f"{len(templates)} subjects cannot form a class of {k}")


def _mdav(points: NDArray[np.float32], k: int) -> list[Group]:
    """MDAV in the order of the rows; `points` and `ids` are compacted whenever half of them are taken."""
    ids = np.arange(len(points))
    free = np.ones(len(points), bool)
    total = points.sum(axis=0, dtype=np.float64)
    left = len(points)
    groups: list[Group] = []

    def take(similarity: NDArray[np.float32]) -> None:
        nonlocal ids, points, free, total, left
        ranked = np.where(free, similarity, -np.inf)
        nearest = _largest(ranked, k)
        groups.append(ids[nearest])
        free[nearest] = False
        total -= points[nearest].sum(axis=0, dtype=np.float64)
        left -= k

    def furthest(similarity: NDArray[np.float32]) -> int:
        return int(np.argmin(np.where(free, similarity, np.inf)))

    while left >= 2 * k:
        if 2 * left < len(points):
            points, ids = np.ascontiguousarray(points[free]), ids[free]
            free = np.ones(left, bool)
        first = points @ points[furthest(points @ (total / left).astype(np.float32))]
        second_too = left >= 3 * k
        take(first)
        if second_too:
            take(points @ points[furthest(first)])
    groups.append(ids[free])
    return groups


def _largest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Where the `count` largest values stand; among equals the first."""
    border = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > border)
    return np.concatenate([above, np.flatnonzero(values == border)[: count - len(above)]])


def _cells(points: NDArray[np.float32], most: int, least: int, *, seed: int) -> list[NDArray[np.int64]]:
    """Row numbers of cells of `least` to `most` rows, near one another; one cell if all fit. Recursive k-means."""
    import faiss

    waiting, done = [np.arange(len(points))], []
    while waiting:
        rows = waiting.pop()
        if len(rows) <= most:
            done.append(rows)
            continue
        parts = min(_FAN_OUT, -(-2 * len(rows) // most))
        here = np.ascontiguousarray(points[rows])
        # More iterations or training points make the cells rounder and change the loss by less than .1 %.
        kmeans = faiss.Kmeans(here.shape[1], parts, niter=8, seed=seed + 1, min_points_per_centroid=1)
        kmeans.train(here)
        cell = np.asarray(kmeans.index.search(here, 1)[1][:, 0], np.int64)
        cell = _merged(cell, np.asarray(kmeans.centroids, np.float32), least)
        if len(np.unique(cell)) == 1:
            cell = np.arange(len(rows)) * parts // len(rows)
        waiting += [rows[cell == number] for number in np.unique(cell)]
    return done


def _merged(cell: NDArray[np.int64], centroids: NDArray[np.float32], least: int) -> NDArray[np.int64]:
    """Cell numbers (n,) where every cell of fewer than `least` rows has joined the one with the nearest centroid."""
    while True:
        size = np.bincount(cell, minlength=len(centroids))
        small = np.flatnonzero((size > 0) & (size < least))
        others = np.flatnonzero(size > 0)
        if not len(small) or len(others) == 1:
            return cell
        number = small[np.argmin(size[small])]
        others = others[others != number]
        distance = ((centroids[others] - centroids[number]) ** 2).sum(axis=1)
        cell = np.where(cell == number, others[np.argmin(distance)], cell)
