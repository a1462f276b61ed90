"""Look-ups by a ready-made recognizer: naive, parrot, context, averaging, and the donors of a surrogate.

Naive (an anonymized photo against clear ones) and parrot (against photos anonymized the same way) are those of Newton
et al. 2005 (k-Same, IEEE TKDE 17(2)).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from anonlib.audit.attacks.base import Attacker, Material
from anonlib.audit.attacks.similarity import (
    FAR,
    Vectors,
    accepted_at,
    equal_error,
    found_within,
    nearest_donor,
    pair_excess,
    pair_figure,
    pair_scores,
    places,
    within_class_rank_one,
)
from anonlib.audit.evidence.evidence import CLEAR, HIDDEN, RELEASED
from anonlib.audit.findings import Attack
from anonlib.audit.statistics import Numbers, Shares

RANKS = 20
"""How far a curve of identification goes."""

Ranks = dict[str, tuple[Numbers, Numbers]]
"""Look -> how many candidates are better, and how many as good, both (n,)."""


def naive(material: Material) -> Iterator[Attack]:
    """Released photos against clear ones: identification, verification, equal error rate."""
    for attacker in material.attackers:
        clear = attacker.vectors[CLEAR]
        ranks = {look: _places(attacker, vectors, clear) for look, vectors in attacker.vectors.items()}
        first = {look: found_within(1, *place) for look, place in ranks.items()}
        fifth = {look: found_within(5, *place) for look, place in ranks.items()}
        curve = _curve(ranks)
        yield attacker.attack("naive", "rank-1", first, attacker.chance, detailed=True, curve=curve)
        yield attacker.attack("naive", "rank-5", fifth, min(5 * attacker.chance, 1))
        accepted = {
            look: np.where(
                attacker.reported[attacker.probe],
                accepted_at(attacker.genuine(vectors, clear), attacker.threshold.cosine),
                np.nan,
            )
            for look, vectors in attacker.vectors.items()
        }
        yield attacker.attack("naive", "TAR", accepted, FAR, detailed=True)
        yield _equal_error(attacker)
        yield from _of_replaced(attacker, "naive", first)
        yield from _within_class(attacker, "naive", clear)


def parrot(material: Material) -> Iterator[Attack]:
    """Released photos against photos that were released too."""
    for attacker in material.attackers:
        ranks = {look: _places(attacker, vectors, vectors) for look, vectors in attacker.vectors.items()}
        first = {look: found_within(1, *place) for look, place in ranks.items()}
        yield attacker.attack("parrot", "rank-1", first, attacker.chance, detailed=True, curve=_curve(ranks))
        yield from _of_replaced(attacker, "parrot", first)
        yield from _within_class(attacker, "parrot", None)


def context(material: Material) -> Iterator[Attack]:
    """Photos with every face hidden against each other: what hair, clothes and place give away in any release."""
    note = "every face under a flat ellipse: what hair, clothes and place give away"
    for attacker in material.attackers:
        clear, hidden = (
            found_within(1, *_places(attacker, attacker.vectors[look], attacker.vectors[look]))
            for look in (CLEAR, HIDDEN)
        )
        values = {RELEASED: hidden, CLEAR: clear}
        yield attacker.attack("context", "rank-1", values, attacker.chance, detailed=True, note=note)


def averaging(material: Material) -> Iterator[Attack]:
    """The mean of all released photos of a person but the one whose original is in the gallery."""
    for attacker in material.attackers:
        people, number = np.unique(attacker.who, return_inverse=True)
        hits = {}
        for look, vectors in attacker.vectors.items():
            summed = np.zeros((len(people), vectors.shape[1]), np.float32)
            np.add.at(summed, number, vectors[attacker.probe])
            hits[look] = found_within(1, *places(summed, people, attacker.clear, attacker.enrolled))
        yield attacker.attack("averaging", "rank-1", hits, attacker.chance, subjects=people)


def donors(material: Material) -> Iterator[Attack]:
    """Are those who were averaged accepted, by the photo that was averaged or by another one, which is the worse?"""
    for attacker in material.attackers:
        evidence = attacker.evidence
        if not len(evidence.donor_people):
            continue
        other = np.isin(evidence.people, evidence.donor_people) & ~evidence.averaged
        photos = {
            "portraits": (evidence.donors[attacker.recognizer], evidence.donor_people, evidence.donor_classes),
            "other photos": (attacker.vectors[CLEAR][other], evidence.people[other], evidence.classes[other]),
        }
        for name, faces in photos.items():
            accepted = {
                look: accepted_at(
                    nearest_donor(vectors, evidence.people, evidence.worn, *faces), attacker.threshold.cosine
                )
                for look, vectors in attacker.vectors.items()
            }
            yield attacker.attack("donors", f"accepted by {name}", accepted, subjects=evidence.subjects)


def _places(attacker: Attacker, probes: Vectors, enrolment: Vectors) -> tuple[Numbers, Numbers]:
    return places(probes[attacker.probe], attacker.who, enrolment[attacker.gallery], attacker.enrolled)


def _curve(ranks: Ranks) -> tuple[float, ...]:
    """The share of released photos that are identified at ranks 1, 2, ...; empty where no photo was asked."""
    hits = [found_within(rank, *ranks[RELEASED]) for rank in range(1, RANKS + 1)]
    return tuple(float(np.nanmean(values)) for values in hits if not np.isnan(values).all())


def _equal_error(attacker: Attacker) -> Attack:
    probe, gallery = attacker.probe & attacker.reported, attacker.gallery & attacker.reported
    subjects, clear = attacker.evidence.subjects, attacker.vectors[CLEAR]
    scores = {
        look: pair_scores(vectors[probe], subjects[probe], clear[gallery], subjects[gallery])
        for look, vectors in attacker.vectors.items()
    }
    rates = {look: pair_figure(pairs, equal_error, chance=0.5, seed=attacker.seed) for look, pairs in scores.items()}
    return Attack(
        name="naive",
        target="EER",
        recognizer=attacker.recognizer,
        held_out=attacker.held_out,
        released=rates.pop(RELEASED),
        baselines=rates,
        excess=pair_excess(scores[RELEASED], scores[HIDDEN], equal_error, seed=attacker.seed),
        note="an error rate: .5 is the best that a release can do",
    )


def _of_replaced(attacker: Attacker, name: str, first: Mapping[str, Shares]) -> Iterator[Attack]:
    """The same without the faces that fell back to a flat ellipse, which flatter a method that often gives up."""
    replaced = attacker.evidence.replaced
    if not replaced.all():
        unknown = np.where(replaced[attacker.probe], 0.0, np.nan)
        kept = {look: values + unknown for look, values in first.items()}
        yield attacker.attack(name, "rank-1 of replaced faces", kept, attacker.chance)


def _within_class(attacker: Attacker, name: str, enrolment: Vectors | None) -> Iterator[Attack]:
    """The same by an attacker who knows the class; without `enrolment` the gallery is of the probes' kind."""
    classes, probe, gallery = attacker.evidence.classes, attacker.probe, attacker.gallery
    if (classes < 0).all():
        return
    hits, chance = {}, np.zeros(0)
    for look, vectors in attacker.vectors.items():
        clear = (vectors if enrolment is None else enrolment)[gallery]
        hits[look], chance = within_class_rank_one(
            vectors[probe], attacker.who, classes[probe], clear, attacker.enrolled, classes[gallery]
        )
    guess = float(np.nanmean(chance)) if not np.isnan(chance).all() else None
    yield attacker.attack(name, "rank-1 within the class", hits, guess)
