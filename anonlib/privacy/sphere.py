"""What every mechanism on identity vectors needs of the unit sphere: that they lie on it, and sure angles."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 1e-3
_ROUNDING = 1e-5
"""More than a 32-bit cosine of some hundred dimensions is off."""


def require_unit(rows: NDArray[np.floating], whose: str) -> None:
    """ValueError unless the rows (n, d) have length 1 to a thousandth; `whose` they are begins the sentence."""
    lengths = np.linalg.norm(np.asarray(rows, np.float64), axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < _TOLERANCE))
    if len(wrong):
        raise ValueError(
            f"{whose} must have length 1; {len(wrong):,} of {len(lengths):,} have not, one has {lengths[wrong[0]]:.6g}"
        )


def cosine_beyond(angle: float) -> float:
    """The largest 32-bit cosine of two vectors that are surely `angle` degrees apart."""
    return math.cos(math.radians(angle)) - _ROUNDING
