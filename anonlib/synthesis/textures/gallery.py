"""gallery: faces of no real person, which ship with anonlib. Methods show one of a person's stratum.

Each face has the skin of one synthetic portrait and a shape mixed from four (shipped/gallery.md has the steps), so
nothing in it comes from a person, and which face is shown is all that a release can tell.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import resources
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from anonlib.privacy.classes import Stratum, stratum_of
from anonlib.privacy.clustering import normalized
from anonlib.synthesis.base import DecoderNotes, FaceTexture, Floats, IdentityDraw, Pixels, PublicFaces
from anonlib.synthesis.light import to_log
from anonlib.synthesis.textures.average import Texture

VERSION = 1
NEUTRAL = (140.0, 140.0, 140.0)
"""The colour of skin in the stored pictures: the detail is a picture's log less that of this colour."""
_QUALITY = 92
_FIRST = "gallery"
_LOOKS = ("female", "age", "tone", "happy")


@dataclass(frozen=True)
class Gallery:
    """`pictures`: of each face a JPEG of its detail (S, S, 3) on skin of the colour NEUTRAL; its neutral shape
    (468, 3), and how `happy` it looks. `bank`: as what a recognizer sees the faces when they are rendered; `tone` (n,):
    grey level of the skin in the portraits that gave it."""

    trained_against: ClassVar[tuple[str, ...]] = ()
    Face: ClassVar[type[FaceTexture]] = Texture

    about: DecoderNotes
    centre: Floats
    bank: PublicFaces
    tone: Floats
    happy: Floats
    shapes: Floats
    pictures: tuple[bytes, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.pictures)

    @cached_property
    def strata(self) -> tuple[Stratum, ...]:
        """Gender, age band and tone of each face."""
        looks = zip(self.bank.female.tolist(), self.bank.age.tolist(), self.tone.tolist(), strict=True)
        return tuple(stratum_of(*look) for look in looks)

    def rows(self, stratum: Stratum) -> tuple[int, ...]:
        """The faces of a stratum, or of what it begins with: ("female",) are all women."""
        return tuple(row for row, own in enumerate(self.strata) if own[: len(stratum)] == stratum)

    def identity(self, vectors: Floats) -> Floats:
        """Recognizer vectors (n, d), unit rows -> points of the identity space (n, d), unit rows."""
        return normalized(vectors - self.centre)

    def texture(self, row: int) -> Texture:
        """The face of a row."""
        picture = simplejpeg.decode_jpeg(self.pictures[row], colorspace="RGB")
        detail = to_log(picture.astype(np.float32)) - to_log(np.array(NEUTRAL, np.float32))
        # A shine adds as much to dark skin as to light skin, so it is a smaller part of light skin.
        shine = np.float32(min(self.tone[row] / NEUTRAL[0], 1.0)) * np.expm1(np.maximum(detail, 0))
        detail = np.where(detail > 0, np.log1p(shine), detail).astype(np.float32)
        return Texture(detail, self.shapes[row], float(self.happy[row]), float(self.bank.age[row]))

    def face(self, draw: IdentityDraw) -> Texture:
        """See FaceDecoder; of a draw without rows the nearest of all."""
        return self.texture(draw.rows[0] if draw.rows else int(np.argmax(self.bank.vectors @ draw.vector)))

    @classmethod
    def shipped(cls) -> bytes:
        """See FaceDecoder; its card is gallery.md."""
        return resources.files("anonlib.synthesis").joinpath("shipped/gallery.npz").read_bytes()

    @classmethod
    def from_bytes(cls, data: bytes, device: str = "cpu") -> Self:
        """See FaceDecoder; nothing is computed on a device."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            notes = json.loads(file[_FIRST].tobytes())
            about = DecoderNotes(**{name: value for name, value in notes.items() if name != "version"})
            centre, vectors, female, age, tone, happy, shapes = (
                file[name].astype(np.float32) for name in ("centre", "vectors", *_LOOKS, "shapes")
            )
            joined, bounds = file["pictures"].tobytes(), np.cumsum([0, *file["sizes"].tolist()]).tolist()
        pictures = tuple(joined[start:stop] for start, stop in pairwise(bounds))
        bank = PublicFaces(normalized(vectors), female, age)
        return cls(about, centre, bank, tone, happy, shapes, pictures, hashlib.sha256(data).hexdigest())


def encoded(picture: Pixels) -> bytes:
    """A face's picture (S, S, 3) as the file holds it."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=_QUALITY, colorsubsampling="444"))


def to_bytes(about: DecoderNotes, pictures: list[bytes], **arrays: NDArray[np.floating]) -> bytes:
    """A gallery's file; `arrays`: centre (d,), vectors (n, d), shapes (n, 468, 3) and the looks (n,) of the class."""
    text = json.dumps({"version": VERSION, **asdict(about)}, sort_keys=True).encode()
    stored: dict[str, Any] = {name: array.astype(np.float16) for name, array in arrays.items()}
    stored["sizes"] = np.array([len(picture) for picture in pictures], np.int64)
    stored["pictures"] = np.frombuffer(b"".join(pictures), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **({_FIRST: np.frombuffer(text, np.uint8)} | stored))
    return buffer.getvalue()
