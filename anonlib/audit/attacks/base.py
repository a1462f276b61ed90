"""The contract of an attack, `attack(material) -> findings`, and what it may look at.

An `Attacker` is one recognizer with the evidence: the first clear photo of each person is the gallery, the others are
probes. Groups are reported besides the mean, since a mean may hide the people whom a method fails.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.similarity import (
    FAR,
    Vectors,
    first_of_each,
    found_within,
    genuine_similarities,
    impostor_pairs,
    threshold_at_far,
)
from anonlib.audit.evidence.evidence import BASELINES, CLEAR, HIDDEN, RELEASED, Evidence
from anonlib.audit.evidence.published import Published
from anonlib.audit.findings import Attack, Disclosure, Group, Histogram, Threshold
from anonlib.audit.statistics import FEWEST, Numbers, Shares, difference, rate, worst
from anonlib.faces.embed import THRESHOLDS

ENOUGH_IMPOSTORS = 10_000
"""Pairs below which a threshold at FAR 1e-3 would rest on fewer than ten of them."""
FITTED = 600
"""Photos that weights are fitted on, or a trail is chosen by, at most: memory grows with photos times people."""
AGES, YAWS = (30.0, 50.0), (15.0, 30.0)

_MOST_PHOTOS = 4096
_STEPS = 80
_RIDGE = 1e-3
_ROWS = 1024

By = Literal["gender", "age", "pose", "size"]
Part = tuple[By, str, NDArray[np.bool_]]
Scores = NDArray[np.float32]
Score = Callable[[Numbers], Scores]
"""Rows of probes (r,) -> how well each candidate fits (r, g): higher is better, all equal where nothing is known."""


@dataclass(frozen=True)
class Material:
    """Faces before and after, and the release's own records; `used`: the recognizers that the method has used."""

    evidence: Evidence | None
    published: Published | None
    used: Collection[str]
    seed: int = 0

    @cached_property
    def attackers(self) -> list[Attacker]:
        """One for each recognizer that the evidence was gathered with; raises ValueError without evidence."""
        if self.evidence is None:
            raise ValueError("an attack on pictures needs evidence")
        return [
            Attacker(self.evidence, name, held_out=name not in self.used, published=self.published, seed=self.seed)
            for name in self.evidence.clear.vectors
        ]

    @property
    def held_out(self) -> list[Attacker]:
        """Those whose recognizer the method has not used; all where it has used all of them."""
        return [attacker for attacker in self.attackers if attacker.held_out] or self.attackers

    @property
    def records(self) -> Published:
        """What the release says beside its pictures; raises ValueError where it was not read."""
        if self.published is None:
            raise ValueError("an attack on records needs what the release publishes")
        return self.published


Findings = Iterable[Attack | Disclosure]
RunAttack = Callable[[Material], Findings]


@dataclass
class Probes:
    """n photos of the people `who` (n,) that `recognizer` is asked about; `groups` and `classes` (n,), -1 for none."""

    who: Numbers
    recognizer: str
    held_out: bool
    groups: Sequence[Part]
    classes: Numbers
    seed: int

    def attack(
        self,
        name: str,
        target: str,
        values: Mapping[str, Shares],
        chance: float | None = None,
        *,
        subjects: Numbers | None = None,
        detailed: bool = False,
        curve: tuple[float, ...] = (),
        note: str = "",
    ) -> Attack:
        """`values` (n,) by look, NaN where a photo was not asked; of the probes, or of the people `subjects`.

        `detailed`: by groups, and of the worst person and class.
        """
        who, seed = self.who if subjects is None else subjects, self.seed
        released, hidden = values[RELEASED], values.get(HIDDEN)
        looks = [look for look in (CLEAR, *BASELINES) if look in values]
        groups = [
            Group(by=by, name=part, figure=rate(released[rows], who[rows], chance=chance, seed=seed))
            for by, part, rows in (self.groups if detailed else ())
            if np.count_nonzero(~np.isnan(released[rows])) >= FEWEST
        ]
        return Attack(
            name=name,
            target=target,
            recognizer=self.recognizer,
            held_out=self.held_out,
            released=rate(released, who, chance=chance, seed=seed),
            baselines={look: rate(values[look], who, chance=chance, seed=seed) for look in looks},
            excess=None if hidden is None else difference(released, hidden, who, seed=seed),
            groups=tuple(groups),
            worst_class=worst(released, self.classes) if detailed and (self.classes >= 0).any() else None,
            worst_person=worst(released, who) if detailed else None,
            curve=curve,
            note=note,
        )


