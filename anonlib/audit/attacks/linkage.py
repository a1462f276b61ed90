"""Linkage: do two photos show one person? Within one release, and between two releases of the same people.

The area under the ROC curve over pairs of photos: .5 is unlinkable, 1 linked without fail. Photos with every face
hidden, and pairs that agree in gender, show what hair, clothes and gender give away whatever the face.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from anonlib.audit.attacks.base import Material, Probes
from anonlib.audit.attacks.similarity import pair_scores
from anonlib.audit.evidence.evidence import CLEAR, HIDDEN, ONE_FACE, RELEASED, Evidence
from anonlib.audit.findings import Attack


def linkage(material: Material) -> Iterator[Attack]:
    """Two photos of one release: the AUC over all pairs."""
    for attacker in material.attackers:
        subjects = attacker.evidence.subjects
        scores = {look: pair_scores(vectors, subjects) for look, vectors in attacker.vectors.items()}
        yield attacker.pair_attack("linkage", "AUC", scores)


def linkage_of_releases(first: Evidence, second: Evidence, *, used: Collection[str], seed: int = 0) -> Iterator[Attack]:
    """A photo of each release, of the people who are in both: all pairs, and pairs that agree in gender.

    `used`: recognizers that the methods of either used. Faces that fell back are left out: what an ellipse tells is
    the baseline's.
    """
    both = np.intersect1d(first.names, second.names)
    note = f"{len(both):,} people are in both"
    rows = [np.isin(release.names, both) & release.replaced for release in (first, second)]
    sides = list(zip((first, second), rows, strict=True))
    person, other = (np.searchsorted(both, release.names[kept]) for release, kept in sides)
    gender, other_gender = (np.asarray(release.clear.female[kept] > 0.5, np.int64) for release, kept in sides)
    for recognizer in first.clear.vectors:
        for target, groups in (("AUC", None), ("AUC, same gender", (gender, other_gender))):
            scores = {}
            for look in (CLEAR, RELEASED, HIDDEN, ONE_FACE):
                probes, gallery = (release.looks[look].vectors[recognizer][kept] for release, kept in sides)
                scores[look] = pair_scores(probes, person, gallery, other, groups)
            judge = Probes(person, recognizer, recognizer not in used, (), person, np.ones(len(person), bool), seed)
            yield judge.pair_attack("linkage of two releases", target, scores, note)
