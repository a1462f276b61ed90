"""Age, gender and expression of faces: for strata and for utility, never for identity.

Gender and age are estimates of how a face looks to a network, used so that a replacement looks like the same kind of person;
a stratum asks them to be sure and sends the unsure to a mixed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.faces import align
from anonlib.faces.embed import Alignment
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import Engine, prepare

_AGE_GENDER = Alignment.arcface(1.2, -0.17)
_EXPRESSION = Alignment.arcface(0.95, -0.08)
_AGES = np.arange(81, dtype=np.float32)


@dataclass(frozen=True)
class Attributes:
    """`age` (n,) years, `female` (n,) probability, `expression` (n, 7) probabilities in the order of EXPRESSIONS."""

    age: NDArray[np.float32]
    female: NDArray[np.float32]
    expression: NDArray[np.float32]


class AttributeReader:
    """Both networks together; each may be None, and then its answers are NaN."""

    def __init__(self, age_gender: Engine | None, expression: Engine | None) -> None:
        self.age_gender = age_gender
        self.expression = expression

    def read(self, images: Sequence[NDArray[np.uint8]], points: Sequence[NDArray[np.float32]]) -> Attributes:
        """For each image and its five points (5, 2) px."""
        count = len(images)
        age, female = (np.full(count, np.nan, np.float32) for _ in range(2))
        expression = np.full((count, 7), np.nan, np.float32)
        if count and self.age_gender is not None:
            ages, genders = self.age_gender(_crops("age-gender", images, points, _AGE_GENDER))[:2]
            age, female = ages.astype(np.float32) @ _AGES, genders[:, 0].astype(np.float32)
        if count and self.expression is not None:
            expression = self.expression(_crops("expression", images, points, _EXPRESSION))[0].astype(np.float32)
        return Attributes(age, female, expression)


def _crops(
    name: str,
    images: Sequence[NDArray[np.uint8]],
    points: Sequence[NDArray[np.float32]],
    alignment: Alignment,
) -> NDArray[np.float32]:
    model = MODELS[name]
    size = model.input.size[0] if model.input.size else 0
    target = alignment.points * size
    views = [
        align.crop(image, align.similarity(five, target), size) for image, five in zip(images, points, strict=True)
    ]
    return prepare(model, np.stack(views))
