"""What is wrong with classes that should hide every subject among k: the checker, apart from what forms them.

It knows nothing of how classes came about and trusts no number that they carry, so it also judges those of another
program. What k-anonymity of the identity channel needs (Sweeney 2002; Newton, Sweeney and Malin 2005): the classes
partition the subjects, each holds k people, and every member weighs the same in what the class is replaced by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.effective import effective_ks

Members = Sequence[Sequence[int]]


def faults(
    classes: Members,
    subjects: int,
    *,
    k: int,
    left: Sequence[int] = (),
    templates: NDArray[np.float32] | None = None,
    same_person: float | None = None,
    weights: Sequence[Sequence[float]] | None = None,
    kept: Members = (),
) -> list[str]:
    """A sentence for each fault of `classes`, lists of subject numbers below `subjects`; none if they are sound.

    `left`: subjects that are redacted instead. `templates` (subjects, d) unit with `same_person`: check effective k
    too, and that no class is twice as large as it has to be. `weights`: of each member in its class's average. `kept`:
    the classes of an earlier release, which may have grown but not been divided.
    """
    found = list(_of_membership(classes, subjects, left))
    found += _of_size(classes, k)
    if templates is not None:
        if same_person is None:
            raise ValueError("effective k needs the cosine at which two subjects may be one person: same_person")
        found += _of_people(classes, templates, same_person, k, kept)
    if weights is not None:
        found += _of_weights(classes, weights)
    return found + list(_of_growth(classes, kept))


def order_faults(form: Callable[[NDArray[np.float32]], Members], templates: NDArray[np.float32]) -> list[str]:
    """A sentence for each subject whose class depends on where it is listed; `form` makes classes of templates (n, d).

    Classes that follow the list follow a file's history, not the faces. Templates must differ from one another.
    """
    numbers = np.arange(len(templates))
    expected = _companions(form(templates), numbers)
    moved: set[int] = set()
    for order in (numbers[::-1], np.roll(numbers, len(numbers) // 3), np.argsort(numbers % 3, kind="stable")):
        seen = _companions(form(templates[order]), order)
        moved |= {one for one in range(len(templates)) if expected.get(one) != seen.get(one)}
    return [f"subject {one} hides with others when the subjects are listed in another order" for one in sorted(moved)]


def _companions(classes: Members, subject_of: NDArray[np.int64]) -> dict[int, frozenset[int]]:
    sets = [frozenset(subject_of[np.asarray(members, np.int64)].tolist()) for members in classes]
    return {subject: members for members in sets for subject in members}


def _of_membership(classes: Members, subjects: int, left: Sequence[int]) -> Iterator[str]:
    home: dict[int, int] = {}
    for number, members in enumerate(classes):
        for subject in members:
            if not 0 <= subject < subjects:
                yield f"class {number} names subject {subject}, and there are {subjects} subjects"
            elif home.get(subject) == number:
                yield f"class {number} names subject {subject} twice"
            elif subject in home:
                yield f"subject {subject} is in class {home[subject]} and in class {number}"
            else:
                home[subject] = number
    redacted = set(left)
    for subject in range(subjects):
        if subject in home and subject in redacted:
            yield f"subject {subject} is left over, and in class {home[subject]}"
        elif subject not in home and subject not in redacted:
            yield f"subject {subject} is in no class and not left over"
    for subject in sorted(redacted):
        if not 0 <= subject < subjects:
            yield f"subject {subject} is left over, and there are {subjects} subjects"


def _of_size(classes: Members, k: int) -> Iterator[str]:
    for number, members in enumerate(classes):
        if len(set(members)) < k:
            yield f"class {number} has {len(set(members))} subjects, fewer than k = {k}"


def _of_people(
    classes: Members, templates: NDArray[np.float32], same_person: float, k: int, kept: Members
) -> Iterator[str]:
    known = [sorted({subject for subject in members if 0 <= subject < len(templates)}) for members in classes]
    grown = {subject for members in kept for subject in members}
    people = effective_ks(templates, known, same_person)
    for number, (members, count) in enumerate(zip(known, people, strict=True)):
        if count < k <= len(members):
            yield f"class {number} has {len(members)} subjects who may be only {count} people, fewer than k = {k}"
        if count >= 2 * k and grown.isdisjoint(members):
            yield f"class {number} has {count} people, enough for two classes of k = {k}"


def _of_weights(classes: Members, weights: Sequence[Sequence[float]]) -> Iterator[str]:
    if len(weights) != len(classes):
        yield f"{len(weights)} lists of weights for {len(classes)} classes"
        return
    for number, (members, shares) in enumerate(zip(classes, weights, strict=True)):
        if len(shares) != len(members):
            yield f"class {number} has {len(shares)} weights for {len(members)} subjects"
            continue
        for subject, share in zip(members, shares, strict=True):
            # A weight may come out of float32 arithmetic.
            if abs(share * len(members) - 1) > 1e-5:
                yield f"subject {subject} weighs {share:.4g} in class {number}, not 1/{len(members)}"


def _of_growth(classes: Members, kept: Members) -> Iterator[str]:
    home = {subject: number for number, members in enumerate(classes) for subject in members}
    for number, members in enumerate(kept):
        homes = sorted({home.get(subject, -1) for subject in members})
        if len(homes) > 1:
            where = " and ".join("no class" if one < 0 else f"class {one}" for one in homes)
            yield f"class {number} of the earlier release is divided: its subjects are now in {where}"
