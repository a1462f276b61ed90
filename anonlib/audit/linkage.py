"""Can two releases of the same people be put side by side? The AUC of a recognizer that tries.

A pair is one released face of each release. The area under the ROC curve is the chance that a pair of one person looks
more alike than a pair of two (Hanley and McNeil 1982): .5 is unlinkable, 1 linked without fail. Hair, clothes and the
gender that a release keeps tell people apart whatever the face, so the same is also said of pairs that agree in gender
and of the photos with the face hidden: what is left above those two is the face's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.evidence import CLEAR, RELEASED, Evidence

_ROWS = 1024


@dataclass(frozen=True)
class Linkage:
    """AUCs of one recognizer over `people` who are in both releases; `hidden`: of the photos with the faces hidden."""

    people: int
    all_pairs: float
    same_gender: float
    clear: float
    hidden: float


def link(first: Evidence, second: Evidence, recognizer: str) -> Linkage:
    """How well `recognizer` links the people whom both releases show; faces that fell back are left out."""
    both = np.intersect1d(first.names, second.names)
    kept = [np.isin(one.names, both) & one.replaced for one in (first, second)]
    person = [np.searchsorted(both, one.names[rows]) for one, rows in zip((first, second), kept, strict=True)]
    gender = [_gender_of(one, rows) for one, rows in zip((first, second), kept, strict=True)]

    def judged(look: str, genders: bool = False) -> float:
        vectors = [one.looks[look].vectors[recognizer][rows] for one, rows in zip((first, second), kept, strict=True)]
        return auc(*pairs(vectors[0], vectors[1], person[0], person[1], *(gender if genders else ())))

    return Linkage(len(both), judged(RELEASED), judged(RELEASED, genders=True), judged(CLEAR), judged("solid"))


def pairs(
    one: NDArray[np.float32],
    other: NDArray[np.float32],
    one_person: NDArray[np.int64],
    other_person: NDArray[np.int64],
    one_group: NDArray[np.int64] | None = None,
    other_group: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines of the genuine and of the impostor pairs between unit rows (n, d) and (m, d), within groups if given."""
    genuine, impostor = [np.zeros(0, np.float32)], [np.zeros(0, np.float32)]
    for start in range(0, len(one), _ROWS):
        rows = slice(start, start + _ROWS)
        similarity = one[rows] @ other.T
        same = one_person[rows, None] == other_person[None, :]
        counted = np.ones_like(same)
        if one_group is not None and other_group is not None:
            counted = one_group[rows, None] == other_group[None, :]
        genuine.append(similarity[same & counted])
        impostor.append(similarity[~same & counted])
    return np.concatenate(genuine), np.concatenate(impostor)


def auc(genuine: NDArray[np.float32], impostor: NDArray[np.float32]) -> float:
    """The chance that a genuine cosine beats an impostor's, ties counted half; NaN if there are none of either."""
    if len(genuine) == 0 or len(impostor) == 0:
        return float("nan")
    ordered = np.sort(impostor)
    below, upto = (np.searchsorted(ordered, genuine, side=side) for side in ("left", "right"))
    return float((below + upto).mean() / (2 * len(impostor)))


def _gender_of(evidence: Evidence, rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.asarray(evidence.clear.female[rows] > 0.5, np.int64)
