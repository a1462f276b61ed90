"""Methods whose faces may be decoded from identity vectors, and those that draw one vector a person and release.

dp-*: noise on the person's own vector, with a bound on what a draw tells (anonlib.privacy.dp). sampling: a vector of
a public prior, away from every subject. surrogate: a mixture of public faces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.errors import ConfigError
from anonlib.methods.base import Method, MethodFile, Persons, Rendering, SurrogateSource, Vectors, appearance, textured
from anonlib.models.catalog import PIPELINE_RECOGNIZER, VERIFIERS
from anonlib.models.runtime import locked_cached_property
from anonlib.privacy.classes import Stratum
from anonlib.privacy.dp import Cost, Mechanism, Name, epsilon_of, identities, subset_selection
from anonlib.privacy.gallery import gallery_of, mixture, sample, surrogate
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.privacy.knn import cosine_beyond
from anonlib.synthesis.base import FaceDecoder, FaceTexture, IdentityDraw
from anonlib.synthesis.textures import TEXTURES, TextureEntry

if TYPE_CHECKING:
    from anonlib.verification.certificate import Claim

DECODER = "decoder"  # the decoder's name among a job's models


class DecodedMethod(Method):
    """Draws into faces, by the texture that the settings name, else by its own."""

    own_texture: ClassVar[str] = "average"

    @property
    def texture_name(self) -> str:
        """The texture's name in TEXTURES."""
        return self.settings.texture or self.own_texture

    @property
    def entry(self) -> TextureEntry:
        """The texture's line in TEXTURES."""
        return TEXTURES[self.texture_name]

    @locked_cached_property
    def decoder(self) -> FaceDecoder | None:
        """The opened file; None where faces are averaged. Raises ValueError where one is needed and did not come."""
        data = self.files.get(DECODER)
        if not self.entry.decoder:
            return None
        if data is None:
            raise ValueError(f"{self.name} decodes faces, and no decoder came with the job")
        return self.entry.load().from_bytes(data, self.device)

    @property
    def required_decoder(self) -> FaceDecoder:
        """The same of a method whose faces are decoded; raises ValueError where they are averaged."""
        if self.decoder is None:
            raise ValueError(f"the texture {self.texture_name} is averaged and decodes nothing")
        return self.decoder

    def recognizers_used(self) -> frozenset[str]:
        trained = self.entry.load().trained_against if self.entry.decoder else ()
        return super().recognizers_used() | set(trained)

    def decoded(self, draw: IdentityDraw) -> FaceTexture:
        """The face of a draw; the same draw gives the same face."""
        return self.required_decoder.face(draw)

    def pool(self, kind: Stratum, least: int = 1) -> tuple[int, ...]:
        """The rows of the bank that can be shown as they are: of a stratum, or of a coarser one where that has fewer
        than `least`; none where the texture decodes every face."""
        pools = (self.required_decoder.rows(kind[:level]) for level in range(len(kind), -1, -1))
        return next((rows for rows in pools if len(rows) >= least), ())

    def draw_of(self, z: Vectors, kind: Stratum) -> IdentityDraw:
        """The draw that shows z (d,): decoded, or of a texture that has faces the nearest one of the stratum."""
        rows = self.pool(kind)
        nearest = [rows[int(np.argmax(self.required_decoder.bank.vectors[list(rows)] @ z))]] if rows else []
        return IdentityDraw(z, *appearance(kind), tuple(nearest), (1.0,) * len(nearest))

    def draw_of_row(self, row: int) -> IdentityDraw:
        """The draw that shows a row of the decoder's bank as it is."""
        bank = self.required_decoder.bank
        return IdentityDraw(bank.vectors[row], float(bank.female[row]), float(bank.age[row]), (row,), (1.0,))

    def draw_name(self, draw: IdentityDraw, keyring: Keyring) -> str:
        """See Method: of decoder, texture and draw."""
        drawn = (draw.vector, [draw.female, draw.age], draw.rows, draw.weights)
        numbers = [np.asarray(part, "<f4").tobytes() for part in drawn]
        of = self.required_decoder.digest, self.texture_name, str(self.settings.k)
        return keyring.digest(Purpose.DRAWN_FACE, *of, *numbers).hex()

    def read_files(self, job: JobConfig) -> dict[str, MethodFile]:
        """The decoder that comes with anonlib."""
        if not self.entry.decoder:
            return {}
        texture = self.entry.load()
        data = texture.shipped()
        about = texture.from_bytes(data).about
        if not about.commercial and self.texture_name not in job.accept_licences:
            raise ConfigError(
                f"the decoder {self.texture_name} was fitted on photos whose terms are: {about.terms}; "
                f"if that is allowed here, add {self.texture_name} to accept_licences; else use the texture gallery"
            )
        return {DECODER: MethodFile(data, about.terms)}


class IdentityDraws(DecodedMethod):
    """One identity a person, of whom all faces show it."""

    own_texture = "gallery"
    keys: ClassVar[tuple[str, ...]] = ("texture", "region")

    def check(self) -> None:
        if not self.entry.decoder:
            raise ValueError(f"{self.name} draws an identity vector; its texture is not {self.texture_name}")

    def replacement(self, name: str, source: SurrogateSource) -> Rendering:
        return textured(self.decoded(source.draw(name)), source.digest(name), self.settings.region)


