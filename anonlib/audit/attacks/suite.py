"""Every attack by a ready-made recognizer, on the release and on each baseline, as it stands in a report."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.groups import groups_of
from anonlib.audit.attacks.identify import Vectors, first_of_each, found_within, places, within_class_rank_one
from anonlib.audit.attacks.linkage import within
from anonlib.audit.attacks.pairs import equal_error, excess, pairs, rated
from anonlib.audit.attacks.rates import Numbers, Shares, figure
from anonlib.audit.attacks.result import ByLook, made
from anonlib.audit.attacks.verify import (
    FAR,
    accepted_at,
    genuine_similarities,
    impostor_pairs,
    nearest_donor,
    reported,
    threshold_of,
)
from anonlib.audit.evidence.evidence import CLEAR, HIDDEN, RELEASED, Evidence
from anonlib.audit.findings import Attack, Histogram, Threshold

RANKS = 20
"""How far a curve of identification goes."""
_STEPS = 80


def attack_all(
    evidence: Evidence, *, used: Collection[str], seed: int = 0
) -> tuple[list[Attack], list[Threshold], list[Histogram]]:
    """Every attack by every recognizer that evidence was gathered with; `used`: those that the method has used."""
    attacks: list[Attack] = []
    thresholds: list[Threshold] = []
    histograms: list[Histogram] = []
    for recognizer in evidence.clear.vectors:
        attacker = Attacker(evidence, recognizer, held_out=recognizer not in used, seed=seed)
        attacks += attacker.every()
        thresholds.append(attacker.threshold)
        histograms.append(attacker.histogram())
    return attacks, thresholds, histograms


class Attacker:
    """One recognizer. The first clear photo of each person is the gallery, the others are probes."""

    def __init__(self, evidence: Evidence, recognizer: str, *, held_out: bool, seed: int = 0) -> None:
        self.evidence, self.recognizer, self.held_out, self.seed = evidence, recognizer, held_out, seed
        self.vectors = {name: look.vectors[recognizer] for name, look in evidence.looks.items()}
        self.threshold = threshold_of(evidence, recognizer, seed=seed)
        self.gallery = first_of_each(evidence.subjects)
        self.probe = ~self.gallery
        self.who, self.enrolled = evidence.subjects[self.probe], evidence.subjects[self.gallery]
        self.chance = 1 / max(len(self.enrolled), 1)
        self.reported = reported(evidence.names, seed=seed)
        self.groups = [(by, name, rows[self.probe]) for by, name, rows in groups_of(evidence)]

    def every(self) -> list[Attack]:
        """Naive, parrot, context, averaging, linkage, and donors where there are any."""
        found = [*self.naive(), *self.parrot(), self.context(), self.averaging(), self.alike()]
        found.append(within(self.evidence, self.recognizer, held_out=self.held_out, seed=self.seed))
        return found + (self.donors() if len(self.evidence.donor_people) else [])

    def naive(self) -> list[Attack]:
        """Released photos against clear ones."""
        ranks = {name: self._places(vectors, self.vectors[CLEAR]) for name, vectors in self.vectors.items()}
        first = {name: found_within(1, *one) for name, one in ranks.items()}
        found = [
            self._attack("naive", "rank-1", first, self.chance, detailed=True, curve=self._curve(ranks[RELEASED])),
            self._attack(
                "naive", "rank-5", {name: found_within(5, *one) for name, one in ranks.items()}, min(5 * self.chance, 1)
            ),
            self._attack("naive", "TAR", self._verified(), FAR, detailed=True),
            self._equal_error(),
        ]
        return found + self._of_replaced("naive", first) + self._within_class("naive", self.vectors[CLEAR])

    def parrot(self) -> list[Attack]:
        """Released photos against photos that were released too."""
        ranks = {name: self._places(vectors, vectors) for name, vectors in self.vectors.items()}
        first = {name: found_within(1, *one) for name, one in ranks.items()}
        found = self._attack("parrot", "rank-1", first, self.chance, detailed=True, curve=self._curve(ranks[RELEASED]))
        return [found, *self._of_replaced("parrot", first), *self._within_class("parrot", None)]

    def context(self) -> Attack:
        """Photos with every face hidden against each other: what hair, clothes and place give away in any release."""
        clear, hidden = (
            found_within(1, *self._places(self.vectors[name], self.vectors[name])) for name in (CLEAR, HIDDEN)
        )
        note = "every face under a flat ellipse: what hair, clothes and place give away"
        return self._attack(
            "context", "rank-1", {RELEASED: hidden, CLEAR: clear}, self.chance, detailed=True, note=note
        )

    def averaging(self) -> Attack:
        """The mean of all released photos of a person but the one whose original is in the gallery."""
        people, number = np.unique(self.who, return_inverse=True)
        hits = {}
        for name, vectors in self.vectors.items():
            summed = np.zeros((len(people), vectors.shape[1]), np.float32)
            np.add.at(summed, number, vectors[self.probe])
            ranks = places(summed, people, self.vectors[CLEAR][self.gallery], self.enrolled)
            hits[name] = found_within(1, *ranks)
        return self._attack("averaging", "rank-1", hits, self.chance, subjects=people)

    def alike(self) -> Attack:
        """How alike two released photos of one person are that wear one surrogate: it is meant to be reused."""
        worn = self.evidence.worn
        of_gallery = dict(zip(self.enrolled.tolist(), worn[self.gallery].tolist(), strict=True))
        same = np.array(
            [of_gallery[one] == own >= 0 for one, own in zip(self.who, worn[self.probe], strict=True)], bool
        )
        cosines = {
            name: np.where(same, self._genuine(self.vectors[name], self.vectors[name]), np.nan)
            for name in (RELEASED, CLEAR)
        }
        return self._attack("linkage", "cosine of one surrogate", cosines, None)

    def donors(self) -> list[Attack]:
        """Whoever was averaged may be recognized by the photo that went in, or by another one, which is the worse."""
        whole = self.evidence
        other = np.isin(whole.people, whole.donor_people) & ~whole.averaged
        photos = {
            "portraits": (whole.donors[self.recognizer], whole.donor_people, whole.donor_classes),
            "other photos": (self.vectors[CLEAR][other], whole.people[other], whole.classes[other]),
        }
        return [
            self._attack(
                "donors",
                f"accepted by {name}",
                {
                    look: accepted_at(nearest_donor(vectors, whole.people, whole.worn, *those), self.threshold.cosine)
                    for look, vectors in self.vectors.items()
                },
                None,
                subjects=whole.subjects,
            )
            for name, those in photos.items()
        ]

    def histogram(self) -> Histogram:
        """Cosines of people who are reported on; their clear photos, and their released ones against clear ones."""
        edges = np.linspace(-1, 1, _STEPS + 1)
        half = self.reported
        clear = self.vectors[CLEAR]

        def shares(values: NDArray[np.floating]) -> tuple[float, ...]:
            counts = np.histogram(np.clip(values[~np.isnan(values)], -1, 1), edges)[0]
            return tuple((counts / max(counts.sum(), 1)).tolist())

        counted = half[self.probe]
        return Histogram(
            recognizer=self.recognizer,
            edges=tuple(edges.tolist()),
            genuine=shares(self._genuine(clear, clear)[counted]),
            impostor=shares(impostor_pairs(clear[half & self.gallery], self.evidence.subjects[half & self.gallery])),
            released=shares(self._genuine(self.vectors[RELEASED], clear)[counted]),
            threshold=self.threshold.cosine,
        )

    # ---- what they are made of --------------------------------------------------------------------------------

    def _places(self, probes: Vectors, enrolment: Vectors) -> tuple[Numbers, Numbers]:
        return places(probes[self.probe], self.who, enrolment[self.gallery], self.enrolled)

    def _genuine(self, probes: Vectors, enrolment: Vectors) -> Shares:
        return genuine_similarities(probes[self.probe], self.who, enrolment[self.gallery], self.enrolled)

    def _curve(self, ranks: tuple[Numbers, Numbers]) -> tuple[float, ...]:
        means = [np.nanmean(found) for k in range(1, RANKS + 1) if not np.isnan(found := found_within(k, *ranks)).all()]
        return tuple(float(one) for one in means)

    def _verified(self) -> dict[str, Shares]:
        return {
            name: np.where(
                self.reported[self.probe],
                accepted_at(self._genuine(vectors, self.vectors[CLEAR]), self.threshold.cosine),
                np.nan,
            )
            for name, vectors in self.vectors.items()
        }

    def _equal_error(self) -> Attack:
        probe, gallery = self.probe & self.reported, self.gallery & self.reported
        subjects = self.evidence.subjects
        found = {
            name: pairs(vectors[probe], subjects[probe], self.vectors[CLEAR][gallery], subjects[gallery])
            for name, vectors in self.vectors.items()
        }
        rates = {name: figure(rated(one, equal_error, chance=0.5, seed=self.seed)) for name, one in found.items()}
        return Attack(
            name="naive",
            target="EER",
            recognizer=self.recognizer,
            held_out=self.held_out,
            released=rates.pop(RELEASED),
            baselines=rates,
            excess=figure(excess(found[RELEASED], found[HIDDEN], equal_error, seed=self.seed)),
            note="an error rate: .5 is the best that a release can do",
        )

    def _of_replaced(self, name: str, first: ByLook) -> list[Attack]:
        """The same without the faces that fell back to a flat ellipse, which flatter a method that often gives up."""
        if self.evidence.replaced.all():
            return []
        replaced = np.where(self.evidence.replaced[self.probe], 0.0, np.nan)
        kept = {look: values + replaced for look, values in first.items()}
        return [self._attack(name, "rank-1 of replaced faces", kept, self.chance)]

    def _within_class(self, name: str, enrolment: Vectors | None) -> list[Attack]:
        """The same by an attacker who knows the class; without `enrolment` the gallery is of the probes' kind."""
        classes = self.evidence.classes
        if (classes < 0).all():
            return []
        hits, chance = {}, np.zeros(0)
        for look, vectors in self.vectors.items():
            gallery = vectors if enrolment is None else enrolment
            hits[look], chance = within_class_rank_one(
                vectors[self.probe],
                self.who,
                classes[self.probe],
                gallery[self.gallery],
                self.enrolled,
                classes[self.gallery],
            )
        guess = float(np.nanmean(chance)) if not np.isnan(chance).all() else None
        return [self._attack(name, "rank-1 within the class", hits, guess)]

    def _attack(
        self,
        name: str,
        target: str,
        values: ByLook,
        chance: float | None,
        *,
        subjects: Numbers | None = None,
        detailed: bool = False,
        curve: tuple[float, ...] = (),
        note: str = "",
    ) -> Attack:
        """Values (n,) by look, of the probes unless `subjects` says whose; `detailed`: by groups, and the worst."""
        return made(
            name,
            target,
            values,
            self.who if subjects is None else subjects,
            recognizer=self.recognizer,
            held_out=self.held_out,
            chance=chance,
            groups=self.groups if detailed else (),
            classes=self.evidence.classes[self.probe] if detailed else None,
            curve=curve,
            note=note,
            seed=self.seed,
        )
