"""Does a face wear glasses? A linear readout of edges around the eyes, so that wearers are not averaged.

Averaged frames are ghosts on everyone who wears the surrogate. Wearers still hide in their class; they only lend it
no texture. A renderer takes away what of their frames lies beside the face. The readout (logistic regression on edge
strength and brightness of the canonical eye region) is ours; see glasses.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.synthesis.canonical import canonical_frame

STEP = 2
"""The readout works on every second px of the canonical frame."""

_UP, _DOWN, _SIDE = 36, 52, 16
_CELL = 2
_BRIGHTNESS = 0.5
_BESIDE = ((-0.1, -0.4), (-0.1, 0.5), (0.7, -0.4), (0.7, 0.5))
"""Corners of the band beside an eye: outwards from its outer corner and down, eye distances."""
_RIM, _STANDS_OUT = 0.2, 12
"""Frames are thinner than this, eye distances, and differ by so many grey levels from what is around them."""


@dataclass(frozen=True)
class Readout:
    """Logit = features @ `weight` + `bias`; positive: glasses."""

    weight: NDArray[np.float32]
    bias: float


@cache
def readout() -> Readout:
    """The shipped readout."""
    with resources.files("anonlib.synthesis").joinpath("shipped/glasses.npz").open("rb") as stream:
        data = np.load(stream)
        return Readout(data["weight"].astype(np.float32), float(data["bias"]))


def glasses(detail: NDArray[np.float32]) -> float:
    """Logit that a face with this detail (S/STEP, S/STEP, 3), log, wears glasses."""
    model = readout()
    return float(features(detail) @ model.weight + model.bias)


def features(detail: NDArray[np.float32]) -> NDArray[np.float32]:
    """Edge strengths along and across, and brightness, in cells of the eye region, one vector."""
    points = canonical_frame().points
    left, right = points[topology.LEFT_EYE_OUTER], points[topology.RIGHT_EYE_OUTER]
    rows = slice(int(left[1] - _UP) // STEP, int(left[1] + _DOWN) // STEP)
    columns = slice(int(left[0] - _SIDE) // STEP, int(right[0] + _SIDE) // STEP)
    eyes = detail[rows, columns].mean(axis=2)
    size = (eyes.shape[1] // _CELL, eyes.shape[0] // _CELL)
    edges = [np.abs(cv2.Sobel(eyes, cv2.CV_32F, dx, 1 - dx)) for dx in (0, 1)]
    cells = [cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in (*edges, eyes * _BRIGHTNESS)]
    return np.stack(cells).ravel().astype(np.float32)


def without_rims(view: NDArray[np.uint8], vertices: NDArray[np.float32], eye_distance: float) -> NDArray[np.uint8]:
    """The view (h, w, 3) of a wearer with what frames leave beside the eyes replaced by what is around it.

    The rim beyond the far cheek of a turned head and the arms lie outside the face, so that no surrogate hides them:
    there, thin lines give way to the median of their surroundings. `vertices` (468+, 2+) px of the view.
    """
    band = np.zeros(view.shape[:2], np.uint8)
    for outer, inner in (
        (topology.LEFT_EYE_OUTER, topology.RIGHT_EYE_OUTER),
        (topology.RIGHT_EYE_OUTER, topology.LEFT_EYE_OUTER),
    ):
        start = vertices[outer, :2]
        along = (start - vertices[inner, :2]) / max(float(np.linalg.norm(start - vertices[inner, :2])), 1e-6)
        across = np.array([-along[1], along[0]])
        reach = [start + eye_distance * (length * along + side * across) for length, side in _BESIDE]
        cv2.fillConvexPoly(band, cv2.convexHull(np.rint(reach).astype(np.int32)), 1)
    rows, columns = np.flatnonzero(band.any(axis=1)), np.flatnonzero(band.any(axis=0))
    if not len(rows):
        return view
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    calm = cv2.medianBlur(np.ascontiguousarray(view[part]), 2 * max(1, round(_RIM * eye_distance)) + 1)
    line = (cv2.absdiff(calm, view[part]).max(axis=2) > _STANDS_OUT) & (band[part] > 0)
    line = cv2.dilate(line.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    out = view.copy()
    out[part][line] = calm[line]
    return out
