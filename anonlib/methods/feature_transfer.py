"""Who lends features to the faces of a job: the donors of `embedding` and `inswapper`, and what puts them in.

The driver reads the method's files once; they travel as bytes like models, and a worker opens them once. One donor a
subject, drawn with the job's secret, in all photos of the release.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig, MethodConfig
from anonlib.errors import BackendMissing, ConfigError, ModelUnusable, StorageError
from anonlib.methods.decoders import IdentityDraw, read_file
from anonlib.methods.source_photos import embed_donors, recognizer_of
from anonlib.models.requirements import device_of
from anonlib.models.runtime import locked_cached_property
from anonlib.privacy.gallery import Gallery, donor
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.privacy.strata import Stratum
from anonlib.stages.people import SAME_PERSON, stratum_of
from anonlib.synthesis.compositor import Rendered
from anonlib.synthesis.feature_transfer import FeatureTransferNetwork, shipped
from anonlib.synthesis.inswapper import Swapper

EMBEDDING, SWAPPER, RECOGNIZER, DONORS = "embedding", "swapper", "recognizer", "donors"
"""Names of the files among a job's models."""
_TRIES = tuple((donor, 1.0) for donor in range(5))
"""The way to one donor after another, once each: the network learnt no longer ways, and beyond them faces go dark."""
_Opened = TypeVar("_Opened")
_OWN = "the user's own; unknown to anonlib"


@dataclass(frozen=True)
class MethodFile:
    """What a method needs beside the catalogue's models, and under which terms; `travels`: workers need it too."""

    data: bytes
    terms: str
    travels: bool = True

    @cached_property
    def digest(self) -> str:
        """sha256, hex."""
        return hashlib.sha256(self.data).hexdigest()


class FeatureSource(Protocol):
    """Donors, and the way from one of them to a face."""

    @property
    def digest(self) -> str:
        """Names donors and network: 64 hex digits."""
        ...

    @property
    def gallery(self) -> Gallery:
        """The donors as points of the identity space."""
        ...

    def identity(self, templates: NDArray[np.float32]) -> NDArray[np.float32]:
        """Templates (n, d), unit rows, as points of that space."""
        ...

    def own_angle(self, method: MethodConfig) -> float:
        """Degrees that a donor keeps from the person, there."""
        ...

    @property
    def tries(self) -> tuple[tuple[int, float], ...]:
        """Which of the person's donors is put in how strongly: at first, and then where the output still matches."""
        ...

    def vector(self, person: NDArray[np.float32], row: int, strength: float) -> NDArray[np.float32]:
        """What a draw of donor `row` for a person (d,) holds, (d,)."""
        ...

    def render(self, image: NDArray[np.uint8], mesh: NDArray[np.float32], draw: IdentityDraw) -> Rendered:
        """The face with `mesh` (468, 3) px of a photo (H, W, 3), with a donor's features."""
        ...


class EmbeddingFeatures:
    """Donors of the shipped public bank, whose features recognizers read in the face."""

    def __init__(self, data: bytes, device: str = "cpu") -> None:
        self.embedding = FeatureTransferNetwork.from_bytes(data, device)

    @property
    def digest(self) -> str:
        return self.embedding.digest

    @cached_property
    def gallery(self) -> Gallery:
        return Gallery(self.embedding.donors, _strata(self.embedding.female, self.embedding.age))

    def identity(self, templates: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.embedding.identity(templates)

    def own_angle(self, method: MethodConfig) -> float:
        return method.own_angle

    @property
    def tries(self) -> tuple[tuple[int, float], ...]:
        return _TRIES

    def vector(self, person: NDArray[np.float32], row: int, strength: float) -> NDArray[np.float32]:
        return np.asarray(strength * (self.embedding.donors[row] - person), np.float32)

    def render(self, image: NDArray[np.uint8], mesh: NDArray[np.float32], draw: IdentityDraw) -> Rendered:
        return self.embedding.render(image, mesh, draw.vector)


class SwapFeatures:
    """Donors from the user's photos, whose faces the user's swapper puts in.

    They are told apart from the person by the pipeline's recognizer, without a centre: a few donors have none.
    """

    def __init__(self, swapper: bytes, donors: bytes) -> None:
        self._swapper = swapper
        self.digest = hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in (swapper, donors))).hexdigest()
        with np.load(io.BytesIO(donors), allow_pickle=False) as arrays:
            self.gallery = Gallery(arrays["vectors"], _strata(arrays["female"], arrays["age"]))
            self._lent = arrays["lent"]

    @locked_cached_property
    def swapper(self) -> Swapper:
        """Opened where it is first used."""
        return Swapper(self._swapper)

    def identity(self, templates: NDArray[np.float32]) -> NDArray[np.float32]:
        return templates

    def own_angle(self, method: MethodConfig) -> float:
        return math.degrees(math.acos(SAME_PERSON))

    @property
    def tries(self) -> tuple[tuple[int, float], ...]:
        return ((0, 1.0), (1, 1.0), (2, 1.0))

    def vector(self, person: NDArray[np.float32], row: int, strength: float) -> NDArray[np.float32]:
        return np.asarray(self.gallery.vectors[row], np.float32)

    def render(self, image: NDArray[np.uint8], mesh: NDArray[np.float32], draw: IdentityDraw) -> Rendered:
        return self.swapper.render(image, mesh, self._lent[draw.rows[0]])


