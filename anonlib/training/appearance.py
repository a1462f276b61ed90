"""Average the insides of mouths and the folds of smiles over many people.

Mouths are averaged at three openings; a smile is what the mean happy portrait has over the mean neutral one,
made symmetric and smooth, since one is interested in what happiness does and not in who was happy.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.synthesis.appearance import OPENINGS, Appearance
from anonlib.synthesis.canonical import canonical_frame
from anonlib.synthesis.textures.average import Portrait, mirrored

_WIDTH = 0.10
_LEAST = 12
_SMOOTH = 2.0


def fit_appearance(
    portraits: Sequence[Portrait],
    openings: NDArray[np.float64],
    happy: NDArray[np.float64],
    neutral: NDArray[np.float64],
) -> Appearance:
    """From portraits, each with its mouth's opening and its probabilities of happy and neutral, all (n,)."""
    detail = np.stack([portrait.detail for portrait in portraits])
    mouths = []
    for opening in OPENINGS:
        weight = np.exp(-0.5 * ((openings - opening) / (_WIDTH * (0.4 + opening))) ** 2) * (openings > 0.04)
        if weight.sum() < _LEAST:
            raise ValueError(f"only {weight.sum():.0f} of {_LEAST} portraits have their mouth open by about {opening}")
        mouths.append(np.tensordot(weight / weight.sum(), detail, 1).astype(np.float32))
    smiling = np.tensordot(happy / happy.sum(), detail, 1) - np.tensordot(neutral / neutral.sum(), detail, 1)
    smiling = np.asarray(cv2.GaussianBlur(smiling.astype(np.float32), (0, 0), _SMOOTH), np.float32)
    smiling = (smiling + mirrored(smiling)) / 2
    inside = canonical_frame().polygon(topology.LIPS_INNER, 1.3)[..., None]
    halves = [inside * (one + mirrored(one)) / 2 for one in mouths]
    return Appearance(np.stack(halves).astype(np.float32), smiling.astype(np.float32))
