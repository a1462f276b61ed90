"""How well people were found without their names: clusters against the truth.

BCubed (Bagga and Baldwin 1998) asks for every face which share of its cluster is the same person (precision) and which
share of that person is in its cluster (recall), and takes the mean over faces; of the measures compared by Amigo et al.
2009 it is the one that satisfies all their constraints. Pairs say how often two people were merged and one was split.
The two do not weigh the same here: a split person counts twice in an equivalence class, which effective k is there to
catch, while two merged people share a template that is neither's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Clustering:
    """Means over `faces`; pairs of faces `merged`, two people in one cluster, and `split`, one person in two."""

    faces: int
    people: int
    clusters: int
    precision: float
    recall: float
    merged: int
    split: int

    @property
    def f(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def bcubed(truth: Numbers, cluster: Numbers) -> Clustering:
    """Clusters (n,) against the people (n,) that they should be; at least one face."""
    if len(truth) != len(cluster) or len(truth) == 0:
        raise ValueError(f"{len(truth)} names and {len(cluster)} clusters cannot be compared; give one of each a face")
    _, person, photos = np.unique(truth, return_inverse=True, return_counts=True)
    _, group, members = np.unique(cluster, return_inverse=True, return_counts=True)
    _, cell, shared = np.unique(person * len(members) + group, return_inverse=True, return_counts=True)
    together = _pairs(shared)
    return Clustering(
        len(truth),
        len(photos),
        len(members),
        float(np.mean(shared[cell] / members[group])),
        float(np.mean(shared[cell] / photos[person])),
        _pairs(members) - together,
        _pairs(photos) - together,
    )


@dataclass(frozen=True)
class RealClasses:
    """Of `classes`, how many hide at least as many people as their effective k says, and how many at least k."""

    classes: int
    effective_real: int
    k_real: int

    @property
    def share(self) -> float:
        """The share of classes whose effective k is real; NaN of none."""
        return self.effective_real / self.classes if self.classes else float("nan")


def real_classes(
    members: Sequence[Sequence[int]], effective: Sequence[int], subject: Numbers, truth: Numbers, k: int
) -> RealClasses:
    """Counts the true people of each class. `members`: subject numbers; `subject` (n,) and `truth` (n,) of named faces.

    A subject stands for whoever most of its faces show, the lower number in a tie. A class with a subject nobody can
    name is left out.
    """
    stands_for = _majority(subject, truth)
    classes = effective_real = k_real = 0
    for group, claimed in zip(members, effective, strict=True):
        names = [stands_for.get(int(member)) for member in group]
        if None in names:
            continue
        people = len(set(names))
        classes += 1
        effective_real += people >= claimed
        k_real += people >= k
    return RealClasses(classes, effective_real, k_real)


def _majority(subject: Numbers, truth: Numbers) -> dict[int, int]:
    pairs, count = np.unique(np.stack([subject, truth], axis=1), axis=0, return_counts=True)
    order = np.lexsort((-pairs[:, 1], count, pairs[:, 0]))
    return {int(subject): int(truth) for subject, truth in pairs[order]}


def _pairs(sizes: Numbers) -> int:
    return int((sizes * (sizes - 1) // 2).sum())
