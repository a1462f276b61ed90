"""Identity vectors of faces, one recognizer each, aligned by five points of the mesh.

A recognizer is only as good as its alignment, so each has its own: where eyes, nose and mouth corners belong in its
input, in fractions of the side. ArcFace's is Deng et al. 2019; dlib's is its mean face with padding 0.25. Thresholds
are cosines at FAR 1e-3, measured on impostor pairs of people who appear in none of our evaluations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.faces import align
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import Engine, prepare
from anonlib.privacy.subjects import normalized

_ARCFACE = np.array([[38.29, 51.70], [73.53, 51.50], [56.03, 71.74], [41.55, 92.37], [70.73, 92.20]], np.float32) / 112


@dataclass(frozen=True)
class Alignment:
    """`points` (5, 2): where eye centres, nose tip and mouth corners lie, in fractions of the input's side."""

    points: NDArray[np.float32]

    @staticmethod
    def arcface(scale: float = 1.0, down: float = 0.0) -> Alignment:
        """ArcFace's five points, the face made `scale` times as large about the centre and moved `down`."""
        return Alignment((_ARCFACE - 0.5) * np.float32(scale) + np.array([0.5, 0.5 + down], np.float32))


ALIGNMENTS = {
    "dlib-resnet": Alignment.arcface(1.10, -0.13),
    "faceres": Alignment.arcface(0.88),
    "mobileface": Alignment.arcface(1.0),
    "fr-feature": Alignment.arcface(1.0),
}

THRESHOLDS = {"dlib-resnet": 0.924, "faceres": 0.612, "mobileface": 0.370, "fr-feature": 0.340}
"""Cosine of two photos at FAR 1e-3."""


class Recognizer:
    """A recognizer of the catalog by name, on an engine already loaded with it."""

    def __init__(self, name: str, engine: Engine, alignment: Alignment | None = None) -> None:
        self.name = name
        self.model = MODELS[name]
        self.engine = engine
        self.alignment = alignment or ALIGNMENTS[name]
        if self.model.input.size is None:
            raise ValueError(f"{name} takes whole photos and is no recognizer")
        self.size = self.model.input.size[0]

    def crops(self, images: Sequence[NDArray[np.uint8]], points: Sequence[NDArray[np.float32]]) -> NDArray[np.uint8]:
        """One aligned RGB crop (n, size, size, 3) for each image and its five points (5, 2) px."""
        target = self.alignment.points * self.size
        views = [
            align.crop(image, align.similarity(five, target), self.size)
            for image, five in zip(images, points, strict=True)
        ]
        return np.stack(views) if views else np.zeros((0, self.size, self.size, 3), np.uint8)

    def embed(self, images: Sequence[NDArray[np.uint8]], points: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Unit vectors (n, d), one a face."""
        return normalized(self.engine(prepare(self.model, self.crops(images, points)))[0])
