"""Attacks that compare photos: look-ups by a ready-made recognizer, and donors of a surrogate.

Naive (an anonymized photo against clear ones) and parrot (against photos anonymized the same way) are those of Newton
et al. 2005 (k-Same, IEEE TKDE 17(2)). An open set is that of ISO/IEC 19795-1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from anonlib.audit.attacks import similarity
from anonlib.audit.attacks.base import Attacker, Material
from anonlib.audit.attacks.similarity import FAR, Score, accepted_at, dot, found_within
from anonlib.audit.evidence.evidence import CLEAR
from anonlib.audit.findings import Attack

FPIR = 0.01
"""The share of searches for people who are not enrolled that may find somebody: open sets are reported at it."""


def naive(material: Material) -> Iterator[Attack]:
    """Released photos against clear ones: identification and verification."""
    for attacker in material.attackers:
        scores = {
            look: attacker.cosines(vectors, attacker.vectors[CLEAR]) for look, vectors in attacker.vectors.items()
        }
        yield _identified(attacker, "naive", scores)
        counted, cosine = attacker.reported[attacker.probe], attacker.threshold
        accepted = {
            look: np.where(counted, accepted_at(attacker.genuine(vectors), cosine), np.nan)
            for look, vectors in attacker.vectors.items()
        }
        yield attacker.attack("naive", "TAR", accepted, FAR, detailed=True, note=attacker.threshold_note)


def parrot(material: Material) -> Iterator[Attack]:
    """Released photos against photos that were released too."""
    for attacker in material.attackers:
        scores = {look: attacker.cosines(vectors, vectors) for look, vectors in attacker.vectors.items()}
        yield _identified(attacker, "parrot", scores)


def averaging(material: Material) -> Iterator[Attack]:
    """The mean of all released photos of a person but the one whose original is in the gallery."""
    for attacker in material.attackers:
        people, number = np.unique(attacker.who, return_inverse=True)
        right = np.zeros(len(people), np.int64)
        right[number] = attacker.right
        hits = {}
        for look, vectors in attacker.vectors.items():
            summed = np.zeros((len(people), vectors.shape[1]), np.float32)
            np.add.at(summed, number, vectors[attacker.probe])
            hits[look] = found_within(1, *similarity.places(dot(summed, attacker.clear), np.arange(len(people)), right))
        yield attacker.of(people).attack("averaging", "rank-1", hits, attacker.chance)


def open_set(material: Material) -> Iterator[Attack]:
    """Released photos of people of whom half are enrolled: the right one comes first, with a cosine that a share FPIR
    of the photos of people who are not enrolled reach. It is one less the false negative identification rate (FNIR).
    """
    for attacker in material.attackers:
        asked, enrolled = attacker.reported[attacker.probe], attacker.reported[attacker.gallery]
        if asked.all() or not asked.any():
            continue
        hits = {}
        for look, vectors in attacker.vectors.items():
            cosines = vectors[attacker.probe] @ attacker.clear[enrolled].T
            best, first = cosines.max(axis=1), attacker.enrolled[enrolled][cosines.argmax(axis=1)]
            found = (best >= similarity.threshold_at_far(best[~asked], FPIR)) & (first == attacker.who)
            hits[look] = np.where(asked, found, np.nan)
        yield attacker.attack("open set", f"found at FPIR {FPIR:g}", hits, FPIR / int(enrolled.sum()))


def donors(material: Material) -> Iterator[Attack]:
    """Whether donors are accepted, by the photo that was averaged or by another one; the latter is worse."""
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
            nearest = {
                look: similarity.nearest_donor(vectors, evidence.people, evidence.worn, *faces)
                for look, vectors in attacker.vectors.items()
            }
            accepted = {look: accepted_at(cosines, attacker.threshold) for look, cosines in nearest.items()}
            yield attacker.of(evidence.subjects).attack("donors", f"accepted by {name}", accepted)


def _identified(attacker: Attacker, name: str, scores: dict[str, Score]) -> Attack:
    first = {look: found_within(1, *attacker.ranks(score)) for look, score in scores.items()}
    return attacker.attack(name, "rank-1", first, attacker.chance, detailed=True)


ON_PICTURES: dict[str, Callable[[Material], Iterable[Attack]]] = {
    attack.__name__.replace("_", " "): attack for attack in (naive, parrot, averaging, open_set, donors)
}
"""Attacks that compare photos, and read none of the release's records."""


def attack_pictures(material: Material) -> list[Attack]:
    """What ready-made recognizers find in released photos, recognizer by recognizer."""
    attacks = [attack for run in ON_PICTURES.values() for attack in run(material)]
    order = [attacker.recognizer for attacker in material.attackers]
    return sorted(attacks, key=lambda attack: order.index(attack.recognizer))
