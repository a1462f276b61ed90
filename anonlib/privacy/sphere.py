"""The one condition that every mechanism on identity vectors needs: they lie on the unit sphere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 1e-3


def require_unit(rows: NDArray[np.floating], whose: str) -> None:
    """ValueError unless the rows (n, d) have length 1 to a thousandth; `whose` they are begins the sentence."""
    lengths = np.linalg.norm(np.asarray(rows, np.float64), axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < _TOLERANCE))
    if len(wrong):
        raise ValueError(
            f"{whose} must have length 1; {len(wrong):,} of {len(lengths):,} have not, one has {lengths[wrong[0]]:.6g}"
        )
