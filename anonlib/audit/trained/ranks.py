"""What a trained attacker recovers: whom he takes each photo for, among people that he has never seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks import first_of_each
from anonlib.audit.attacks.verify import FAR, accepted_at, genuine_similarities, threshold_at_far
from anonlib.audit.trained.data import DataSplit, Rows
from anonlib.privacy.clustering import normalized

Vectors = NDArray[np.float32]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Recovered:
    """One way of asking, of n photos; `ranks` (n,) is the place of the right person, 1 the first, and NaN where nobody
    was asked: people not attacked, and the photo of each that stands in the gallery.

    `accepted` (n,): whether the cosine to the own gallery photo reaches `threshold`, at which a share FAR of the pairs
    of the people kept aside passes. `people` are in the gallery, so guessing gives `chance`.
    """

    ranks: Shares
    accepted: Shares
    threshold: float
    people: int

    @property
    def chance(self) -> float:
        """Rank-one by guessing."""
        return 1 / self.people

    def hits(self, within: int = 1) -> Shares:
        """(n,) 1 where the right person is among the first `within`, 0 where not, NaN where nobody was asked."""
        return np.where(np.isnan(self.ranks), np.nan, self.ranks <= within)


def recover(probes: Vectors, gallery: Vectors, people: Rows, parts: DataSplit) -> Recovered:
    """Each attacked person's first row of `gallery` (n, d) is enrolled, and the other rows of `probes` (n, d) asked."""
    impostors = _compared(probes, gallery, people, parts.choose)[2]
    threshold = threshold_at_far(impostors, FAR) if len(impostors) else 1.0
    ranks, accepted = np.full(len(people), np.nan), np.full(len(people), np.nan)
    asked, genuine, _ = _compared(probes, gallery, people, parts.attack)
    ranks[asked] = placed(probes, gallery, people, parts.attack)
    accepted[asked] = accepted_at(genuine, threshold)
    return Recovered(ranks, accepted, threshold, len(np.unique(people[parts.attack])))


def placed(probes: Vectors, gallery: Vectors, people: Rows, rows: Rows) -> Shares:
    """Places of the right person for each photo in `rows` that is no gallery photo; in a tie the middle place."""
    enrolled = rows[first_of_each(people[rows])]
    asked = rows[~first_of_each(people[rows])]
    similarity = normalized(probes[asked]) @ normalized(gallery[enrolled]).T
    own = people[asked, None] == people[None, enrolled]
    right = similarity[own][:, None]
    above, tied = (similarity > right).sum(axis=1), ((similarity == right) & ~own).sum(axis=1)
    return np.asarray(1 + above + tied / 2, np.float64)


def _compared(probes: Vectors, gallery: Vectors, people: Rows, rows: Rows) -> tuple[Rows, Shares, Vectors]:
    """The rows asked, their cosines to their own gallery photo, and all cosines of two people."""
    first = first_of_each(people[rows])
    enrolled, asked = rows[first], rows[~first]
    pair = normalized(probes[asked]), people[asked], normalized(gallery[enrolled]), people[enrolled]
    strangers = people[asked, None] != people[None, enrolled]
    return asked, genuine_similarities(*pair), (pair[0] @ pair[2].T)[strangers]