@dataclass(frozen=True)
class SourceIdentity:
    """What a face wears of a donor: the `draw`, and its `digest` in the manifest."""

    lender: FeatureSource
    draw: IdentityDraw
    digest: str

    def render(self, image: NDArray[np.uint8], mesh: NDArray[np.float32]) -> Rendered:
        """See Lender."""
        return self.lender.render(image, mesh, self.draw)


def source_draws(
    job: JobConfig,
    lender: FeatureSource,
    templates: NDArray[np.float32],
    ids: Sequence[str],
    strata: Sequence[Stratum],
    looks: Sequence[tuple[float, float]],
    keyring: Keyring,
) -> list[list[IdentityDraw]]:
    """The donor of each subject, as draws in the order they are tried.

    Raises ConfigError if nobody is unlike enough.
    """
    own_angle, points = lender.own_angle(job.method), lender.identity(templates)
    turns = sorted({turn for turn, _ in lender.tries})
    names = [[f"{one} {turn}" if turn else one for one in ids] for turn in turns]
    try:
        chosen = [donor(points, lender.gallery, one, keyring, strata=strata, own_angle=own_angle) for one in names]
    except ValueError as error:
        raise ConfigError(f"{job.method.name} finds no donor: {error}") from None
    rows = np.concatenate([one.rows for one in chosen], axis=1).tolist()
    return [
        [
            IdentityDraw(lender.vector(point, mine[turn], strength), *look, (mine[turn],), (strength,))
            for turn, strength in lender.tries
        ]
        for point, mine, look in zip(points, rows, looks, strict=True)
    ]


def digest_of(lender: FeatureSource, draw: IdentityDraw, keyring: Keyring) -> str:
    """Names what a draw's face wears in a release: 64 hex digits of network, donors, donor and the way to it.

    Keyed: the way begins at the person's own vector, so a plain digest would confirm a guess of who it is.
    """
    way = np.asarray(draw.vector, "<f4").tobytes()
    return keyring.digest(Purpose.LENT_FACE, lender.digest, str(draw.rows[0]), f"{draw.weights[0]:g}", way).hex()


def feature_source_of(models: Mapping[str, bytes], job: JobConfig) -> FeatureSource | None:
    """The lender of a stage that got its files among its models."""
    if EMBEDDING in models:
        return EmbeddingFeatures(models[EMBEDDING], device_of(job))
    return SwapFeatures(models[SWAPPER], models[DONORS]) if SWAPPER in models else None


def read_source_identity(job: JobConfig) -> dict[str, MethodFile]:
    """The files of a crop method, checked, by name; raises ConfigError."""
    method = job.method
    if method.name == "embedding":
        return {EMBEDDING: _embedding(job)}
    if method.name != "inswapper" or not (method.swapper and method.recognizer and method.donors):
        return {}
    swapper, _ = _opened(job, SWAPPER, method.swapper, Swapper)
    recognizer, embedder = _opened(job, RECOGNIZER, method.recognizer, recognizer_of)
    donors = embed_donors(job, method.donors, embedder)
    return {
        SWAPPER: MethodFile(swapper, _OWN),
        RECOGNIZER: MethodFile(recognizer, _OWN, travels=False),
        DONORS: MethodFile(donors, "photos of people who agreed, as the user says"),
    }


def _embedding(job: JobConfig) -> MethodFile:
    data = shipped()
    try:
        about = FeatureTransferNetwork.from_bytes(data).about
    except ModelUnusable as error:
        raise ConfigError(str(error)) from None
    if about.needs_acceptance and EMBEDDING not in job.accept_licences:
        raise ConfigError(
            f"the network of embedding was trained on photos whose terms are: {about.terms}; "
            f"if that is allowed here, add {EMBEDDING} to accept_licences"
        )
    return MethodFile(data, about.terms)


def _opened(job: JobConfig, name: str, uri: str, opened: Callable[[bytes], _Opened]) -> tuple[bytes, _Opened]:
    """A user's file and what was made of it."""
    try:
        data = read_file(uri, job)
        return data, opened(data)
    except (StorageError, ModelUnusable, BackendMissing) as error:
        raise ConfigError(f"the {name} {uri} cannot be used: {error}") from None


def _strata(female: NDArray[np.float32], age: NDArray[np.float32]) -> list[Stratum]:
    return [stratum_of(float(one), float(years)) for one, years in zip(female, age, strict=True)]
