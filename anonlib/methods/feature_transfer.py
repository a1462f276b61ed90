"""embedding: another person's features in the face's own crop. It claims nothing.

One donor a subject, drawn with the job's secret, in all photos of the release, of anonlib's public bank. The network is
loaded where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from anonlib.config import JobConfig
from anonlib.errors import ConfigError
from anonlib.methods.base import Method, MethodFile, Persons, Rendering, SurrogateSource, Vectors, appearance
from anonlib.models.runtime import locked_cached_property
from anonlib.privacy.gallery import PublicIdentities, donor, gallery_of
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.synthesis.base import IdentityDraw

if TYPE_CHECKING:
    from anonlib.synthesis.feature_transfer import FeatureTransferNetwork

NETWORK = "embedding"  # its file's name among a job's models
STILL_RECOGNIZED = "people can still recognize these faces"
"""What a job must say for `embedding`, which deceives machines alone."""
_TRIES = 5
"""Donors of a person: the first is put in, the next ones where the output still matches."""


class Embedding(Method):
    """One donor a person, whose features recognizers read in the face; KeyError where its file is not there."""

    keys = ("own_angle", "accept")
    required = ("accept",)
    least_eyes = 16.0

    @locked_cached_property
    def network(self) -> FeatureTransferNetwork:
        """The opened file."""
        from anonlib.synthesis.feature_transfer import FeatureTransferNetwork

        return FeatureTransferNetwork.from_bytes(self.files[NETWORK], self.device)

    @locked_cached_property
    def gallery(self) -> PublicIdentities:
        """The donors, with strata."""
        return gallery_of(self.network.donors, self.network.female, self.network.age)

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

    def way(self, person: Vectors, row: int) -> Vectors:
        """The way (d,) from a person (d,) to the donor `row`, along which the network changes a face."""
        return np.asarray(self.network.donors[row] - person, np.float32)

    def draws(self, persons: Persons, keyring: Keyring) -> list[list[IdentityDraw]]:
        points, strata = self.network.identity(persons.template), persons.strata
        names = [[f"{person} {turn}" if turn else person for person in persons.ids] for turn in range(_TRIES)]
        try:
            rows = [donor(points, self.gallery, ids, keyring, self.settings.own_angle, strata) for ids in names]
        except ValueError as error:
            raise ConfigError(f"{self.name} finds no donor: {error}") from None
        return [
            [IdentityDraw(self.way(point, row), *appearance(stratum), (row,), (1.0,)) for row in own]
            for point, own, stratum in zip(points, np.transpose(rows).tolist(), strata, strict=True)
        ]

    def draw_name(self, draw: IdentityDraw, keyring: Keyring) -> str:
        """See Method: of network, donors, donor and the way to it, which begins at the person's own vector."""
        way, row = np.asarray(draw.vector, "<f4").tobytes(), str(draw.rows[0])
        return keyring.digest(Purpose.LENT_FACE, self.network.digest, row, f"{draw.weights[0]:g}", way).hex()

    def replacement(self, name: str, source: SurrogateSource) -> Rendering:
        draw = source.draw(name)
        return Rendering(
            lambda picture, region: self.network.render(picture, region.mesh, draw.vector), source.digest(name)
        )

    def read_files(self, job: JobConfig) -> dict[str, MethodFile]:
        from anonlib.synthesis import feature_transfer

        data = feature_transfer.shipped()
        about = feature_transfer.FeatureTransferNetwork.from_bytes(data).about
        if not about.commercial and NETWORK not in job.accept_licences:
            raise ConfigError(
                f"the network of embedding was trained on photos whose terms are: {about.terms}; "
                f"if that is allowed here, add {NETWORK} to accept_licences"
            )
        return {NETWORK: MethodFile(data, about.terms)}
