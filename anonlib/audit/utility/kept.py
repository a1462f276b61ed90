"""What a release is still good for: are faces found, do they look the same kind of person and move the same way.

Judged by networks, so each number is an agreement of two estimates, on originals where the first one is sure. A face
that cannot be read any more, such as one under a flat ellipse, has lost what is measured; errors in pixels, degrees and
years are those of the faces that can be read, and how many these are stands beside them.

Shares of genders, age bands and expressions are measured too: a face may lose its smile and another gain one, and the
shares stay; or one man in ten turns into a woman, and a study that counts is wrong. Their distance is total variation,
half the sum of the differences, which no share of any group of kinds is off by more than.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import BASELINES, CLEAR, RELEASED, Evidence, Look
from anonlib.audit.findings import Figure, Measure
from anonlib.audit.statistics import Numbers, Shares, figure_of_sums, rate
from anonlib.faces import topology
from anonlib.privacy.strata import stratum_of
from anonlib.workspace.schemas import EXPRESSIONS

SURE = 0.7
"""Probability of a gender from which an original counts, and one minus it for the other."""
_KEPT = ("neutral", "happy")

Kinds = Sequence[str | None]


def genders(look: Look) -> Kinds:
    """The gender of each of n faces, None where it cannot be read."""
    return [None if np.isnan(female) else "female" if female > 0.5 else "male" for female in look.female]


def age_bands(look: Look) -> Kinds:
    """The band of each of n faces, as the plan cuts them; None where it cannot be read."""
    return [None if np.isnan(age) else stratum_of(1.0, float(age))[1] for age in look.age]


def expressions(look: Look) -> Kinds:
    """The likeliest expression of each of n faces, None where it cannot be read."""
    return [None if np.isnan(shares).any() else EXPRESSIONS[shares.argmax()] for shares in look.expression]


def gender_kept(before: NDArray[np.float32], after: NDArray[np.float32]) -> Shares:
    """(n,) Whether both probabilities of female lie on one side of a half; NaN where the original is not sure."""
    sure = (before > SURE) | (before < 1 - SURE)
    return np.where(sure & ~np.isnan(after), ((before > 0.5) == (after > 0.5)).astype(np.float64), np.nan)


def expression_kept(before: NDArray[np.float32], after: NDArray[np.float32], names: Sequence[str] = _KEPT) -> Shares:
    """(n,) Whether the likeliest of the expressions (n, 7) is still the same, for originals of those in `names`."""
    known = ~np.isnan(before).any(axis=1) & ~np.isnan(after).any(axis=1)
    first, second = (np.nan_to_num(shares, nan=0.0).argmax(axis=1) for shares in (before, after))
    readable = known & np.isin(first, [EXPRESSIONS.index(name) for name in names])
    return np.where(readable, (first == second).astype(np.float64), np.nan)


def age_band_kept(before: Look, after: Look) -> Shares:
    """(n,) Whether both ages lie in one band of the plan's; NaN where one of them is not known."""
    pairs = zip(age_bands(before), age_bands(after), strict=True)
    return np.array(
        [np.nan if band is None or other is None else float(band == other) for band, other in pairs], np.float64
    )


def angle_between(before: NDArray[np.float32], after: NDArray[np.float32]) -> Shares:
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
    following = np.arange(len(subjects))
    for person in np.unique(subjects):
        rows = np.flatnonzero(subjects == person)
        following[rows] = np.roll(rows, -1)
    alone = np.where(following == np.arange(len(subjects)), np.nan, 0.0).astype(np.float32)
    return replace(look, female=look.female[following] + alone, age=look.age[following] + alone)


