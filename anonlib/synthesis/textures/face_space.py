"""Where faces are points: a few hundred numbers for a canonical texture and a neutral shape (Turk & Pentland 1991).

Every direction is scaled to one standard deviation of the faces it was fitted on, so that codes of natural faces are
about normal and a code's length says how unusual a face is. Textures are kept at SIDE px, which is as much as a face of
50 px between the eyes has to show.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.synthesis.canonical import SIZE, canonical_frame
from anonlib.synthesis.textures.average import Texture
from anonlib.workspace.schemas import MESH_POINTS

SIDE = 192
"""Side in px of the canonical frame here."""


@dataclass(frozen=True)
class FaceSpace:
    """`detail_mean` (p,) and `detail` (c, p): log, px of `region` by 3; `shape_mean` (1404,) and `shape` (s, 1404).

    A code (c + s,) weighs the rows of `detail`, then those of `shape`.
    """

    detail_mean: NDArray[np.float32]
    detail: NDArray[np.float32]
    shape_mean: NDArray[np.float32]
    shape: NDArray[np.float32]

    @property
    def size(self) -> int:
        """Numbers in a code."""
        return len(self.detail) + len(self.shape)

    def texture(self, code: NDArray[np.float32], happy: float) -> Texture:
        """The face (c + s,) as a texture that looks `happy` (0-1)."""
        if code.shape != (self.size,):
            raise ValueError(f"a face here has {self.size} numbers, not {code.shape}")
        count = len(self.detail)
        detail = self.detail_mean + code[:count] @ self.detail
        shape = self.shape_mean + code[count:] @ self.shape
        return Texture(unpacked(detail), shape.reshape(MESH_POINTS, 3).astype(np.float32), happy)


@cache
def region() -> NDArray[np.bool_]:
    """The px (SIDE, SIDE) that a face covers, rings included."""
    inside = cv2.resize(canonical_frame().inside.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(inside > 0.5, np.bool_)


def packed(detail: NDArray[np.float32]) -> NDArray[np.float32]:
    """A canonical detail (S, S, 3) -> (p,), at SIDE px."""
    small = cv2.resize(detail, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small[region()].ravel(), np.float32)


def unpacked(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(p,) -> a canonical detail (S, S, 3), zero outside the region."""
    small = np.zeros((SIDE, SIDE, 3), np.float32)
    small[region()] = values.reshape(-1, 3)
    return np.asarray(cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), np.float32)
