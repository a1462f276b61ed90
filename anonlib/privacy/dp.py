"""Noise on the identity vector, with a privacy loss that is proved and not estimated, and what all releases have cost.

IdentityDP's idea (arXiv 2103.01745), whose noise is scaled by the largest distance seen on a test set, which bounds
nothing: here every scale is a true bound on the sphere. Bounds hold for the real numbers that floats stand for (Mironov
2012), and against those without the drawing key (`keys`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.keys import Keyring, Purpose
from anonlib.privacy.knn import require_unit

Name = Literal["laplace", "vmf", "purkayastha", "uniform"]
Vector = NDArray[np.float32]
_ROUNDING, _BLOCK = 1e-9, 4096
_COIN = 1 << 64  # the denominator of subset selection's chance


@dataclass(frozen=True)
class Mechanism:
    """The distribution of z for the template t; `parameter`: epsilon of laplace and purkayastha, kappa of vmf.

    laplace      z = normalize(t + Lap(2 sqrt(d) / eps)^d), where 2 sqrt(d) is the L1 diameter of the unit sphere: pure
                 eps, and eps/2 a unit of Euclidean distance, since an L1 norm is at most sqrt(d) times the Euclidean
    vmf          density ~ exp(kappa <t, z>): kappa a unit of Euclidean distance, pure 2 kappa (von Mises and Fisher)
    purkayastha  density ~ exp(-eps angle(t, z)): eps a radian, pure pi eps (Weggenmann and Kerschbaum 2021)
    uniform      z does not depend on t: nothing is spent
    """

    name: Name
    parameter: float = 0.0

    def __post_init__(self) -> None:
        if self.name != "uniform" and not 0 < self.parameter < math.inf:
            raise ValueError(f"the parameter of {self.name} must be a positive number, not {self.parameter}")


class Cost(NamedTuple):
    """What one draw costs: `pure` bounds the log density ratio between any two people, `metric` a `unit` between them.

    "release": however far apart they are.
    """

    metric: float
    unit: str
    pure: float


def epsilon_of(mechanism: Mechanism) -> Cost:
    """The privacy loss of one draw; no figure depends on the dimension."""
    parameter = mechanism.parameter
    return {
        "laplace": Cost(parameter, "release", parameter),
        "vmf": Cost(parameter, "Euclidean distance", 2 * parameter),
        "purkayastha": Cost(parameter, "radian", math.pi * parameter),
        "uniform": Cost(0.0, "release", 0.0),
    }[mechanism.name]


def identities(mechanism: Mechanism, templates: Vector, subjects: Sequence[str], keyring: Keyring) -> Vector:
    """One unit vector (n, d) for each subject in the keyring's release: m draws of a person cost m times as much.

    `templates` (n, d) unit rows, `subjects` their ids, each once. The stream also depends on mechanism, parameter and
    template: two draws that differ in any of them share no noise that could be cancelled.
    """
    if len(set(subjects)) != len(templates):
        raise ValueError(f"{len(templates)} templates need as many different subjects, not {len(set(subjects))}")
    drawn = np.empty(templates.shape, np.float32)
    for row, (template, subject) in enumerate(zip(templates, subjects, strict=True)):
        key = b"" if mechanism.name == "uniform" else np.ascontiguousarray(template, np.float32).tobytes()
        generator = keyring.generator(Purpose.IDENTITY, subject, mechanism.name, repr(mechanism.parameter), key)
        drawn[row] = draw(mechanism, template, generator)
    return drawn


def subset_share(epsilon: float, near: int, faces: int) -> Fraction:
    """The chance, a fraction of 2^64, with which subset selection shows one of `near` of `faces` (0 < near < faces).

    The largest with (chance / near) : ((1 - chance) / (faces - near)) <= exp(epsilon).
    """
    weight = Fraction(math.nextafter(math.exp(epsilon), 0.0)) * near
    return Fraction(math.floor(weight / (weight + faces - near) * _COIN), _COIN)


def subset_selection(template: Vector, faces: Vector, near: int, epsilon: float, subject: str, keyring: Keyring) -> int:
    """Which row of public `faces` (n, d) stands in for a subject's unit template (d,) in the keyring's release.

    With `subset_share` one of the `near` most like the template, evenly, else one of the others: two people may have
    other faces near, but each face has one of two chances for both (Ye and Barg 2018). Ties go by the order of rows,
    and coin and face are integers of an HMAC, so no rounding adds to epsilon.
    """
    own = np.ascontiguousarray(template, np.float32)
    order = np.argsort(-(faces @ own), kind="stable")
    parts = subject, "subset", repr(epsilon), str(near), own.tobytes()
    number = int.from_bytes(keyring.digest(Purpose.IDENTITY, *parts), "big")
    place, coin = divmod(number, _COIN)
    is_near = coin < subset_share(epsilon, near, len(faces)) * _COIN
    return int(order[place % near if is_near else near + place % (len(faces) - near)])


def draw_id(z: Vector) -> str:
    """24 hex digits by which the ledger knows a draw (d,) again when its plan is made again."""
    return hashlib.sha256(np.ascontiguousarray(z, "<f4").tobytes()).hexdigest()[:24]


def draw(mechanism: Mechanism, template: Vector, generator: np.random.Generator) -> Vector:
    """One unit vector (d,) for the unit template (d,), d >= 3; `identities` is what chooses the stream rightly."""
    require_unit(np.asarray(template)[None], "templates")
    centre = np.asarray(template, np.float64)
    centre = centre / np.linalg.norm(centre)
    size, parameter = len(centre), mechanism.parameter
    match mechanism.name:
        case "laplace":
            noisy = centre + generator.laplace(scale=2 * math.sqrt(size) / parameter, size=size)
            return np.asarray(noisy / np.linalg.norm(noisy), np.float32)
        case "uniform":
            noise = generator.normal(size=size)
            return np.asarray(noise / np.linalg.norm(noise), np.float32)
        case "vmf":
            angle = math.acos(_vmf_cosine(parameter, size, generator))
        case "purkayastha":
            angle = _purkayastha_angle(parameter, size, generator)
    # The template, turned by the angle in a uniform direction.
    direction = generator.normal(size=size)
    direction -= (direction @ centre) * centre
    turned = math.cos(angle) * centre + math.sin(angle) * direction / np.linalg.norm(direction)
    return np.asarray(turned / np.linalg.norm(turned), np.float32)


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
    tan(a) = (d-2)/eps; about sin(peak) of the tries are accepted.
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


# ---- what a person has spent over all releases ------------------------------------------------------------------
# Losses of independent draws add up (sequential composition, Dwork and Roth 2014, theorem 3.16); a draw costs once,
# however many images, reruns and releases wear it. Clustering may have split a person, whose draws are then seen of all
# parts, so a subject's account has those of its direct suspects too; not of theirs, since likeness chains.

Suspects = Mapping[str, Collection[str]]  # of each subject the others that may be the same person; symmetric


class LedgerEntry(NamedTuple):
    """A draw that a release shows of a subject: `draw` names the vector, `pure` is its epsilon (infinite: no bound)."""

    subject: str
    draw: str
    pure: float


Entries = Sequence[LedgerEntry]


def refusal(booked: Entries, planned: Entries, budget: float, suspects: Suspects) -> str | None:
    """Why the run that would show `planned` on top of `booked` may not start, in counts alone; None if it may.

    `budget`: the most pure epsilon of a person over all releases. Asked before the first face is drawn.
    """
    over, charged = overdrawn(booked, planned, budget, suspects)
    if not over:
        return None
    worst = max(over.values())
    most = f"the worst of them, at {worst:.6g}, by {worst - budget:.6g}"
    if math.isinf(worst):
        most = "the worst of them without any bound, since one of its draws is of a method that promises no epsilon"
    return (
        f"{len(over):,} of the {charged:,} accounts that this run draws on would exceed the budget of epsilon "
        f"{budget:.6g} over all releases, {most}; lower the run's epsilon, or raise the budget"
    )


def overdrawn(booked: Entries, planned: Entries, budget: float, suspects: Suspects) -> tuple[dict[str, float], int]:
    """What subjects would have spent whose accounts would exceed `budget`, and how many accounts are charged.

    Those are of the run's subjects and of all their suspects. A run that only shows draws again, or draws at no cost,
    overdraws nothing, whatever was spent before.
    """
    shown = {row.subject for row in planned}
    charged = shown.union(*(suspects.get(subject, ()) for subject in shown))
    spent: dict[str, list[LedgerEntry]] = {}
    added: dict[str, list[LedgerEntry]] = {}
    for entries, rows in ((spent, booked), (added, planned)):
        for row in rows:
            entries.setdefault(row.subject, []).append(row)
    over: dict[str, float] = {}
    for subject in sorted(charged):
        members = (subject, *suspects.get(subject, ()))
        costs: dict[str, float] = {}  # of each draw, once for all members; the higher cost where rows disagree
        grown = False
        for entries in (spent, added):
            for row in (row for member in members for row in entries.get(member, ())):
                grown |= entries is added and row.pure > costs.get(row.draw, 0.0)
                costs[row.draw] = max(row.pure, costs.get(row.draw, 0.0))
        total = math.fsum(costs.values())
        if grown and total > budget * (1 + _ROUNDING):
            over[subject] = total
    return over, len(charged)


def suspected(
    templates: Vector, person: NDArray[np.int64], labelled: NDArray[np.bool_], same_person: float
) -> NDArray[np.int64]:
    """Pairs (m, 2) of different persons, lower number first, of whom any two rows have a cosine of `same_person`.

    `templates` (n, d) unit, a row for each time that a person was seen; `person` (n,) its number, `labelled` (n,)
    whether a label says so: two labels are believed. Time n^2 d / 2; memory n and the pairs.
    """
    count = len(templates)
    pairs = [np.zeros((0, 2), np.int64)]
    for row in range(0, count, _BLOCK):
        for column in range(row, count, _BLOCK):
            rows, columns = slice(row, row + _BLOCK), slice(column, column + _BLOCK)
            alike = templates[rows] @ templates[columns].T >= same_person
            alike &= ~(labelled[rows, None] & labelled[None, columns])
            first, second = np.nonzero(alike)
            named = np.sort(np.stack([person[rows][first], person[columns][second]], axis=1), axis=1)
            pairs.append(np.unique(named[named[:, 0] < named[:, 1]], axis=0))
    return np.unique(np.concatenate(pairs), axis=0)
