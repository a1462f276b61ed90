"""A hole in a photo filled smoothly from what lies around it, with the photo's own grain.

The smooth part is harmonic (Laplace's equation, the known px as its boundary), solved from coarse to fine: cascadic
multigrid, Bornemann and Deuflhard 1996. A coarse px is known only where all px under it are, so that a linear gradient
comes out exact. The grain is the fine residue of calm cells beside the hole, dealt over it.
"""

from __future__ import annotations

from functools import cache
from hashlib import shake_256
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.synthesis.base import Floats, Mask, Pixels

GREY = 127
"""What a hole becomes that nothing lies around."""
_COARSEST = 12  # px: the longer side of the coarsest level is at most this
_WORK = 2048  # px times rounds of averaging on each level: coarse levels do the far reaching part of it
_ROOM = 0.3  # how far around the hole its surroundings are looked at, of its longer side
_LEAST_ROOM = 40  # px
_CELL = 8  # px: grain is taken and dealt in cells of this side
_CALM = 0.1  # share of the cells around the hole, the calmest first, that grain is taken from: others show edges


def fill_hole(view: Pixels, hole: Mask, avoid: Mask | None, grain_seed: bytes) -> Pixels:
    """A view (h, w, 3) whose px under `hole` (h, w) come smoothly from those around it, with their grain.

    No px under `hole` or `avoid` (h, w) has any influence on these; the others of the view come back as they were. The
    same `grain_seed` gives the same grain. Where nothing is known, the hole becomes GREY.
    """
    known = ~hole if avoid is None else ~(hole | avoid)
    out = view.copy()
    if not hole.any():
        return out
    part = _around(hole)
    values, inside, seen = out[part], hole[part], known[part]
    if not seen.any():
        values[inside] = GREY
        return out
    blank = np.asarray(cv2.copyTo(values, seen.astype(np.uint8)), np.float32)
    filled = harmonic(blank, seen) + _grain(blank, seen, grain_seed)
    values[inside] = np.clip(np.rint(filled[inside]), 0, 255).astype(np.uint8)
    return out


def harmonic(values: Floats, known: Mask) -> Floats:
    """Values (h, w, 3) with those that are not `known` (h, w; at least one is) smoothly in between."""
    height, width = known.shape
    step = 1
    while max(height, width) > _COARSEST * step:
        step *= 2
    below = (0, -height % step, 0, -width % step)  # sides that can be halved down to the coarsest level
    values = np.asarray(cv2.copyMakeBorder(values, *below, cv2.BORDER_REPLICATE), np.float32)
    known = np.asarray(cv2.copyMakeBorder(known.astype(np.uint8), *below, cv2.BORDER_CONSTANT, value=0), np.bool_)
    levels = [(values, known)]
    while step > 1:
        size = (known.shape[1] // 2, known.shape[0] // 2)
        whole = np.asarray(cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA) == 1)
        if not whole.any():
            break
        values, known, step = np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA)), whole, step // 2
        levels.append((values, known))
    smooth = np.broadcast_to(values[known].mean(axis=0), values.shape)
    for values, known in reversed(levels):
        smooth = np.asarray(cv2.resize(smooth, known.shape[::-1], interpolation=cv2.INTER_LINEAR))
        mask = known.astype(np.uint8)
        for _ in range(max(_WORK // max(known.shape), 2)):
            smooth = cv2.blur(cv2.copyTo(values, mask, smooth), (3, 3), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(smooth[:height, :width], np.float32)


def _around(hole: Mask) -> tuple[slice, slice]:
    """The part of a view that a hole (h, w) lies in, with room."""
    x, y, width, height = cv2.boundingRect(hole.astype(np.uint8))
    room = max(round(_ROOM * max(width, height)), _LEAST_ROOM)
    return np.s_[max(y - room, 0) : y + height + room, max(x - room, 0) : x + width + room]


def _grain(values: Floats, known: Mask, seed: bytes) -> Floats:
    """Grain (h, w, 3) like that of the calm cells of `known` (h, w) values (h, w, 3); zeros where no cell is known."""
    height, width = known.shape
    rows, columns = height // _CELL, width // _CELL
    cells = _cells(values, rows, columns)[_cells(known, rows, columns).all(axis=1)]  # (n, px, 3)
    if not len(cells):
        return np.zeros_like(values)
    plane = _plane()
    cells = cells - plane @ (plane.T @ cells)
    calm = cells[np.argsort(cells.std(axis=(1, 2)), kind="stable")[: max(round(_CALM * len(cells)), 1)]]
    rows, columns = rows + 1, columns + 1
    lots = np.frombuffer(shake_256(seed).digest(3 * rows * columns), "<u1").reshape(3, -1).astype(np.int64)
    dealt = calm[(lots[0] + 256 * lots[1]) % len(calm)].reshape(-1, _CELL, _CELL, 3)
    for axis in (1, 2):  # mirrored or not, so that few cells repeat less
        turned = lots[2] >> axis & 1 > 0
        dealt[turned] = np.flip(dealt[turned], axis)
    grain = dealt.reshape(rows, columns, _CELL, _CELL, 3).swapaxes(1, 2).reshape(rows * _CELL, columns * _CELL, 3)
    return np.asarray(grain[:height, :width], np.float32)


def _cells(values: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """The whole cells of values (h, w, ...): (rows * columns, _CELL^2, ...)."""
    whole = values[: rows * _CELL, : columns * _CELL]
    split = whole.reshape(rows, _CELL, columns, _CELL, *values.shape[2:]).swapaxes(1, 2)
    return split.reshape(rows * columns, _CELL**2, *values.shape[2:])


@cache
def _plane() -> Floats:
    """An orthonormal basis (_CELL^2, 3) of the linear gradients of a cell."""
    down, across = np.mgrid[0:_CELL, 0:_CELL].reshape(2, -1)
    return np.asarray(np.linalg.qr(np.stack([np.ones_like(down), down, across], axis=1))[0], np.float32)
