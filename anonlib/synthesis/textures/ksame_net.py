"""ksame-net: an identity vector and a wanted look decoded into a face by a trained network, after Meden et al. 2018.

So that one face stays one face, looks come from a small set of MOODS, and nothing else of the photo reaches the
network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import ClassVar

import cv2
import numpy as np

from anonlib.privacy.classes import Stratum
from anonlib.privacy.clustering import normalized
from anonlib.synthesis import base
from anonlib.synthesis.base import FaceTexture, Floats, IdentityDraw, PublicFaces
from anonlib.synthesis.canonical import SIZE
from anonlib.synthesis.network_file import Network, read_network
from anonlib.workspace.schemas import EXPRESSIONS, MESH_POINTS

ASKED, DETAIL, SHAPE = "asked", "detail", "shape"
LOOKS = ("female", "age", *EXPRESSIONS, "mouth", "eyes", "yaw")
"""What is asked beside the identity: 0-1, years, probabilities, openings, degrees."""
MOUTHS = (0.0, 0.15, 0.35)
"""How open the mouths are that are drawn; the geometry does the rest."""
Mood = tuple[bool, float]
MOODS: tuple[Mood, ...] = tuple((happy, mouth) for happy in (False, True) for mouth in MOUTHS)
"""What of a photo reaches the network: whether the face smiles, and which of MOUTHS is nearest."""
_STORED = ("centre", "eyes", "vectors", "female", "age")


@dataclass(frozen=True)
class MoodTexture:
    """A face of neutral `shape` (468, 3) and `age`; `of` gives its detail (S, S, 3), log, of one of MOODS."""

    shape: Floats
    age: float
    of: Callable[[Mood], Floats]

    def dressed(self, happy: float, opening: float) -> Floats:
        """The detail (S, S, 3), log, of the nearest mood."""
        mouth = min(MOUTHS, key=lambda width: abs(width - opening))
        return self.of((happy >= 0.5, mouth))

    def to_bytes(self) -> bytes:
        """See FaceTexture: every mood is drawn."""
        moods = np.stack([self.of(mood) for mood in MOODS]).astype(np.float16)
        return base.texture_bytes(shape=self.shape, moods=moods, age=np.array(self.age, np.float32))

    @classmethod
    def from_bytes(cls, data: bytes) -> MoodTexture:
        """See FaceTexture."""
        shape, moods, age = base.texture_arrays(data, "shape", "moods", "age")
        return cls(shape, float(age), dict(zip(MOODS, moods, strict=True)).__getitem__)


@dataclass(frozen=True, kw_only=True)
class NetworkDecoder(Network):
    """A network with a `bank` of people who do not exist and may lend an identity; `eyes`: how open they are drawn."""

    trained_against: ClassVar[tuple[str, ...]] = ("dlib-resnet", "mobileface")
    Face: ClassVar[type[FaceTexture]] = MoodTexture

    bank: PublicFaces
    eyes: float

    def rows(self, stratum: Stratum) -> tuple[int, ...]:
        """See FaceDecoder; its bank has identities and no faces."""
        return ()

    def face(self, draw: IdentityDraw) -> MoodTexture:
        """See FaceDecoder; raises ValueError for a vector of another length, or that is not finite."""
        if draw.vector.shape != self.centre.shape or not np.isfinite(draw.vector).all():
            raise ValueError(f"an identity vector here has {len(self.centre)} finite numbers")

        @cache
        def answer(mood: Mood) -> tuple[Floats, Floats]:
            look = self.look(draw.female, draw.age, "happy" if mood[0] else "neutral", mood[1])
            return self.answer(draw.vector, look)

        return MoodTexture(answer(MOODS[0])[1], draw.age, lambda mood: answer(mood)[0])

    def look(self, female: float, age: float, expression: str, mouth: float, yaw: float = 0.0) -> Floats:
        """(LOOKS,) of an expression of EXPRESSIONS with the mouth `mouth` open."""
        mood = np.zeros(len(EXPRESSIONS))
        mood[EXPRESSIONS.index(expression)] = 1.0
        return np.array([female, age, *mood, mouth, self.eyes, yaw], np.float32)

    def answer(self, z: Floats, look: Floats) -> tuple[Floats, Floats]:
        """Detail (S, S, 3), log, and neutral shape (468, 3) of z (d,) with a look (LOOKS,)."""
        detail, shape = self.engine(np.concatenate([z, look])[None].astype(np.float32))
        square = np.ascontiguousarray(detail[0].transpose(1, 2, 0))
        if len(square) != SIZE:
            square = np.asarray(cv2.resize(square, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), np.float32)
        return square, shape.reshape(MESH_POINTS, 3)

    @classmethod
    def shipped(cls) -> bytes:
        """See FaceDecoder; its terms are in it."""
        return resources.files("anonlib.synthesis").joinpath("shipped/ksame-net.onnx").read_bytes()

    @classmethod
    def from_bytes(cls, data: bytes, device: str = "cpu") -> NetworkDecoder:
        """See FaceDecoder."""
        about, (centre, eyes, vectors, female, age) = read_network(data, _STORED)
        bank = PublicFaces(normalized(vectors), female, age)
        return cls(about=about, centre=centre, data=data, device=device, bank=bank, eyes=float(eyes))
