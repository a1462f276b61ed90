"""Does a face wear glasses? A linear readout of edges around the eyes, so that wearers are not averaged.

Averaged frames are ghosts on everyone who wears the surrogate. Wearers still hide in their class; they only lend it
no texture. The readout (logistic regression on edge strength and brightness of the canonical eye region) is ours; see
glasses.md.
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


@dataclass(frozen=True)
class Readout:
    """Logit = features @ `weight` + `bias`; positive: glasses."""

    weight: NDArray[np.float32]
    bias: float


@cache
def readout() -> Readout:
    """The shipped readout."""
    with resources.files("anonlib.synthesis").joinpath("glasses.npz").open("rb") as stream:
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
