"""Classes that stay k-anonymous over releases: how they grow, and a proof of it.

Who sees two releases intersects: a subject's photos hide it in one class each time, and only the members of both can be
that subject. Classes formed afresh for every release intersect to a few subjects, often to one (Fung, Wang, Fu and
Pei 2008). So members of a class stay together for good: a later release adds subjects to a class, or forms classes of
new subjects alone.

An attacker who knows that somebody was absent from an earlier release subtracts as well, and a newcomer in an old class
is told apart from its old members. `extend` with `join=False` withstands that too: newcomers wait until they are k.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.classes import EquivalenceClass, made_classes, stratified
from anonlib.privacy.effective import effective_ks
from anonlib.privacy.settle import settled
from anonlib.privacy.strata import Stratum

Members = Sequence[Sequence[int]]


def extend(
    old_classes: Members,
    templates: NDArray[np.float32],
    strata: Sequence[Stratum],
    *,
    k: int,
    same_person: float,
    join: bool = True,
) -> tuple[list[EquivalenceClass], list[int]]:
    """Classes of all subjects in which nobody is parted from its old class, and the subjects left over.

    `old_classes`: subject numbers of the last release; a subject that no longer appears is still a member, and still
    has a template. `templates` (n, d) unit and `strata` as in `form_classes`. Newcomers form classes of their own;
    those too few for one join a class of their closest kin, or are left over where `join` is false. Old classes that
    are short by now (a greater k, templates that moved) grow together. ValueError if `old_classes` are not disjoint or
    name a subject without a template.
    """
    old = [np.array(sorted(members), np.int64) for members in old_classes]
    listed = np.concatenate([*old, np.zeros(0, np.int64)])
    if len(listed) and not 0 <= listed.min() <= listed.max() < len(templates):
        wrong = next(int(subject) for subject in listed if not 0 <= subject < len(templates))
        raise ValueError(f"an old class names subject {wrong}, and there are templates of {len(templates)} subjects")
    times = np.bincount(listed, minlength=len(templates))
    if times.max(initial=0) > 1:
        raise ValueError(f"subject {int(times.argmax())} is in two old classes; the earlier release is no partition")
    new = np.flatnonzero(times == 0)
    groups, left = stratified(templates, strata, new, old if join else [], k=k, same_person=same_person)
    fixed = times > 0
    together = [groups] if join else [old, groups]
    classes: list[EquivalenceClass] = []
    for some in together:
        kept, lost = settled(templates, some, strata, k=k, same_person=same_person, fixed=fixed)
        classes += made_classes(templates, kept, strata, same_person)
        left = left + lost
    return sorted(classes, key=lambda one: one.members), sorted(left)


def intersections(
    releases: Sequence[Members],
    *,
    k: int,
    templates: NDArray[np.float32] | None = None,
    same_person: float | None = None,
    absences_known: bool = False,
) -> list[str]:
    """A sentence for each subject with fewer than k candidates once all releases are put together; none if all hide.

    `releases`: of each its classes, as lists of subject numbers that mean the same subjects throughout; a subject in no
    class was not shown. A subject's candidates are those who share its class in every release that shows it; if
    `absences_known`, only those who are also missing where it is missing. `templates` (n, d) unit of all subjects with
    `same_person`: candidates who may be one person count once.
    """
    if templates is not None and same_person is None:
        raise ValueError("effective k needs the cosine at which two subjects may be one person: same_person")
    found = _shown_twice(releases)
    if found:
        return found
    home = _homes(releases)
    shown = home >= 0
    pattern = _numbered(shown.astype(np.int64))
    weak: dict[int, int] = {}
    for number in np.unique(pattern[shown.any(axis=1)]):
        asking = np.flatnonzero(pattern == number)
        where = shown[asking[0]]
        rows = asking if absences_known else np.flatnonzero(shown[:, where].all(axis=1))
        label = _numbered(home[np.ix_(rows, np.flatnonzero(where))])
        order = np.argsort(label, kind="stable")
        candidates = np.split(rows[order], np.flatnonzero(np.diff(label[order])) + 1)
        count = np.array([len(some) for some in candidates])
        if templates is not None and same_person is not None:
            count = effective_ks(templates, candidates, same_person)
        mine = label[np.searchsorted(rows, asking)]
        for row in np.flatnonzero(count[mine] < k):
            weak[int(asking[row])] = int(count[mine[row]])
    return [_sentence(subject, weak[subject], shown[subject], k) for subject in sorted(weak)]


def _sentence(subject: int, candidates: int, shown: NDArray[np.bool_], k: int) -> str:
    numbers = [str(number) for number in np.flatnonzero(shown)]
    where = f"release {numbers[0]}" if len(numbers) == 1 else f"releases {', '.join(numbers)} together"
    return f"subject {subject} is one of {candidates} in {where}, fewer than k = {k}"


def _shown_twice(releases: Sequence[Members]) -> list[str]:
    found = []
    for number, classes in enumerate(releases):
        seen: set[int] = set()
        twice: set[int] = set()
        for members in classes:
            twice |= seen.intersection(members)
            seen.update(members)
        found += [f"subject {subject} is in two classes of release {number}" for subject in sorted(twice)]
    return found


def _homes(releases: Sequence[Members]) -> NDArray[np.int64]:
    """The class number of every subject in every release (n, r), -1 where it is not shown."""
    count = 1 + max((max(members) for classes in releases for members in classes if len(members)), default=-1)
    home = np.full((count, len(releases)), -1, np.int64)
    for number, classes in enumerate(releases):
        for label, members in enumerate(classes):
            if min(members, default=0) < 0:
                raise ValueError(f"class {label} of release {number} names subject {min(members)}; numbers begin at 0")
            home[np.asarray(members, np.int64), number] = label
    return home


def _numbered(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Equal rows of (n, c) get the same number, from 0 without gaps."""
    number = np.zeros(len(rows), np.int64)
    for column in rows.T:
        kind = np.unique(column, return_inverse=True)[1]
        number = np.unique(number * (int(kind.max(initial=0)) + 1) + kind, return_inverse=True)[1].astype(np.int64)
    return number
