"""Where faces are points: a few hundred numbers for a canonical texture and a neutral shape (Turk & Pentland 1991).

Every direction is scaled to one standard deviation of the faces it was fitted on, so codes of faces are about normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.synthesis.base import Floats, Mask, PublicFaces
from anonlib.synthesis.canonical import SIZE, canonical_frame
from anonlib.synthesis.textures.average import Texture
from anonlib.workspace.schemas import MESH_POINTS

SIDE = 192
"""Side in px of the canonical frame here."""
_AGE_REACH = 10.0


@dataclass(frozen=True)
class FaceSpace:
    """`detail_mean` (p,) and `detail` (c, p): log, px of `region` by 3; `shape_mean` (1404,) and `shape` (s, 1404). A
    code (c + s,) weighs the rows of `detail`, then those of `shape`."""

    detail_mean: Floats
    detail: Floats
    shape_mean: Floats
    shape: Floats

    def texture(self, code: Floats, happy: float) -> Texture:
        """The face (c + s,) as a texture that looks `happy` (0-1)."""
        count = len(self.detail)
        detail = self.detail_mean + code[:count] @ self.detail
        shape = self.shape_mean + code[count:] @ self.shape
        return Texture(unpacked(detail), shape.reshape(MESH_POINTS, 3).astype(np.float32), happy)


@dataclass(frozen=True)
class FaceBank(PublicFaces):
    """Public faces with their `codes` (b, c) in `space` and how `happy` they look (b,). What is mixed depends on the
    vector alone, so a guarantee for the vector holds for the mix (post-processing)."""

    codes: Floats
    happy: Floats
    space: FaceSpace

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(self, z: Floats, k: int, female: float, age: float) -> NDArray[np.int64]:
        """The k rows nearest to z (d,), best first, of the same gender (`female` 0-1) within ten years of `age`; else
        of that gender; else of all, as soon as there are k. Raises ValueError if the bank holds fewer."""
        if not 1 <= k <= len(self):
            raise ValueError(f"{k} faces are asked of a bank of {len(self)}")
        gender = (self.female >= 0.5) == (female >= 0.5)
        groups = (gender & (np.abs(self.age - age) <= _AGE_REACH), gender, np.ones(len(self), bool))
        rows = next(members for group in groups if len(members := np.flatnonzero(group)) >= k)
        order = np.argsort(-(self.vectors[rows] @ z), kind="stable")[:k]
        return np.asarray(rows[order], np.int64)

    def mix(self, rows: Sequence[int] | NDArray[np.int64], weights: Sequence[float] | None = None) -> Texture:
        """The mean face of rows, weighted alike or by `weights` >= 0 of any sum."""
        chosen = np.asarray(rows, np.int64)
        share = np.ones(len(chosen)) if weights is None else np.asarray(weights, np.float64)
        share = (share / share.sum()).astype(np.float32)
        return self.space.texture(share @ self.codes[chosen], float(share @ self.happy[chosen]))


@cache
def region() -> Mask:
    """The px (SIDE, SIDE) that a face covers, rings included."""
    inside = cv2.resize(canonical_frame().inside.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(inside > 0.5, np.bool_)


def packed(detail: Floats) -> Floats:
    """A canonical detail (S, S, 3) -> (p,), at SIDE px."""
    small = cv2.resize(detail, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small[region()].ravel(), np.float32)


def unpacked(values: Floats) -> Floats:
    """(p,) -> a canonical detail (S, S, 3), zero outside the region."""
    small = np.zeros((SIDE, SIDE, 3), np.float32)
    small[region()] = values.reshape(-1, 3)
    return np.asarray(cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), np.float32)
