"""What is compared: decoders of faces, the class average, feature transfer, redactions, and the photo as it is.

A source is asked to put a person's face into another person's photo. What it then means to paint is a request: the
identity that the result should have, if it gives one, and a gender and an age.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from anonlib.errors import ConfigError, ModelUnusable
from anonlib.privacy.classes import form_classes
from anonlib.privacy.clustering import normalized
from anonlib.privacy.microaggregation import group_means
from anonlib.privacy.strata import stratum_of
from anonlib.privacy.surrogate_choice import alike
from anonlib.synthesis import feature_transfer
from anonlib.synthesis.base import FaceDecoder, FaceTexture, IdentityDraw
from anonlib.synthesis.canonical import pose_of, shape_model
from anonlib.synthesis.compositor import render
from anonlib.synthesis.describe import crop_and_mesh, happiness
from anonlib.synthesis.feature_transfer import FeatureTransferNetwork
from anonlib.synthesis.redact import Redaction, redact
from anonlib.synthesis.textures import TEXTURES
from anonlib.synthesis.textures.average import average, member_texture, portrait
from anonlib.training.evaluate.participants import Numbers, Participants, ScannedPhoto, Vectors

CLEAR, AVERAGE, EMBEDDING = "clear", "average", "embedding"
DECODED = tuple(name for name, entry in TEXTURES.items() if entry.decoder)
NO_TARGET = -1

Painted = tuple[NDArray[np.uint8], NDArray[np.float32] | None]
"""An image (h, w, 3), and the mesh (468, 3) px that the face in it was meant to have, None if that is not known."""


@dataclass(frozen=True)
class Request:
    """Number of the `target` identity (NO_TARGET: none), and how the face should look: `female` 0-1, `age` years."""

    target: int
    female: float
    age: float


class FaceSource:
    """Paints faces; here the photo as it is, which is to be recognized as its own person: what real photos reach.

    `targets` (t, d): the identities that it gives, in its identity space, None if it gives none; `of_person` (n,):
    which of them a person is part of, NO_TARGET for none.
    """

    def __init__(self, name: str, participants: Participants) -> None:
        self.name, self.participants = name, participants
        self.of_person: Numbers = np.arange(len(participants))
        self.targets: Vectors | None = self.identity(participants.templates)

    def identity(self, vectors: Vectors) -> Vectors:
        """Vectors of the pipeline's recognizer (n, d) as points (n, d) of the space that targets are given in."""
        return normalized(vectors - self.participants.centre)

    def request(self, donor: int, host: int) -> Request:
        """What is wanted where the person `donor` goes into a photo of the person `host`."""
        return self._of(host, host)

    def paint(self, photo: ScannedPhoto, request: Request) -> Painted:
        """The photo with its face changed."""
        return photo.rgb, photo.mesh

    def _of(self, target: int, person: int) -> Request:
        """A target that looks like a person."""
        return Request(target, float(self.participants.female[person]), float(self.participants.age[person]))


class RedactionSource(FaceSource):
    """Pixelates, blurs or fills the face, so it gives no identity."""

    def __init__(self, name: Redaction, participants: Participants) -> None:
        super().__init__(name, participants)
        self.method, self.targets = name, None

    def request(self, donor: int, host: int) -> Request:
        return self._of(NO_TARGET, host)

    def paint(self, photo: ScannedPhoto, request: Request) -> Painted:
        image = photo.rgb.copy()
        redact(image, photo.box, self.method)
        return image, None


class EmbeddingSource(FaceSource):
    """Puts the donor's features into the photo's own face, whose looks stay: of the method `embedding`."""

    def __init__(self, participants: Participants, network: FeatureTransferNetwork) -> None:
        self.network = network
        super().__init__(EMBEDDING, participants)
        self._person = {photo.face_id: person for person, photo in enumerate(participants.scenes)}

    def identity(self, vectors: Vectors) -> Vectors:
        return self.network.identity(vectors)

    def request(self, donor: int, host: int) -> Request:
        return self._of(donor, host)

    def paint(self, photo: ScannedPhoto, request: Request) -> Painted:
        assert self.targets is not None
        direction = self.targets[request.target] - self.targets[self._person[photo.face_id]]
        image = photo.rgb.copy()
        self.network.render(photo.rgb, photo.mesh, direction).paste(image)
        return image, None


class DecodedSource(FaceSource):
    """Decodes the donor's template with the donor's gender and age; a bank mixes `k` faces."""

    def __init__(self, name: str, participants: Participants, decoder: FaceDecoder, k: int = 1) -> None:
        self.decoder, self.k = decoder, k
        super().__init__(name, participants)

    def identity(self, vectors: Vectors) -> Vectors:
        return self.decoder.identity(vectors)

    def request(self, donor: int, host: int) -> Request:
        return self._of(donor, donor)

    def face(self, request: Request) -> FaceTexture:
        assert self.targets is not None
        draw = IdentityDraw(self.targets[request.target], request.female, request.age)
        return self.decoder.face(draw, self.k)

    def paint(self, photo: ScannedPhoto, request: Request) -> Painted:
        return painted(photo, self.face(request))


