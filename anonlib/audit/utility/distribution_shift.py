"""Is a release still the same crowd? How far the shares of genders, age bands and expressions have moved.

A face may lose its smile and another gain one: agreement face by face falls and the shares stay. Or one man in ten
turns into a woman, and a study that counts is wrong. So both are measured. The distance is total variation, half the
sum of the differences of the shares, which no share of any group of kinds is off by more than.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.rates import Numbers, Shares
from anonlib.audit.evidence.evidence import BASELINES, RELEASED
from anonlib.audit.findings import Figure, Measure
from anonlib.audit.intervals import figure_of_sums
from anonlib.privacy.strata import stratum_of
from anonlib.workspace.schemas import EXPRESSIONS

if TYPE_CHECKING:
    from anonlib.audit.evidence.evidence import Evidence, Look

Kinds = Sequence[str | None]


def genders(look: Look) -> Kinds:
    """What each of n faces looks like, None where it cannot be read."""
    return [None if np.isnan(one) else "female" if one > 0.5 else "male" for one in look.female]


def age_bands(look: Look) -> Kinds:
    """The band of each of n faces, as the plan cuts them; None where it cannot be read."""
    return [None if np.isnan(one) else stratum_of(1.0, float(one))[1] for one in look.age]


def expressions(look: Look) -> Kinds:
    """The likeliest expression of each of n faces, None where it cannot be read."""
    return [None if np.isnan(one).any() else EXPRESSIONS[one.argmax()] for one in look.expression]


def total_variation(before: Kinds, after: Kinds, subjects: Numbers, *, seed: int = 0) -> Figure:
    """Between the shares of kinds before and after, each over the faces that can be read then."""
    names = sorted({one for one in (*before, *after) if one is not None})
    columns = np.array(
        [
            [one == name for name in names] + [two == name for name in names]
            for one, two in zip(before, after, strict=True)
        ],
        np.float64,
    ).reshape(len(subjects), 2 * len(names))

    def distance(sums: NDArray[np.float64]) -> Shares:
        counts = sums.reshape(len(sums), 2, len(names))
        totals = counts.sum(axis=2, keepdims=True)
        shares = counts / np.maximum(totals, 1)
        apart = np.abs(shares[:, 0] - shares[:, 1]).sum(axis=1) / 2
        return np.where((totals > 0).all(axis=(1, 2)), apart, np.nan)

    read = sum(one is not None for one in after)
    return figure_of_sums(columns, subjects, distance, count=read, seed=seed)


def shifts(evidence: Evidence, *, seed: int = 0) -> list[Measure]:
    """How far each distribution has moved between the clear photos and the released ones, and on the baselines."""
    kinds: dict[str, Callable[[Look], Kinds]] = {
        "shift of gender": genders,
        "shift of age band": age_bands,
        "shift of expression": expressions,
    }
    found = []
    for name, read in kinds.items():
        before = read(evidence.clear)
        moved = {
            kind: total_variation(before, read(evidence.looks[kind]), evidence.subjects, seed=seed)
            for kind in (RELEASED, *BASELINES)
        }
        found.append(
            Measure(
                name=name,
                released=moved.pop(RELEASED),
                baselines=moved,
                unit="total variation",
                better="lower",
                note="shares among the faces that can still be read; the interval is never below nought, so its upper "
                "end is what to look at",
            )
        )
    return found
