"""What a release is still good for: are faces found, do they look the same kind of person and move the same way.

Judged by networks, so each number is an agreement of two estimates, on originals where the first one is sure. A face
that nothing can be read from any more, such as one under a flat ellipse, has lost what is asked for; errors in pixels,
degrees and years are those of the faces that can be read, and how many these are stands beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.rates import Numbers, Shares, figure, rate
from anonlib.audit.evidence.evidence import BASELINES, CLEAR, RELEASED
from anonlib.audit.findings import Measure
from anonlib.audit.naturalness import features, strangeness
from anonlib.audit.utility.distribution_shift import age_bands, expressions, genders, shifts
from anonlib.faces import topology
from anonlib.workspace.schemas import EXPRESSIONS

if TYPE_CHECKING:
    from anonlib.audit.evidence.evidence import Evidence, Look

SURE = 0.7
"""Probability of a gender from which an original counts, and one minus it for the other."""
_KEPT = ("neutral", "happy")


def gender_kept(before: NDArray[np.float32], after: NDArray[np.float32]) -> Shares:
    """(n,) Whether both probabilities of female lie on one side of a half; NaN where the original is not sure."""
    sure = (before > SURE) | (before < 1 - SURE)
    return np.where(sure & ~np.isnan(after), ((before > 0.5) == (after > 0.5)).astype(np.float64), np.nan)


def expression_kept(before: NDArray[np.float32], after: NDArray[np.float32], names: Sequence[str] = _KEPT) -> Shares:
    """(n,) Whether the likeliest of the expressions (n, 7) is still the same, for originals of those in `names`."""
    known = ~np.isnan(before).any(axis=1) & ~np.isnan(after).any(axis=1)
    first, second = (np.nan_to_num(one, nan=0.0).argmax(axis=1) for one in (before, after))
    asked = known & np.isin(first, [EXPRESSIONS.index(name) for name in names])
    return np.where(asked, (first == second).astype(np.float64), np.nan)


def age_band_kept(before: Look, after: Look) -> Shares:
    """(n,) Whether both ages lie in one band of the plan's; NaN where one of them is not known."""
    pairs = zip(age_bands(before), age_bands(after), strict=True)
    return np.array([np.nan if one is None or two is None else float(one == two) for one, two in pairs], np.float64)


def turned(before: NDArray[np.float32], after: NDArray[np.float32]) -> Shares:
    """(n,) The angle in degrees, 0 to 180, between two angles."""
    return np.abs((np.asarray(after, np.float64) - before + 180) % 360 - 180)


def mesh_error(before: NDArray[np.float32], after: NDArray[np.float32]) -> Shares:
    """(n,) Mean distance of the points of meshes (n, 468, 2 or 3) in the image, over the original's eye distance."""
    left, right = (before[:, list(eye), :2].mean(axis=1) for eye in (topology.LEFT_EYE, topology.RIGHT_EYE))
    eyes = np.linalg.norm(right - left, axis=1)
    moved = np.linalg.norm(after[:, :, :2] - before[:, :, :2], axis=2).mean(axis=1)
    return np.asarray(moved / np.maximum(eyes, 1e-6), np.float64)


def another_photo(look: Look, subjects: Numbers) -> Look:
    """Age and gender of each person's next photo, NaN where there is only one: how far judges agree with themselves."""
    order = np.argsort(subjects, kind="stable")
    names, first, counts = np.unique(subjects[order], return_index=True, return_counts=True)
    place = np.searchsorted(names, subjects[order])
    following = first[place] + (np.arange(len(order)) - first[place] + 1) % counts[place]
    other = np.empty(len(order), np.int64)
    other[order] = order[following]
    alone = np.where(other == np.arange(len(order)), np.nan, 0.0).astype(np.float32)
    return replace(look, female=look.female[other] + alone, age=look.age[other] + alone)