def measures(evidence: Evidence, *, seed: int = 0) -> list[Measure]:
    """Everything that is measured of utility, over all n faces of released photos, beside the baselines."""
    before, subjects = evidence.clear, evidence.subjects
    other = another_photo(before, subjects)

    def measure(
        name: str,
        values: Callable[[Look], Shares],
        unit: str,
        note: str,
        better: Literal["higher", "lower"] = "lower",
        *,
        clear: bool = False,
        chance: float | None = None,
    ) -> Measure:
        kinds = (*((CLEAR,) if clear else ()), *BASELINES)

        def figure(kind: str) -> Figure:
            return rate(values(evidence.looks[kind]), subjects, chance=chance, seed=seed)

        return Measure(
            name=name,
            released=figure(RELEASED),
            baselines={kind: figure(kind) for kind in kinds},
            unit=unit,
            better=better,
            note=note,
        )

    def agreement(name: str, kept: Callable[[Look, Look], Shares], kinds: Kinds, note: str) -> Measure:
        """A share of the originals that were readable; what cannot be read any more is lost."""
        readable = ~np.isnan(kept(before, before))
        counted = Counter(kind for kind, counts in zip(kinds, readable, strict=True) if counts)
        return measure(
            name,
            lambda look: np.where(readable, np.nan_to_num(kept(before, look)), np.nan),
            "share",
            f"{note}; a face that cannot be read any more counts as lost; chance is always saying the commonest answer",
            "higher",
            chance=max(counted.values()) / counted.total() if counted else None,
        )

    def by_nature(values: Shares, unit: str = "") -> str:
        known = values[~np.isnan(values)]
        return f"; two clear photos of one person: {known.mean():.2f}{unit}" if len(known) else ""

    def years_apart(first: Look, second: Look) -> Shares:
        return np.abs(np.asarray(first.age, np.float64) - second.age)

    def same_gender(first: Look, second: Look) -> Shares:
        return gender_kept(first.female, second.female)

    def angle(axis: str, column: int) -> Measure:
        return measure(
            f"{axis} error",
            lambda look: angle_between(before.pose[:, column], look.pose[:, column]),
            "degrees",
            "of the pose that the mesh fits, where a mesh fits",
        )

    return [
        measure(
            "faces found again",
            lambda look: look.found.astype(np.float64),
            "share",
            "by the detector, at the place of the original",
            "higher",
            clear=True,
        ),
        measure(
            "landmark error",
            lambda look: mesh_error(before.mesh, look.mesh),
            "eye distances",
            "mean over the 468 points of the mesh, where a mesh fits",
        ),
        *(angle(axis, column) for column, axis in enumerate(("yaw", "pitch", "roll"))),
        agreement(
            "expression kept",
            lambda first, second: expression_kept(first.expression, second.expression),
            expressions(before),
            "of clear faces that look neutral or happy",
        ),
        agreement(
            "expression kept, all seven",
            lambda first, second: expression_kept(first.expression, second.expression, EXPRESSIONS),
            expressions(before),
            "of all clear faces; the network is less sure of the rarer five",
        ),
        agreement(
            "gender kept",
            same_gender,
            genders(before),
            f"of clear faces whose gender the network is sure of ({SURE:.0%}){by_nature(same_gender(before, other))}",
        ),
        agreement(
            "age band kept",
            age_band_kept,
            age_bands(before),
            f"under 35, under 50, or older{by_nature(age_band_kept(before, other))}",
        ),
        measure(
            "age error",
            lambda look: years_apart(before, look),
            "years",
            f"between two estimates, where a mesh fits{by_nature(years_apart(before, other), ' years')}",
        ),
        measure(
            "sharpness",
            lambda look: np.asarray(look.sharpness, np.float64) / np.maximum(before.sharpness, 1e-6),
            "ratio",
            "of edges in the face to those of the clear one, where a mesh fits; above 1 is grain or seams",
            "higher",
        ),
        *_shifts(evidence, seed),
    ]


def _shifts(evidence: Evidence, seed: int) -> Iterator[Measure]:
    """How far each distribution has moved between the clear photos and the released ones, and on the baselines."""
    readers = {"gender": genders, "age band": age_bands, "expression": expressions}
    for name, read in readers.items():
        before = read(evidence.clear)
        moved = {
            kind: total_variation(before, read(evidence.looks[kind]), evidence.subjects, seed=seed)
            for kind in (RELEASED, *BASELINES)
        }
        yield Measure(
            name=f"shift of {name}",
            released=moved.pop(RELEASED),
            baselines=moved,
            unit="total variation",
            better="lower",
            note="shares among the faces that can still be read; the interval is never below nought, so its upper "
            "end is what to look at",
        )


def total_variation(before: Kinds, after: Kinds, subjects: Numbers, *, seed: int = 0) -> Figure:
    """Between the shares of kinds before and after, each over the faces that can be read then."""
    names = sorted({kind for kind in (*before, *after) if kind is not None})
    # (n, 2, kinds), as counts are summed by person: is face n of this kind before, and after?
    pairs = zip(before, after, strict=True)
    counted = np.array([[[kind == name for name in names] for kind in pair] for pair in pairs])

    def distance(sums: Shares) -> Shares:
        counts = sums.reshape(len(sums), 2, len(names))
        totals = counts.sum(axis=2, keepdims=True)
        shares = counts / np.maximum(totals, 1)
        apart = np.abs(shares[:, 0] - shares[:, 1]).sum(axis=1) / 2
        return np.where((totals > 0).all(axis=(1, 2)), apart, np.nan)

    columns = counted.reshape(len(subjects), 2 * len(names)).astype(np.float64)
    read = sum(kind is not None for kind in after)
    return figure_of_sums(columns, subjects, distance, count=read, seed=seed)
