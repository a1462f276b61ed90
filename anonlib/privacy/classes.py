"""Equivalence classes: who shares a surrogate, so that nobody can tell by it whose a face is, and which surrogate.

A class is valid if it has at least k persons and no person has more than 1/k of its photos: whoever guesses the most
photographed person is right for exactly that share. Classes are cut inside a stratum (gender, age band) and from
persons with similar numbers of photos, bands of a factor of two, where 2k-1 persons are always enough. A stratum that
cannot fill a class waits for its coarser relatives; a person with too many photos for every class is left over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.keys import Keyring, Purpose

Stratum = tuple[str, ...]
"""What persons are compared by, from coarse to fine: a gender, an age band, a tone of skin."""
Counts = NDArray[np.int64]
Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
LARGEST = 20  # classes are at most this many times k large; a person whose photos would need a larger one is taken out
_CELL, _FAN_OUT = 2048, 64  # most persons in a cell, since MDAV takes time in proportion to it; cells of one cut
_AGE_BANDS = (35.0, 50.0)
_DARK = 122.0  # grey levels of lit skin below which features of dark faces go with it
# The persons of one band in the order in which classes are cut from them, as pieces that stay together.
Order = Callable[[Sequence[int]], Sequence[Sequence[int]]]


@dataclass(frozen=True)
class EquivalenceClass:
    """`members`: person numbers, ascending; `stratum`: what all of them share, () where they are mixed."""

    members: tuple[int, ...]
    stratum: Stratum
    effective_k: int


def effective_k(photos: Sequence[int] | Counts) -> int:
    """How many persons a face of a class hides among, given the photos (m,) of each of its persons."""
    counts = [int(count) for count in photos]
    return min(len(counts), sum(counts) // max(counts)) if any(counts) else 0


def form_classes(
    photos: Counts,
    strata: Sequence[Stratum],
    order: Order,
    *,
    k: int,
    donors: NDArray[np.bool_] | None = None,
    shared: int = 0,
) -> tuple[list[EquivalenceClass], list[int]]:
    """Classes of all persons with a photo, and the persons left over.

    `photos` (n,): of each person the faces that will show the surrogate. `strata[i]` from coarse to fine, e.g.
    ("female", "age-1"). `donors` (n,): a class also needs k persons of these, whose faces its surrogate is made of.
    `shared`: so many parts of their strata all members of a class have in common.
    """
    cutter = _Cutter(photos, np.ones(len(photos), bool) if donors is None else donors, order, k)
    blocks: list[_Block] = []
    waiting = np.flatnonzero(photos > 0).tolist()
    for level in range(max((len(strata[person]) for person in waiting), default=0), shared - 1, -1):
        cells: dict[Stratum, list[int]] = {}
        for person in waiting:
            cells.setdefault(strata[person][:level], []).append(person)
        left = {}
        for stratum in sorted(cells):
            cut, left[stratum] = cutter.cut(cells[stratum])
            for block in cut:
                block.kind = stratum
            blocks += cut
        waiting = []
        for stratum, persons in left.items():
            waiting += cutter.spread(persons, [block for block in blocks if block.kind[: len(stratum)] == stratum])
    classes = []
    for block in blocks:
        own = common(strata[person] for person in block.members)
        classes.append(EquivalenceClass(tuple(sorted(block.members)), own, effective_k(photos[block.members])))
    return sorted(classes, key=lambda formed: formed.members), sorted(waiting)


def may_be_shown(
    members: Sequence[str], earlier: Sequence[Collection[str]], photos: Mapping[str, int], k: int, absences_known: bool
) -> bool:
    """Whether an old class hides its members once this release, with `photos` of each person, is added to the earlier.

    Only members of a person's classes in all releases can be that person: classes formed anew intersect to a few, often
    to one (Fung, Wang, Fu and Pei 2008), so an old class never changes. Absence tells as much as presence: members with
    the same appearances in all releases hide each other, and each such group needs k; unless `absences_known`, an
    attacker is assumed not to know who is missing. `earlier`: the persons, by name, that each release showed.
    """
    present = [photos[member] for member in members if photos.get(member)]
    if not absences_known:
        return len(members) >= k and bool(present)
    seen = Counter((*(member in shown for shown in earlier), bool(photos.get(member))) for member in members)
    return effective_k(present) >= k and min(seen.values()) >= k


@dataclass
class _Block:
    """Persons of a class that is being cut in the stratum `kind`, with the sums that its validity needs."""

    members: list[int] = field(default_factory=list)
    photos: int = 0
    most: int = 0
    donors: int = 0
    kind: Stratum = ()


@dataclass(frozen=True)
class _Cutter:
    photos: Counts
    donors: NDArray[np.bool_]
    order: Order
    k: int

    def cut(self, persons: Sequence[int]) -> tuple[list[_Block], list[int]]:
        """Classes of one stratum, and the persons that found no place in them."""
        bands: dict[int, list[int]] = {}
        for person in persons:
            bands.setdefault(int(self.photos[person]).bit_length(), []).append(person)
        pieces = [piece for band in sorted(bands, reverse=True) for piece in self.order(bands[band])]
        blocks, block, heavy = [], _Block(), list[int]()
        for number, piece in enumerate(pieces):
            for person in piece:
                self._put(person, block)
            if number == len(pieces) - 1 or len(block.members) > LARGEST * self.k:
                heavy += self._lighten(block)
            if block.donors >= self.k and block.photos >= self.k * block.most:
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
        left, turn = [], 0
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


# ---- which surrogate a class wears -----------------------------------------------------------------------------
# k-same (Newton, Sweeney and Malin 2005; Gross et al. 2006): the mean of the class, which bounds recognition by 1/k
# only if nothing else of the photo helps. k-diff (after Sun, Meng and Ariyaeeinia 2015): a face that others make up,
# drawn with the job's key among all of the kind, so neither likeness nor distance tells who is behind it.


@dataclass(frozen=True)
class Average:
    """A surrogate to be made: `donors` (person numbers, at least k), all of one `kind`; the `classes` they are in."""

    donors: tuple[int, ...]
    kind: Stratum
    classes: frozenset[int]


def shuffled(ids: Sequence[str], keyring: Keyring) -> Order:
    """The order of k-diff: persons by a keyed random permutation. `ids[i]` is person i's lasting name in this job."""
    return lambda persons: [[person] for person in sorted(persons, key=lambda i: keyring.digest(Purpose.LOT, ids[i]))]


