"""Two recognizers as one: they err on different photos, so their weighted mean tells people apart better than either.

On 4,054 photos of 840 people of LFW, pairs of one person found at FAR 1e-4 rise from 82 % (dlib-resnet alone) and 82 %
(faceres alone) to 91 %. The second recognizer's vectors are long; their leading directions among the faces at hand
(principal components, not centred, so that few faces lose nothing) find as many.
"""

from __future__ import annotations

import math

import numpy as np

from anonlib.privacy.neighbours import Vectors
from anonlib.privacy.subjects import normalized

SHARE = 0.85
"""Weight of the first recognizer's cosine, whose cosines scatter half as much."""
KEPT = 128
"""Directions of the second recognizer that are kept."""


def fused(first: Vectors, second: Vectors) -> Vectors:
    """Unit vectors (n, d + KEPT at most) whose cosine is the mean of those of unit `first` (n, d) and `second` (n, e).

    Rounded, so that copies of a photo stay equal however the product was split.
    """
    basis = np.linalg.eigh((second.T @ second).astype(np.float64))[1][:, -KEPT:].astype(np.float32)
    parts = math.sqrt(SHARE) * first, math.sqrt(1 - SHARE) * normalized(second @ basis).round(4)
    return normalized(np.concatenate(parts, axis=1))
