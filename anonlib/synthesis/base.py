"""The contract of synthesis: what a renderer can put on a face, and what turns an identity vector into that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DecoderNotes:
    """Where a decoder comes from: `fitted_on` in words, the `terms` of those photos, how many `faces`.

    `commercial`: whether the terms allow commercial use; if not, a job must accept them first.
    """

    fitted_on: str
    terms: str
    faces: int
    commercial: bool

    @property
    def needs_acceptance(self) -> bool:
        """Whether a job may use this decoder only if its owner accepts the terms."""
        return not self.commercial


class FaceTexture(Protocol):
    """A face that a renderer can put on."""

    @property
    def shape(self) -> NDArray[np.float32]:
        """Neutral shape (468, 3), in eye distances."""
        ...

    def dressed(self, happy: float, opening: float) -> NDArray[np.float32]:
        """The detail (S, S, 3), log, of this face as `happy` (0-1) and with the mouth `opening` open."""
        ...


class PublicFaces(Protocol):
    """People of a decoder's own faces: `vectors` (b, d) unit rows of the identity space, `female`, `age` (b,)."""

    @property
    def vectors(self) -> NDArray[np.float32]: ...
    @property
    def female(self) -> NDArray[np.float32]: ...
    @property
    def age(self) -> NDArray[np.float32]: ...


class FaceDecoder(Protocol):
    """From identity vectors to faces; the same file always draws the same face of a vector."""

    @property
    def about(self) -> DecoderNotes: ...
    @property
    def digest(self) -> str:
        """sha256 of the file, hex."""
        ...

    @property
    def bank(self) -> PublicFaces: ...

    def identity(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Recognizer vectors (n, d), unit rows -> points of the identity space (n, d), unit rows."""
        ...

    def decode(self, z: NDArray[np.float32], female: float, age: float) -> FaceTexture:
        """The face of a unit vector z (d,) of the identity space, as `female` (0-1) and as old (years) as asked."""
        ...
