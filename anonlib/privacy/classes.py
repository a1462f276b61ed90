"""Equivalence classes: who shares a surrogate, so that nobody can tell by it which of them a face belongs to.

Classes partition the persons. A class is valid if it has at least k persons and no person has more than 1/k of its
photos: whoever guesses the most photographed person of a class is right for exactly that share, so its effective k is
min(persons, photos / photos of the most photographed one), rounded down.

Classes are cut inside a stratum (gender and age band) and from persons with similar numbers of photos: bands of a
factor of two, where 2k-1 persons are always enough. Inside a band the order is a keyed random permutation (k-diff), or
groups of look-alikes (k-same). A stratum that cannot fill a class waits for its coarser relatives, or joins their
classes. A person with too many photos for every class is left over, and so are all where the dataset has no class.

Over releases an attacker intersects: a person's photos hide it in a class of each, and only the members of both can be
that person. Classes formed anew for every release intersect to a few persons, often to one (Fung, Wang, Fu and Pei
2008). So an old class never changes, and newcomers form classes of their own. Absence tells as much as presence:
members with the same appearances in all releases are the only ones that hide each other, and a class may be shown
again if each such group has at least k persons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.strata import Stratum, common

LARGEST = 20
"""Classes are at most this many times k large; a person whose photos would need a larger one is taken out."""

Order = Callable[[Sequence[int]], Sequence[Sequence[int]]]
"""The persons of one band in the order in which classes are cut from them, as pieces that stay together."""


@dataclass(frozen=True)
class EquivalenceClass:
    """`members`: person numbers, ascending; `stratum`: what all of them share, () where they are mixed."""

    members: tuple[int, ...]
    stratum: Stratum
    effective_k: int


def effective_k(photos: Sequence[int] | NDArray[np.int64]) -> int:
    """How many persons a face of a class hides among, given the photos (m,) of each of its persons."""
    counts = [int(count) for count in photos]
    return min(len(counts), sum(counts) // max(counts)) if counts and max(counts) > 0 else 0


def form_classes(
    photos: NDArray[np.int64],
    strata: Sequence[Stratum],
    order: Order,
    *,
    k: int,
    donors: NDArray[np.bool_] | None = None,
) -> tuple[list[EquivalenceClass], list[int]]:
    """Classes of all persons with a photo, and the persons left over.

    `photos` (n,): of each person the faces that will show the surrogate; persons without one take no part. `strata[i]`
    from coarse to fine, e.g. ("female", "age-1"). `donors` (n,): a class also needs k persons of these, whose faces
    its own surrogate is made of.
    """
    cutter = _Cutter(photos, strata, order, k, np.ones(len(photos), bool) if donors is None else donors, donors is None)
    waiting = np.flatnonzero(photos > 0).tolist()
    for level in range(max((len(strata[person]) for person in waiting), default=0), -1, -1):
        cells: dict[Stratum, list[int]] = {}
        for person in waiting:
            cells.setdefault(strata[person][:level], []).append(person)
        waiting = []
        formed = {stratum: cutter.cut(cells[stratum]) for stratum in sorted(cells)}
        for stratum, (blocks, _) in formed.items():
            cutter.add(blocks, stratum)
        for stratum, (_, left) in formed.items():
            waiting += cutter.spread(left, cutter.kin(stratum))
    classes = [
        EquivalenceClass(
            tuple(sorted(block.members)),
            common(strata[person] for person in block.members),
            effective_k(photos[block.members]),
        )
        for block in cutter.blocks
    ]
    return sorted(classes, key=lambda one: one.members), sorted(waiting)


def may_be_shown(
    members: Sequence[int],
    releases: Sequence[Collection[int]],
    photos: NDArray[np.int64],
    *,
    k: int,
    absences_known: bool = True,
) -> bool:
    """Whether an old class hides its members once this release is added to the earlier ones.

    `releases`: the persons that each earlier release showed; `photos` (n,): of each person in this one, 0 if absent.
    Unless `absences_known`, an attacker is assumed not to know who is missing from a release.
    """
    present = [int(photos[member]) for member in members if photos[member]]
    if not absences_known:
        return len(members) >= k and bool(present)
    seen = Counter((*(member in shown for shown in releases), bool(photos[member])) for member in members)
    return effective_k(present) >= k and min(seen.values()) >= k


@dataclass
class _Block:
    """Persons of a class that is being cut, with the sums that its validity needs."""

    members: list[int] = field(default_factory=list)
    photos: int = 0
    most: int = 0
    donors: int = 0


@dataclass
class _Cutter:
    """The classes cut so far, and the strata in which they were cut."""

    photos: NDArray[np.int64]
    strata: Sequence[Stratum]
    order: Order
    k: int
    donors: NDArray[np.bool_]
    all_give: bool
    blocks: list[_Block] = field(default_factory=list)
    _kinds: list[Stratum] = field(default_factory=list)

    def add(self, blocks: Sequence[_Block], stratum: Stratum) -> None:
        """Keep classes that were cut in a stratum."""
        self.blocks += blocks
        self._kinds += [stratum] * len(blocks)

    def kin(self, stratum: Stratum) -> list[_Block]:
        """The classes cut in a stratum or in a finer part of it."""
        level = len(stratum)
        return [block for block, kind in zip(self.blocks, self._kinds, strict=True) if kind[:level] == stratum]

    def cut(self, persons: Sequence[int]) -> tuple[list[_Block], list[int]]:
        """Classes of one stratum, and the persons that found no place in them."""
        bands: dict[int, list[int]] = {}
        for person in persons:
            bands.setdefault(int(self.photos[person]).bit_length(), []).append(person)
        blocks, block, heavy = [], _Block(), list[int]()
        for band in sorted(bands, reverse=True):
            for piece in self.order(bands[band]):
                for person in piece:
                    self._put(person, block)
                if len(block.members) > LARGEST * self.k:
                    heavy += self._lighten(block)
                if self._valid(block):
                    blocks.append(block)
                    block = _Block()
        heavy += self._lighten(block)
        if self._valid(block):
            blocks.append(block)
            block = _Block()
        return blocks, self.spread(heavy + block.members, blocks)

    def _lighten(self, block: _Block) -> list[int]:
        """Take out the persons whose photos are more than 1/k of the class, while k persons are left."""
        out = []
        while len(block.members) > self.k and block.photos < self.k * block.most:
            heaviest = max(block.members, key=lambda person: (self.photos[person], -person))
            block.members.remove(heaviest)
            block.photos -= int(self.photos[heaviest])
            block.donors -= bool(self.donors[heaviest])
            block.most = max(int(self.photos[person]) for person in block.members)
            out.append(heaviest)
        return out

    def spread(self, persons: Sequence[int], blocks: Sequence[_Block]) -> list[int]:
        """Put each person into a class that stays valid, the last ones first; returns those that fit none."""
        left = []
        turn = 0
        for person in persons:
            count = int(self.photos[person])
            for step in range(len(blocks)):
                block = blocks[-1 - (turn + step) % len(blocks)]
                if max(block.most, count) * self.k <= block.photos + count:
                    self._put(person, block)
                    turn += step + 1
                    break
            else:
                left.append(person)
        return left

    def _put(self, person: int, block: _Block) -> None:
        block.members.append(person)
        block.photos += int(self.photos[person])
        block.most = max(block.most, int(self.photos[person]))
        block.donors += bool(self.donors[person])

    def _valid(self, block: _Block) -> bool:
        return (
            len(block.members) >= self.k
            and block.photos >= self.k * block.most
            and (self.all_give or block.donors >= self.k)
        )
