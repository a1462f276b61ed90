"""How crisp the skin of a face is, at the photo's own resolution: pores and grain, and no eyes, brows, lips or hair."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.synthesis.skin import strength

_OVAL = 0.85
_HOLES = ((topology.LEFT_EYE, 1.6), (topology.RIGHT_EYE, 1.6), (topology.LIPS_OUTER, 1.2))
_BROWS = ((topology.LEFT_BROW, 1.3), (topology.RIGHT_BROW, 1.3))


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
