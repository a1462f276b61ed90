"""Neighbouring groups exchange members wherever that makes them more homogeneous.

A local search in the manner of Kernighan and Lin over what microaggregation minimizes, the sum of squared distances
to the group means. With S the sum of a group's n members that is the sum of |x|^2 minus the sum of |S|^2 / n, so a
move or a swap touches two terms, and its gain comes from inner products alone. In a sweep the best exchanges are made
first, each group taking part once, so that every gain is what it was computed to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Group = NDArray[np.int64]

_SWEEPS = 10
_PARTNERS = 36
"""Members of neighbouring groups that a subject is weighed against in a sweep."""
_LEAST_GAIN = 1e-6


@dataclass
class _State:
    """Rows in groups: `points` (m, d), the group of each `label` (m,), of each group `size` (g,) and `sums` (g, d)."""

    points: NDArray[np.float32]
    label: NDArray[np.int64]
    size: NDArray[np.int64]
    sums: NDArray[np.float32]


def exchanged(points: NDArray[np.float32], groups: list[Group], k: int) -> list[Group]:
    """The groups (row numbers of `points`) after moves and swaps; sizes stay within k and 2k-1.

    Memory and time grow with the square of the subjects: give it a neighbourhood, not a data set.
    """
    if len(groups) < 2:
        return groups
    rows = np.concatenate(groups)
    size = np.array([len(group) for group in groups])
    # Distances do not change, and sums near zero keep their digits.
    here = points[rows] - points[rows].mean(axis=0)
    sums = np.add.reduceat(here, np.cumsum(size) - size, axis=0)
    state = _State(here, np.repeat(np.arange(len(groups)), size), size, sums)
    gram = here @ here.T
    for _ in range(_SWEEPS):
        if not _sweep(state, gram, k):
            break
    order = np.argsort(state.label, kind="stable")
    return [rows[part] for part in np.split(order, np.cumsum(state.size)[:-1])]


def _sweep(state: _State, gram: NDArray[np.float32], k: int) -> bool:
    """Make the exchanges that gain; whether there were any. `gram` (m, m) holds the inner products of the points."""
    gain, target, partner = _best(state, gram, k)
    used = np.zeros(len(state.size), bool)
    for row in np.argsort(-gain, kind="stable"):
        if gain[row] <= _LEAST_GAIN:
            break
        source, goal = int(state.label[row]), int(target[row])
        if used[source] or used[goal]:
            continue
        used[source] = used[goal] = True
        _move(state, int(row), source, goal)
        if partner[row] >= 0:
            _move(state, int(partner[row]), goal, source)
    return bool(used.any())


def _move(state: _State, row: int, source: int, goal: int) -> None:
    state.label[row] = goal
    state.sums[source] -= state.points[row]
    state.sums[goal] += state.points[row]
    state.size[source] -= 1
    state.size[goal] += 1


def _best(
    state: _State, gram: NDArray[np.float32], k: int
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Of each row (m,) its best exchange: the gain, the group it goes to, and the row that comes back or -1."""
    label, size = state.label, state.size
    width = int(size.max())
    inner = state.points @ state.sums.T
    norm = (state.sums**2).sum(axis=1)
    rows = np.arange(len(label))
    goal = _neighbours(inner, norm, size, label, min(max(2, _PARTNERS // width), len(size) - 1))
    own, towards = inner[rows, label], np.take_along_axis(inner, goal, 1)
    length = np.diagonal(gram)

    members = _members(label, size, width)[goal]
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


def _neighbours(
    inner: NDArray[np.float32], norm: NDArray[np.float32], size: NDArray[np.int64], label: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Of each row the `count` other groups (m, count) whose means are nearest."""
    distance = norm / size**2 - 2 * inner / size
    distance[np.arange(len(label)), label] = np.inf
    return np.argpartition(distance, count - 1, axis=1)[:, :count]


def _members(label: NDArray[np.int64], size: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """The rows of each group (g, width), -1 where it has no more."""
    order = np.argsort(label, kind="stable")
    seat = (np.cumsum(size) - size)[:, None] + np.arange(width)
    return np.where(np.arange(width) < size[:, None], order[np.minimum(seat, len(label) - 1)], -1)
