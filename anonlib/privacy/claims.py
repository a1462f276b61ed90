"""What each method may claim, in the words that certificate, manifest and report repeat, and no more than that.

A claim is about the identity channel of the faces that a method replaced: hair, clothes, background, the kept gender
and age, and whatever is outside the mask are outside every claim. A redaction shows no identity, but claims nothing
about who is in the photo either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from anonlib.config import MethodConfig

Kind = Literal["k-anonymity of the identity channel", "epsilon metric privacy of the identity channel", "none"]
K_ANONYMITY: Kind = "k-anonymity of the identity channel"
METRIC_PRIVACY: Kind = "epsilon metric privacy of the identity channel"
NONE: Kind = "none"


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
        case "dp-laplace":
            epsilon = _given(method.epsilon)
            return Claim(METRIC_PRIVACY, epsilon=epsilon, metric="release", pure_epsilon=epsilon)
        case "dp-vmf":
            kappa = _given(method.kappa)
            return Claim(METRIC_PRIVACY, epsilon=kappa, metric="Euclidean distance", pure_epsilon=2 * kappa)
        case "dp-purkayastha":
            epsilon = _given(method.epsilon)
            return Claim(METRIC_PRIVACY, epsilon=epsilon, metric="radian", pure_epsilon=math.pi * epsilon)
        case "dp-uniform":
            return Claim(METRIC_PRIVACY, epsilon=0.0, metric="release", pure_epsilon=0.0)
        case _:
            return Claim(NONE)


def _given(value: float | None) -> float:
    if value is None:
        raise ValueError("the method's epsilon or kappa is missing")
    return value
