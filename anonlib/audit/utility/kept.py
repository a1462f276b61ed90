"""The utility of a release: whether faces are found, and keep gender, age, expression, pose and sharpness.

Judged by networks, so each number is an agreement of two estimates. A face that cannot be read any more has lost its
gender, age and expression; errors are those of faces that can be read. The shift of a distribution is total variation,
half the sum of the differences of its shares, which stay where one face loses its smile and another gains one.

What lies beside the face is read from the frames of two looks, 96 px around it, so that a JPEG's own noise averages
out. Hair is not segmented: what is asked of every px there is whether it could be skin in the light on the face.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import BASELINES, CLEAR, JUDGES, RELEASED, Evidence, Look, frame
from anonlib.audit.evidence.skin import hull, skin_of
from anonlib.audit.findings import Figure, Measure
from anonlib.audit.statistics import Numbers, Shares, figure_of_sums, rate
from anonlib.faces import align, topology
from anonlib.faces.gaze import gaze_error
from anonlib.privacy.classes import stratum_of
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

_CHANGED = 4.0
"""Grey levels, of any channel and smoothed, past which a px counts as changed; another JPEG of a px stays below."""
_SEEN = 12.0  # grey levels of a difference that shows
_ASIDE = 2.0
"""Frame px from an edge at which its two sides are read."""
_FAINT = 1.0  # grey levels: a contrast that no eye sees is not divided by
_LEAST_EDGE, _LEAST_HAIR = 30, 40
"""Frame px below which nothing is said of a face."""
_AROUND = (1.2, 1.35, 1.0)
"""How far from the centre of the oval, sideways, up and down, hair is looked for, in its own radii."""
_BROWS = (*topology.LEFT_BROW, *topology.RIGHT_BROW)
_INSIDE = 0.9
_ROUNDS, _TUKEY, _RIDGE = 6, 5.0, 1e-3
_SPREADS, _OFF, _OFF_SPREADS = (0.03, 0.2), 0.4, 3.0
"""Log units: bounds of the spread of skin, and how far from it a px is no skin: the larger of the two."""

Values = Callable[[Look], NDArray[Any]]
Frame = NDArray[np.uint8]
Grey = NDArray[np.float32]
Mask = NDArray[np.bool_]
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


# ---- beside the face ----------------------------------------------------------------------------------------------


def in_frame(mesh: NDArray[np.float32], box: NDArray[np.float32]) -> NDArray[np.float32]:
    """A mesh (468, 2) px of a photo in px of the frame around `box` (4,)."""
    return align.apply(frame(box), mesh)


def edge_contrast(before: Frame, after: Frame) -> float:
    """How much larger the step across the edge of what was changed is in `after` than at the same place in `before`,
    both (s, s, 3); NaN where next to nothing was changed."""
    away = cv2.absdiff(before, after).max(axis=2).astype(np.float32)
    changed = (cv2.GaussianBlur(away, (0, 0), 0.8) > _CHANGED).astype(np.uint8)
    changed = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    changed = cv2.morphologyEx(changed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(changed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours or max(map(len, contours)) < _LEAST_EDGE:
        return float("nan")
    # Along the outermost edge: its points (m, 2), and there the direction in which the changed region ends.
    edge = max(contours, key=cv2.contourArea)
    whole = cv2.drawContours(np.zeros(changed.shape, np.float32), [edge], -1, 1.0, cv2.FILLED)
    smooth = cv2.GaussianBlur(whole, (0, 0), 2.0)
    x, y = edge.reshape(-1, 2).T
    inward = np.stack([cv2.Sobel(smooth, cv2.CV_32F, dx, 1 - dx)[y, x] for dx in (1, 0)], axis=1)
    inward /= np.maximum(np.linalg.norm(inward, axis=1, keepdims=True), 1e-6)
    points = edge.reshape(-1, 2).astype(np.float32)
    within = ((points > _ASIDE + 1) & (points < len(before) - _ASIDE - 2)).all(axis=1)
    if within.sum() < _LEAST_EDGE:
        return float("nan")
    steps = []
    for picture in (after, before):
        grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 0.7)
        sides = [_read(grey, points[within] + side * _ASIDE * inward[within]) for side in (1, -1)]
        steps.append(float(np.abs(sides[0] - sides[1]).mean()))
    return steps[0] / max(steps[1], _FAINT)


def _read(grey: NDArray[Any], points: NDArray[np.floating]) -> Grey:
    x, y = (np.ascontiguousarray(points[:, axis, None], np.float32) for axis in range(2))
    return np.asarray(cv2.remap(grey, x, y, cv2.INTER_LINEAR), np.float32)[:, 0]


def hair_of(picture: Frame, mesh: NDArray[np.float32]) -> Mask:
    """The px (s, s) of a clear frame (s, s, 3) above the mouth and beside the face with `mesh` (468, 2) px of it that
    are no skin: hair, a fringe, a cap, what lies behind. Light on the face is a quadratic, fitted to its skin robustly
    (Tukey's biweight), and beside the oval it is read at the nearest place inside."""
    size = len(picture)
    oval = mesh[list(topology.OVAL)]
    centre = oval.mean(axis=0)
    along = mesh[topology.RIGHT_EYE_OUTER] - mesh[topology.LEFT_EYE_OUTER]
    along = along / max(float(np.linalg.norm(along)), 1e-6)
    down = np.array([-along[1], along[0]], np.float32)
    side, below = ((oval - centre) @ axis for axis in (along, down))
    wide, up, low = _AROUND
    around = centre + np.outer(side * wide, along) + np.outer(below * np.where(below < 0, up, low), down)
    skin = skin_of(mesh, size, size)
    core = hull(np.concatenate([oval[below > 0], mesh[list(_BROWS)]]), size, size)
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    above = (columns - centre[0]) * down[0] + (rows - centre[1]) * down[1]
    mouth = float(((mesh[list(topology.LIPS_OUTER)] - centre) @ down).mean())
    beside = hull(around, size, size) & ~core & (above < mouth)
    if skin.sum() < _LEAST_HAIR:
        return np.zeros((size, size), bool)
    log = np.log(picture.astype(np.float64) + 4.0)
    # Monomials (s, s, 6) of the place, held within the face.
    radius = np.abs(oval - centre).max()
    x, y = (np.clip((axis - middle) / radius, -1, 1) for axis, middle in zip((columns, rows), centre, strict=True))
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).astype(np.float64)
    values, known = log[skin], basis[skin]
    away = np.abs(values - np.median(values, axis=0)).max(axis=1)
    for _ in range(_ROUNDS):
        spread = float(np.clip(1.4826 * np.median(away), *_SPREADS))
        weight = np.clip(1 - (away / (_TUKEY * spread)) ** 2, 0, None) ** 2
        weighted = known * weight[:, None]
        light = np.linalg.solve(known.T @ weighted + _RIDGE * len(known) * np.eye(6), weighted.T @ values)
        away = np.abs(values - known @ light).max(axis=1)
    residual = log - basis @ light
    other = beside & (np.abs(residual).max(axis=2) > max(_OFF, _OFF_SPREADS * spread))
    # What is brighter than skin in every channel inside the oval is a highlight; a fringe reaches the outline.
    inside = hull(oval, size, size, _INSIDE)
    other &= ~(inside & (residual.min(axis=2) > 0))
    _, part = cv2.connectedComponents(other.astype(np.uint8))
    hair = other & np.isin(part, np.unique(part[other & ~inside]))
    # A px on its border is half skin.
    return np.asarray(cv2.erode(hair.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0, np.bool_)


def share_changed(before: Frame, after: Frame, where: Mask) -> float:
    """The share of the px `where` (s, s) that differ between two frames (s, s, 3); NaN where there are next to none."""
    if where.sum() < _LEAST_HAIR:
        return float("nan")
    away = cv2.GaussianBlur(cv2.absdiff(before, after).max(axis=2).astype(np.float32), (0, 0), 0.6)
    return float((away[where] > _SEEN).mean())
