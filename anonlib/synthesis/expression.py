"""What expression does to a texture, the same for everyone: the inside of an open mouth, and a smile's folds.

They are averaged over many people at fixed openings, so they carry nobody's identity and a class has one digest.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import cv2
import numpy as np

from anonlib.faces import topology
from anonlib.synthesis.base import Floats
from anonlib.synthesis.canonical import SIZE, canonical_frame

OPENINGS = (0.08, 0.22, 0.45)
"""Gap of the inner lips over the mouth's width at which the insides were averaged."""


@cache
def expression_model(side: int = SIZE) -> tuple[Floats, Floats, Floats]:
    """The shipped averages (see expression.md): mouths (3, S, S, 3), log detail at OPENINGS, valid inside the lips, and
    a smile (S, S, 3), happy less neutral; and a mask (S, S, 1), 1 inside the inner lips, soft at the edge; S: `side`.
    """
    with resources.files("anonlib.synthesis").joinpath("shipped/expression.npz").open("rb") as stream:
        data = np.load(stream)
        *mouths, smile = (
            cv2.resize(image.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
            for image in (*data["mouths"], data["smile"])
        )
    mask = canonical_frame().polygon(topology.LIPS_INNER, 1.04).astype(np.float32)
    soft = cv2.resize(cv2.GaussianBlur(mask, (0, 0), 1.0), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.stack(mouths), smile, np.asarray(soft[..., None], np.float32)


def mouth_inside(opening: float, side: int = SIZE) -> Floats:
    """The inside (S, S, 3) of a mouth at an opening, between the two nearest averages; S: `side`."""
    mouths = expression_model(side)[0]
    position = float(np.interp(opening, OPENINGS, range(len(OPENINGS))))
    low = min(int(position), len(OPENINGS) - 2)
    share = np.float32(position - low)
    return np.asarray(mouths[low] * (1 - share) + mouths[low + 1] * share, np.float32)


def apply_expression(detail: Floats, happy: float, opening: float) -> Floats:
    """A class's detail (S, S, 3) made `happy` happier (-1 to 1) than it is, with the mouth `opening` open."""
    _, smile, mask = expression_model(len(detail))
    smiling = detail + np.float32(happy) * smile
    return np.asarray(smiling * (1 - mask) + mouth_inside(opening, len(detail)) * mask, np.float32)
