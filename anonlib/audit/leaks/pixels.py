"""Original and released px side by side: is a face still the original's, and what changed where no face is?

One eye pasted back is enough, so a face is judged by windows a quarter as wide, everywhere in its core. In a window the
measure is the share of the original's detail that the release explains, 1 - |original - released|^2 / |original|^2,
both without what is coarser than a twentieth of the face, since light and tone may stay. It survives another JPEG
encoding (see SAME); px equal to the bit are counted beside it. Outside of faces the encoder is repeated.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.media.codec import Picture, decode, encode
from anonlib.synthesis.canonical import vertices_of
from anonlib.synthesis.redact import ellipse

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
_REACH = 0.25
"""How far past its rings, of their longer side, a face may be changed; the three releases needed .15."""
_BLOCK, _BLEED = 16, 2
_LOSSY = 3
"""Grey levels by which another build of libjpeg may decode and encode otherwise."""
_MEAN = 12.0

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


def may_change(size: tuple[int, int], box: NDArray[np.float32], mesh: NDArray[np.float32] | None) -> Mask:
    """Px (H, W) that a method may change for one face: around a mesh (468, 3) px, else a redaction's ellipse."""
    mask = np.zeros(size, bool)
    if mesh is None:
        inside, (x0, y0, x1, y1) = ellipse(box, size)
        mask[y0:y1, x0:x1] = inside > 0
        return mask
    points = vertices_of(mesh)[:, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    margin = _REACH * float((high - low).max())
    x0, y0 = np.clip(np.floor(low - margin), 0, [size[1], size[0]]).astype(int)
    x1, y1 = np.clip(np.ceil(high + margin), 0, [size[1], size[0]]).astype(int)
    mask[y0:y1, x0:x1] = True
    return mask


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


def changed_outside(before: Picture, after: Picture, allowed: Mask, jpeg_quality: int) -> int:
    """How many px outside `allowed` (H, W) differ from what the original's px become in the output's format.

    The two pictures have one size. JPEG codes blocks of 16 px by themselves, so a block that no face reaches must come
    out as the original's px do when encoded afresh; WebP spreads changes, so there the mean colours of blocks count.
    """
    rgb, noise, outside = before.rgb, 0, ~allowed
    if before.format in ("JPEG", "WEBP"):
        rgb = decode(encode(rgb, before, jpeg_quality=jpeg_quality), max_mpx=np.inf).rgb
    if before.format == "WEBP":
        free = _blocks(outside) >= 1.0
        return int(((np.abs(_blocks(rgb) - _blocks(after.rgb)).max(axis=2) > _MEAN) & free).sum()) * _BLOCK**2
    if before.format == "JPEG":
        noise = _LOSSY
        height, width = allowed.shape
        touched = np.ceil(_blocks(np.pad(allowed, ((0, -height % _BLOCK), (0, -width % _BLOCK)))))
        reached = np.asarray(np.kron(touched, np.ones((_BLOCK, _BLOCK))), np.float32)[:height, :width]
        # Chroma is interpolated over the blocks' edges.
        outside = np.asarray(cv2.dilate(reached, np.ones((2 * _BLEED + 1, 2 * _BLEED + 1), np.uint8))) == 0
    differ = cv2.absdiff(rgb, after.rgb).max(axis=2) > noise
    whole = np.uint8(255)
    differ |= (whole if before.alpha is None else before.alpha) != (whole if after.alpha is None else after.alpha)
    return int((differ & outside).sum())


def _blocks(values: NDArray[np.uint8] | Mask) -> NDArray[np.float32]:
    """Means of the whole blocks of (H, W) or (H, W, c)."""
    rows, columns = (length // _BLOCK for length in values.shape[:2])
    cut = values[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK, *values.shape[2:])
    return np.asarray(cut.mean(axis=(1, 3), dtype=np.float32))
