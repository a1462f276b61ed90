"""The contract of synthesis: what a renderer can put on a face, and what turns an identity vector into that."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.classes import Stratum

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Extent = Literal["skin", "wide"]
UNKNOWN_AGE = 45.0
"""Years of a face of unknown age: its skin is that of the middle band."""


@dataclass(frozen=True)
class DecoderNotes:
    """Where a decoder comes from: `fitted_on` in words, the `terms` of those photos, how many `faces`. `commercial`:
    whether the terms allow commercial use; if not, a job must accept them first."""

    fitted_on: str
    terms: str
    faces: int
    commercial: bool


class FaceTexture(Protocol):
    """A face that a renderer can put on; the workspace keeps those of classes as files."""

    @property
    def shape(self) -> Floats:
        """Neutral shape (468, 3), in eye distances."""

    @property
    def age(self) -> float:
        """How old the face is, in years."""

    def dressed(self, happy: float, opening: float) -> Floats:
        """The detail (S, S, 3), log, of this face as `happy` (0-1) and with the mouth `opening` open."""

    def to_bytes(self) -> bytes:
        """An npz in half precision; the same face gives the same bytes."""

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The face in such a file; raises ValueError if the bytes are damaged."""


def texture_bytes(**arrays: Any) -> bytes:
    """A texture's arrays as npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def texture_arrays(data: bytes, *names: str) -> list[Floats]:
    """The arrays of these names in a texture's npz, in single precision; raises ValueError if it is damaged."""
    try:
        with np.load(io.BytesIO(data)) as arrays:
            return [arrays[name].astype(np.float32) for name in names]
    except (ValueError, KeyError, TypeError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError("a surrogate in the workspace is damaged") from error


@dataclass(frozen=True)
class PublicFaces:
    """People of a decoder's own faces: `vectors` (b, d) unit rows of the identity space, `female`, `age` (b,)."""

    vectors: Floats
    female: Floats
    age: Floats


@dataclass(frozen=True)
class IdentityDraw:
    """A face to be made: `vector` (d,) unit in the identity space, as `female` (0-1) and as old (years) as asked; or
    `rows` of a bank and their `weights` in the vector, where the mechanism chose them itself."""

    vector: Floats
    female: float
    age: float
    rows: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> IdentityDraw:
        """A draw as the tables hold it."""
        rows, weights = row["rows"] or (), row["weights"] or ()
        return cls(np.array(row["vector"], np.float32), row["female"], row["age"], tuple(rows), tuple(weights))


class FaceDecoder(Protocol):
    """A texture that is decoded from identity vectors, the same face of the same vector. `trained_against`: recognizers
    whose gradients its training used. `Face`: what it decodes to."""

    trained_against: ClassVar[tuple[str, ...]]
    Face: ClassVar[type[FaceTexture]]

    @property
    def about(self) -> DecoderNotes: ...
    @property
    def digest(self) -> str: ...
    @property
    def bank(self) -> PublicFaces: ...

    def rows(self, stratum: Stratum) -> tuple[int, ...]:
        """The rows of the bank of a stratum that it can show as they are; none where every face is decoded."""

    def identity(self, vectors: Floats) -> Floats:
        """Recognizer vectors (n, d), unit rows -> points of the identity space (n, d), unit rows."""

    def face(self, draw: IdentityDraw) -> FaceTexture:
        """The face of a draw: of the first of its rows, where it names some that can be shown, else of its vector."""

    @classmethod
    def from_bytes(cls, data: bytes, device: str = "cpu") -> Self:
        """The decoder in a file's bytes, to run on `device`."""

    @classmethod
    def shipped(cls) -> bytes:
        """The file that comes with anonlib."""
