"""What px of a photo tell of a face: how crisp its skin is, where hair lies over it, and what was changed around it.

Crispness is read at the photo's own resolution: pores and grain, and no eyes, brows, lips or hair. What lies beside the
face is read from frames, 96 px around it, so that a JPEG's own noise averages out. Hair is not segmented: what is asked
of every px there is whether it could be skin in the light on the face.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.synthesis.skin import strength

_OVAL = 0.85
_HOLES = ((topology.LEFT_EYE, 1.6), (topology.RIGHT_EYE, 1.6), (topology.LIPS_OUTER, 1.2))
_BROWS = ((topology.LEFT_BROW, 1.3), (topology.RIGHT_BROW, 1.3))

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
_BROW_POINTS = (*topology.LEFT_BROW, *topology.RIGHT_BROW)
_INSIDE = 0.9
_ROUNDS, _TUKEY, _RIDGE = 6, 5.0, 1e-3
_SPREADS, _OFF, _OFF_SPREADS = (0.03, 0.2), 0.4, 3.0
"""Log units: bounds of the spread of skin, and how far from it a px is no skin: the larger of the two."""

Frame = NDArray[np.uint8]
Grey = NDArray[np.float32]
Mask = NDArray[np.bool_]


def hull(points: NDArray[np.floating], height: int, width: int, grow: float = 1.0) -> NDArray[np.bool_]:
    """The px (height, width) inside the convex hull of points (n, 2), enlarged about their mean."""
    centre = points.mean(axis=0)
    mask = np.zeros((height, width), np.uint8)
    outline = cv2.convexHull(np.rint((centre + (points - centre) * grow) * 16).astype(np.int32))
    cv2.fillConvexPoly(mask, outline, 1, shift=4)
    return mask > 0


def skin_of(mesh: NDArray[np.float32], height: int, width: int) -> NDArray[np.bool_]:
    """The px (height, width) of a face with `mesh` (468, 2) that are skin on every face."""
    skin = hull(mesh[list(topology.OVAL)], height, width, _OVAL)
    for part, grow in (*_HOLES, *_BROWS):
        skin &= ~hull(mesh[list(part)], height, width, grow)
    return skin


def crispness(image: NDArray[np.uint8], mesh: NDArray[np.float32]) -> float:
    """Strength of the Laplacian on the skin of a photo (H, W, 3) at `mesh` (468, 2 or 3) px, grey levels;
    NaN where little of it is shown."""
    size = np.array([image.shape[1], image.shape[0]])
    x0, y0 = np.clip(np.floor(mesh[:, :2].min(axis=0)), 0, size - 1).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(mesh[:, :2].max(axis=0)) + 1, [x0 + 1, y0 + 1], size).astype(int).tolist()
    grey = cv2.cvtColor(np.ascontiguousarray(image[y0:y1, x0:x1]), cv2.COLOR_RGB2GRAY).astype(np.float32)
    skin = skin_of(mesh[:, :2] - np.array([x0, y0], np.float32), *grey.shape)
    return strength(grey, skin)


# ---- beside the face ----------------------------------------------------------------------------------------------


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
    core = hull(np.concatenate([oval[below > 0], mesh[list(_BROW_POINTS)]]), size, size)
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
