"""What every person has spent of their privacy over all releases, and whether a run may spend more.

Losses of independent draws add up (sequential composition, Dwork and Roth 2014, theorem 3.16; the same holds a radian
for metric privacy). Three things are easily missed, each towards too low a sum, so all are built in:

    a draw costs once    however many images, reruns and releases wear it, since all that is shown is the one draw; a
                         second draw costs again even in a release of the same name
    a person may have    been split into m subjects by clustering; whoever sees all of them sees m draws, so the account
    been split           of a subject has its own draws and those of its direct suspects (`suspected`)
    nothing promised     a draw of a method without an epsilon is booked as infinite, and no budget outlives it

Suspects of suspects are not in the account: links of likeness chain, and those of 840 people of LFW make one component
of nearly all. A person in m parts is covered where all parts resemble each other.

`refusal` is asked before a run starts, and the run's rows are booked before its first face is drawn: a run that dies
halfway may have shown some of them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.dp import Cost

_ROUNDING = 1e-9
_BLOCK = 4096

Suspects = Mapping[str, Collection[str]]
"""Of each subject the others that may be the same person; symmetric."""
_Costs = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class LedgerEntry:
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
class SpentEpsilon:
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
    """Why a run may not start. `sentence` has counts alone; `subjects`, whose accounts would exceed it, never leave.

    `excess`: how far the worst account would exceed the budget.
    """

    sentence: str
    excess: float
    subjects: tuple[str, ...] = field(repr=False)


def entry(subject: str, release: str, mechanism: str, draw: str, cost: Cost | None) -> LedgerEntry:
    """The row of one draw; `cost` None for a method that promises no epsilon."""
    pure, per_radian = (math.inf, math.inf) if cost is None else (cost.pure, cost.per_radian)
    return LedgerEntry(subject, release, mechanism, draw, pure, per_radian)


def spent(entries: Iterable[LedgerEntry], suspects: Suspects | None = None) -> dict[str, SpentEpsilon]:
    """What the account of each subject has spent, whatever the order and repetition of `entries`.

    Subjects without an entry have an account too if they are somebody's suspect.
    """
    suspects = suspects or {}
    draws = _draws(entries)
    holders = set(draws).union(*(suspects.get(subject, ()) for subject in draws))
    return {subject: _sum(_account(subject, draws, suspects)) for subject in sorted(holders)}


def refusal(
    booked: Iterable[LedgerEntry], planned: Iterable[LedgerEntry], budget: Budget, suspects: Suspects | None = None
) -> Refusal | None:
    """Why the run that would show `planned` on top of `booked` may not start; None if it may.

    Asked of every account that the run adds to: those of its subjects and of all their suspects. A run that only shows
    draws again, or draws at no cost, may start whatever was spent before.
    """
    suspects, booked, planned = suspects or {}, list(booked), list(planned)
    before, after = _draws(booked), _draws(booked + planned)
    shown = {one.subject for one in planned}
    asked = sorted(shown.union(*(suspects.get(subject, ()) for subject in shown)))
    over: dict[str, float] = {}
    for subject in asked:
        known, costs = _account(subject, before, suspects), _account(subject, after, suspects)
        total = _sum(costs).pure
        adds = any(pure > known.get(draw, (0.0, 0.0))[0] for draw, (pure, _) in costs.items())
        if adds and total > budget.pure * (1 + _ROUNDING):
            over[subject] = total
    if not over:
        return None
    worst = max(over.values())
    if math.isinf(worst):
        most = "the worst of them without any bound, since one of its draws is of a method that promises no epsilon"
    else:
        most = f"the worst of them, at {worst:.6g}, by {worst - budget.pure:.6g}"
    sentence = (
        f"{len(over):,} of the {len(asked):,} accounts that this run draws on would exceed the budget of epsilon "
        f"{budget.pure:.6g} over all releases, {most}; reuse their earlier draws, lower the run's epsilon, "
        f"or raise the budget"
    )
    return Refusal(sentence, worst - budget.pure, tuple(over))


def suspected(
    templates: NDArray[np.float32], person: NDArray[np.int64], labelled: NDArray[np.bool_], same_person: float
) -> NDArray[np.int64]:
    """Pairs (m, 2) of different persons, lower number first, who may be one.

    `templates` (n, d) unit, a row for each time that a person was seen; `person` (n,) its number, `labelled` (n,)
    whether a label says so. Two persons are suspects if any row of one and any row of the other have a cosine of
    `same_person` or more and not both a label: labels are believed. Time n^2 d / 2; memory n and the pairs.
    """
    count = len(templates)
    found = [np.zeros((0, 2), np.int64)]
    for row in range(0, count, _BLOCK):
        for column in range(row, count, _BLOCK):
            rows, columns = slice(row, row + _BLOCK), slice(column, column + _BLOCK)
            alike = templates[rows] @ templates[columns].T >= same_person
            alike &= ~(labelled[rows, None] & labelled[None, columns])
            first, second = np.nonzero(alike)
            pairs = np.stack([person[rows][first], person[columns][second]], axis=1)
            pairs.sort(axis=1)
            found.append(np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0))
    return np.unique(np.concatenate(found), axis=0)


def _draws(entries: Iterable[LedgerEntry]) -> dict[str, _Costs]:
    """Of each subject its draws and what each costs, the higher one where rows disagree."""
    draws: dict[str, _Costs] = {}
    for one in entries:
        _add(draws.setdefault(one.subject, {}), one.draw, (one.pure, one.per_radian))
    return draws


def _account(subject: str, draws: Mapping[str, _Costs], suspects: Suspects) -> _Costs:
    """The draws of a subject and its direct suspects; one that several of them wear is one draw."""
    account: _Costs = {}
    for member in (subject, *suspects.get(subject, ())):
        for draw, cost in draws.get(member, {}).items():
            _add(account, draw, cost)
    return account


def _add(costs: _Costs, draw: str, cost: tuple[float, float]) -> None:
    pure, per_radian = costs.get(draw, (0.0, 0.0))
    costs[draw] = (max(pure, cost[0]), max(per_radian, cost[1]))


def _sum(costs: _Costs) -> SpentEpsilon:
    return SpentEpsilon(
        math.fsum(pure for pure, _ in costs.values()), math.fsum(metric for _, metric in costs.values()), len(costs)
    )
