"""What each method may claim, in the words that certificate, manifest and report repeat, and no more than that.

A claim is about the identity channel of the faces that a method replaced: hair, clothes, background, the kept gender
and age, and whatever is outside the mask are outside every claim. A redaction shows no identity, but claims nothing
about who is in the photo either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from anonlib.config import MethodConfig
from anonlib.privacy.dp import epsilon_of, mechanism_of

Kind = Literal["k-anonymity of the identity channel", "epsilon metric privacy of the identity channel", "none"]
K_ANONYMITY: Kind = "k-anonymity of the identity channel"
METRIC_PRIVACY: Kind = "epsilon metric privacy of the identity channel"
NONE: Kind = "none"

WITHOUT_LABELS = (
    "the job had no labels, so the claim is of the persons that the recognizers find: "
    "people who were taken for several persons are not covered"
)
"""Where a job has no `input.subject_field`."""


@dataclass(frozen=True)
class Claim:
    """`k`: least effective class; `epsilon`: a unit of `metric`; `pure_epsilon`: for any two people, one release."""

    kind: Kind
    k: int | None = None
    epsilon: float | None = None
    metric: str | None = None
    pure_epsilon: float | None = None


def claim_of(method: MethodConfig) -> Claim:
    """The most that `method` may claim (METHODS.md of the design; Chatzikokolakis et al. 2013 for metric privacy)."""
    match method.name:
        case "k-diff" | "k-same":
            return Claim(K_ANONYMITY, k=method.k)
        case "dp-laplace" | "dp-vmf" | "dp-purkayastha" | "dp-uniform":
            cost = epsilon_of(mechanism_of(method))
            return Claim(METRIC_PRIVACY, epsilon=cost.metric, metric=cost.unit, pure_epsilon=cost.pure)
        case _:
            return Claim(NONE)