class Attacker(Probes):
    """n probes and g candidates, one clear photo each, by one recognizer.

    `who` (n,) and `enrolled` (g,) number their people, `right` (n,) is each probe's right candidate.
    """

    def __init__(
        self,
        evidence: Evidence,
        recognizer: str,
        *,
        held_out: bool,
        published: Published | None = None,
        seed: int = 0,
    ) -> None:
        self.evidence, self.published = evidence, published
        self.gallery = first_of_each(evidence.subjects)
        self.probe = ~self.gallery
        groups = [(by, name, rows[self.probe]) for by, name, rows in groups_of(evidence)]
        who, classes = evidence.subjects[self.probe], evidence.classes[self.probe]
        super().__init__(who, recognizer, held_out, groups, classes, seed)
        self.vectors = {kind: look.vectors[recognizer] for kind, look in evidence.looks.items()}
        self.released, self.clear = self.vectors[RELEASED][self.probe], self.vectors[CLEAR][self.gallery]
        self.enrolled = evidence.subjects[self.gallery]
        self.chance = 1 / max(len(self.enrolled), 1)
        self.reported = reported(evidence.names, seed=seed)
        order = np.argsort(self.enrolled)
        self.right = order[np.searchsorted(self.enrolled[order], self.who)]
        self.walks: dict[str, Score] | None = None
        """What the release's tables lead to, by trail, once the attack on the certificate has followed them."""

    @cached_property
    def threshold(self) -> Threshold:
        return threshold_of(self.evidence, self.recognizer, seed=self.seed)

    @cached_property
    def rows(self) -> tuple[Numbers, Numbers]:
        """Rows of the probes (n,) and of the candidates (g,) in the records; -1 where the release has no such face."""
        assert self.published is not None
        number = {face: row for row, face in enumerate(self.published.faces)}
        rows = np.array([number.get(face, -1) for face in self.evidence.faces], np.int64)
        return rows[self.probe], rows[self.gallery]

    @cached_property
    def half(self) -> Numbers:
        """(n,) 0 or 1, the same for all probes of a person."""
        people = np.unique(self.who)
        return (np.random.default_rng(self.seed).permutation(len(people)) % 2)[np.searchsorted(people, self.who)]

    def genuine(self, probes: Vectors, enrolment: Vectors) -> Shares:
        """(n,) Cosine of each probe to its person's gallery photo, of looks at all faces."""
        return genuine_similarities(probes[self.probe], self.who, enrolment[self.gallery], self.enrolled)

    def disclosure(
        self,
        name: Literal["certificate", "manifest"],
        target: str,
        values: Shares,
        *,
        beside: Shares | None = None,
        ranks: int = 1,
        judged: bool = False,
        note: str = "",
    ) -> Disclosure:
        """`values` (n,) with `beside` (n,), what the pictures alone give, as what the claim allows."""
        chance = min(1.0, ranks / max(len(self.enrolled), 1))
        return Disclosure(
            name=name,
            target=target,
            recognizer=self.recognizer,
            found=rate(values, self.who, chance=chance, seed=self.seed),
            allowed=None if beside is None or np.isnan(beside).all() else float(np.nanmean(beside)),
            allowed_by="" if beside is None else "the picture alone",
            excess=None if beside is None else difference(values, beside, self.who, seed=self.seed),
            judged_by="high" if judged else None,
            note=note,
        )

    def histogram(self) -> Histogram:
        """Cosines of people who are reported on; their clear photos, and their released ones against clear ones."""
        edges = np.linspace(-1, 1, _STEPS + 1)
        clear, half = self.vectors[CLEAR], self.reported

        def shares(values: NDArray[np.floating]) -> tuple[float, ...]:
            counts = np.histogram(np.clip(values[~np.isnan(values)], -1, 1), edges)[0]
            return tuple((counts / max(counts.sum(), 1)).tolist())

        counted, enrolled = half[self.probe], half & self.gallery
        return Histogram(
            recognizer=self.recognizer,
            edges=tuple(edges.tolist()),
            genuine=shares(self.genuine(clear, clear)[counted]),
            impostor=shares(impostor_pairs(clear[enrolled], self.evidence.subjects[enrolled])),
            released=shares(self.genuine(self.vectors[RELEASED], clear)[counted]),
            threshold=self.threshold.cosine,
        )

    # ---- scores of candidates, put together by a conditional logit -----------------------------------------------

    def picture(self, rows: Numbers) -> Scores:
        """The cosine of the released face to each candidate's clear photo."""
        return self.released[rows] @ self.clear.T

    def ranks(self, score: Score, rows: Numbers) -> tuple[Numbers, Numbers]:
        """How many candidates fit better than the right one, and how many as well, itself among them; both (r,)."""
        better, tied = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            scores = score(part)
            right = scores[np.arange(len(part)), self.right[part]][:, None]
            better[start : start + _ROWS] = (scores > right).sum(axis=1)
            tied[start : start + _ROWS] = (scores == right).sum(axis=1)
        return better, tied

    def sample(self, rows: Numbers) -> Numbers:
        """At most FITTED of the rows, drawn at random."""
        return np.sort(np.random.default_rng(self.seed).choice(rows, min(len(rows), FITTED), replace=False))

    def hits(self, score: Score, ranks: int = 1) -> Shares:
        """(n,) Whether the right person is among the first `ranks`."""
        return found_within(ranks, *self.ranks(score, np.arange(len(self.who))))

    def both_ways(self, fit: Callable[[Numbers], Score], ranks: Sequence[int] = (1,)) -> list[Shares]:
        """(n,) for each of `ranks`: the hits of each half of the people by what `fit` makes of the other half.

        So no person is judged by weights that were fitted on their photos.
        """
        found = [np.full(len(self.who), np.nan) for _ in ranks]
        for half in (0, 1):
            others, judged = np.flatnonzero(self.half != half), np.flatnonzero(self.half == half)
            if len(others) and len(judged):
                better, tied = self.ranks(fit(others), judged)
                for values, rank in zip(found, ranks, strict=True):
                    values[judged] = found_within(rank, better, tied)
        return found

    def together(self, scores: Sequence[Score], rows: Numbers) -> Score:
        """What weighs `scores` by a conditional logit that is fitted on these rows."""
        chosen = self.sample(rows)
        parts = [score(chosen) for score in scores]
        parts = [part - part.mean(axis=1, keepdims=True) for part in parts]
        scale = [float(part.std()) or 1.0 for part in parts]
        stacked = np.stack([part / size for part, size in zip(parts, scale, strict=True)])
        weights = conditional_logit(stacked, self.right[chosen])
        weighed = [
            (np.float32(weight / size), score) for weight, size, score in zip(weights, scale, scores, strict=True)
        ]
        return lambda rows: np.asarray(sum(weight * score(rows) for weight, score in weighed), np.float32)


