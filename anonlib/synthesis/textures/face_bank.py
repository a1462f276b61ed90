"""Faces of a public bank by identity vector, so that any mechanism ends in a face like a photograph's.

What is mixed are codes of the nearest faces, of the same gender and about the same age where there are enough. The
choice depends on the vector alone, so a guarantee that holds for the vector holds for the mix (post-processing). The
fewer faces are mixed, the more the result looks like a real person who gave a face to the bank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.synthesis.textures.average import Texture
from anonlib.synthesis.textures.face_space import FaceSpace

_AGE_REACH = 10.0


@dataclass(frozen=True)
class FaceBank:
    """`vectors` (b, d) unit rows in the identity space, `codes` (b, c) in `space`; `female`, `age`, `happy` (b,)."""

    space: FaceSpace
    vectors: NDArray[np.float32]
    codes: NDArray[np.float32]
    female: NDArray[np.float32]
    age: NDArray[np.float32]
    happy: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(self, z: NDArray[np.float32], k: int, female: float, age: float) -> NDArray[np.int64]:
        """The k rows nearest to z (d,), best first.

        `female` (0-1) and `age` (years) say whom to prefer: first rows of that gender within ten years, then of that
        gender, then all, as soon as a group has k. Raises ValueError if the bank holds fewer than k faces.
        """
        if not 1 <= k <= len(self):
            raise ValueError(f"{k} faces are asked of a bank of {len(self)}")
        gender = (self.female >= 0.5) == (female >= 0.5)
        groups = (gender & (np.abs(self.age - age) <= _AGE_REACH), gender, np.ones(len(self), bool))
        rows = next(found for group in groups if len(found := np.flatnonzero(group)) >= k)
        order = np.argsort(-(self.vectors[rows] @ z), kind="stable")[:k]
        return np.asarray(rows[order], np.int64)

    def mix(self, rows: Sequence[int] | NDArray[np.int64], weights: Sequence[float] | None = None) -> Texture:
        """The mean face of rows, weighted alike or by `weights` >= 0 of any sum; raises ValueError if they misfit."""
        chosen = np.asarray(rows, np.int64)
        share = np.ones(len(chosen)) if weights is None else np.asarray(weights, np.float64)
        if len(chosen) == 0 or share.shape != chosen.shape or (share < 0).any() or share.sum() <= 0:
            raise ValueError("a mix needs at least one row and as many weights, none negative, not all zero")
        share = (share / share.sum()).astype(np.float32)
        return self.space.texture(share @ self.codes[chosen], float(share @ self.happy[chosen]))
