"""Classes that stay k-anonymous over releases: how they grow, which may be shown, and a proof of it.

Who sees two releases intersects: a subject's photos hide it in one class each time, and only the members of both can be
that subject. Classes formed afresh for every release intersect to a few subjects, often to one (Fung, Wang, Fu and
Pei 2008). So members of a class stay together for good: a later release forms classes of its new subjects alone.

Who knows whose photos a dataset holds subtracts as well: a class of ten of which one is in the second dataset hides
nobody there, and a newcomer in an old class is told apart from its old members. So only those who are present count,
newcomers wait until they are k, and a class is shown only where all its members keep k candidates. `absences_known` as
False, and `join`, are for releases of which nobody can know that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.effective import effective_ks
from anonlib.privacy.strata import Stratum, kinship

Members = Sequence[Sequence[int]]
Form = Callable[[NDArray[np.int64]], Members]


def extend(
    old_classes: Members, strata: Sequence[Stratum], form: Form, *, join: bool = False
) -> tuple[list[tuple[int, ...]], list[int]]:
    """Classes of all subjects in which nobody is parted from its old class, and the subjects left over.

    `old_classes`: subject numbers of the last release; a subject that no longer appears is still a member. `strata` of
    all subjects, old and new. `form` makes classes of the new ones (m,) and may leave some out. Those are left over, or
    with `join` go to an old class of their closest kin, the smallest. ValueError if `old_classes` are not disjoint or
    name a subject without a stratum, or if `form` does.
    """
    count = len(strata)
    times = _times(old_classes, count, "two old classes; the earlier release is no partition", "an old class")
    new = np.flatnonzero(times == 0)
    formed = [tuple(sorted(members)) for members in form(new)] if len(new) else []
    homes = _times(formed, count, "two of the classes that were formed", "a class that was formed")
    if (homes[times > 0] > 0).any():
        raise ValueError(f"subject {int(np.flatnonzero(homes * times)[0])} was formed anew and is in an old class")
    left = [int(subject) for subject in new if homes[subject] == 0]
    grown = [sorted(members) for members in old_classes]
    if join and grown:
        kinds = [[strata[member] for member in members] for members in old_classes]
        for subject in left:
            kin = [min(kinship(strata[subject], kind) for kind in some) for some in kinds]
            goal = min(range(len(grown)), key=lambda one: (-kin[one], len(grown[one]), grown[one]))
            grown[goal] = sorted([*grown[goal], subject])
        left = []
    return sorted([*map(tuple, grown), *formed]), left


def showable(
    earlier: Sequence[Members],
    earlier_present: Sequence[Collection[int]],
    classes: Members,
    present: Collection[int],
    *,
    k: int,
    templates: NDArray[np.float32] | None = None,
    same_person: float | None = None,
    absences_known: bool = True,
) -> tuple[list[tuple[int, ...]], list[int]]:
    """The classes that a new release may show, and the present subjects of the others, which are to be redacted.

    A class is shown if all its members, present and absent, have k candidates once all releases are put together;
    arguments as in `intersections`. Candidates share a class, so one class does not depend on another.
    """
    weak, _ = _weak(
        [*earlier, classes],
        [*earlier_present, present],
        k=k,
        templates=templates,
        same_person=same_person,
        absences_known=absences_known,
    )
    kept = [tuple(sorted(members)) for members in classes if weak.keys().isdisjoint(members)]
    redacted = [subject for members in classes if not weak.keys().isdisjoint(members) for subject in members]
    return kept, sorted(set(present).intersection(redacted))


def intersections(
    releases: Sequence[Members],
    present: Sequence[Collection[int]],
    *,
    k: int,
    templates: NDArray[np.float32] | None = None,
    same_person: float | None = None,
    absences_known: bool = True,
) -> list[str]:
    """A sentence for each subject with fewer than k candidates once all releases are put together; none if all hide.

    `releases`: of each its classes, as lists of subject numbers that mean the same subjects throughout, and `present`:
    who is in its dataset. A subject is shown where it is present and in a class. Its candidates are those who share its
    class in every release that shows it and are shown in no other. Without `absences_known` absent members and those
    whom other releases show are candidates too. `templates` (n, d) unit of all subjects with `same_person`: candidates
    who may be one person count once.
    """
    found = _shown_twice(releases)
    if found:
        return found
    weak, shown = _weak(
        releases, present, k=k, templates=templates, same_person=same_person, absences_known=absences_known
    )
    return [_sentence(subject, weak[subject], shown[subject], k) for subject in sorted(weak)]


def _weak(
    releases: Sequence[Members],
    present: Sequence[Collection[int]],
    *,
    k: int,
    templates: NDArray[np.float32] | None,
    same_person: float | None,
    absences_known: bool,
) -> tuple[dict[int, int], NDArray[np.bool_]]:
    """How many candidates each subject with fewer than k has, and where each subject is shown (n, r)."""
    if templates is not None and same_person is None:
        raise ValueError("effective k needs the cosine at which two subjects may be one person: same_person")
    if len(releases) != len(present):
        raise ValueError(f"there are {len(releases)} releases, and it is said of {len(present)} who is present")
    home = _homes(releases)
    member = home >= 0
    there = np.zeros_like(member)
    for number, subjects in enumerate(present):
        rows = np.array(sorted(subjects), np.int64)
        there[rows[rows < len(home)], number] = True
    shown = member & there
    pattern = _numbered(shown.astype(np.int64))
    weak: dict[int, int] = {}
    for number in np.unique(pattern[shown.any(axis=1)]):
        asking = np.flatnonzero(pattern == number)
        where = shown[asking[0]]
        rows = asking if absences_known else np.flatnonzero(member[:, where].all(axis=1))
        label = _numbered(home[np.ix_(rows, np.flatnonzero(where))])
        order = np.argsort(label, kind="stable")
        candidates = np.split(rows[order], np.flatnonzero(np.diff(label[order])) + 1)
        count = np.array([len(some) for some in candidates])
        if templates is not None and same_person is not None:
            count = effective_ks(templates, candidates, same_person)
        mine = label[np.searchsorted(rows, asking)]
        for row in np.flatnonzero(count[mine] < k):
            weak[int(asking[row])] = int(count[mine[row]])
    return weak, shown


def _times(classes: Members, count: int, twice: str, what: str) -> NDArray[np.int64]:
    """How often each of `count` subjects is in a class: once or never; raises ValueError."""
    listed = np.concatenate([np.zeros(0, np.int64), *(np.asarray(members, np.int64) for members in classes)])
    if len(listed) and not 0 <= listed.min() <= listed.max() < count:
        wrong = next(int(subject) for subject in listed if not 0 <= subject < count)
        raise ValueError(f"{what} names subject {wrong}, and there are {count} subjects")
    times = np.bincount(listed, minlength=count)
    if times.max(initial=0) > 1:
        raise ValueError(f"subject {int(times.argmax())} is in {twice}")
    return times


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
