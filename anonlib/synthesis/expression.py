"""What a smile does to a texture, the same for everyone: its folds, an average over many people that carries nobody's
identity."""

from __future__ import annotations

from functools import cache
from importlib import resources

import cv2
import numpy as np

from anonlib.synthesis.base import Floats
from anonlib.synthesis.canonical import SIZE


@cache
def smile(side: int = SIZE) -> Floats:
    """The shipped average (see expression.md) of happy faces less that of neutral ones, (S, S, 3) log; S: `side`."""
    with resources.files("anonlib.synthesis").joinpath("shipped/expression.npz").open("rb") as stream:
        small = np.load(stream)["smile"].astype(np.float32)
    return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


def smiling(detail: Floats, happy: float) -> Floats:
    """A class's detail (S, S, 3) made `happy` happier (-1 to 1) than it is."""
    return np.asarray(detail + np.float32(happy) * smile(len(detail)), np.float32)
