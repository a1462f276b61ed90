"""Identity vectors of faces, one recognizer each, aligned by five points of the mesh.

A recognizer is only as good as its alignment, so each model's card says where eyes, nose and mouth corners belong
in its input. Vectors are compared by cosine; THRESHOLDS are cosines at FAR 1e-3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anonlib.faces import align
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import Engine, prepare

THRESHOLDS = {"dlib-resnet": 0.927, "faceres": 0.605, "mobileface": 0.362, "fr-feature": 0.337}
"""Cosine of two photos at FAR 1e-3, on impostor pairs of 2,000 people who appear in none of our evaluations."""
SAME_PERSON = 0.925
"""dlib cosine from which two faces among 5,000 are one person: fewer than half as many pairs are merged as split.

From half of 840 people of LFW; how the bar rises was chosen on all of them.
"""


class Recognizer:
    """A recognizer of the catalog by name, on an engine already loaded with it."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.engine = engine

    def embed(self, images: Sequence[NDArray[np.uint8]], points: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Unit vectors (n, d) of faces, one for each RGB image and its five points (5, 2) px."""
        vectors = self.engine(model_input(self.name, images, points))[0]
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


def model_input(
    name: str, images: Sequence[NDArray[np.uint8]], points: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """What the model `name` wants, (n, 3, size, size), of faces with five points (5, 2) px each."""
    wanted = MODELS[name].input
    target = np.array(wanted.landmarks(), np.float32)
    size = wanted.size[0] if wanted.size else 0
    crops = np.zeros((len(images), size, size, 3), np.uint8)
    for row, (image, five) in enumerate(zip(images, points, strict=True)):
        crops[row] = align.crop(image, align.similarity(five, target), size)
    return prepare(MODELS[name], crops)
