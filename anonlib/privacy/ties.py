"""Ties: which subjects are suspected of being one person.

Clustering splits a person whose photos differ much. Subjects that may be one person are therefore tied: they share a
stratum, a class and a draw, and count as one person towards k. A wrong tie only makes classes a little larger, so the
bar is lower than the one for subjects. A bar alone is not enough, because at any useful bar the links of a large
dataset connect nearly everybody; so the most alike are tied first, and a tie holds at most MOST subjects.

On LFW's photos without labels (840 people, 1,413 subjects, 49 people in more than one) ties leave 22 people in more
than one person, and make 447 persons.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.clustering import margins, normalized
from anonlib.privacy.knn import EXACT_BELOW, Numbers, Vectors, close_pairs

MOST = 12
"""Subjects in one tie. At 8, most of the people that LFW still splits have a part in a tie that is full."""
LENIENCE = 0.025
"""How far the bar for a tie lies below the bar for one subject, in mean cosine."""
_OTHER_GENDER = 0.5
"""Subjects whose probabilities of female differ by more are different people."""
_NEIGHBOURS = 32


def tied(
    means: Vectors, faces: Numbers, labelled: NDArray[np.bool_], female: NDArray[np.float32], *, threshold: float
) -> Numbers:
    """Person numbers (n,), in order of first subject, for subjects with `means` (n, d) of `faces` (n,) unit embeddings.

    `threshold`: the bar for one subject, as `subjects.cluster` has it. Subjects that are `labelled` (n,) are different
    people, so at most one of them is in a tie. `female` (n,): mean probability; a person is not of both genders.
    """
    bar = threshold - LENIENCE
    sums = (means * faces[:, None]).astype(np.float32)
    first, second = close_pairs(normalized(means), None, count=_NEIGHBOURS, floor=bar, exact_below=EXACT_BELOW)
    margin = margins(sums, faces.astype(np.float64), first, second, bar)
    margin[np.abs(female[first] - female[second]) > _OTHER_GENDER] = -1.0
    parent = np.arange(len(means))
    size, names = np.ones(len(means), np.int64), labelled.astype(np.int64)

    def root(subject: int) -> int:
        while parent[subject] != subject:
            parent[subject] = parent[parent[subject]]
            subject = int(parent[subject])
        return subject

    order = np.lexsort((second, first, -margin))
    for pair in order[margin[order] >= 0].tolist():
        one, two = sorted((root(int(first[pair])), root(int(second[pair]))))
        if one != two and size[one] + size[two] <= MOST and names[one] + names[two] <= 1:
            parent[two] = one
            size[one] += size[two]
            names[one] += names[two]
    roots = np.array([root(subject) for subject in range(len(means))], np.int64)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)
