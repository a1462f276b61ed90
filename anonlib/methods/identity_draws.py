"""Methods that draw one identity a person and release, which a decoder turns into a face.

dp-*: noise on the person's own vector, with a bound on what a draw tells (anonlib.privacy.dp). sampling: a vector of
a public prior, away from every subject. surrogate: a mixture of public faces.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from anonlib.methods.base import (
    Assignment,
    EarlierReleases,
    Persons,
    SurrogateSource,
    TextureReplacement,
    Vectors,
    appearance,
    assigned_draws,
)
from anonlib.methods.decoded import DecodedConfig, DecodedMethod
from anonlib.models.catalog import PIPELINE_RECOGNIZER, VERIFIERS
from anonlib.privacy.dp import Cost, Mechanism, epsilon_of, identities
from anonlib.privacy.gallery import Gallery, mixture, surrogate
from anonlib.privacy.keys import Keyring
from anonlib.privacy.sampling import fit_prior, sample
from anonlib.privacy.sphere import cosine_beyond
from anonlib.privacy.strata import stratum_of
from anonlib.synthesis.base import IdentityDraw

if TYPE_CHECKING:
    from anonlib.verification.certificate import Claim


class DrawConfig(DecodedConfig):
    """Settings of a method that draws vectors: they must be decoded."""

    DEFAULT: ClassVar[str] = "linear"

    @model_validator(mode="after")
    def _decodes(self) -> DrawConfig:
        if not self.entry.decoder:
            raise ValueError(f"{self.name} draws an identity vector; its texture is not {self.texture_name}")
        return self


class IdentityDraws(DecodedMethod):
    """One identity a person, of whom all faces show it."""

    Settings = DrawConfig
    keys: ClassVar[tuple[str, ...]] = ("texture", "draw")
    remembers = True

    @abstractmethod
    def draws(self, persons: Persons, points: Vectors, keyring: Keyring) -> list[list[IdentityDraw]]:
        """Each person's draws in the order they are tried; `points` (n, d) of the identity space, of the persons."""

    def plan(self, persons: Persons, keyring: Keyring, earlier: EarlierReleases) -> Assignment:
        drawn = self.draws(persons, self.required_decoder.identity(persons.template), keyring)
        return assigned_draws(persons, drawn, lambda draw: self.draw_name(draw, keyring), earlier)

    def replacement(self, name: str, source: SurrogateSource) -> TextureReplacement:
        return TextureReplacement(self.decoded(source.draw(name)), source.digest(name))


class DpNoise(IdentityDraws):
    """Noise on the identity vector; the claim is the mechanism's."""

    keys = ("texture", "epsilon", "kappa", "draw")
    mechanism_name: ClassVar[Literal["laplace", "vmf", "purkayastha", "uniform"]]

    @property
    def mechanism(self) -> Mechanism:
        """The distribution that identities are drawn from."""
        (parameter,) = [getattr(self.settings, key) for key in self.required] or [0.0]
        return Mechanism(self.mechanism_name, parameter or 0.0)

    @property
    def claim(self) -> Claim:
        from anonlib.verification.certificate import METRIC_PRIVACY, Claim

        cost = self.cost
        return Claim(METRIC_PRIVACY, epsilon=cost.metric, metric=cost.unit, pure_epsilon=cost.pure)

    @property
    def cost(self) -> Cost:
        return epsilon_of(self.mechanism)

    def draws(self, persons: Persons, points: Vectors, keyring: Keyring) -> list[list[IdentityDraw]]:
        vectors = identities(self.mechanism, points, persons.ids, keyring)
        looks = map(appearance, persons.strata)
        return [[IdentityDraw(z, *look)] for z, look in zip(vectors, looks, strict=True)]


class DpLaplace(DpNoise):
    """Laplace noise, `epsilon` a release."""

    required = ("epsilon",)
    mechanism_name = "laplace"


class DpVmf(DpNoise):
    """von Mises-Fisher, `kappa` a unit of Euclidean distance."""

    required = ("kappa",)
    mechanism_name = "vmf"


class DpPurkayastha(DpNoise):
    """Purkayastha, `epsilon` a radian."""

    required = ("epsilon",)
    mechanism_name = "purkayastha"


class DpUniform(DpNoise):
    """An identity that does not depend on the person."""

    mechanism_name = "uniform"


class Sampling(IdentityDraws):
    """An identity of a public prior, `own_angle` from its person and `other_angle` from every other."""

    keys = ("texture", "own_angle", "other_angle", "draw")
    recheck = (*VERIFIERS, PIPELINE_RECOGNIZER)  # whose space the angles are of

    def draws(self, persons: Persons, points: Vectors, keyring: Keyring) -> list[list[IdentityDraw]]:
        bank, own, other = self.required_decoder.bank.vectors, self.settings.own_angle, self.settings.other_angle
        sampled = sample(fit_prior(bank), bank, points, persons.ids, keyring, own_angle=own, other_angle=other)
        looks = map(appearance, persons.strata)
        return [[IdentityDraw(z, *look) for z in points] for points, look in zip(sampled, looks, strict=True)]

    def output_check(self, templates: Callable[[], Vectors]) -> Callable[[Vectors], NDArray[np.bool_]]:
        """Whether an output lies within `other_angle` of any subject, its own included.

        A decoder is not exact: rendered into photos of LFW, faces lie 67 degrees from the vector they were decoded
        from, and 6 % of them come within 50 degrees of a subject whom the vector itself kept clear of.
        """
        decoder, limit = self.required_decoder, cosine_beyond(self.settings.other_angle)
        subjects = decoder.identity(templates())

        def near(vectors: Vectors) -> NDArray[np.bool_]:
            # Row by row, since the rounding of a product of matrices depends on how many rows there are.
            return np.array([(subjects @ point).max() for point in decoder.identity(vectors)]) > limit

        return near


class BankSurrogate(IdentityDraws):
    """The mean of the k public faces nearest to the person that keep `own_angle`."""

    keys = ("k", "texture", "own_angle", "draw")

    def draws(self, persons: Persons, points: Vectors, keyring: Keyring) -> list[list[IdentityDraw]]:
        bank = self.required_decoder.bank
        gallery = Gallery(bank.vectors, [stratum_of(*face) for face in zip(bank.female, bank.age, strict=True)])
        choice = surrogate(points, gallery, self.settings.k, strata=persons.strata, own_angle=self.settings.own_angle)
        looks = map(appearance, persons.strata)
        mixed = zip(mixture(gallery, choice), looks, choice.rows.tolist(), choice.weights.tolist(), strict=True)
        return [[IdentityDraw(z, *look, tuple(rows), tuple(weights))] for z, look, rows, weights in mixed]