class DpNoise(IdentityDraws):
    """Noise on the identity vector, of the mechanism that it is called after; the claim is the mechanism's."""

    keys: ClassVar[tuple[str, ...]] = ("texture", "region", "epsilon", "kappa")

    @property
    def mechanism(self) -> Mechanism:
        """The distribution that identities are drawn from."""
        parameters = [getattr(self.settings, key) for key in self.required]
        return Mechanism(cast(Name, self.name.removeprefix("dp-")), *parameters)

    @property
    def claim(self) -> Claim:
        from anonlib.verification.certificate import METRIC_PRIVACY, Claim

        return Claim(METRIC_PRIVACY, epsilon=self.cost.metric, metric=self.cost.unit, pure_epsilon=self.cost.pure)

    @property
    def cost(self) -> Cost:
        return epsilon_of(self.mechanism)

    def draws(self, persons: Persons, keyring: Keyring) -> list[list[IdentityDraw]]:
        points = self.required_decoder.identity(persons.template)
        vectors = identities(self.mechanism, points, persons.ids, keyring)
        return [[self.draw_of(z, kind)] for z, kind in zip(vectors, persons.strata, strict=True)]


class DpEpsilon(DpNoise):
    """Laplace noise, `epsilon` a release, and Purkayastha, `epsilon` a radian."""

    required = ("epsilon",)


class DpKappa(DpNoise):
    """von Mises-Fisher, `kappa` a unit of Euclidean distance."""

    required = ("kappa",)


class DpSubset(DpNoise):
    """A face of the gallery: with a chance that `epsilon` sets one of the `near` most like the person, else another."""

    keys = ("epsilon", "near")
    required = ("epsilon", "near")

    def check(self) -> None:
        super().check()
        if not self.entry.has_faces:
            raise ValueError(f"{self.name} shows faces of the gallery; its texture is not {self.texture_name}")

    @property
    def cost(self) -> Cost:
        epsilon = self.settings.epsilon or 0.0
        return Cost(epsilon, "release", epsilon)

    def draws(self, persons: Persons, keyring: Keyring) -> list[list[IdentityDraw]]:
        decoder, near = self.required_decoder, self.settings.near or 1
        vectors, points = decoder.bank.vectors, decoder.identity(persons.template)
        drawn = []
        for point, kind, name in zip(points, persons.strata, persons.ids, strict=True):
            rows = self.pool(kind, near + 1)
            if not rows:
                raise ConfigError(f"method.near is {near}, and the gallery has no more faces; take a smaller one")
            place = subset_selection(point, vectors[list(rows)], near, self.cost.metric, name, keyring)
            drawn.append([self.draw_of_row(rows[place])])
        return drawn


class Sampling(IdentityDraws):
    """An identity of a public prior, `own_angle` from its person and `other_angle` from every other."""

    own_texture = "ksame-net"  # the nearest face of a gallery keeps no angle
    keys = ("texture", "region", "own_angle", "other_angle")
    recheck = (*VERIFIERS, PIPELINE_RECOGNIZER)  # whose space the angles are of

    def draws(self, persons: Persons, keyring: Keyring) -> list[list[IdentityDraw]]:
        decoder, own, other = self.required_decoder, self.settings.own_angle, self.settings.other_angle
        points = decoder.identity(persons.template)
        sampled = sample(decoder.bank.vectors, points, persons.ids, keyring, own, other)
        return [[self.draw_of(z, kind) for z in tries] for tries, kind in zip(sampled, persons.strata, strict=True)]

    def output_check(self, templates: Callable[[], Vectors]) -> Callable[[Vectors], NDArray[np.bool_]]:
        """Whether an output lies within `other_angle` of any subject, its own included.

        A decoder is not exact: of faces rendered into photos of LFW 6 % come within 50 degrees of a subject.
        """
        decoder, limit = self.required_decoder, cosine_beyond(self.settings.other_angle)
        subjects = decoder.identity(templates())

        def near(vectors: Vectors) -> NDArray[np.bool_]:
            # Row by row, since the rounding of a product of matrices depends on how many rows there are.
            return np.array([(subjects @ point).max() for point in decoder.identity(vectors)]) > limit

        return near


class BankSurrogate(IdentityDraws):
    """The mean of the k public faces nearest to the person that keep `own_angle`."""

    own_texture = "ksame-net"  # a gallery shows no mean
    keys = ("k", "texture", "region", "own_angle")

    def draws(self, persons: Persons, keyring: Keyring) -> list[list[IdentityDraw]]:
        bank, k, own_angle = self.required_decoder.bank, self.settings.k, self.settings.own_angle
        points = self.required_decoder.identity(persons.template)
        gallery = gallery_of(bank.vectors, bank.female, bank.age)
        chosen = surrogate(points, gallery, k, strata=persons.strata, own_angle=own_angle)
        weights = (float(np.float32(1 / k)),) * k
        mixed = zip(mixture(gallery, chosen), persons.strata, chosen.tolist(), strict=True)
        return [[IdentityDraw(z, *appearance(kind), tuple(rows), weights)] for z, kind, rows in mixed]
