"""Noise on the identity vector, with a privacy loss that is proved and not estimated.

The idea of hiding a person by noise on the identity vector is IdentityDP's (arXiv 2103.01745); its Laplace noise is
scaled there by the largest distance seen on a test set, which bounds nothing. Here every scale is a true bound on
the sphere, nothing is clamped, and nothing but the template is looked at:

    laplace      z = normalize(t + Lap(2 sqrt(d) / eps)^d): 2 sqrt(d) is the L1 diameter of the unit sphere, so the
                 noisy vector is pure eps, and normalizing is post-processing; eps/2 a unit of Euclidean distance, since
                 the L1 norm is at most sqrt(d) times the Euclidean
    vmf          density ~ exp(kappa <t, z>): kappa a unit of Euclidean distance, pure 2 kappa (von Mises and Fisher;
                 sampled as Wood 1994 does)
    purkayastha  density ~ exp(-eps angle(t, z)): eps a radian, pure pi eps (Weggenmann and Kerschbaum 2021)
    uniform      z does not depend on t: nothing is spent

A loss holds for one draw: m draws of one person cost m times as much. So `identities` draws once for a subject and a
release, all of the person's images wear that draw, and the ledger adds up releases. The random stream also depends
on mechanism, parameter and template: two draws that differ in any of them share no noise that could be cancelled.

Not covered: draws are made in 64-bit floats and rounded to 32 bits, so which values can come out at all differs in
the last bits from template to template (Mironov 2012, for Laplace; the others alike). The bounds hold for the real
numbers that the floats stand for; whoever publishes z itself with all its digits does not have them. A rendered
face passes z through a texture in 8 bits. Nor are the bounds information-theoretic: the noise is a PCG64 stream seeded
by an HMAC, so they hold against those without the drawing key (`keys`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.keys import Keyring, Purpose
from anonlib.privacy.sphere import require_unit

Name = Literal["laplace", "vmf", "purkayastha", "uniform"]
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Mechanism:
    """`parameter`: epsilon of laplace and purkayastha, kappa of vmf, 0 for uniform."""

    name: Name
    parameter: float = 0.0

    def __post_init__(self) -> None:
        if self.name == "uniform" and self.parameter != 0:
            raise ValueError(f"uniform draws take no parameter, but {self.parameter} was given")
        if self.name != "uniform" and not 0 < self.parameter < math.inf:
            raise ValueError(f"the parameter of {self.name} must be a positive number, not {self.parameter}")


@dataclass(frozen=True)
class Cost:
    """What one draw costs.

    `pure`: bound of the log density ratio between any two people; `metric`: the same a unit of `unit`, by which two
    people are apart ("release": however far apart they are); `per_radian`: the same a radian between them, which
    bounds every mechanism here (a chord is never longer than its arc) and may therefore be added up.
    """

    metric: float
    unit: str
    per_radian: float
    pure: float


def epsilon_of(mechanism: Mechanism) -> Cost:
    """The privacy loss of one draw; no figure depends on the dimension."""
    parameter = mechanism.parameter
    match mechanism.name:
        case "laplace":
            return Cost(parameter, "release", parameter / 2, parameter)
        case "vmf":
            return Cost(parameter, "Euclidean distance", parameter, 2 * parameter)
        case "purkayastha":
            return Cost(parameter, "radian", parameter, math.pi * parameter)
        case "uniform":
            return Cost(0.0, "release", 0.0, 0.0)


def identities(mechanism: Mechanism, templates: Vector, subjects: Sequence[str], keyring: Keyring) -> Vector:
    """One unit vector (n, d) for each subject in the keyring's release; the same call gives the same vectors.

    `templates` (n, d) unit rows, `subjects` their ids, each once: photos are not drawn for.
    """
    if len(templates) != len(subjects):
        raise ValueError(f"{len(templates)} templates cannot belong to {len(subjects)} subjects")
    if len(set(subjects)) != len(subjects):
        raise ValueError("a subject is listed twice; each subject gets one draw a release, which all its images wear")
    drawn = np.empty(templates.shape, np.float32)
    for row, (template, subject) in enumerate(zip(templates, subjects, strict=True)):
        key = b"" if mechanism.name == "uniform" else np.ascontiguousarray(template, np.float32).tobytes()
        generator = keyring.generator(Purpose.IDENTITY, subject, mechanism.name, repr(mechanism.parameter), key)
        drawn[row] = draw(mechanism, template, generator)
    return drawn


def draw_id(z: Vector) -> str:
    """24 hex digits by which the ledger knows a draw (d,) again when it is reused."""
    return hashlib.sha256(np.ascontiguousarray(z, "<f4").tobytes()).hexdigest()[:24]


def draw(mechanism: Mechanism, template: Vector, generator: np.random.Generator) -> Vector:
    """One unit vector (d,) for the unit template (d,), d >= 3; `identities` is what chooses the stream rightly."""
    centre = _unit(template)
    size = len(centre)
    match mechanism.name:
        case "laplace":
            noisy = centre + generator.laplace(scale=2 * math.sqrt(size) / mechanism.parameter, size=size)
            drawn = noisy / np.linalg.norm(noisy)
        case "vmf":
            drawn = _turned(centre, math.acos(_vmf_cosine(mechanism.parameter, size, generator)), generator)
        case "purkayastha":
            drawn = _turned(centre, _purkayastha_angle(mechanism.parameter, size, generator), generator)
        case "uniform":
            noise = generator.normal(size=size)
            drawn = noise / np.linalg.norm(noise)
    return drawn.astype(np.float32)


def _unit(template: NDArray[np.floating]) -> NDArray[np.float64]:
    centre = np.asarray(template, np.float64)
    if centre.ndim != 1 or len(centre) < 3:
        raise ValueError(f"a template is one vector of 3 numbers or more, not an array of shape {centre.shape}")
    require_unit(centre[None], "templates")
    return np.asarray(centre / np.linalg.norm(centre), np.float64)


def _turned(centre: NDArray[np.float64], angle: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """`centre` turned by `angle` radians in a uniform direction."""
    direction = generator.normal(size=len(centre))
    direction -= (direction @ centre) * centre
    turned = math.cos(angle) * centre + math.sin(angle) * direction / np.linalg.norm(direction)
    return np.asarray(turned / np.linalg.norm(turned), np.float64)


def _vmf_cosine(kappa: float, size: int, generator: np.random.Generator) -> float:
    """Exact: density ~ exp(kappa w) (1 - w^2)^((d-3)/2), by rejection from a transformed Beta (Wood 1994)."""
    degrees = size - 1
    b = degrees / (2 * kappa + math.hypot(2 * kappa, degrees))
    x = (1 - b) / (1 + b)
    top = kappa * x + degrees * math.log1p(-x * x)
    while True:
        beta = generator.beta(degrees / 2, degrees / 2)
        w = (1 - (1 + b) * beta) / (1 - (1 - b) * beta)
        if kappa * w + degrees * math.log1p(-x * w) - top >= math.log1p(-generator.random()):
            return min(1.0, max(-1.0, float(w)))


def _purkayastha_angle(epsilon: float, size: int, generator: np.random.Generator) -> float:
    """Exact: density ~ exp(-eps a) sin(a)^(d-2) on (0, pi), by rejection from a normal.

    The log density bends by -(d-2)/sin(a)^2 <= -(d-2), so it lies below the parabola of that bend through its peak at
    tan(a) = (d-2)/eps. About sin(peak) of the tries are accepted; logarithms keep d = 512 from underflow.
    """
    power = size - 2
    peak = math.atan2(power, epsilon)
    top = power * math.log(math.sin(peak)) - epsilon * peak
    while True:
        angles = generator.normal(peak, 1 / math.sqrt(power), size=16)
        for angle, uniform in zip(angles, generator.random(16), strict=True):
            if 0 < angle < math.pi:
                height = power * math.log(math.sin(angle)) - epsilon * angle
                if height - top + power * (angle - peak) ** 2 / 2 >= math.log1p(-uniform):
                    return float(angle)
