"""embedding: features of a person who does not exist in the face's own crop, which machines read. It claims nothing.

One donor a subject of the network's own bank, drawn with the job's secret, in all photos of the release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.errors import ConfigError, ModelUnusable
from anonlib.methods.base import Method, MethodFile, Persons, Region, Rendering, SurrogateSource, appearance
from anonlib.models.runtime import locked_cached_property
from anonlib.privacy.gallery import donor, gallery_of
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.synthesis.base import IdentityDraw

if TYPE_CHECKING:
    from anonlib.synthesis.compositor import Rendered
    from anonlib.synthesis.feature_transfer import FeatureTransferNetwork

NETWORK = "embedding"  # the file among a job's models
STILL_RECOGNIZED = "people can still recognize these faces"
"""What a job must say for `embedding`, which deceives machines alone."""
_TRIES = 5  # donors of a person: the first is put in, the next ones where the output still matches


class Embedding(Method):
    """One donor a person, whose features recognizers read in the face; KeyError where its file is not there."""

    keys = ("own_angle", "draw", "accept")
    required = ("accept",)
    remembers = True
    least_eyes = 16.0

    @locked_cached_property
    def network(self) -> FeatureTransferNetwork:
        from anonlib.synthesis.feature_transfer import FeatureTransferNetwork

        return FeatureTransferNetwork.from_bytes(self.files[NETWORK], self.device)

    @property
    def file_digest(self) -> str:
        return self.network.digest

    def check(self) -> None:
        if self.settings.texture is not None:
            raise ValueError(f"{self.name} changes the face's own px and has no texture")
        if self.settings.accept != STILL_RECOGNIZED:
            raise ValueError(
                "embedding deceives recognizers and not people, so it anonymizes nobody; "
                f'if that is what you want, say so by accept: "{STILL_RECOGNIZED}"'
            )

    def recognizers_used(self) -> frozenset[str]:
        from anonlib.synthesis.feature_transfer import TRAINED_AGAINST

        return super().recognizers_used() | set(TRAINED_AGAINST)

    def draws(self, persons: Persons, keyring: Keyring) -> list[list[IdentityDraw]]:
        """See Method; a draw's vector is the way from the person to the donor."""
        network, strata = self.network, persons.strata
        points, gallery = network.identity(persons.template), gallery_of(network.donors, network.female, network.age)
        names = [[f"{person} {turn}" if turn else person for person in persons.ids] for turn in range(_TRIES)]
        try:
            rows = [donor(points, gallery, ids, keyring, self.settings.own_angle, strata) for ids in names]
        except ValueError as error:
            raise ConfigError(f"{self.name} finds no donor: {error}") from None
        ways = [np.asarray(network.donors[own] - points, np.float32) for own in rows]
        return [
            [
                IdentityDraw(way[person], *appearance(stratum), (int(own[person]),), (1.0,))
                for way, own in zip(ways, rows, strict=True)
            ]
            for person, stratum in enumerate(strata)
        ]

    def draw_name(self, draw: IdentityDraw, keyring: Keyring) -> str:
        """See Method: of network, donors, donor and the way to it, which begins at the person's own vector."""
        way, row = np.asarray(draw.vector, "<f4").tobytes(), str(draw.rows[0])
        return keyring.digest(Purpose.LENT_FACE, self.file_digest, row, f"{draw.weights[0]:g}", way).hex()

    def replacement(self, name: str, source: SurrogateSource) -> Rendering:
        draw = source.draw(name)

        def render(picture: NDArray[np.uint8], region: Region) -> Rendered:
            return self.network.render(picture, region.mesh, draw.vector)

        return Rendering(render, source.digest(name))

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
