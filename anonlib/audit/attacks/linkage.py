"""Linkage: do two photos show one person? Within one release, and between two releases of the same people.

The area under the ROC curve of a recognizer over pairs of photos: .5 is unlinkable, 1 linked without fail. Hair,
clothes and the gender that a release keeps tell people apart whatever the face, so the same is said of photos with
every face hidden, and of pairs that agree in gender: what is left above those two is the face's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.pairs import PairScores, auc, excess, pairs, rated
from anonlib.audit.attacks.rates import figure
from anonlib.audit.evidence.evidence import CLEAR, HIDDEN, RELEASED, Evidence
from anonlib.audit.evidence.gather import Report, gather
from anonlib.audit.evidence.observe import RECOGNIZERS
from anonlib.audit.findings import Attack
from anonlib.config import JobConfig
from anonlib.errors import JobError

UNLINKABLE = 0.5


def within(evidence: Evidence, recognizer: str, *, held_out: bool, seed: int = 0) -> Attack:
    """Two photos of one release, of any two people."""

    def of(look: str) -> PairScores:
        return pairs(evidence.looks[look].vectors[recognizer], evidence.subjects)

    return _attack("linkage", "AUC", recognizer, held_out, evidence.looks, of, seed)


def between(
    first: Evidence, second: Evidence, recognizer: str, *, held_out: bool, seed: int = 0
) -> tuple[Attack, Attack]:
    """A photo of each release, of the people who are in both: all pairs, and pairs that agree in gender.

    Faces that fell back are left out: what a flat ellipse tells is the baseline's.
    """
    both = np.intersect1d(first.names, second.names)
    kept = [np.isin(one.names, both) & one.replaced for one in (first, second)]
    person = [np.searchsorted(both, one.names[rows]) for one, rows in zip((first, second), kept, strict=True)]
    gender = [_gender_of(one, rows) for one, rows in zip((first, second), kept, strict=True)]

    def of(look: str, groups: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None) -> PairScores:
        one, other = (
            evidence.looks[look].vectors[recognizer][rows] for evidence, rows in zip((first, second), kept, strict=True)
        )
        return pairs(one, person[0], other, person[1], groups)

    def of_one_gender(look: str) -> PairScores:
        return of(look, (gender[0], gender[1]))

    looks = (CLEAR, RELEASED, HIDDEN)
    name, note = "linkage of two releases", f"{len(both):,} people are in both"
    return (
        _attack(name, "AUC", recognizer, held_out, looks, of, seed, note),
        _attack(name, "AUC, same gender", recognizer, held_out, looks, of_one_gender, seed, note),
    )


def linked(
    evidence: Evidence,
    other: JobConfig,
    *,
    used: Collection[str],
    seed: int = 0,
    report: Report = lambda stage, outcome, units: None,
) -> list[Attack]:
    """Can a release be put beside that of another finished job? Raises JobError where nobody has a name in both.

    `used`: recognizers that the methods of either used.
    """
    if not evidence.labelled or other.input.subject_field is None:
        raise JobError("two releases can be linked only where both name who is in a photo; give both a subject_field")
    second = gather(other, report=report)
    return [
        attack
        for name in RECOGNIZERS
        for attack in between(evidence, second, name, held_out=name not in used, seed=seed)
    ]


def _attack(
    name: str,
    target: str,
    recognizer: str,
    held_out: bool,
    looks: Collection[str],
    of: Callable[[str], PairScores],
    seed: int,
    note: str = "",
) -> Attack:
    found = {look: of(look) for look in looks}
    rates = {look: figure(rated(these, auc, chance=UNLINKABLE, seed=seed)) for look, these in found.items()}
    return Attack(
        name=name,
        target=target,
        recognizer=recognizer,
        held_out=held_out,
        released=rates.pop(RELEASED),
        baselines=rates,
        excess=figure(excess(found[RELEASED], found[HIDDEN], auc, seed=seed)),
        note=note,
    )


def _gender_of(evidence: Evidence, rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.asarray(evidence.clear.female[rows] > 0.5, np.int64)