def alike(templates: NDArray[np.float32], k: int) -> Order:
    """The order of k-same: groups of k to 2k-1 look-alikes by unit templates (n, d), neighbouring groups in a row."""

    def order(persons: Sequence[int]) -> list[list[int]]:
        if len(persons) < 2 * k:
            return [list(persons)]
        points = templates[list(persons)]
        axis = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
        groups = sorted(microaggregate(points, k), key=lambda group: float((points[group] @ axis).mean()))
        return [[persons[row] for row in group] for group in groups]

    return order


def averages(kinds: Sequence[Stratum], donors: Sequence[Sequence[int]], k: int) -> list[Average]:
    """Surrogates of k donors or more, by `kinds` and `donors` of each class: of one class, or of several of a kind."""
    formed: list[Average] = []
    for kind in sorted(set(kinds)):
        groups: list[list[int]] = [[]]
        people = 0
        for number in [number for number, own in enumerate(kinds) if own == kind]:
            groups[-1].append(number)
            people += len(donors[number])
            if people >= k:
                groups.append([])
                people = 0
        rest = groups.pop()
        if groups:
            groups[-1] += rest
        for group in groups:
            members = sorted(donor for number in group for donor in donors[number])
            formed.append(Average(tuple(members), kind, frozenset(group)))
    return formed


