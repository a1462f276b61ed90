"""Which surrogate a class wears: the average of its own persons (k-same), or of others of its kind (k-diff).

k-same is Newton, Sweeney and Malin 2005 with Gross et al. 2006. Its surrogate is the uniform mean of the class, which
bounds recognition by 1/k only if nothing else of the photo helps; in practice the similar face in its own hair exceeds
it. k-diff (after Sun, Meng and Ariyaeeinia 2015) shows each class a face that was made of other persons. Which one is
drawn with the job's key and depends on nobody's looks: inside a kind (gender and age band) every surrogate that was
not made of the class itself is equally likely. How alike a person and the surrogate are is then chance, and neither
likeness nor distance tells who is behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.keys import Keyring, Purpose
from anonlib.privacy.microaggregation import microaggregate
from anonlib.privacy.strata import Stratum


@dataclass(frozen=True)
class Average:
    """A surrogate to be made: `donors` (person numbers, at least k), all of one `kind`; the `classes` they are in."""

    donors: tuple[int, ...]
    kind: Stratum
    classes: frozenset[int]


def shuffled(ids: Sequence[str], keyring: Keyring) -> Callable[[Sequence[int]], list[list[int]]]:
    """The order of k-diff: persons by a keyed random permutation. `ids[i]` is person i's lasting name in this job."""
    return lambda persons: [[one] for one in sorted(persons, key=lambda one: keyring.digest(Purpose.LOT, ids[one]))]


def alike(templates: NDArray[np.float32], k: int) -> Callable[[Sequence[int]], list[list[int]]]:
    """The order of k-same: groups of k to 2k-1 look-alikes, neighbouring groups one after the other.

    `templates` (n, d) unit, of every person.
    """

    def order(persons: Sequence[int]) -> list[list[int]]:
        if len(persons) < 2 * k:
            return [list(persons)]
        points = templates[list(persons)]
        axis = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
        groups = sorted(microaggregate(points, k), key=lambda group: float((points[group] @ axis).mean()))
        return [[persons[row] for row in group] for group in groups]

    return order


def averages(kinds: Sequence[Stratum], donors: Sequence[Sequence[int]], k: int) -> list[Average]:
    """Surrogates of at least k donors each: the donors of one class, or of several of a kind that have too few alone.

    `kinds` and `donors` of each class. Classes whose kind has fewer than k donors give none.
    """
    made: list[Average] = []
    for kind in sorted(set(kinds)):
        found: list[Average] = []
        people: list[int] = []
        numbers: set[int] = set()
        for number in [number for number, one in enumerate(kinds) if one == kind]:
            people += donors[number]
            numbers.add(number)
            if len(people) >= k:
                found.append(Average(tuple(sorted(people)), kind, frozenset(numbers)))
                people, numbers = [], set()
        if found and numbers:
            last = found.pop()
            found.append(Average(tuple(sorted({*last.donors, *people})), kind, last.classes | numbers))
        made += found
    return made


def deal(made: Sequence[Average], kinds: Sequence[Stratum], ids: Sequence[str], keyring: Keyring) -> list[int | None]:
    """Which of the surrogates each class wears: a uniform keyed draw among those of its kind that it has no part in.

    Of a coarser kind where its own has no other; None where there is no other at all. `kinds` and `ids` of each class.
    """
    by_kind: dict[Stratum, list[int]] = {}
    place: dict[tuple[Stratum, int], int] = {}
    own = {number: index for index, one in enumerate(made) for number in one.classes}
    for index, one in enumerate(made):
        for level in range(len(one.kind) + 1):
            listed = by_kind.setdefault(one.kind[:level], [])
            place[one.kind[:level], index] = len(listed)
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
