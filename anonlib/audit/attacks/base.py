"""The contract of an attack, `attack(material) -> findings`, and what it may look at.

An `Attacker` is one recognizer with the evidence: the first clear photo of each person is the gallery, the others are
probes. Groups are reported besides the mean, since a mean may hide the people whom a method fails.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks import similarity
from anonlib.audit.attacks.similarity import FAR, Score, Scores, Vectors
from anonlib.audit.attacks.trails import Trail, trails_of
from anonlib.audit.evidence.evidence import CLEAR, HIDDEN, ONE_FACE, RELEASED, Evidence
from anonlib.audit.evidence.published import Published
from anonlib.audit.findings import Attack, Disclosure, Figure
from anonlib.audit.statistics import FEWEST, Numbers, Shares, difference, rate, worst
from anonlib.faces.embed import THRESHOLDS

ENOUGH_IMPOSTORS = 10_000
"""Pairs below which a threshold at FAR 1e-3 would rest on fewer than ten of them."""
FITTED = 600
"""Photos that weights are fitted on, or a trail is chosen by, at most: memory grows with photos times people."""
BEYOND = {"identity": (RELEASED, ONE_FACE), "context": (ONE_FACE, HIDDEN)}
"""Fields of an Attack that are differences between two looks at the same photos."""

_RIDGE = 1e-3

Looks = Mapping[str, Shares]
Part = tuple[str, str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Material:
    """Faces before and after, and the release's own records; `used`: the recognizers that the method has used."""

    evidence: Evidence | None
    published: Published | None
    used: Collection[str]
    seed: int = 0

    @cached_property
    def attackers(self) -> list[Attacker]:
        """One for each recognizer that the evidence was gathered with."""
        assert self.evidence is not None
        return [Attacker(self, self.evidence, name) for name in self.evidence.clear.vectors]

    @property
    def held_out(self) -> list[Attacker]:
        """Those whose recognizer the method has not used; all where it has used all of them."""
        return [attacker for attacker in self.attackers if attacker.held_out] or self.attackers

    @property
    def records(self) -> Published:
        """What the release says beside its pictures."""
        assert self.published is not None
        return self.published

    @cached_property
    def trails(self) -> dict[str, Trail]:
        """See `trails_of`: the same for every recognizer."""
        return trails_of(self.records)


@dataclass
class Probes:
    """n photos of the people `who` (n,) that `recognizer` is asked about; `groups` and `classes` (n,), -1 for none;
    `replaced` (n,): not an ellipse in the place of another method."""

    who: Numbers
    recognizer: str
    held_out: bool
    groups: Sequence[Part]
    classes: Numbers
    replaced: NDArray[np.bool_]
    seed: int

    def of(self, people: Numbers) -> Probes:
        """The same recognizer, asked about other photos or people (m,)."""
        every = np.ones(len(people), bool)
        return Probes(people, self.recognizer, self.held_out, (), people, every, self.seed)

    def attack(
        self, name: str, target: str, values: Looks, chance: float | None = None, *, detailed: bool = False, **more: Any
    ) -> Attack:
        """`values` (n,) by look, NaN where a photo was not asked; `detailed`: by groups, and of the worst too."""
        who, released = self.who, values[RELEASED]
        if detailed:
            groups: dict[str, dict[str, Figure]] = defaultdict(dict)
            for by, part, rows in self.groups:
                if np.count_nonzero(~np.isnan(released[rows])) >= FEWEST:
                    groups[by][part] = rate(released[rows], who[rows], chance=chance, seed=self.seed)
            worst_class = worst(released, self.classes) if (self.classes >= 0).any() else None
            more |= {"groups": groups, "worst_class": worst_class, "worst_person": worst(released, who)}
        figures = {look: rate(shares, who, chance=chance, seed=self.seed) for look, shares in values.items()}
        of_faces = {**values, RELEASED: np.where(self.replaced, released, np.nan)}
        for channel, (look, other) in BEYOND.items():
            if look in values and other in values:
                more[channel] = difference(of_faces[look], of_faces[other], who, seed=self.seed)
        return self._attack(name, target, figures, **more)

    def _attack(self, name: str, target: str, figures: dict[str, Figure], **more: Any) -> Attack:
        judge: dict[str, Any] = {"recognizer": self.recognizer, "held_out": self.held_out}
        released = figures.pop(RELEASED)
        return Attack(name=name, target=target, released=released, baselines=figures, **judge, **more)


