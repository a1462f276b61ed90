"""Equivalence classes of at least k subjects: MDAV microaggregation inside strata.

MDAV (Domingo-Ferrer and Mateo-Sanz 2002; Domingo-Ferrer and Torra 2005) takes the subject furthest from the
mean and its k-1 nearest, then the subject furthest from that one and its k-1 nearest, until fewer than 2k are
left, which form the last class. Classes partition the subjects, so hiding in one says no more than
membership. A stratum (gender and age band) that cannot fill a class is merged with its neighbours; what still
cannot is returned as left over, to be redacted.

Effective k counts members closer than a lenient same-person threshold as one, since a person whom clustering
split in two must not count twice; a class is only as large as its effective k, and short ones are merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Stratum = tuple[str, ...]


@dataclass(frozen=True)
class EquivalenceClass:
    """`members`: subject numbers, ascending; `stratum`: most specific first, () where all are mixed."""

    members: tuple[int, ...]
    stratum: Stratum
    effective_k: int


def mdav(templates: NDArray[np.float32], k: int) -> list[NDArray[np.int64]]:
    """Partition unit templates (n, d) into groups of k to 2k-1; one group if n < 2k. n must be >= k."""
    if len(templates) < k:
        raise ValueError(f"{len(templates)} subjects cannot form a class of {k}")
    left = np.arange(len(templates))
    groups: list[NDArray[np.int64]] = []

    def take(centre: NDArray[np.float32]) -> None:
        nonlocal left
        nearest = np.argsort(-(templates[left] @ centre), kind="stable")[:k]
        groups.append(np.sort(left[nearest]))
        left = np.delete(left, nearest)

    while len(left) >= 3 * k:
        mean = templates[left].mean(axis=0)
        first = templates[left[np.argmin(templates[left] @ mean)]]
        take(first)
        take(templates[left[np.argmin(templates[left] @ first)]])
    if len(left) >= 2 * k:
        mean = templates[left].mean(axis=0)
        take(templates[left[np.argmin(templates[left] @ mean)]])
    groups.append(np.sort(left))
    return groups


def effective_k(templates: NDArray[np.float32], threshold: float) -> int:
    """How many people unit templates (m, d) surely are: components of the graph `cosine >= threshold`."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    adjacency = csr_matrix(templates @ templates.T >= threshold)
    return int(connected_components(adjacency, directed=False)[0])


def form_classes(
    templates: NDArray[np.float32], strata: Sequence[Stratum], *, k: int, same_person: float
) -> tuple[list[EquivalenceClass], list[int]]:
    """Classes and the subjects left over (all of them, or none: only if the whole set cannot reach k).

    `templates` (n, d) unit; `strata[i]` from coarse to fine, e.g. ("female", "adult"); `same_person`: the lenient
    cosine at which two subjects might be one person.
    """
    groups: dict[Stratum, list[int]] = {}
    for subject, stratum in enumerate(strata):
        groups.setdefault(stratum, []).append(subject)
    depth = max((len(stratum) for stratum in groups), default=0)
    classes: list[EquivalenceClass] = []
    for level in range(depth, -1, -1):
        short: dict[Stratum, list[int]] = {}
        for stratum in sorted(groups):
            members = np.array(sorted(groups[stratum]), np.int64)
            formed, rest = _classes_of(templates, members, stratum, k, same_person)
            classes += formed
            if rest:
                short.setdefault(stratum[: max(0, level - 1)], []).extend(rest)
        groups = short
    leftover = sorted(subject for members in groups.values() for subject in members)
    if leftover and classes:
        classes = _absorb(templates, classes, leftover, same_person)
        leftover = []
    classes, lost = _merge_short(templates, classes, k, same_person)
    return sorted(classes, key=lambda one: one.members), sorted(leftover + lost)


def _classes_of(
    templates: NDArray[np.float32], members: NDArray[np.int64], stratum: Stratum, k: int, same_person: float
) -> tuple[list[EquivalenceClass], list[int]]:
    """The valid classes of one stratum and, where it can form none, all its members."""
    if len(members) < k:
        return [], members.tolist()
    made = [_made(templates, members[group], stratum, same_person) for group in mdav(templates[members], k)]
    return _merge_short(templates, made, k, same_person)


def _merge_short(
    templates: NDArray[np.float32], classes: list[EquivalenceClass], k: int, same_person: float
) -> tuple[list[EquivalenceClass], list[int]]:
    """Join every class whose effective k is short with its nearest one until none is; the last alone is given up."""
    classes = list(classes)
    while True:
        short = next((one for one in classes if one.effective_k < k), None)
        if short is None:
            return classes, []
        others = [one for one in classes if one is not short]
        if not others:
            return [], list(short.members)
        mean = _mean(templates, short.members)
        nearest = max(others, key=lambda one: (float(_mean(templates, one.members) @ mean), one.members))
        stratum = short.stratum if short.stratum == nearest.stratum else ()
        others.remove(nearest)
        classes = [*others, _made(templates, (*short.members, *nearest.members), stratum, same_person)]


def _absorb(
    templates: NDArray[np.float32], classes: list[EquivalenceClass], leftover: list[int], same_person: float
) -> list[EquivalenceClass]:
    """Leftover subjects join the nearest class, which is mixed from then on; classes only grow."""
    grown = [list(one.members) for one in classes]
    means = np.stack([_mean(templates, one.members) for one in classes])
    for subject in leftover:
        grown[int(np.argmax(means @ templates[subject]))].append(subject)
    return [
        one if len(members) == len(one.members) else _made(templates, members, (), same_person)
        for one, members in zip(classes, grown, strict=True)
    ]


def _made(
    templates: NDArray[np.float32], members: Iterable[int], stratum: Stratum, same_person: float
) -> EquivalenceClass:
    ordered = tuple(sorted(int(member) for member in members))
    return EquivalenceClass(ordered, stratum, effective_k(templates[list(ordered)], same_person))


def _mean(templates: NDArray[np.float32], members: Sequence[int]) -> NDArray[np.float32]:
    return np.asarray(templates[list(members)].mean(axis=0), np.float32)


def with_guests(
    templates: NDArray[np.float32],
    strata: Sequence[Stratum],
    is_donor: NDArray[np.bool_],
    *,
    k: int,
    same_person: float,
) -> tuple[list[EquivalenceClass], list[list[int]]]:
    """Classes formed of the donors alone, and all members of each: the others join the nearest one as guests.

    A guest wears a surrogate and hides in the crowd, but is not averaged. Members are subject numbers. Without a
    class there are no guests.
    """
    donors = np.flatnonzero(is_donor)
    formed, _ = form_classes(templates[donors], [strata[int(donor)] for donor in donors], k=k, same_person=same_person)
    classes = [
        EquivalenceClass(tuple(int(donors[m]) for m in one.members), one.stratum, one.effective_k) for one in formed
    ]
    wearers = [list(one.members) for one in classes]
    centres = np.stack([_mean(templates, one.members) for one in classes]) if classes else templates[:0]
    guests = np.flatnonzero(~is_donor)
    for guest in guests if classes else ():
        similarity = centres @ templates[guest]
        kin = [kinship(one.stratum, strata[int(guest)]) for one in classes]
        wearers[int(np.argmax(similarity + 2.0 * np.array(kin)))].append(int(guest))
    return classes, [sorted(members) for members in wearers]


def kinship(stratum: Stratum, other: Stratum) -> int:
    """How many leading parts two strata share."""
    shared = 0
    for one, two in zip(stratum, other, strict=False):
        if one != two:
            break
        shared += 1
    return shared
