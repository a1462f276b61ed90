"""The utility of a release: whether faces are found, and keep gender, age, expression, pose and sharpness.

Judged by networks, so each number is an agreement of two estimates. A face that cannot be read any more has lost its
gender, age and expression; errors are those of faces that can be read. The shift of a distribution is total variation,
half the sum of the differences of its shares, which stay where one face loses its smile and another gains one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import BASELINES, CLEAR, JUDGES, RELEASED, Evidence, Look
from anonlib.audit.findings import Figure, Measure
from anonlib.audit.statistics import Numbers, Shares, figure_of_sums, rate
from anonlib.audit.utility.edges import edge_contrast, hair_of, in_frame, share_changed
from anonlib.faces import topology
from anonlib.faces.gaze import gaze_error
from anonlib.privacy.strata import stratum_of
from anonlib.workspace.schemas import EXPRESSIONS

SURE = 0.7
"""Least probability of a gender, female or male, from which an original counts."""

LARGE = 150
"""Longer side of a face's box, px, from which its skin shows pores and grain."""
CRISP = (0.8, 1.25)
"""Bounds of skin that is as crisp as the clear photo's, as a ratio."""

FOUND = "faces found again"
REAL = "called real by {}"
SHIFT = (
    "shares among the faces that can still be read; the interval is never below nought, so its upper end is what to "
    "look at"
)

Values = Callable[[Look], NDArray[Any]]
Kinds = NDArray[np.str_]
"""(n,) The kind that a network takes each face for, "" where it cannot be read."""


def genders(look: Look) -> Kinds:
    """female or male."""
    return np.where(np.isnan(look.female), "", np.where(look.female > 0.5, "female", "male"))


def age_bands(look: Look) -> Kinds:
    """The bands of ages, as the plan cuts them."""
    return np.array(["" if np.isnan(age) else stratum_of(1.0, age)[1] for age in look.age.tolist()], np.str_)


def expressions(look: Look) -> Kinds:
    """The likeliest of EXPRESSIONS."""
    known = ~np.isnan(look.expression).any(axis=1)
    return np.where(known, np.array(EXPRESSIONS)[np.nan_to_num(look.expression).argmax(axis=1)], "")


def mesh_error(before: NDArray[np.float32], after: NDArray[np.float32]) -> Shares:
    """(n,) Mean distance of the points of meshes (n, 468, 2 or 3) in the image, over the original's eye distance."""
    left, right = (before[:, list(eye), :2].mean(axis=1) for eye in (topology.LEFT_EYE, topology.RIGHT_EYE))
    moved = np.linalg.norm(after[:, :, :2] - before[:, :, :2], axis=2).mean(axis=1)
    return np.asarray(moved / np.maximum(np.linalg.norm(right - left, axis=1), 1e-6), np.float64)


