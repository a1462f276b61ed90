"""Groups become classes of at least k people: the short ones join their neighbours, the large ones part.

Groups whose effective k is short join the nearest one of their closest kin, all of them at once, until none is short.
What then holds 2k people or more parts again, between people and never within one, so that no class is larger than
it has to be. A round either mends a short group or leaves fewer groups, so there is a last one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.effective import effective_ks, people_of
from anonlib.privacy.exchange import Group
from anonlib.privacy.microaggregation import group_means, microaggregate
from anonlib.privacy.strata import Stratum, common, nearest_kin


def settled(
    templates: NDArray[np.float32],
    groups: Sequence[Group],
    strata: Sequence[Stratum],
    *,
    k: int,
    same_person: float,
    fixed: NDArray[np.bool_] | None = None,
) -> tuple[list[Group], list[int]]:
    """The groups of subject numbers, each of at least k people, and the subjects given up: all of them, or none.

    `templates` (n, d) unit and `strata` of every subject; `same_person` as in `effective_k`. A group with a subject
    that is `fixed` (n,) never parts.
    """
    groups = list(groups)
    people = effective_ks(templates, groups, same_person)
    while True:
        parted = [
            _parted(templates, group, k, same_person)
            if count >= 2 * k and (fixed is None or not fixed[group].any())
            else [group]
            for group, count in zip(groups, people, strict=True)
        ]
        if len(groups) < sum(map(len, parted)):
            groups = [part for parts in parted for part in parts]
            people = effective_ks(templates, groups, same_person)
        short = np.flatnonzero(people < k)
        if not len(short):
            return groups, []
        if len(groups) == 1:
            return [], sorted(groups[0].tolist())
        groups = _joined(templates, groups, strata, short)
        people = effective_ks(templates, groups, same_person)


def _joined(
    templates: NDArray[np.float32], groups: Sequence[Group], strata: Sequence[Stratum], short: NDArray[np.int64]
) -> list[Group]:
    """The groups after every short one has joined the nearest other."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    means = group_means(templates, groups).astype(np.float32)
    kinds = [common(strata[int(member)] for member in group) for group in groups]
    goal = nearest_kin(means[short], [kinds[number] for number in short], means, kinds, short)
    links = coo_matrix((np.ones(len(short), bool), (short, goal)), shape=(len(groups), len(groups)))
    joined = connected_components(links, directed=False)[1]
    order = np.argsort(joined, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(joined[order])) + 1)
    return [np.sort(np.concatenate([groups[number] for number in part])) for part in parts]


def _parted(templates: NDArray[np.float32], group: Group, k: int, same_person: float) -> list[Group]:
    """A group of 2k people or more in parts of k to 2k-1 people, each of whom is in one part with all subjects."""
    person = people_of(templates[group], same_person)
    order = np.argsort(person, kind="stable")
    subjects = np.split(order, np.flatnonzero(np.diff(person[order])) + 1)
    means = group_means(templates[group], subjects).astype(np.float32)
    return [np.sort(group[np.concatenate([subjects[number] for number in part])]) for part in microaggregate(means, k)]
