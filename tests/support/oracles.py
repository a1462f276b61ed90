"""What is wrong with classes that should hide every person among k, judged apart from how they were made."""

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Members = Sequence[Sequence[int]]


def faults(classes: Members, photos: NDArray[np.int64], *, k: int, left: Sequence[int] = ()) -> list[str]:
    """A sentence for each fault of `classes`, lists of person numbers; none if they are sound.

    `photos` (n,) of each person; `left`: persons that are redacted instead. Every person with a photo is in one class
    or left, and no class's most photographed person has more than 1/k of its photos (Newton, Sweeney and Malin 2005,
    whose bound is for people with one image each).
    """
    return list(_faults(classes, photos, k, left))


def _faults(classes: Members, photos: NDArray[np.int64], k: int, left: Sequence[int]) -> Iterator[str]:
    home = [person for members in classes for person in members] + list(left)
    shown = np.flatnonzero(photos > 0).tolist()
    if sorted(home) != shown:
        yield "classes and those left over are no partition of the persons with photos"
    for number, members in enumerate(classes):
        if len(members) < k:
            yield f"class {number} has {len(members)} persons, fewer than k = {k}"
        counts = photos[list(members)]
        if counts.max() * k > counts.sum():
            yield f"class {number}: one person has {counts.max()} of its {counts.sum()} photos"


def order_faults(form: Callable[[NDArray[np.float32]], Members], templates: NDArray[np.float32]) -> list[str]:
    """A sentence for each subject whose group depends on where it is listed; `form` makes groups of templates (n, d).

    Groups that follow the list follow a file's history, not the faces. Templates must differ from one another.
    """
    numbers = np.arange(len(templates))
    expected = _companions(form(templates), numbers)
    moved: set[int] = set()
    for order in (numbers[::-1], np.roll(numbers, len(numbers) // 3), np.argsort(numbers % 3, kind="stable")):
        seen = _companions(form(templates[order]), order)
        moved |= {one for one in range(len(templates)) if expected.get(one) != seen.get(one)}
    return [
        f"subject {one} is grouped otherwise when the subjects are listed in another order" for one in sorted(moved)
    ]


def _companions(groups: Members, subject_of: NDArray[np.int64]) -> dict[int, frozenset[int]]:
    sets = [frozenset(subject_of[np.asarray(members, np.int64)].tolist()) for members in groups]
    return {subject: members for members in sets for subject in members}


def candidates(
    person: int, classes: Sequence[Members], shown: Sequence[Collection[int]], absences_known: bool
) -> set[int]:
    """Who a person may be once all releases are put together, by definition: a slow, obvious intersection.

    Those who share the person's class in every release that shows the person; with `absences_known` only those who
    are shown in the same releases.
    """
    found: set[int] | None = None
    for groups, present in zip(classes, shown, strict=True):
        if person in present:
            own = next(set(members) for members in groups if person in members)
            own &= set(present) if absences_known else own
            found = own if found is None else found & own
    absent = set().union(*(present for present in shown if person not in present)) if absences_known else set()
    return (found or set()) - absent
