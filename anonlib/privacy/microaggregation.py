"""Microaggregation: templates into groups of k to 2k-1 that lose as little as possible, in nearly linear time.

MDAV (Domingo-Ferrer and Mateo-Sanz 2002; Domingo-Ferrer and Torra 2005) is quadratic, so k-means cuts the templates
into cells, MDAV groups each cell, and neighbouring groups then exchange members, in cells of another cut each round.
That more than repays what the cut costs. Both work in an order that the templates themselves give, so the order in
which subjects are listed changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Group = NDArray[np.int64]
Vectors = NDArray[np.float32]

_CELL = 2048  # most subjects in a cell: MDAV takes time in proportion to it
_FAN_OUT = 64
_ROUNDS = 2
_SWEEPS = 10
_PARTNERS = 36  # members of neighbouring groups that a subject is weighed against in a sweep
_LEAST_GAIN = 1e-6


def microaggregate(templates: Vectors, k: int) -> list[Group]:
    """Partition templates (n, d) into groups of k to 2k-1; one group if n < 2k. ValueError if n < k."""
    if k < 1 or len(templates) < k:
        raise ValueError(f"{len(templates)} subjects cannot form a class of {k}")
    order = np.lexsort(templates[:, :4].T[::-1])
    points = np.ascontiguousarray(templates[order], np.float32)
    most = max(_CELL, 8 * k)
    groups = [cell[group] for cell in _cells(points, most, 2 * k, seed=0) for group in _mdav(points[cell], k)]
    for seed in range(1, _ROUNDS + 1):
        cells = _cells(group_means(points, groups).astype(np.float32), most // k, 2, seed=seed)
        groups = [group for cell in cells for group in exchanged(points, [groups[number] for number in cell], k)]
    return [np.sort(order[group]) for group in groups]


def group_means(points: Vectors, groups: Sequence[Sequence[int] | Group]) -> NDArray[np.float64]:
    """The mean (g, d) of each group of row numbers of `points` (n, d); no group may be empty."""
    if not groups:
        return np.zeros((0, points.shape[1]))
    sizes = np.array([len(group) for group in groups])
    members = np.concatenate([np.asarray(group, np.int64) for group in groups])
    starts = np.cumsum(sizes) - sizes
    return np.asarray(np.add.reduceat(points[members].astype(np.float64), starts, axis=0) / sizes[:, None])


def _mdav(points: Vectors, k: int) -> list[Group]:
    """MDAV in the order of the rows; `points` and `ids` are compacted whenever half of them are taken."""
    ids = np.arange(len(points))
    free = np.ones(len(points), bool)
    total = points.sum(axis=0, dtype=np.float64)
    left = len(points)
    groups: list[Group] = []

    def take(similarity: Vectors) -> None:
        """The k largest, among equals the first."""
        nonlocal total, left
        ranked = np.where(free, similarity, -np.inf)
        border = np.partition(ranked, len(ranked) - k)[len(ranked) - k]
        above = np.flatnonzero(ranked > border)
        nearest = np.concatenate([above, np.flatnonzero(ranked == border)[: k - len(above)]])
        groups.append(ids[nearest])
        free[nearest] = False
        total -= points[nearest].sum(axis=0, dtype=np.float64)
        left -= k

    def furthest(similarity: Vectors) -> int:
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


def _cells(points: Vectors, most: int, least: int, *, seed: int) -> list[Group]:
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


def _merged(cell: NDArray[np.int64], centroids: Vectors, least: int) -> NDArray[np.int64]:
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


def exchanged(points: Vectors, groups: list[Group], k: int) -> list[Group]:
    """The groups (row numbers of `points`) after moves and swaps that gain; sizes stay within k and 2k-1.

    A local search in the manner of Kernighan and Lin, quadratic in the subjects. With S the sum of a group's n members,
    the squared distances to the means are the sum of |x|^2 minus that of |S|^2 / n: a gain is of inner products alone.
    """
    if len(groups) < 2:
        return groups
    rows = np.concatenate(groups)
    size = np.array([len(group) for group in groups])
    # Distances do not change, and sums near zero keep their digits.
    here = points[rows] - points[rows].mean(axis=0)
    sums = np.add.reduceat(here, np.cumsum(size) - size, axis=0)
    label = np.repeat(np.arange(len(groups)), size)
    gram = here @ here.T
    for _ in range(_SWEEPS):
        gain, target, partner = _best_exchanges(here @ sums.T, (sums**2).sum(axis=1), gram, label, size, k)
        # The best first, each group taking part once, so that every gain is what it was computed to be.
        used = np.zeros(len(size), bool)
        for row in np.argsort(-gain, kind="stable"):
            if gain[row] <= _LEAST_GAIN:
                break
            source, goal = int(label[row]), int(target[row])
            if used[source] or used[goal]:
                continue
            used[source] = used[goal] = True
            swapped = [(int(partner[row]), goal, source)] if partner[row] >= 0 else []
            for moved, away, into in [(int(row), source, goal), *swapped]:
                label[moved] = into
                sums[away] -= here[moved]
                sums[into] += here[moved]
                size[away] -= 1
                size[into] += 1
        if not used.any():
            break
    order = np.argsort(label, kind="stable")
    return [rows[part] for part in np.split(order, np.cumsum(size)[:-1])]


def _best_exchanges(
    inner: Vectors, norm: Vectors, gram: Vectors, label: NDArray[np.int64], size: NDArray[np.int64], k: int
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Of each row (m,) its best exchange: the gain, the group it goes to, and the row that comes back or -1.

    `inner` (m, g): products of rows and sums; `norm` (g,): squared lengths of the sums; `gram` (m, m): of the rows.
    """
    width = int(size.max())
    rows = np.arange(len(label))
    neighbours = min(max(2, _PARTNERS // width), len(size) - 1)
    distance = norm / size**2 - 2 * inner / size
    distance[rows, label] = np.inf
    goal = np.argpartition(distance, neighbours - 1, axis=1)[:, :neighbours]
    own, towards = inner[rows, label], np.take_along_axis(inner, goal, 1)
    length = np.diagonal(gram)

    seat = (np.cumsum(size) - size)[:, None] + np.arange(width)
    listed = np.argsort(label, kind="stable")[np.minimum(seat, len(label) - 1)]
    members = np.where(np.arange(width) < size[:, None], listed, -1)[goal]  # (m, goals, width), -1 beyond the last
    apart = length[:, None, None] + length[members] - 2 * gram[rows[:, None, None], members]
    from_source = 2 * (inner[members, label[:, None, None]] - own[:, None, None]) + apart
    from_goal = 2 * (towards[:, :, None] - own[members]) + apart
    swap = from_source / size[label][:, None, None] + from_goal / size[goal][:, :, None]
    swap = np.where(members < 0, -np.inf, swap).reshape(len(rows), -1)

    n, into = size[label][:, None], size[goal]
    source_norm = norm[label][:, None]
    leaves = (source_norm - 2 * own[:, None] + length[:, None]) / np.maximum(n - 1, 1) - source_norm / n
    enters = (norm[goal] + 2 * towards + length[:, None]) / (into + 1) - norm[goal] / into
    move = np.where((n > k) & (into < 2 * k - 1), leaves + enters, -np.inf)

    gains = np.concatenate([swap, move], axis=1)
    choice = gains.argmax(axis=1)
    swaps = choice < swap.shape[1]
    which = np.where(swaps, choice // width, choice - swap.shape[1])
    partner = np.where(swaps, members[rows, which, choice % width], -1)
    return gains[rows, choice], goal[rows, which], partner
