"""Redactions: an ellipse that is flat or filled from around it, the safe fallbacks; and blur and mosaic, which users
compare with and which claim nothing, since a trained attacker inverts them (arXiv 2506.12344, 2210.10651).

A fill has a smooth part and the photo's own grain. The smooth part is harmonic (Laplace's equation, the known px as its
boundary), solved from coarse to fine: cascadic multigrid, Bornemann and Deuflhard 1996. A coarse px is known only where
all px under it are, so that a linear gradient comes out exact. The grain is the fine residue of calm cells beside the
hole, dealt over it.
"""

from __future__ import annotations

from functools import cache
from hashlib import shake_256
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.synthesis.base import Floats, Mask, Pixels
from anonlib.synthesis.canonical import box_around
from anonlib.workspace.schemas import GROW

Redaction = Literal["fill", "solid", "blur", "pixelate"]

GREY = 127
"""What a hole becomes that nothing lies around."""
_BLUR_SHARE = 0.15
_MOSAIC = 9
_COARSEST = 12  # px: the longer side of the coarsest level is at most this
_WORK = 2048  # px times rounds of averaging on each level: coarse levels do the far reaching part of it
_ROOM, _LEAST_ROOM = 0.3, 40  # how far around its ellipse a fill looks, of the longer side, and px
_CELL = 8  # px: grain is taken and dealt in cells of this side
_CALM = 0.1  # share of the cells around the hole, the calmest first, that grain is taken from: others show edges


def ellipse(box: Floats, size: tuple[int, ...], whole: bool = False) -> tuple[Pixels, tuple[int, int, int, int]]:
    """The mask (h, w) of a box's ellipse and the part x0, y0, x1, y1 of the image (H, W, ...) that it lies in.

    `whole`: the box itself, of a region that is no face.
    """
    centre = (box[:2] + box[2:]) / 2
    half = np.maximum((box[2:] - box[:2]) / 2 * np.array((1.0, 1.0) if whole else GROW), 1.0)
    x0, y0, x1, y1 = box_around(np.stack([centre - half, centre + half]), size)
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    if whole:
        mask[:] = 1
        return mask, (x0, y0, x1, y1)
    cv2.ellipse(mask, ((centre - [x0, y0]).tolist(), (2 * half).tolist(), 0.0), 1, -1)
    if not mask.any():
        mask[:] = 1
    return mask, (x0, y0, x1, y1)


def around(boxes: Floats) -> Floats:
    """Boxes (n, 4) whose ellipses hold these boxes whole."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    half = half * float(np.sqrt((1 / np.array(GROW) ** 2).sum()))
    return np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)


def level_alpha(alpha: Pixels, box: Floats, painted: NDArray[np.bool_] | None = None, whole: bool = False) -> None:
    """Make `alpha` (H, W) even in one face's ellipse, in place, so that it draws nothing there; `box` (4,) px; `whole`:
    see ellipse.

    With `painted` (H, W), the px that a face was put on, what is fully transparent stays so around them.
    """
    mask, (x0, y0, x1, y1) = ellipse(box, alpha.shape, whole)
    view, inside = alpha[y0:y1, x0:x1], mask > 0
    if painted is not None:
        inside &= (view > 0) | painted[y0:y1, x0:x1]
    view[inside] = view[inside].max(initial=0)


def redact(image: Pixels, box: Floats, how: str, others: Floats | None = None, whole: bool = False) -> None:
    """Redact one face's ellipse of `image` (H, W, 3) in place by a Redaction; `box` (4,) px. Of the faces in the boxes
    `others` (n, 4) a fill uses no px either, so that it depends on nothing that is hidden. `whole`: see ellipse."""
    if how == "fill":
        _fill(image, box, np.zeros((0, 4), np.float32) if others is None else others, whole)
        return
    mask, (x0, y0, x1, y1) = ellipse(box, image.shape, whole)
    view = image[y0:y1, x0:x1]
    longest = max(mask.shape)
    hidden: NDArray[Any] = np.full_like(view, GREY)
    if how == "blur":
        hidden = cv2.GaussianBlur(view, (0, 0), max(1.0, _BLUR_SHARE * longest))
    elif how == "pixelate":
        height, width = mask.shape
        cells = (max(1, round(_MOSAIC * width / longest)), max(1, round(_MOSAIC * height / longest)))
        small = cv2.resize(view, cells, interpolation=cv2.INTER_AREA)
        hidden = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    cv2.copyTo(hidden, mask, view)


def covered(
    boxes: Floats, size: tuple[int, int], whole: bool = False, part: tuple[int, int, int, int] | None = None
) -> Mask:
    """The px (H, W) under the ellipses of boxes (n, 4); `whole`: see ellipse. Of a `part` x0, y0, x1, y1 (h, w), which
    draws those alone that reach into it."""
    left, top, right, bottom = part or (0, 0, size[1], size[0])
    under = np.zeros((bottom - top, right - left), np.bool_)
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * np.array(GROW)
    reach = np.maximum(half, 1.0) + 1  # a px for rounding; what lies outside the image is drawn at its edge
    low, high = np.minimum(middle - reach, [size[1] - 1, size[0] - 1]), np.maximum(middle + reach, 1)
    for box in boxes[((low < [right, bottom]) & (high > [left, top])).all(axis=1)]:
        mask, (x0, y0, x1, y1) = ellipse(box, size, whole)
        a, b, c, d = max(x0, left), max(y0, top), min(x1, right), min(y1, bottom)
        if a < c and b < d:
            under[b - top : d - top, a - left : c - left] |= mask[b - y0 : d - y0, a - x0 : c - x0] > 0
    return under


def _fill(image: Pixels, box: Floats, others: Floats, whole: bool) -> None:
    size, (x0, y0, x1, y1) = (image.shape[0], image.shape[1]), ellipse(box, image.shape, whole)[1]
    room = max(round(_ROOM * max(x1 - x0, y1 - y0)), _LEAST_ROOM)
    while True:
        part = max(x0 - room, 0), max(y0 - room, 0), min(x1 + room, size[1]), min(y1 + room, size[0])
        hole, avoid = covered(box[None], size, whole, part), covered(others, size, part=part)
        if room > max(size) or not (hole | avoid).all():
            break
        room *= 2  # other faces lie all around it
    view = image[part[1] : part[3], part[0] : part[2]]
    view[:] = fill_hole(view, hole, avoid, str((x0, y0, x1, y1)).encode())


def fill_hole(view: Pixels, hole: Mask, avoid: Mask, grain_seed: bytes) -> Pixels:
    """A view (h, w, 3) whose px under `hole` (h, w) come smoothly from those around it, with their grain.

    No px under `hole` or `avoid` (h, w) has any influence on these; the others of the view come back as they were. The
    same `grain_seed` gives the same grain. Where nothing is known, the hole becomes GREY.
    """
    known, out = ~(hole | avoid), view.copy()
    if not known.any():
        out[hole] = GREY
        return out
    blank = np.asarray(cv2.copyTo(view, known.astype(np.uint8)), np.float32)
    filled = harmonic(blank, known) + _grain(blank, known, grain_seed)
    out[hole] = np.clip(np.rint(filled[hole]), 0, 255).astype(np.uint8)
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