class Attacker(Probes):
    """n probes and g candidates, one clear photo each, by one recognizer.

    `probe`, `gallery` and `reported` are masks over the photos of the evidence; `who` (n,) and `enrolled` (g,) number
    people, `right` (n,) is each probe's right candidate. `released` (n, d) are the probes as they were released,
    `clear` (g, d) the candidates, and `picture` what they say of each other.
    """

    def __init__(self, material: Material, evidence: Evidence, recognizer: str) -> None:
        self.material, self.evidence = material, evidence
        self.gallery = similarity.first_of_each(evidence.subjects)
        self.probe = ~self.gallery
        groups = [(by, name, rows[self.probe]) for by, name, rows in groups_of(evidence)]
        who, classes = evidence.subjects[self.probe], evidence.classes[self.probe]
        held_out, replaced = recognizer not in material.used, evidence.replaced[self.probe]
        super().__init__(who, recognizer, held_out, groups, classes, replaced, material.seed)
        self.vectors = {kind: look.vectors[recognizer] for kind, look in evidence.looks.items()}
        self.released, self.clear = self.vectors[RELEASED][self.probe], self.vectors[CLEAR][self.gallery]
        self.picture = self.cosines(self.vectors[RELEASED], self.vectors[CLEAR])
        self.enrolled = evidence.subjects[self.gallery]
        self.chance = 1 / max(len(self.enrolled), 1)
        # Half of the people, by their names, are probes of verification; those of the others fix the threshold.
        people, number = np.unique(evidence.names, return_inverse=True)
        digests = [hashlib.sha256(f"{self.seed}/{name}".encode()).digest() for name in people]
        self.reported = np.array([digest[0] % 2 == 0 for digest in digests], bool)[number]
        order = np.argsort(self.enrolled)
        self.right = order[np.searchsorted(self.enrolled[order], self.who)]

    @cached_property
    def threshold(self) -> float:
        """The cosine at FAR on clear pairs of people who are not reported on; the catalogue's if they are too few."""
        if len(self._impostors) < ENOUGH_IMPOSTORS:
            return THRESHOLDS[self.recognizer]
        return similarity.threshold_at_far(self._impostors, FAR)

    @property
    def threshold_note(self) -> str:
        """Where the threshold does not come from these photos, that it does not."""
        pairs = len(self._impostors)
        return "" if pairs >= ENOUGH_IMPOSTORS else f"threshold of the catalogue, since {pairs:,} clear pairs are few"

    @cached_property
    def _impostors(self) -> Vectors:
        aside = ~self.reported
        return similarity.impostor_pairs(self.vectors[CLEAR][aside], self.evidence.subjects[aside])

    @cached_property
    def rows(self) -> Numbers:
        """Rows in the records of all photos of the evidence; -1 where the release has no such face."""
        number = {face: row for row, face in enumerate(self.material.records.faces)}
        return np.array([number.get(face, -1) for face in self.evidence.faces], np.int64)

    def genuine(self, probes: Vectors) -> Shares:
        """(n,) Cosine of each probe to its person's clear gallery photo, of a look at all photos."""
        return np.asarray(np.einsum("ij,ij->i", probes[self.probe], self.clear[self.right]), np.float64)

    def cosines(self, probes: Vectors, enrolment: Vectors) -> Score:
        """The cosines of the probes to the candidates, of looks at all photos."""
        return similarity.dot(probes[self.probe], enrolment[self.gallery])

    def disclosure(
        self, name: str, target: str, values: Shares, beside: Shares | None = None, note: str = ""
    ) -> Disclosure:
        """`values` (n,), judged against `beside` (n,): what the pictures alone give, which the claim allows."""
        return Disclosure(
            name=name,
            target=target,
            recognizer=self.recognizer,
            found=rate(values, self.who, chance=self.chance, seed=self.seed),
            allowed=None if beside is None or np.isnan(beside).all() else float(np.nanmean(beside)),
            allowed_by="" if beside is None else "the picture alone",
            excess=None if beside is None else difference(values, beside, self.who, seed=self.seed),
            judged_by=None if beside is None else "high",
            note=note,
        )

    # ---- scores of candidates, put together by a conditional logit -----------------------------------------------

    def ranks(self, score: Score, rows: Numbers | None = None) -> tuple[Numbers, Numbers]:
        """How many candidates fit better than the right one, and how many as well; both (r,), of all probes or some."""
        rows = np.arange(len(self.who)) if rows is None else rows
        return similarity.places(score, rows, self.right[rows])

    def sample(self, rows: Numbers) -> Numbers:
        """At most FITTED of the rows, drawn at random."""
        return np.sort(np.random.default_rng(self.seed).choice(rows, min(len(rows), FITTED), replace=False))

    def both_ways(self, fit: Callable[[Numbers], Score]) -> tuple[Numbers, Numbers]:
        """As `ranks`, of each half of the people by what `fit` makes of the other half's rows, and not of their own."""
        better, tied = np.zeros(len(self.who), np.int64), np.zeros(len(self.who), np.int64)
        people, person = np.unique(self.who, return_inverse=True)
        half = (np.random.default_rng(self.seed).permutation(len(people)) % 2)[person]
        for side in (0, 1):
            others, judged = np.flatnonzero(half != side), np.flatnonzero(half == side)
            if len(others) and len(judged):
                better[judged], tied[judged] = self.ranks(fit(others), judged)
        return better, tied

    def together(self, scores: Sequence[Score], rows: Numbers) -> Score:
        """A function that weighs `scores` by a conditional logit, fitted on these rows."""
        chosen = self.sample(rows)
        parts = [score(chosen) for score in scores]
        parts = [part - part.mean(axis=1, keepdims=True) for part in parts]
        scale = [float(part.std()) or 1.0 for part in parts]
        stacked = np.stack([part / size for part, size in zip(parts, scale, strict=True)])
        weights = conditional_logit(stacked, self.right[chosen])
        factors = [np.float32(weight / size) for weight, size in zip(weights, scale, strict=True)]

        def weighed(rows: Numbers) -> Scores:
            return np.asarray(sum(f * score(rows) for f, score in zip(factors, scores, strict=True)), np.float32)

        return weighed


