"""Age, gender and expression of faces: for strata and for utility, never for identity.

Gender and age are estimates of how a face looks to a network, used so that a replacement looks like the same
kind of person; a stratum asks them to be sure and sends the unsure to a mixed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.faces.embed import model_input
from anonlib.models.runtime import Engine

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
            ages, genders = self.age_gender(model_input("age-gender", images, points))[:2]
            # Not a product of matrices, whose rounding depends on how many faces are read together.
            age, female = (ages.astype(np.float32) * _AGES).sum(axis=1), genders[:, 0].astype(np.float32)
        if count and self.expression is not None:
            expression = self.expression(model_input("expression", images, points))[0].astype(np.float32)
        return Attributes(age, female, expression)
