"""embedding and inswapper: another person's features in the face's own crop. Neither claims anything.

One donor a subject, drawn with the job's secret, in all photos of the release. Where donors come from and how their
features get into a face is in feature_sources.py, which loads networks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from anonlib.config import JobConfig
from anonlib.errors import BackendMissing, ConfigError, ModelUnusable, StorageError
from anonlib.methods.base import (
    USERS_OWN,
    Assignment,
    EarlierReleases,
    Method,
    MethodFile,
    MethodSettings,
    Persons,
    Region,
    SurrogateSource,
    appearance,
    assigned_draws,
)
from anonlib.models.runtime import locked_cached_property
from anonlib.privacy.gallery import donor
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.synthesis.base import IdentityDraw

if TYPE_CHECKING:
    from anonlib.methods.feature_sources import FeatureSource

NETWORK, SWAPPER, RECOGNIZER, DONORS = "embedding", "swapper", "recognizer", "donors"
"""Names of the files among a job's models."""
STILL_RECOGNIZED = "people can still recognize these faces"
"""What a job must say for `embedding`, which deceives machines alone."""
_Opened = TypeVar("_Opened")


class CropConfig(MethodSettings):
    """Settings of a method that works in the face's own px."""

    @model_validator(mode="after")
    def _has_no_texture(self) -> CropConfig:
        if self.texture is not None:
            raise ValueError(f"{self.name} changes the face's own px and has no texture")
        return self


class EmbeddingConfig(CropConfig):
    """Settings of `embedding`."""

    @model_validator(mode="after")
    def _is_accepted(self) -> EmbeddingConfig:
        if self.accept != STILL_RECOGNIZED:
            raise ValueError(
                "embedding deceives recognizers and not people, so it anonymizes nobody; "
                f'if that is what you want, say so by accept: "{STILL_RECOGNIZED}"'
            )
        return self


class InswapperConfig(CropConfig):
    """Settings of `inswapper`."""

    @model_validator(mode="after")
    def _is_complete(self) -> InswapperConfig:
        if not (self.swapper and self.recognizer and self.donors):
            raise ValueError(
                "inswapper needs three things of yours: swapper and recognizer, the .onnx files of a swapper and of "
                "the ArcFace that it was made for, and donors, photos of people who agreed to lend it their faces"
            )
        return self


@dataclass(frozen=True)
class TransferredFeatures:
    """A donor's features for one person."""

    source: FeatureSource
    draw: IdentityDraw
    digest: str

    def apply(self, picture: NDArray[np.uint8], region: Region) -> float:
        """See Replacement."""
        rendered = self.source.render(picture, region.mesh, self.draw)
        rendered.paste(picture)
        return rendered.coverage


class FeatureTransfer(Method):
    """One donor a person, and the way from the person to the donor."""

    keys = ("own_angle", "draw", "accept")
    remembers = True
    least_eyes = 16.0

    @property
    @abstractmethod
    def source(self) -> FeatureSource:
        """The opened donors and network; raises KeyError where the files are not there."""

    @property
    def file_digest(self) -> str:
        return self.source.digest

    @property
    @abstractmethod
    def own_angle(self) -> float:
        """Degrees that a donor keeps from the person, in the source's identity space."""

    def plan(self, persons: Persons, keyring: Keyring, earlier: EarlierReleases) -> Assignment:
        drawn = self.draws(persons, keyring)
        return assigned_draws(persons, drawn, lambda draw: self.draw_name(draw, keyring), earlier)

    def draws(self, persons: Persons, keyring: Keyring) -> list[list[IdentityDraw]]:
        """The donors of each person, in the order they are tried; raises ConfigError if none is unlike enough."""

        source, strata = self.source, persons.strata
        points = source.identity(persons.template)
        turns = sorted({turn for turn, _ in source.tries})
        names = [[f"{person} {turn}" if turn else person for person in persons.ids] for turn in turns]
        try:
            chosen = [
                donor(points, source.gallery, ids, keyring, strata=strata, own_angle=self.own_angle) for ids in names
            ]
        except ValueError as error:
            raise ConfigError(f"{self.name} finds no donor: {error}") from None
        rows = np.concatenate([choice.rows for choice in chosen], axis=1).tolist()
        looks = map(appearance, strata)
        return [
            [
                IdentityDraw(source.vector(point, of[turn], strength), *look, (of[turn],), (strength,))
                for turn, strength in source.tries
            ]
            for point, of, look in zip(points, rows, looks, strict=True)
        ]

    def draw_name(self, draw: IdentityDraw, keyring: Keyring) -> str:
        """Names a draw in a plan: 64 hex digits of network, donors, donor and the way to it.

        Keyed: the way begins at the person's own vector, so a plain digest would confirm a guess of who it is.
        """
        way, row = np.asarray(draw.vector, "<f4").tobytes(), str(draw.rows[0])
        return keyring.digest(Purpose.LENT_FACE, self.source.digest, row, f"{draw.weights[0]:g}", way).hex()

    def replacement(self, name: str, source: SurrogateSource) -> TransferredFeatures:
        return TransferredFeatures(self.source, source.draw(name), source.digest(name))