def conditional_logit(scores: Scores, right: Numbers) -> NDArray[np.float64]:
    """Weights (f,), none below 0, that make the right candidates `right` (r,) likeliest by their `scores` (f, r, g):
    maximum likelihood with a small ridge, log odds being weighted differences of scores (McFadden 1974)."""
    from scipy.optimize import minimize

    flat = scores.reshape(len(scores), -1)
    right_score = scores[:, np.arange(len(right)), right].mean(axis=1, dtype=np.float64)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        total = (weights.astype(np.float32) @ flat).reshape(scores.shape[1:])
        top = total.max(axis=1, keepdims=True)
        shares = np.exp(total - top)
        summed = shares.sum(axis=1, keepdims=True)
        shares /= summed
        likelihood = float(weights @ right_score) - float((top + np.log(summed)).mean(dtype=np.float64))
        slope = (flat @ shares.reshape(-1)).astype(np.float64) / len(right) - right_score
        return _RIDGE * float(weights @ weights) / 2 - likelihood, slope + _RIDGE * weights

    start = np.full(len(scores), 0.1)
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(scores))
    return np.asarray(fitted.x, np.float64)


def groups_of(evidence: Evidence) -> list[Part]:
    """What photos have in common, its name, and which (n,) they are, by the originals; unknown values are in none."""
    clear, eyes, yaw = evidence.clear, evidence.eye_distance, np.abs(evidence.clear.pose[:, 0])
    small, large = np.nanquantile(eyes, (1 / 3, 2 / 3)) if np.isfinite(eyes).any() else (np.nan, np.nan)
    size = "eyes {} px apart".format
    return [
        ("gender", "female", clear.female >= 0.5),
        ("gender", "male", clear.female < 0.5),
        ("age", "under 30", clear.age < 30),
        ("age", "30 to 50", (clear.age >= 30) & (clear.age <= 50)),
        ("age", "over 50", clear.age > 50),
        ("pose", "frontal", yaw < 15),
        ("pose", "turned 15 to 30 degrees", (yaw >= 15) & (yaw <= 30)),
        ("pose", "turned over 30 degrees", yaw > 30),
        ("size", size(f"under {small:.0f}"), eyes < small),
        ("size", size(f"{small:.0f} to {large:.0f}"), (eyes >= small) & (eyes <= large)),
        ("size", size(f"over {large:.0f}"), eyes > large),
    ]