def measures(evidence: Evidence, *, seed: int = 0) -> list[Measure]:
    """Everything that is measured of utility, over all n faces of released photos, beside the baselines."""
    before, subjects, looks = evidence.clear, evidence.subjects, evidence.looks
    absolute = {FOUND, *map(REAL.format, JUDGES)}  # measured on clear photos, too

    def measure(
        name: str, unit: str, note: str, values: Values, *, higher: bool = False, chance: float | None = None
    ) -> Measure:
        kinds = (RELEASED, CLEAR, *BASELINES) if name in absolute else (RELEASED, *BASELINES)
        shares = {kind: np.asarray(values(looks[kind]), np.float64) for kind in kinds}
        return _measure(
            name, unit, note, {k: rate(v, subjects, chance=chance, seed=seed) for k, v in shares.items()}, higher
        )

    def agreement(name: str, read: Callable[[Look], Kinds], counts: NDArray[np.bool_], note: str) -> Measure:
        """A share of the originals that count; what cannot be read any more is lost."""
        kinds = read(before)
        counts = counts & (kinds != "")
        _, commonest = np.unique(kinds[counts], return_counts=True)
        chance = float(commonest.max() / commonest.sum()) if len(commonest) else None
        note += "; a face that cannot be read any more counts as lost; chance is always saying the commonest answer"
        return measure(
            name, "share", note, lambda look: np.where(counts, read(look) == kinds, np.nan), higher=True, chance=chance
        )

    def real(column: int) -> Values:
        return lambda look: np.where(np.isnan(look.real[:, column]), np.nan, look.real[:, column] > 0.5)

    def turned(column: int) -> Values:
        return lambda look: np.abs((look.pose[:, column].astype(float) - before.pose[:, column] + 180) % 360 - 180)

    fits, sure = "where a mesh fits", (before.female > SURE) | (before.female < 1 - SURE)
    every, smiles = np.ones(len(subjects), bool), np.isin(expressions(before), ("neutral", "happy"))
    again = _judges_agree(genders(before), sure, subjects), _judges_agree(age_bands(before), every, subjects)
    posed, landmarks = f"of the pose that the mesh fits, {fits}", f"mean over the 468 points of the mesh, {fits}"
    of_seven = "of all clear faces; the network is less sure of the rarer five"
    edges = f"of edges in the face to those of the clear one, {fits}; above 1 is grain or seams"
    # What the frames show beside the face, and where what was changed in them ends.
    outlines = [in_frame(mesh, box) for mesh, box in zip(before.mesh, evidence.boxes, strict=True)]
    hair = [hair_of(*shown) for shown in zip(before.frames, outlines, strict=True)]
    large = (evidence.boxes[:, 2:] - evidence.boxes[:, :2]).max(axis=1) >= LARGE

    def crisp(look: Look) -> Shares:
        return np.where(large, look.crispness.astype(float) / np.maximum(before.crispness, 1e-6), np.nan)

    def as_crisp(look: Look) -> Shares:
        ratio = crisp(look)
        return np.where(np.isnan(ratio), np.nan, (ratio >= CRISP[0]) & (ratio <= CRISP[1]))

    def step(look: Look) -> Shares:
        return np.array([edge_contrast(*pair) for pair in zip(before.frames, look.frames, strict=True)], np.float64)

    def touched(look: Look) -> Shares:
        return np.array([share_changed(*three) for three in zip(before.frames, look.frames, hair, strict=True)], float)

    def looking(look: Look) -> Shares:
        return np.asarray(gaze_error(before.eyes, look.eyes), np.float64)

    errors = looking(evidence.released)
    typical = float(np.median(errors[~np.isnan(errors)])) if not np.isnan(errors).all() else float("nan")
    gaze = "between where the eyes look by the iris network, where an eye is open on both"
    pores = f"of the Laplacian on the skin at the photo's own px, faces of {LARGE} px and more, {fits}"
    seam = "step in grey across the edge of what was changed over that of the clear photo there; 1 shows no edge"
    kept_hair = "of px beside the face, above the mouth, that are no skin: hair, a cap, what lies behind"
    called = f"a network that nothing was tuned to, {fits}; what it says of clear photos is what to compare with"
    sharpness, age = np.maximum(before.sharpness, 1e-6), before.age.astype(float)
    found = [
        measure(FOUND, "share", "by the detector, at the place of the original", lambda look: look.found, higher=True),
        measure("landmark error", "eye distances", landmarks, lambda look: mesh_error(before.mesh, look.mesh)),
        *(measure(f"{axis} error", "degrees", posed, turned(n)) for n, axis in enumerate(("yaw", "pitch", "roll"))),
        measure("gaze error", "degrees", f"{gaze}; the median is {typical:.1f}", looking),
        agreement("expression kept", expressions, smiles, "of clear faces that look neutral or happy"),
        agreement("expression kept, all seven", expressions, every, of_seven),
        agreement(
            "gender kept", genders, sure, f"of clear faces whose gender the network is sure of ({SURE:.0%}){again[0]}"
        ),
        agreement("age band kept", age_bands, every, f"under 35, under 50, or older{again[1]}"),
        measure("age error", "years", f"between two estimates, {fits}", lambda look: np.abs(look.age - age)),
        measure("sharpness", "ratio", edges, lambda look: look.sharpness.astype(float) / sharpness, higher=True),
        measure("skin sharpness", "ratio", pores, crisp, higher=True),
        measure("skin as sharp", "share", f"ratio of {CRISP[0]} to {CRISP[1]}, {pores}", as_crisp, higher=True),
        measure("edge contrast", "ratio", seam, step),
        measure("hair changed", "share", kept_hair, touched),
        *(measure(REAL.format(name), "share", called, real(n), higher=True) for n, name in enumerate(JUDGES)),
    ]
    for name, read in (("gender", genders), ("age band", age_bands), ("expression", expressions)):
        kinds = (RELEASED, *BASELINES)
        moved = {kind: total_variation(read(before), read(looks[kind]), subjects, seed=seed) for kind in kinds}
        found.append(_measure(f"shift of {name}", "total variation", SHIFT, moved))
    return found


def _measure(name: str, unit: str, note: str, figures: dict[str, Figure], higher: bool = False) -> Measure:
    released = figures.pop(RELEASED)
    better: Literal["higher", "lower"] = "higher" if higher else "lower"
    return Measure(name=name, released=released, baselines=figures, unit=unit, better=better, note=note)


def _judges_agree(kinds: Kinds, counts: NDArray[np.bool_], subjects: Numbers) -> str:
    """How often a judge says the same of each person's next clear photo, in words."""
    following = np.arange(len(subjects))
    for person in np.unique(subjects):
        rows = np.flatnonzero(subjects == person)
        following[rows] = np.roll(rows, -1)
    asked = counts & (kinds != "") & (kinds[following] != "") & (following != np.arange(len(subjects)))
    same = kinds[asked] == kinds[following][asked]
    return f"; two clear photos of one person: {same.mean():.2f}" if len(same) else ""


def total_variation(before: Kinds, after: Kinds, subjects: Numbers, *, seed: int = 0) -> Figure:
    """Between the shares of kinds before and after, each over the faces that can be read then."""
    names = np.setdiff1d(np.concatenate([before, after]), [""])
    # (n, 2 kinds), as counts are summed by person: is face n of this kind before, and after?
    columns = np.concatenate([before[:, None] == names, after[:, None] == names], axis=1).astype(np.float64)

    def distance(sums: Shares) -> Shares:
        counts = sums.reshape(len(sums), 2, len(names))
        totals = counts.sum(axis=2, keepdims=True)
        shares = counts / np.maximum(totals, 1)
        apart = np.abs(shares[:, 0] - shares[:, 1]).sum(axis=1) / 2
        return np.where((totals > 0).all(axis=(1, 2)), apart, np.nan)

    return figure_of_sums(columns, subjects, distance, count=int((after != "").sum()), seed=seed)
