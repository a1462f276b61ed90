"""Effective k: how many people a group of subjects surely is.

Clustering may split one person into several subjects. Subjects whose templates are closer than a lenient same-person
threshold count as one, and so do all that such links connect: the count can be too low, never too high.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BATCH = 1 << 24
"""Numbers gathered at once."""
_ROWS = 2048


def effective_k(templates: NDArray[np.float32], threshold: float) -> int:
    """How many people unit templates (m, d) surely are: components of the graph `cosine >= threshold`."""
    return int(people_of(templates, threshold).max(initial=-1)) + 1


def effective_ks(
    templates: NDArray[np.float32], groups: Sequence[Sequence[int] | NDArray[np.int64]], threshold: float
) -> NDArray[np.int64]:
    """The effective k (g,) of every group of row numbers of unit templates (n, d)."""
    sizes = np.array([len(group) for group in groups], np.int64)
    found = sizes.copy()
    for size in np.unique(sizes[sizes > 1]):
        numbers = np.flatnonzero(sizes == size)
        step = max(1, _BATCH // int(size * max(size, templates.shape[1])))
        for start in range(0, len(numbers), step):
            chunk = numbers[start : start + step]
            if size <= _ROWS:
                members = templates[np.array([groups[number] for number in chunk])]
                linked = np.count_nonzero(members @ members.transpose(0, 2, 1) >= threshold, axis=(1, 2)) > size
                chunk = chunk[linked]
            for number in chunk:
                found[number] = effective_k(templates[np.asarray(groups[number])], threshold)
    return found


def people_of(templates: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """Which person (m,) each of the unit templates (m, d) may be: components of the graph, numbered from 0."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if len(templates) == 0:
        return np.zeros(0, np.int64)
    first, second = [], []
    for start in range(0, len(templates), _ROWS):
        near = np.nonzero(templates[start : start + _ROWS] @ templates.T >= threshold)
        first.append(near[0] + start)
        second.append(near[1])
    rows, columns = np.concatenate(first), np.concatenate(second)
    graph = coo_matrix((np.ones(len(rows), bool), (rows, columns)), shape=(len(templates), len(templates)))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