def conditional_logit(scores: Scores, right: Numbers) -> NDArray[np.float64]:
    """Weights (f,), none below 0, that make the right candidates `right` (r,) likeliest by their `scores` (f, r, g).

    The logarithm of the odds of two candidates is the weighted difference of their scores (McFadden 1974); the fit is
    by maximum likelihood with a small ridge.
    """
    from scipy.optimize import minimize

    rows, flat = np.arange(len(right)), scores.reshape(len(scores), -1)
    right_score = scores[:, rows, right].mean(axis=1, dtype=np.float64)

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
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(scores))
    return np.asarray(found.x, np.float64)


def groups_of(evidence: Evidence) -> list[Part]:
    """What photos have in common, its name, and which (n,) they are, judged by the originals.

    Gender and age by the attribute networks, the head's turn, and thirds by the distance of the eyes. A photo of which
    a value is not known is in no group.
    """
    clear, size = evidence.clear, evidence.eye_distance
    with np.errstate(invalid="ignore"):
        yaw = np.abs(clear.pose[:, 0])
        parts: list[Part] = [
            ("gender", "female", clear.female >= 0.5),
            ("gender", "male", clear.female < 0.5),
            ("age", "under 30", clear.age < AGES[0]),
            ("age", "30 to 50", (clear.age >= AGES[0]) & (clear.age <= AGES[1])),
            ("age", "over 50", clear.age > AGES[1]),
            ("pose", "frontal", yaw < YAWS[0]),
            ("pose", "turned 15 to 30 degrees", (yaw >= YAWS[0]) & (yaw <= YAWS[1])),
            ("pose", "turned over 30 degrees", yaw > YAWS[1]),
        ]
        if np.isfinite(size).any():
            small, large = np.nanquantile(size, (1 / 3, 2 / 3))
            parts += [
                ("size", f"eyes under {small:.0f} px apart", size < small),
                ("size", f"eyes {small:.0f} to {large:.0f} px apart", (size >= small) & (size <= large)),
                ("size", f"eyes over {large:.0f} px apart", size > large),
            ]
    return parts


def reported(names: NDArray[np.str_], *, seed: int = 0) -> NDArray[np.bool_]:
    """(n,) Whether a person's photos are probes of verification; those of the others fix the threshold."""
    people, number = np.unique(names, return_inverse=True)
    half = np.array([hashlib.sha256(f"{seed}/{name}".encode()).digest()[0] % 2 == 0 for name in people], bool)
    return half[number] if len(names) else np.zeros(0, bool)


def threshold_of(evidence: Evidence, recognizer: str, *, seed: int = 0) -> Threshold:
    """The cosine at FAR 1e-3 on clear pairs of people who are not reported on; the catalogue's if there are too few."""
    others = np.flatnonzero(~reported(evidence.names, seed=seed))
    if len(others) > _MOST_PHOTOS:
        others = np.sort(np.random.default_rng(seed).choice(others, _MOST_PHOTOS, replace=False))
    subjects = evidence.subjects[others]
    impostors = impostor_pairs(evidence.clear.vectors[recognizer][others], subjects)
    enough = len(impostors) >= ENOUGH_IMPOSTORS
    return Threshold(
        recognizer=recognizer,
        cosine=threshold_at_far(impostors, FAR) if enough else THRESHOLDS[recognizer],
        far=FAR,
        pairs=len(impostors),
        people=np.unique(subjects).size,
        measured_here=enough,
    )