class AverageSource(FaceSource):
    """Averages classes of k people; each host gets a class of the same gender without the host."""

    def __init__(self, participants: Participants, k: int) -> None:
        super().__init__(AVERAGE, participants)
        known = [person for person, rows in enumerate(participants.portraits) if rows]
        if len(known) < 2 * k:
            raise ConfigError(
                f"{len(known)} people have photos good enough to be averaged, and two classes need {2 * k}"
            )
        points = participants.templates[known]
        looks = np.stack([participants.female, participants.age], axis=1)
        strata = [stratum_of(*look) for look in looks[known].tolist()]
        classes, _ = form_classes(np.ones(len(known), np.int64), strata, alike(points, k), k=k)
        self.members = [[known[member] for member in group.members] for group in classes]
        if len(self.members) < 2:
            raise ConfigError(
                "the people form one class only, and a host needs another class than its own; ask for a smaller --k"
            )
        means = group_means(self.identity(points), [group.members for group in classes])
        self.targets = normalized(means.astype(np.float32))
        self.of_person = np.full(len(participants), NO_TARGET, np.int64)
        for number, members in enumerate(self.members):
            self.of_person[members] = number
        faces = {person: member_texture([portrait(*crop_and_mesh(row), happiness(row["expression"]))
                                         for row in participants.portraits[person]]) for person in known}  # fmt: skip
        self.textures = [average([faces[person] for person in members]) for members in self.members]
        self.looks = [looks[members].mean(axis=0).tolist() for members in self.members]

    def request(self, donor: int, host: int) -> Request:
        woman = self.participants.female[host] >= 0.5
        others = [number for number, members in enumerate(self.members) if host not in members]
        same_gender = [number for number in others if (self.looks[number][0] >= 0.5) == woman] or others
        chosen = same_gender[donor % len(same_gender)]
        return Request(chosen, *self.looks[chosen])

    def paint(self, photo: ScannedPhoto, request: Request) -> Painted:
        return painted(photo, self.textures[request.target])


def painted(photo: ScannedPhoto, face: FaceTexture) -> Painted:
    """A face in a photo, in the photo's pose and expression."""
    image = photo.rgb.copy()
    render(image, photo.mesh, happiness(photo.expression.tolist()), face).paste(image)
    model = shape_model()
    pose = pose_of(photo.mesh, model.mean)
    return image, pose.apply(face.shape + model.expression_of(pose.undo(photo.mesh)))


# ---- by name --------------------------------------------------------------------------------------------------


def read_decoder(spec: str) -> FaceDecoder | None:
    """The decoder that a spec like `linear:FILE` names, None if it names none; raises ConfigError.

    `ksame-net` without a file is the network that comes with anonlib.
    """
    kind, _, path = spec.partition(":")
    if kind not in DECODED:
        return None
    entry = TEXTURES[kind]
    if not path and not entry.ships:
        raise ConfigError(f"{kind} draws with a decoder; name its file, as in {kind}:faces.npz")
    try:
        data = Path(path).read_bytes() if path else entry.load().shipped()
        if not entry.load().reads(data):
            raise ConfigError(f"the decoder {path} is not of the kind that {kind} draws with")
        return entry.load().from_bytes(data)
    except OSError as error:
        raise ConfigError(f"the decoder {path or kind} cannot be read: {error.strerror}") from None
    except ModelUnusable as error:
        raise ConfigError(f"the decoder {path or kind} cannot be used: {error}") from None


def open_sources(specs: Sequence[str], participants: Participants, k: int) -> list[FaceSource]:
    """Sources by specs like clear, average, linear:FILE, ksame-net or a redaction; raises ConfigError.

    A source is called by its kind, and by its file too where two of a kind are compared.
    """
    kinds = Counter(spec.partition(":")[0] for spec in specs)
    return [_open(spec, participants, k, kinds[spec.partition(":")[0]] > 1) for spec in specs]


def _open(spec: str, participants: Participants, k: int, ambiguous: bool) -> FaceSource:
    decoder = read_decoder(spec)
    if decoder is not None:
        kind, _, path = spec.partition(":")
        name = f"{kind} {Path(path).stem}".rstrip() if ambiguous else kind
        return DecodedSource(name, participants, decoder, k)
    for redaction in get_args(Redaction):
        if spec == redaction:
            return RedactionSource(redaction, participants)
    if spec == CLEAR:
        return FaceSource(CLEAR, participants)
    if spec == AVERAGE:
        return AverageSource(participants, k)
    if spec == EMBEDDING:
        return EmbeddingSource(participants, FeatureTransferNetwork.from_bytes(feature_transfer.shipped()))
    shipped = (name for name, entry in TEXTURES.items() if entry.ships)
    known = ", ".join((AVERAGE, *(f"{kind}:FILE" for kind in DECODED), *shipped, EMBEDDING, *get_args(Redaction)))
    raise ConfigError(f"{spec} is no source of faces; it is one of {known}")