class Embedding(FeatureTransfer):
    """Donors of the shipped public bank, whose features recognizers read in the face."""

    Settings = EmbeddingConfig
    required = ("accept",)

    @locked_cached_property
    def source(self) -> FeatureSource:
        from anonlib.methods.feature_sources import EmbeddingFeatures

        return EmbeddingFeatures(self.files[NETWORK], self.device)

    @property
    def own_angle(self) -> float:
        return self.settings.own_angle

    def recognizers_used(self) -> frozenset[str]:
        from anonlib.synthesis.feature_transfer import TRAINED_AGAINST

        return super().recognizers_used() | set(TRAINED_AGAINST)

    def read_files(self, job: JobConfig) -> dict[str, MethodFile]:
        from anonlib.synthesis import feature_transfer

        data = feature_transfer.shipped()
        try:
            about = feature_transfer.FeatureTransferNetwork.from_bytes(data).about
        except ModelUnusable as error:
            raise ConfigError(str(error)) from None
        if not about.commercial and NETWORK not in job.accept_licences:
            raise ConfigError(
                f"the network of embedding was trained on photos whose terms are: {about.terms}; "
                f"if that is allowed here, add {NETWORK} to accept_licences"
            )
        return {NETWORK: MethodFile(data, about.terms)}


class Inswapper(FeatureTransfer):
    """Donors from the user's photos, whose faces the user's swapper puts in."""

    Settings = InswapperConfig
    required = ("swapper", "recognizer", "donors")

    @locked_cached_property
    def source(self) -> FeatureSource:
        from anonlib.methods.feature_sources import SwapFeatures

        return SwapFeatures(self.files[SWAPPER], self.files[DONORS])

    @property
    def own_angle(self) -> float:
        """A few donors have no centre, so what tells two people apart is the recognizer's own threshold."""
        import math

        from anonlib.faces.embed import SAME_PERSON

        return math.degrees(math.acos(SAME_PERSON))

    def read_files(self, job: JobConfig) -> dict[str, MethodFile]:
        from anonlib.methods.feature_sources import embed_donors
        from anonlib.models.packs import open_recognizer, open_swapper

        settings = self.settings
        swapper, _ = _opened(job, SWAPPER, settings.swapper or "", open_swapper)
        recognizer, embedder = _opened(job, RECOGNIZER, settings.recognizer or "", open_recognizer)
        donors = embed_donors(job, settings.donors or "", embedder)
        return {
            SWAPPER: MethodFile(swapper, USERS_OWN),
            RECOGNIZER: MethodFile(recognizer, USERS_OWN, travels=False),
            DONORS: MethodFile(donors, "photos of people who agreed, as the user says"),
        }


def _opened(job: JobConfig, name: str, uri: str, opened: Callable[[bytes], _Opened]) -> tuple[bytes, _Opened]:
    """A user's file and what was made of it."""
    from anonlib.storage import read_file

    try:
        data = read_file(uri, job.storage.options)
        return data, opened(data)
    except (StorageError, ModelUnusable, BackendMissing) as error:
        raise ConfigError(f"the {name} {uri} cannot be used: {error}") from None
