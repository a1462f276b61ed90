"""Equivalence classes of at least k subjects: microaggregation inside strata.

Classes partition the subjects, so hiding in one says no more than membership. A stratum (gender and age band)
that cannot fill a class joins the classes of its closest kin; only if the whole set cannot reach k are subjects left
over, to be redacted.

Effective k counts members closer than a lenient same-person threshold as one, since a person whom clustering
split in two must not count twice; a class is only as large as its effective k, and short ones are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.effective import effective_ks
from anonlib.privacy.exchange import Group
from anonlib.privacy.microaggregation import group_means, microaggregate
from anonlib.privacy.settle import settled
from anonlib.privacy.strata import Stratum, common, kinship, nearest_kin

__all__ = ["EquivalenceClass", "Stratum", "form_classes", "kinship", "made_classes", "stratified", "with_guests"]


@dataclass(frozen=True)
class EquivalenceClass:
    """`members`: subject numbers, ascending; `stratum`: what all of them share, () where they are mixed."""

    members: tuple[int, ...]
    stratum: Stratum
    effective_k: int


def form_classes(
    templates: NDArray[np.float32], strata: Sequence[Stratum], *, k: int, same_person: float
) -> tuple[list[EquivalenceClass], list[int]]:
    """Classes of k to 2k-1 people and the subjects left over (all, or none: only if the whole set cannot reach k).

    `templates` (n, d) unit; `strata[i]` from coarse to fine, e.g. ("female", "adult"); `same_person`: the lenient
    cosine at which two subjects might be one person.
    """
    everyone = np.arange(len(templates))
    groups, left = stratified(templates, strata, everyone, [], k=k, same_person=same_person)
    groups, lost = settled(templates, groups, strata, k=k, same_person=same_person)
    return made_classes(templates, groups, strata, same_person), sorted(left + lost)


def stratified(
    templates: NDArray[np.float32],
    strata: Sequence[Stratum],
    subjects: NDArray[np.int64],
    existing: Sequence[Group],
    *,
    k: int,
    same_person: float,
) -> tuple[list[Group], list[int]]:
    """Groups of `subjects`, stratum by stratum, beside the `existing` ones; and who is left, where there is no group.

    From the finest strata up: one that can fill classes forms them, one that cannot joins groups of its kin, existing
    ones too, and where there are none either it waits for the next coarser stratum.
    """
    groups = list(existing)
    kinds = [common(strata[int(member)] for member in group) for group in groups]
    waiting = subjects.tolist()
    for level in range(max((len(strata[subject]) for subject in waiting), default=0), -1, -1):
        inside: dict[Stratum, list[int]] = {}
        for subject in waiting:
            inside.setdefault(strata[subject][:level], []).append(subject)
        waiting, joining = [], []
        for stratum in sorted(inside):
            members = np.array(inside[stratum], np.int64)
            formed = _formed(templates, members, strata, k, same_person)
            groups += formed
            kinds += [stratum] * len(formed)
            joining += [] if formed else [stratum]
        homes = {kind[:level] for kind in kinds}
        for stratum in joining:
            if stratum in homes:
                _join(templates, strata, np.array(inside[stratum], np.int64), groups, kinds)
            else:
                waiting += inside[stratum]
    return groups, sorted(waiting)


def _formed(
    templates: NDArray[np.float32], members: NDArray[np.int64], strata: Sequence[Stratum], k: int, same_person: float
) -> list[Group]:
    """The valid groups of one stratum; none where it cannot form any."""
    if len(members) < k:
        return []
    groups = [members[group] for group in microaggregate(templates[members], k)]
    return settled(templates, groups, strata, k=k, same_person=same_person)[0]


def _join(
    templates: NDArray[np.float32],
    strata: Sequence[Stratum],
    subjects: NDArray[np.int64],
    groups: list[Group],
    kinds: list[Stratum],
) -> None:
    """Every subject joins the nearest of the groups that are most kin to it."""
    means = group_means(templates, groups).astype(np.float32)
    goals = nearest_kin(templates[subjects], [strata[subject] for subject in subjects], means, kinds)
    for goal in np.unique(goals):
        newcomers = subjects[goals == goal]
        groups[goal] = np.sort(np.concatenate([groups[goal], newcomers]))
        kinds[goal] = common([kinds[goal], *(strata[subject] for subject in newcomers)])


def made_classes(
    templates: NDArray[np.float32], groups: Sequence[Group], strata: Sequence[Stratum], same_person: float
) -> list[EquivalenceClass]:
    """The groups as classes in the order of their first members."""
    people = effective_ks(templates, groups, same_person)
    classes = [
        EquivalenceClass(tuple(sorted(members)), common(strata[member] for member in members), int(count))
        for members, count in zip((group.tolist() for group in groups), people, strict=True)
    ]
    return sorted(classes, key=lambda one: one.members)


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
        EquivalenceClass(tuple(donors[list(one.members)].tolist()), one.stratum, one.effective_k) for one in formed
    ]
    wearers = [list(one.members) for one in classes]
    guests = np.flatnonzero(~is_donor)
    if classes and len(guests):
        centres = group_means(templates, wearers).astype(np.float32)
        kin = [strata[int(guest)] for guest in guests]
        homes = nearest_kin(templates[guests], kin, centres, [one.stratum for one in classes])
        for guest, home in zip(guests.tolist(), homes, strict=True):
            wearers[home].append(guest)
    return classes, [sorted(members) for members in wearers]
