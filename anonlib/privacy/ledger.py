"""What every person has spent of their privacy over all releases, and whether a run may spend more.

Losses of independent draws add up (sequential composition, Dwork and Roth 2014, theorem 3.16; the same holds a radian
for metric privacy). Three things are easily missed, each towards too low a sum, so all are built in:

    a draw costs once    however many images, reruns and releases wear it, since all that is shown is the one draw; a
                         second draw costs again even in a release of the same name
    a person may have    been split into m subjects by clustering; whoever sees all of them sees m draws, so subjects
    been split           whose templates might be one person's share one account (`suspected_people`)
    nothing promised     a draw of a method without an epsilon is booked as infinite, and no budget outlives it

`refusal` is asked before a run starts, and the run's rows are booked before its first face is drawn: a run that dies
halfway may have shown some of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.dp import Cost

_ROUNDING = 1e-9
_BLOCK = 4096


@dataclass(frozen=True)
class Entry:
    """One draw shown in one release: `pure` epsilon, and `per_radian` between two people. `draw` names the vector."""

    subject: str
    release: str
    mechanism: str
    draw: str
    pure: float
    per_radian: float

    def __post_init__(self) -> None:
        if not (self.pure >= 0 and self.per_radian >= 0):
            raise ValueError(f"an epsilon is 0 or more, not {self.pure} and {self.per_radian} a radian")


@dataclass(frozen=True)
class Spent:
    """The sum over `draws` different draws."""

    pure: float
    per_radian: float
    draws: int


@dataclass(frozen=True)
class Budget:
    """The most that one person may spend over all releases: `pure` epsilon."""

    pure: float

    def __post_init__(self) -> None:
        if not self.pure >= 0:
            raise ValueError(f"a budget is 0 or more, not {self.pure}")


@dataclass(frozen=True)
class Refusal:
    """Why a run may not start. `sentence` has counts alone; `subjects`, who would exceed it, never leave the workspace.

    `excess`: how far the worst account would exceed the budget.
    """

    sentence: str
    excess: float
    subjects: tuple[str, ...] = field(repr=False)


def entry(subject: str, release: str, mechanism: str, draw: str, cost: Cost | None) -> Entry:
    """The row of one draw; `cost` None for a method that promises no epsilon."""
    pure, per_radian = (math.inf, math.inf) if cost is None else (cost.pure, cost.per_radian)
    return Entry(subject, release, mechanism, draw, pure, per_radian)


def spent(entries: Iterable[Entry], people: Mapping[str, int] | None = None) -> dict[str, Spent]:
    """What each subject's account has spent, whatever the order and repetition of `entries`.

    `people`, where given, numbers the person that each subject ever booked may belong to; the subjects of one person
    all show that person's sum.
    """
    accounts: dict[str | int, list[tuple[float, float]]] = {}
    draws = _draws(entries)
    for (subject, _), costs in draws.items():
        accounts.setdefault(_account(subject, people), []).append(costs)
    sums = {
        account: Spent(math.fsum(pure for pure, _ in costs), math.fsum(metric for _, metric in costs), len(costs))
        for account, costs in accounts.items()
    }
    return {subject: sums[_account(subject, people)] for subject in sorted({subject for subject, _ in draws})}


def refusal(
    booked: Iterable[Entry], planned: Iterable[Entry], budget: Budget, people: Mapping[str, int] | None = None
) -> Refusal | None:
    """Why the run that would show `planned` on top of `booked` may not start; None if it may.

    A run that only shows draws again, or draws at no cost, may start whatever was spent before.
    """
    booked, planned = list(booked), list(planned)
    known = _draws(booked)
    growing = {
        _account(subject, people)
        for (subject, draw), (pure, _) in _draws(planned).items()
        if pure > known.get((subject, draw), (0.0, 0.0))[0]
    }
    after = spent(booked + planned, people)
    subjects = sorted({one.subject for one in planned})
    over = [
        subject
        for subject in subjects
        if _account(subject, people) in growing and after[subject].pure > budget.pure * (1 + _ROUNDING)
    ]
    if not over:
        return None
    worst = max(after[subject].pure for subject in over)
    if math.isinf(worst):
        most = "the worst of them without any bound, since one of its draws is of a method that promises no epsilon"
    else:
        most = f"the worst of them, at {worst:.6g}, by {worst - budget.pure:.6g}"
    sentence = (
        f"{len(over):,} of the {len(subjects):,} subjects of this run would exceed the budget of epsilon "
        f"{budget.pure:.6g} over all releases, {most}; reuse their earlier draws, lower the run's epsilon, "
        f"or raise the budget"
    )
    return Refusal(sentence, worst - budget.pure, tuple(over))


def suspected_people(templates: NDArray[np.float32], same_person: float) -> NDArray[np.int64]:
    """For each of the unit templates (n, d) the number of the person it may belong to.

    Subjects are linked from the cosine `same_person` on, and who is linked through others counts as one: chains make
    accounts too large, never too small. Time n^2 d / 2; memory n and the links.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(templates)
    firsts, seconds = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for row in range(0, count, _BLOCK):
        for column in range(row, count, _BLOCK):
            alike = templates[row : row + _BLOCK] @ templates[column : column + _BLOCK].T >= same_person
            first, second = np.nonzero(alike)
            firsts.append(first + row)
            seconds.append(second + column)
    one, other = np.concatenate(firsts), np.concatenate(seconds)
    graph = coo_matrix((np.ones(len(one), np.bool_), (one, other)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _draws(entries: Iterable[Entry]) -> dict[tuple[str, str], tuple[float, float]]:
    """The cost of each (subject, draw), the higher one where rows disagree."""
    draws: dict[tuple[str, str], tuple[float, float]] = {}
    for one in entries:
        pure, per_radian = draws.get((one.subject, one.draw), (0.0, 0.0))
        draws[one.subject, one.draw] = (max(pure, one.pure), max(per_radian, one.per_radian))
    return draws


def _account(subject: str, people: Mapping[str, int] | None) -> str | int:
    return subject if people is None else people.get(subject, subject)
