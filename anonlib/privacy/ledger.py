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

A run's rows are booked before its first face is drawn, since a run that dies halfway may have shown some of them, and
`refusal` is asked before that.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-9
_BLOCK = 4096

Suspects = Mapping[str, Collection[str]]
"""Of each subject the others that may be the same person; symmetric."""


@dataclass(frozen=True)
class LedgerEntry:
    """A draw that a release shows of a subject: `draw` names the vector, `pure` is its epsilon (infinite: no bound)."""

    subject: str
    draw: str
    pure: float

    def __post_init__(self) -> None:
        if not self.pure >= 0:
            raise ValueError(f"an epsilon is 0 or more, not {self.pure}")


def refusal(
    booked: Iterable[LedgerEntry], planned: Iterable[LedgerEntry], budget: float, suspects: Suspects | None = None
) -> str | None:
    """Why the run that would show `planned` on top of `booked` may not start, in counts alone; None if it may.

    `budget`: the most pure epsilon that one person may spend over all releases.
    """
    planned = list(planned)
    over = overdrawn(booked, planned, budget, suspects)
    if not over:
        return None
    worst = max(over.values())
    if math.isinf(worst):
        most = "the worst of them without any bound, since one of its draws is of a method that promises no epsilon"
    else:
        most = f"the worst of them, at {worst:.6g}, by {worst - budget:.6g}"
    return (
        f"{len(over):,} of the {len(_charged(planned, suspects or {})):,} accounts that this run draws on would exceed "
        f"the budget of epsilon {budget:.6g} over all releases, {most}; reuse their earlier draws, lower the run's "
        "epsilon, or raise the budget"
    )


def overdrawn(
    booked: Iterable[LedgerEntry], planned: Iterable[LedgerEntry], budget: float, suspects: Suspects | None = None
) -> dict[str, float]:
    """Subjects whose accounts would exceed `budget`, and what each would have spent.

    Every account that the run adds to is looked at: those of its subjects and of all their suspects. A run that only
    shows draws again, or draws at no cost, overdraws nothing, whatever was spent before.
    """
    if not budget >= 0:
        raise ValueError(f"a budget is 0 or more, not {budget}")
    suspects, booked, planned = suspects or {}, list(booked), list(planned)
    before, after = _draws(booked), _draws(booked + planned)
    over: dict[str, float] = {}
    for subject in _charged(planned, suspects):
        known, costs = _account(subject, before, suspects), _account(subject, after, suspects)
        total = math.fsum(costs.values())
        if total > budget * (1 + _ROUNDING) and any(cost > known.get(draw, 0.0) for draw, cost in costs.items()):
            over[subject] = total
    return over


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


def _charged(planned: Iterable[LedgerEntry], suspects: Suspects) -> list[str]:
    """The subjects of a run and all their suspects."""
    shown = {row.subject for row in planned}
    return sorted(shown.union(*(suspects.get(subject, ()) for subject in shown)))


def _draws(entries: Iterable[LedgerEntry]) -> dict[str, dict[str, float]]:
    """Of each subject its draws and what each costs, the higher cost where rows disagree."""
    draws: dict[str, dict[str, float]] = {}
    for row in entries:
        costs = draws.setdefault(row.subject, {})
        costs[row.draw] = max(row.pure, costs.get(row.draw, 0.0))
    return draws


def _account(subject: str, draws: Mapping[str, Mapping[str, float]], suspects: Suspects) -> dict[str, float]:
    """The draws of a subject and its direct suspects; a draw that several of them share is one draw."""
    account: dict[str, float] = {}
    for member in (subject, *suspects.get(subject, ())):
        for draw, cost in draws.get(member, {}).items():
            account[draw] = max(cost, account.get(draw, 0.0))
    return account
