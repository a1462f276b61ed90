"""Redactions: an ellipse that is flat or filled from around it, the safe fallbacks; and blur and mosaic, which users
compare with and which claim nothing, since a trained attacker inverts them (arXiv 2506.12344, 2210.10651)."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.synthesis.base import Floats, Mask, Pixels
from anonlib.synthesis.canonical import box_around
from anonlib.synthesis.fill import GREY, fill_hole

Redaction = Literal["fill", "solid", "blur", "pixelate"]

GROW = (1.25, 1.35)
"""How far the ellipse's axes reach over the box, sideways and up-down (METHODS: the hull at 1.25 x 1.35)."""
_SURROUNDINGS = 0.5  # how far around its ellipse a fill looks, of the longer side
_BLUR_SHARE = 0.15
_MOSAIC = 9


def ellipse(box: Floats, size: tuple[int, ...]) -> tuple[Pixels, tuple[int, int, int, int]]:
    """The mask (h, w) of a box's ellipse and the part x0, y0, x1, y1 of the image (H, W, ...) that it lies in."""
    centre = (box[:2] + box[2:]) / 2
    half = np.maximum((box[2:] - box[:2]) / 2 * np.array(GROW), 1.0)
    x0, y0, x1, y1 = box_around(np.stack([centre - half, centre + half]), size)
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.ellipse(mask, ((centre - [x0, y0]).tolist(), (2 * half).tolist(), 0.0), 1, -1)
    if not mask.any():
        mask[:] = 1
    return mask, (x0, y0, x1, y1)


def level_alpha(alpha: Pixels, box: Floats, painted: NDArray[np.bool_] | None = None) -> None:
    """Make `alpha` (H, W) even in one face's ellipse, in place, so that it draws nothing there; `box` (4,) px.

    With `painted` (H, W), the px that a face was put on, what is fully transparent stays so around them.
    """
    mask, (x0, y0, x1, y1) = ellipse(box, alpha.shape)
    view, inside = alpha[y0:y1, x0:x1], mask > 0
    if painted is not None:
        inside &= (view > 0) | painted[y0:y1, x0:x1]
    view[inside] = view[inside].max(initial=0)


def redact(image: Pixels, box: Floats, how: str, others: Floats | None = None) -> None:
    """Redact one face's ellipse of `image` (H, W, 3) in place by a Redaction; `box` (4,) px. Of the faces in the boxes
    `others` (n, 4) a fill uses no px either, so that it depends on nothing that is hidden."""
    if how == "fill":
        _fill(image, box, np.zeros((0, 4), np.float32) if others is None else others)
        return
    mask, (x0, y0, x1, y1) = ellipse(box, image.shape)
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
    view[mask > 0] = hidden[mask > 0]


def covered(boxes: Floats, size: tuple[int, int]) -> Mask:
    """The px (H, W) under the ellipses of boxes (n, 4)."""
    whole = np.zeros(size, np.bool_)
    for box in boxes:
        mask, (x0, y0, x1, y1) = ellipse(box, size)
        whole[y0:y1, x0:x1] |= mask > 0
    return whole


def _fill(image: Pixels, box: Floats, others: Floats) -> None:
    size, place = (image.shape[0], image.shape[1]), ellipse(box, image.shape)[1]
    x0, y0, x1, y1 = box_around(np.array(place, np.float32).reshape(2, 2), size, _SURROUNDINGS)
    part = np.s_[y0:y1, x0:x1]
    hole, avoid = (covered(boxes, size)[part] for boxes in (box[None], others))
    image[part] = fill_hole(image[part], hole, avoid, str(place).encode())
