"""What is compared: generators of faces, the class average, redactions, and the photo as it is, behind one contract.

A source is told whose face goes into whose photo. What it then wants is its wish: the identity that the result should
have, if it gives one, and the gender and age that it was asked for. Whatever draws on the whole crop comes in by a
function from the photo and the donor to an image; whatever makes a texture needs `identity` and `decode`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.generators.cast import Participants, RequestedLook
from anonlib.audit.generators.scanned import ScannedPhoto
from anonlib.privacy.clustering import normalized
from anonlib.synthesis.base import FaceTexture
from anonlib.synthesis.canonical import pose_of, shape_model
from anonlib.synthesis.compositor import render
from anonlib.synthesis.describe import happiness
from anonlib.synthesis.feature_transfer import FeatureTransferNetwork

CLEAR = "clear"
NOBODY = -1

Pixels = NDArray[np.uint8]
Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Wish:
    """What a painted face should be: its `target`'s number (NOBODY: no identity is given) and how it should look."""

    target: int
    look: RequestedLook


@dataclass(frozen=True)
class Painted:
    """`image` (h, w, 3) and the mesh (468, 3) px that the face in it was meant to have, None if that is not known."""

    image: Pixels
    intended: NDArray[np.float32] | None


@dataclass(frozen=True)
class Targets:
    """Identities that a source gives: `vectors` (t, d) unit, in its identity space, and which one a person is part of.

    `of_person` (n,): NOBODY for those who are part of none.
    """

    vectors: Vectors
    of_person: Numbers


class TextureDecoder(Protocol):
    """Draws a face from an identity vector."""

    def identity(self, vectors: Vectors) -> Vectors:
        """Recognizer vectors (n, d), unit rows -> points of the identity space (n, d), unit rows."""
        ...

    def decode(self, z: NDArray[np.float32], female: float, age: float) -> FaceTexture:
        """The face of a point z (d,), as `female` (0-1) and as old (years) as asked."""
        ...


class FaceSource(Protocol):
    """Something that changes faces."""

    name: str
    targets: Targets | None

    def identity(self, vectors: Vectors) -> Vectors:
        """Vectors of the pipeline's recognizer (n, d) as points (n, d) of the space that targets are given in."""
        ...

    def wish(self, donor: int, host: int) -> Wish:
        """What is wanted where the person `donor` goes into a photo of the person `host`."""
        ...

    def paint(self, photo: ScannedPhoto, wish: Wish) -> Painted:
        """The photo with its face changed."""
        ...


class CropSource:
    """Paints by a function from a photo and a donor's number to an image; with `gives`, the donor's identity is wanted.

    Gender and age are meant to stay the photo's own.
    """

    def __init__(
        self, name: str, cast: Participants, change: Callable[[ScannedPhoto, int], Pixels], *, gives: bool = False
    ) -> None:
        self.name, self.cast, self.change, self.gives = name, cast, change, gives
        self.targets = Targets(self.identity(cast.templates), np.arange(len(cast))) if gives else None

    def identity(self, vectors: Vectors) -> Vectors:
        return normalized(vectors - self.cast.centre)

    def wish(self, donor: int, host: int) -> Wish:
        return Wish(donor if self.gives else NOBODY, self.cast.looks[host])

    def paint(self, photo: ScannedPhoto, wish: Wish) -> Painted:
        return Painted(self.change(photo, wish.target), None)


class EmbeddingSource(CropSource):
    """Puts the donor's features into the face that is there, whose looks stay: of the method `embedding`."""

    def __init__(self, cast: Participants, network: FeatureTransferNetwork) -> None:
        self.network = network
        self._points = network.identity(cast.templates)
        self._owner = {photo.face_id: person for person, photo in enumerate(cast.scenes)}
        super().__init__("embedding", cast, self._changed, gives=True)

    def identity(self, vectors: Vectors) -> Vectors:
        return self.network.identity(vectors)

    def _changed(self, photo: ScannedPhoto, donor: int) -> Pixels:
        way = self._points[donor] - self._points[self._owner[photo.face_id]]
        image = photo.rgb.copy()
        self.network.render(photo.rgb, photo.mesh, way).paste(image)
        return image


class ClearSource(CropSource):
    """The photo as it is, which is to be recognized as its own person: what real photos reach."""

    def __init__(self, cast: Participants) -> None:
        super().__init__(CLEAR, cast, lambda photo, donor: photo.rgb, gives=True)

    def wish(self, donor: int, host: int) -> Wish:
        return super().wish(host, host)

    def paint(self, photo: ScannedPhoto, wish: Wish) -> Painted:
        return Painted(photo.rgb, photo.mesh)


class DecodedSource:
    """Decodes the donor's template with the donor's gender and age."""

    def __init__(self, name: str, cast: Participants, decoder: TextureDecoder) -> None:
        self.name, self.cast, self.decoder = name, cast, decoder
        self.targets: Targets | None = Targets(decoder.identity(cast.templates), np.arange(len(cast)))

    def identity(self, vectors: Vectors) -> Vectors:
        return self.decoder.identity(vectors)

    def wish(self, donor: int, host: int) -> Wish:
        return Wish(donor, self.cast.looks[donor])

    def face(self, donor: int, look: RequestedLook) -> FaceTexture:
        """The face of a person's template as anybody may ask for it."""
        assert self.targets is not None
        return self.decoder.decode(self.targets.vectors[donor], look.female, look.age)

    def paint(self, photo: ScannedPhoto, wish: Wish) -> Painted:
        return worn(photo, self.face(wish.target, wish.look))


def worn(photo: ScannedPhoto, face: FaceTexture) -> Painted:
    """A face in a photo, in the photo's pose and expression."""
    image = photo.rgb.copy()
    render(image, photo.mesh, happiness(photo.expression.tolist()), face).paste(image)
    model = shape_model()
    pose = pose_of(photo.mesh, model.mean)
    return Painted(image, pose.apply(face.shape + model.expression_of(pose.undo(photo.mesh))))