def deal(
    surrogates: Sequence[Average], kinds: Sequence[Stratum], ids: Sequence[str], keyring: Keyring
) -> list[int | None]:
    """Which of the surrogates each class wears: a uniform keyed draw among those of its kind that it has no part in.

    Of a coarser kind where its own has no other, None where there is none at all. `kinds` and `ids` of each class.
    """
    by_kind: dict[Stratum, list[int]] = {}
    place: dict[tuple[Stratum, int], int] = {}
    own = {number: index for index, average in enumerate(surrogates) for number in average.classes}
    for index, average in enumerate(surrogates):
        for level in range(len(average.kind) + 1):
            listed = by_kind.setdefault(average.kind[:level], [])
            place[average.kind[:level], index] = len(listed)
            listed.append(index)
    worn: list[int | None] = []
    for number, kind in enumerate(kinds):
        draw = int.from_bytes(keyring.digest(Purpose.DEAL, ids[number]), "big")
        worn.append(None)
        for level in range(len(kind), -1, -1):
            listed = by_kind.get(kind[:level], [])
            skipped = place.get((kind[:level], own.get(number, -1)), len(listed))
            others = len(listed) - (skipped < len(listed))
            if others:
                chosen = draw % others
                worn[-1] = listed[chosen + (chosen >= skipped)]
                break
    return worn


# ---- look-alikes ------------------------------------------------------------------------------------------------
# MDAV (Domingo-Ferrer and Mateo-Sanz 2002; Domingo-Ferrer and Torra 2005) is quadratic, so k-means cuts the templates
# into cells first, and MDAV groups each cell. Both work in an order that the templates themselves give, so the order in
# which persons are listed changes nothing.


def microaggregate(templates: Vectors, k: int) -> list[Rows]:
    """Partition templates (n, d) into groups of k to 2k-1 look-alikes; one group if n < 2k. ValueError if n < k."""
    if k < 1 or len(templates) < k:
        raise ValueError(f"{len(templates)} persons cannot form a class of {k}")
    order = np.lexsort(templates[:, :4].T[::-1])
    points = np.ascontiguousarray(templates[order], np.float32)
    cells = _cells(points, max(_CELL, 8 * k), 2 * k)
    return [np.sort(order[cell[group]]) for cell in cells for group in _mdav(points[cell], k)]


def _mdav(points: Vectors, k: int) -> list[Rows]:
    """MDAV in the order of the rows; `points` and `ids` are compacted whenever half of them are taken."""
    ids = np.arange(len(points))
    free = np.ones(len(points), bool)
    total = points.sum(axis=0, dtype=np.float64)
    left = len(points)
    groups: list[Rows] = []

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


def _cells(points: Vectors, most: int, least: int) -> list[Rows]:
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
        kmeans = faiss.Kmeans(here.shape[1], parts, niter=8, seed=1, min_points_per_centroid=1)
        kmeans.train(here)
        cell = np.asarray(kmeans.index.search(here, 1)[1][:, 0], np.int64)
        cell = _merged(cell, np.asarray(kmeans.centroids, np.float32), least)
        if len(np.unique(cell)) == 1:
            cell = np.arange(len(rows)) * parts // len(rows)
        waiting += [rows[cell == number] for number in np.unique(cell)]
    return done


def _merged(cell: Rows, centroids: Vectors, least: int) -> Rows:
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


# ---- strata -----------------------------------------------------------------------------------------------------


def stratum_of(female: float, age: float, tone: float | None = None) -> Stratum:
    """Gender and age band, each as the estimate says, and whether skin of this `tone`, grey levels, is dark."""
    looks = ("female" if female >= 0.5 else "male", f"age-{sum(age >= limit for limit in _AGE_BANDS)}")
    return looks if tone is None else (*looks, f"tone-{int(tone >= _DARK)}")


def common(strata: Iterable[Stratum]) -> Stratum:
    """The leading parts that all share; () of none."""
    kinds = sorted(set(strata)) or [()]
    alike = takewhile(lambda parts: parts[0] == parts[1], zip(kinds[0], kinds[-1], strict=False))
    return tuple(part for part, _ in alike)


def prevailing(strata: Sequence[Stratum]) -> Stratum:
    """The leading parts that more than half share: one member of unsure gender does not give women a man's face."""
    shared: Stratum = ()
    while True:
        level = len(shared)
        parts = Counter(own[level] for own in strata if own[:level] == shared and len(own) > level)
        part, count = max(parts.items(), key=lambda counted: (counted[1], counted[0]), default=("", 0))
        if 2 * count <= len(strata):
            return shared
        shared = (*shared, part)
