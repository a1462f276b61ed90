"""Whether a picture still shows a face of the picture it was made from, by its px: for the check of every new face
before it is written, and for the leak scan after.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.faces import topology

# One eye pasted back is enough, so a face is judged by windows a quarter as wide, everywhere in its core. In a window
# the measure is the share of the original's detail that the release explains,
# 1 - |original - released|^2 / |original|^2, both without what is coarser than a twentieth of the face, since light and
# tone may stay. It survives another JPEG encoding (see SAME); px equal to the bit are counted beside it.
SAME = 0.93
"""Share of a window's detail from which its px are the original's.

Of 9,303 faces replaced in LFW photos (k-diff average, dp-uniform ksame-net) the greatest share was .916; of 654
originals pasted back and encoded again at JPEG quality 92 or 60, 98 % came above .93.
"""
EQUAL = 0.5
"""Share of a window's px that are equal to the bit, from which they are the original's."""
LEAST_PX = 100
"""A core of fewer px is too small to compare."""

_COARSE, _WINDOW = 0.05, 0.25
"""Of the core's longer side: what counts as light and not as detail, and the side of a window."""
_INSIDE, _DETAIL = 0.8, 3.0
"""Least share of a window that is core, and least standard deviation of its detail in grey levels."""
_CORE, _BOX_CORE = 0.9, 0.8

_CORE_POINTS = [*topology.LEFT_BROW, *topology.RIGHT_BROW, *topology.OVAL[8:29]]  # brows to chin

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def face_core(size: tuple[int, int], box: NDArray[np.float32], mesh: NDArray[np.float32] | None) -> Mask:
    """Px (H, W) that every method replaces: brows to chin of a mesh (468, 3) px, else the middle of the box (4,)."""
    mask = np.zeros(size, np.uint8)
    if mesh is None:
        centre, half = (box[:2] + box[2:]) / 2, np.maximum((box[2:] - box[:2]) / 2 * _BOX_CORE, 1.0)
        cv2.ellipse(mask, (tuple(map(float, centre)), tuple(map(float, 2 * half)), 0.0), 1, -1)
    else:
        points = mesh[_CORE_POINTS, :2]
        points = points.mean(axis=0) + (points - points.mean(axis=0)) * np.float32(_CORE)
        hull = cv2.convexHull(np.ascontiguousarray(points, np.float32))
        cv2.fillPoly(mask, [np.rint(hull * 16).astype(np.int32)], 1, shift=4)
    return mask > 0


def is_original(before: Pixels, after: Pixels, core: Mask) -> bool | None:
    """Whether the release (H, W, 3) still shows a face of the original (H, W, 3) by any window in its `core` (H, W).

    None where the face is too small or too flat to compare.
    """
    if core.sum() < LEAST_PX:
        return None
    x, y, width, height = cv2.boundingRect(core.astype(np.uint8))
    side = max(width, height)
    pad, window = round(side * _WINDOW), max(round(side * _WINDOW), 5)
    part = np.s_[max(y - pad, 0) : y + height + pad, max(x - pad, 0) : x + width + pad]
    inside = core[part].astype(np.float32)

    def detail(image: Pixels) -> NDArray[np.float32]:
        grey = cv2.cvtColor(np.ascontiguousarray(image[part]), cv2.COLOR_RGB2GRAY).astype(np.float32)
        return np.asarray(grey - cv2.GaussianBlur(grey, (0, 0), max(side * _COARSE, 1.0)), np.float32)

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.boxFilter(values * inside, -1, (window, window), borderType=cv2.BORDER_CONSTANT))

    first, second = detail(before), detail(after)
    share, energy = mean(np.ones_like(inside)), mean(first**2)
    explained = 1 - mean((first - second) ** 2) / np.maximum(energy, 1e-6)
    equal = mean((before[part] == after[part]).all(axis=2).astype(np.float32)) / np.maximum(share, 1e-6)
    detailed = (share >= _INSIDE) & (energy >= _DETAIL**2 * share)
    # Where the original is flat, black or burnt out, equal px tell nothing.
    uneven = (share >= _INSIDE) & (energy >= share)
    shown = bool((explained[detailed] >= SAME).any() or (equal[uneven] >= EQUAL).any())
    return shown if shown or detailed.any() else None
