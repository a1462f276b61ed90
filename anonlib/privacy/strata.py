"""Strata (a gender, an age band) as tuples from coarse to fine, and who is nearest among the closest kin.

Faces of one surrogate should be of one gender and age where that is possible; kinship therefore comes before
similarity whenever something has to join something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.nearest import nearest

Stratum = tuple[str, ...]


def kinship(stratum: Stratum, other: Stratum) -> int:
    """How many leading parts two strata share."""
    shared = 0
    for one, two in zip(stratum, other, strict=False):
        if one != two:
            break
        shared += 1
    return shared


def common(strata: Iterable[Stratum]) -> Stratum:
    """The leading parts that all share; () of none."""
    kinds = sorted(set(strata))
    return kinds[0][: kinship(kinds[0], kinds[-1])] if kinds else ()


def prevailing(strata: Sequence[Stratum]) -> Stratum:
    """The leading parts that more than half of all members share.

    One member of unsure gender does not make a class of women wear a man's face.
    """
    found: Stratum = ()
    while True:
        parts = Counter(one[len(found)] for one in strata if one[: len(found)] == found and len(one) > len(found))
        part, count = max(parts.items(), key=lambda one: (one[1], one[0]), default=("", 0))
        if 2 * count <= len(strata):
            return found
        found = (*found, part)


def nearest_kin(
    vectors: NDArray[np.float32],
    strata: Sequence[Stratum],
    bank: NDArray[np.float32],
    bank_strata: Sequence[Stratum],
    own: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """For each vector (q, d) the most similar row of `bank` (b, d) among those whose stratum is most kin to its own.

    `own` (q,): the row of the bank that a vector is itself, and may not have.
    """
    found = np.empty(len(vectors), np.int64)
    kinds = {stratum: number for number, stratum in enumerate(dict.fromkeys(bank_strata))}
    kind = np.array([kinds[stratum] for stratum in bank_strata], np.int64)
    asking: dict[Stratum, list[int]] = {}
    for row, stratum in enumerate(strata):
        asking.setdefault(stratum, []).append(row)
    for stratum, rows in asking.items():
        kin = np.array([kinship(stratum, other) for other in kinds])[kind]
        # The closest kinship that leaves a choice beside the row itself.
        closest = np.sort(kin)[-1 if own is None else -2]
        candidates = np.flatnonzero(kin >= closest)
        mine = None if own is None else np.searchsorted(candidates, own[rows])
        found[rows] = candidates[nearest(vectors[rows], bank[candidates], mine)]
    return found
