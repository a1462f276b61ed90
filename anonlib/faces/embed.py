"""What networks read from faces aligned by five points of the mesh: identity vectors, and age, gender and expression.

A recognizer is only as good as its alignment, so each model's card says where eyes, nose and mouth corners belong
in its input. Attributes are estimates for strata and for utility, never for identity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anonlib.faces import align
from anonlib.faces.regions import Images
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import Engine, prepare

Vectors = NDArray[np.float32]
Points = Sequence[Vectors]
THRESHOLDS = {"dlib-resnet": 0.927, "faceres": 0.605, "mobileface": 0.362, "fr-feature": 0.337, "facenet": 0.514}
"""Cosine of two photos at FAR 1e-3, on impostor pairs of 2,000 people who appear in none of our evaluations."""
SAME_PERSON = 0.925
"""dlib cosine from which two faces among 5,000 are one person, from half of 840 people of LFW."""
_AGES = np.arange(81, dtype=np.float32)


class Recognizer:
    """A recognizer of the catalog by name, on an engine already loaded with it."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name, self.engine = name, engine

    def embed(self, images: Images, points: Points) -> Vectors:
        """Unit vectors (n, d) of faces, one for each RGB image and its five points (5, 2) px."""
        vectors = self.engine(model_input(self.name, images, points))[0]
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


def read_attributes(
    age_gender: Engine, expression: Engine, images: Images, points: Points
) -> tuple[Vectors, Vectors, Vectors]:
    """Age (n,) years, probability of female (n,) and of EXPRESSIONS (n, 7), of images and five points (5, 2) px."""
    if not images:
        return np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros((0, 7), np.float32)
    ages, genders = age_gender(model_input("age-gender", images, points))[:2]
    expressions = expression(model_input("expression", images, points))[0].astype(np.float32)
    # Not a product of matrices, whose rounding depends on how many faces are read together.
    age = (ages.astype(np.float32) * _AGES).sum(axis=1)
    return age, genders[:, 0].astype(np.float32), expressions


def model_input(name: str, images: Images, points: Points) -> Vectors:
    """What the model `name` wants, (n, 3, size, size), of faces with five points (5, 2) px each."""
    wanted = MODELS[name].input
    target = np.array(wanted.landmarks(), np.float32)
    size = wanted.size[0] if wanted.size else 0
    wider = np.array([[wanted.stretch], [1]], np.float32)  # about the middle of the crop
    moved = np.array([[0, 0, size * (1 - wanted.stretch) / 2], [0, 0, 0]], np.float32)
    crops = np.zeros((len(images), size, size, 3), np.uint8)
    for row, (image, five) in enumerate(zip(images, points, strict=True)):
        crops[row] = align.crop(image, align.similarity(five, target) * wider + moved, size)
    return prepare(MODELS[name], crops)
