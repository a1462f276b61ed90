"""Whose face a class gets: its own average (k-same) or another class's (k-diff).

k-same is Newton, Sweeney and Malin 2005 with Gross et al. 2006: the surrogate is the uniform mean of the
class, so recognition is bounded by 1/k only if nothing else of the photo helps; in practice the similar face
in its own hair exceeds it. k-diff (Sun, Meng, Ariyaeeinia 2015) deals each class the surrogate of a class far
from it. Every surrogate serves one class: the assignment is a derangement that maximizes the total distance,
so who got what does not say who was near.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.classes import EquivalenceClass, Stratum
from anonlib.privacy.subjects import normalized

ALTERNATIVES = 3
"""Surrogates that a face may try after the dealt one still matched it."""
_EXACT_LIMIT = 2000
_FORBIDDEN = 1e3


def class_centres(templates: NDArray[np.float32], classes: Sequence[EquivalenceClass]) -> NDArray[np.float32]:
    """Unit mean (c, d) of each class's member templates, every member weighing 1/|C|."""
    if not classes:
        return np.zeros((0, templates.shape[1]), np.float32)
    return normalized(np.stack([templates[list(one.members)].mean(axis=0) for one in classes]).astype(np.float32))


def k_diff(centres: NDArray[np.float32], strata: Sequence[Stratum]) -> list[tuple[int, ...]]:
    """For each class the classes whose surrogates it may wear: the dealt one, then those to try next.

    Within a stratum where that has two classes or more, else among its coarser relatives; a class that has none there
    enters the cycle of its nearest kin. An empty tuple where there is no other class at all. `centres` (c, d) unit,
    `strata[i]` of each class.
    """
    first: list[int | None] = [None] * len(centres)
    codes = _codes(strata)
    depth = max((len(stratum) for stratum in strata), default=0)
    for level in range(depth, -1, -1):
        groups: dict[Stratum, list[int]] = {}
        for number, stratum in enumerate(strata):
            if first[number] is None:
                groups.setdefault(stratum[:level], []).append(number)
        for stratum in sorted(groups):
            members = np.array(groups[stratum])
            if len(members) < 2 and level > 0:
                continue
            if len(members) >= 2:
                for number, other in zip(members, members[_derangement(centres[members])], strict=True):
                    first[int(number)] = int(other)
            elif len(centres) > 1:
                # The last one alone enters the cycle of its kin, so that still no two classes wear one surrogate.
                number = int(members[0])
                other = _alternatives(centres, codes, number, number)[0]
                first[number], first[other] = first[other], number
    return [
        () if dealt is None else (dealt, *_alternatives(centres, codes, number, dealt))
        for number, dealt in enumerate(first)
    ]


def _alternatives(centres: NDArray[np.float32], codes: NDArray[np.int64], number: int, dealt: int) -> tuple[int, ...]:
    """The furthest other classes, of the same stratum first, then of one that begins alike; of many, every n-th."""
    stride = -(-len(centres) // _EXACT_LIMIT)
    others = np.arange(number % stride, len(centres), stride)
    others = others[(others != number) & (others != dealt)]
    similarity = centres[others] @ centres[number]
    kin = np.cumprod(codes[others] == codes[number], axis=1).sum(axis=1)
    return tuple(int(others[row]) for row in np.lexsort((similarity, -kin))[:ALTERNATIVES])


def _codes(strata: Sequence[Stratum]) -> NDArray[np.int64]:
    """(c, depth) Numbers that stand for the parts of each stratum; a part that is not there is like none."""
    depth = max((len(stratum) for stratum in strata), default=0)
    codes = np.empty((len(strata), depth), np.int64)
    for level in range(depth):
        parts = sorted({stratum[level] for stratum in strata if len(stratum) > level})
        code_of = {part: code for code, part in enumerate(parts)}
        codes[:, level] = [
            code_of[stratum[level]] if len(stratum) > level else -1 - row for row, stratum in enumerate(strata)
        ]
    return codes


def _derangement(centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """A permutation (c,) without fixed points of least total cosine; exact to 2,000 classes, then by blocks."""
    from scipy.optimize import linear_sum_assignment

    count = len(centres)
    if count > _EXACT_LIMIT:
        # Blocks of distant classes: the sort along the main axis is cut in interleaved pieces, each dealt within.
        axis = np.linalg.svd(centres - centres.mean(axis=0), full_matrices=False)[2][0]
        order = np.argsort(centres @ axis, kind="stable")
        pieces = -(-count // _EXACT_LIMIT)
        dealt = np.empty(count, np.int64)
        for piece in range(pieces):
            block = order[piece::pieces]
            dealt[block] = block[_derangement(centres[block])]
        return dealt
    cost = centres @ centres.T
    np.fill_diagonal(cost, _FORBIDDEN)
    return np.asarray(linear_sum_assignment(cost)[1], np.int64)