def measures(evidence: Evidence, *, seed: int = 0) -> list[Measure]:
    """Everything that is measured of utility, over all n faces of released photos, beside the baselines."""
    before = evidence.clear
    photographed = features(before.crops, before.found)
    again = another_photo(before, evidence.subjects)

    def of(
        name: str,
        values: Callable[[Look], Shares],
        unit: str,
        note: str,
        *,
        higher: bool = False,
        clear: bool = False,
        chance: float | None = None,
    ) -> Measure:
        kinds = (RELEASED, *((CLEAR,) if clear else ()), *BASELINES)
        figures = {
            kind: figure(rate(values(evidence.looks[kind]), evidence.subjects, chance=chance, seed=seed))
            for kind in kinds
        }
        return Measure(
            name=name,
            released=figures.pop(RELEASED),
            baselines=figures,
            unit=unit,
            better="higher" if higher else "lower",
            note=note,
        )

    def agreement(name: str, kept: Callable[[Look, Look], Shares], kinds: Sequence[str | None], note: str) -> Measure:
        """A share of the originals that were asked; what cannot be read any more is lost."""
        asked = ~np.isnan(kept(before, before))
        counted = Counter(kind for kind, one in zip(kinds, asked, strict=True) if one)
        return of(
            name,
            lambda look: np.where(asked, np.nan_to_num(kept(before, look)), np.nan),
            "share",
            f"{note}; a face that cannot be read any more counts as lost; chance is always saying the commonest answer",
            higher=True,
            chance=max(counted.values()) / counted.total() if counted else None,
        )

    def angle(axis: str, column: int) -> Measure:
        return of(
            f"{axis} error",
            lambda look: turned(before.pose[:, column], look.pose[:, column]),
            "degrees",
            "of the pose that the mesh fits, where a mesh fits",
        )

    def by_nature(values: Shares, unit: str = "") -> str:
        known = values[~np.isnan(values)]
        return f"; two clear photos of one person: {known.mean():.2f}{unit}" if len(known) else ""

    def years_apart(one: Look, two: Look) -> Shares:
        return np.abs(np.asarray(one.age, np.float64) - two.age)

    def same_gender(one: Look, two: Look) -> Shares:
        return gender_kept(one.female, two.female)

    return [
        of(
            "faces found again",
            lambda look: look.found.astype(np.float64),
            "share",
            "by the detector, at the place of the original",
            higher=True,
            clear=True,
        ),
        of(
            "landmark error",
            lambda look: mesh_error(before.mesh, look.mesh),
            "eye distances",
            "mean over the 468 points of the mesh, where a mesh fits",
        ),
        *(angle(axis, column) for column, axis in enumerate(("yaw", "pitch", "roll"))),
        agreement(
            "expression kept",
            lambda one, two: expression_kept(one.expression, two.expression),
            expressions(before),
            "of clear faces that look neutral or happy",
        ),
        agreement(
            "expression kept, all seven",
            lambda one, two: expression_kept(one.expression, two.expression, EXPRESSIONS),
            expressions(before),
            "of all clear faces; the network is less sure of the rarer five",
        ),
        agreement(
            "gender kept",
            same_gender,
            genders(before),
            f"of clear faces whose gender the network is sure of ({SURE:.0%}){by_nature(same_gender(before, again))}",
        ),
        agreement(
            "age band kept",
            age_band_kept,
            age_bands(before),
            f"under 35, under 50, or older{by_nature(age_band_kept(before, again))}",
        ),
        of(
            "age error",
            lambda look: years_apart(before, look),
            "years",
            f"between two estimates, where a mesh fits{by_nature(years_apart(before, again), ' years')}",
        ),
        of(
            "sharpness",
            lambda look: np.asarray(look.sharpness, np.float64) / np.maximum(before.sharpness, 1e-6),
            "ratio",
            "of edges in the face to those of the clear one, where a mesh fits; above 1 is grain or seams",
            higher=True,
        ),
        of(
            "strangeness of pixels",
            lambda look: strangeness(features(look.crops, look.found), photographed, evidence.subjects),
            "standard deviations",
            "no reference: distance of NIQE's 36 numbers to those of clear faces of others, where a face is found",
            clear=True,
        ),
        *shifts(evidence, seed=seed),
    ]
