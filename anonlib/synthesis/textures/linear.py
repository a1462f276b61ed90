"""An identity vector decoded into a face: ridge regression from the vector to codes of textures and shapes.

Regression answers with the mean of all faces that share a vector, which is faint; `stretch` makes up for that. Vectors
of faces fill an ellipsoid, so a vector is read along its `axes`, in standard deviations of real faces up to BOUND.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from anonlib.errors import ModelUnusable
from anonlib.privacy.clustering import normalized
from anonlib.privacy.strata import Stratum
from anonlib.synthesis.base import DecoderNotes, FaceTexture, Floats, IdentityDraw
from anonlib.synthesis.textures.average import Texture
from anonlib.synthesis.textures.face_space import FaceBank, FaceSpace

VERSION = 1
NEUTRAL = 0.0
"""How happy decoded faces look; the renderer adds the photo's smile."""
BOUND = 1.5
_HALF = ("detail_mean", "detail", "shape_mean", "shape", "bank_vectors", "bank_codes")
_SINGLE = ("centre", "axes", "offset", "weights", "intercept", "stretch", "bank_female", "bank_age", "bank_happy")
_AGAIN = "; make it again with `anonlib fit-decoder`"


@dataclass(frozen=True)
class Decoder:
    """code = `weights` (r + 2, c) of [z as `axes` (r, d) and `offset` (r,) read it, female, age] + `intercept` (c,),
    where the identity's part is brought to the length `stretch`. `centre` (d,) of the identity space; `digest`: sha256
    of the file."""

    trained_against: ClassVar[tuple[str, ...]] = ()
    Face: ClassVar[type[FaceTexture]] = Texture
    kind: ClassVar[str] = "no network"

    about: DecoderNotes
    space: FaceSpace
    centre: Floats
    axes: Floats
    offset: Floats
    weights: Floats
    intercept: Floats
    stretch: float
    bank: FaceBank
    digest: str

    def identity(self, vectors: Floats) -> Floats:
        """Recognizer vectors (n, d), unit rows -> points of the identity space (n, d), unit rows."""
        return normalized(vectors - self.centre)

    def decode(self, z: Floats, female: float, age: float) -> Texture:
        """The face of a unit vector z (d,) of the identity space, as `female` (0-1) and as old (years) as asked."""
        if z.shape != self.centre.shape or not np.isfinite(z).all():
            raise ValueError(f"an identity vector here has {len(self.centre)} finite numbers")
        own = read(z[None], self.axes, self.offset)[0] @ self.weights[:-2]
        own = own * np.float32(self.stretch / max(float(np.linalg.norm(own)), 1e-12))
        looks = np.array([female, age], np.float32) @ self.weights[-2:]
        return self.space.texture((own + looks + self.intercept).astype(np.float32), NEUTRAL)

    def rows(self, stratum: Stratum) -> tuple[int, ...]:
        """See FaceDecoder: faces of its bank are mixed, and none is shown as it is."""
        return ()

    def face(self, draw: IdentityDraw, k: int) -> Texture:
        """See FaceDecoder; rows that the mechanism chose are mixed."""
        if draw.rows:
            return self.bank.mix(draw.rows, draw.weights)
        return self.decode(draw.vector, draw.female, draw.age)

    @classmethod
    def reads(cls, data: bytes) -> bool:
        """See FaceDecoder: an npz is a zip file."""
        return data[:2] == b"PK"

    @classmethod
    def shipped(cls) -> bytes:
        """See FaceDecoder: users fit theirs."""
        raise LookupError("no linear decoder comes with anonlib")

    @classmethod
    def from_bytes(cls, data: bytes, device: str = "cpu") -> Self:
        """See FaceDecoder; it computes on the CPU alone."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                notes = json.loads(file["about"].tobytes())
                version = notes.pop("version")
                if version != VERSION:
                    raise ModelUnusable(f"the decoder is of version {version}, this anonlib reads {VERSION}{_AGAIN}")
                about = DecoderNotes(**notes)
                arrays = {name: file[name].astype(np.float32) for name in (*_HALF, *_SINGLE)}
        except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise ModelUnusable(f"the decoder is damaged or no decoder at all{_AGAIN}") from error
        space = FaceSpace(*(arrays[name] for name in ("detail_mean", "detail", "shape_mean", "shape")))
        columns = {name: arrays[f"bank_{name}"] for name in ("vectors", "female", "age", "codes", "happy")}
        bank = FaceBank(space=space, **columns)
        own = {name: arrays[name] for name in ("centre", "axes", "offset", "weights", "intercept")}
        stretch = float(arrays["stretch"][0])
        return cls(about, space, **own, stretch=stretch, bank=bank, digest=hashlib.sha256(data).hexdigest())


class BankMixer(Decoder):
    """The texture `bank`: the same file, of which the k faces nearest to a vector are mixed."""

    def face(self, draw: IdentityDraw, k: int) -> Texture:
        """See FaceDecoder."""
        if draw.rows:
            return self.bank.mix(draw.rows, draw.weights)
        return self.bank.mix(self.bank.nearest(draw.vector, k, draw.female, draw.age))


def read(points: Floats, axes: Floats, offset: Floats) -> Floats:
    """What a Decoder uses (n, r) of points (n, d) of the identity space: about normal for faces, within BOUND."""
    return np.asarray(BOUND * np.tanh((points @ axes.T - offset) / BOUND), np.float32)


def to_bytes(about: DecoderNotes, arrays: Mapping[str, NDArray[np.floating]]) -> bytes:
    """A decoder's file: `arrays` are those of Decoder, its FaceSpace and, as bank_*, its Bank; no pickle, no clock.
    `stretch` comes as (1,)."""
    text = json.dumps({"version": VERSION, **asdict(about)}, sort_keys=True).encode()
    stored: dict[str, Any] = {name: arrays[name].astype(np.float16) for name in _HALF}
    stored |= {name: arrays[name].astype(np.float32) for name in _SINGLE}
    buffer = io.BytesIO()
    np.savez(buffer, about=np.frombuffer(text, np.uint8), **stored)
    return buffer.getvalue()
