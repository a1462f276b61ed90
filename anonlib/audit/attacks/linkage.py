"""Linkage: do two photos show one person? Within one release, and between two releases of the same people.

The area under the ROC curve of a recognizer over pairs of photos: .5 is unlinkable, 1 linked without fail. Hair,
clothes and the gender that a release keeps tell people apart whatever the face, so the same is reported of photos with
every face hidden, and of pairs that agree in gender: what is left above those two is the face's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from anonlib.audit.attacks.base import Material
from anonlib.audit.attacks.similarity import PairScores, auc, pair_excess, pair_figure, pair_scores
from anonlib.audit.evidence.evidence import CLEAR, HIDDEN, RELEASED, Evidence
from anonlib.audit.findings import Attack
from anonlib.audit.statistics import Numbers

UNLINKABLE = 0.5


def linkage(material: Material) -> Iterator[Attack]:
    """Two photos of one release: how alike those are that show one surrogate, and the AUC over all pairs."""
    for attacker in material.attackers:
        evidence = attacker.evidence
        # A surrogate is meant to be reused: only pairs that show the same one are compared.
        shown = dict(zip(attacker.enrolled.tolist(), evidence.worn[attacker.gallery].tolist(), strict=True))
        probes = zip(attacker.who.tolist(), evidence.worn[attacker.probe].tolist(), strict=True)
        same = np.array([shown[person] == surrogate >= 0 for person, surrogate in probes], bool)
        cosines = {
            look: np.where(same, attacker.genuine(attacker.vectors[look], attacker.vectors[look]), np.nan)
            for look in (RELEASED, CLEAR)
        }
        yield attacker.attack("linkage", "cosine of one surrogate", cosines)
        scores = {look: pair_scores(vectors, evidence.subjects) for look, vectors in attacker.vectors.items()}
        yield _attack("linkage", "AUC", attacker.recognizer, attacker.held_out, scores, attacker.seed)


def linkage_of_releases(first: Evidence, second: Evidence, *, used: Collection[str], seed: int = 0) -> Iterator[Attack]:
    """A photo of each release, of the people who are in both: all pairs, and pairs that agree in gender.

    `used`: recognizers that the methods of either used. Faces that fell back are left out: what a flat ellipse tells is
    the baseline's.
    """
    both = np.intersect1d(first.names, second.names)
    releases = (first, second)
    rows = [np.isin(release.names, both) & release.replaced for release in releases]
    person = [np.searchsorted(both, release.names[kept]) for release, kept in zip(releases, rows, strict=True)]
    gender = [
        np.asarray(release.clear.female[kept] > 0.5, np.int64) for release, kept in zip(releases, rows, strict=True)
    ]
    for recognizer in first.clear.vectors:

        def scores(look: str, groups: tuple[Numbers, Numbers] | None = None, name: str = recognizer) -> PairScores:
            probes, gallery = (
                release.looks[look].vectors[name][kept] for release, kept in zip(releases, rows, strict=True)
            )
            return pair_scores(probes, person[0], gallery, person[1], groups)

        looks = (CLEAR, RELEASED, HIDDEN)
        for target, groups in (("AUC", None), ("AUC, same gender", (gender[0], gender[1]))):
            found = {look: scores(look, groups) for look in looks}
            note = f"{len(both):,} people are in both"
            yield _attack("linkage of two releases", target, recognizer, recognizer not in used, found, seed, note)


def _attack(
    name: str, target: str, recognizer: str, held_out: bool, scores: dict[str, PairScores], seed: int, note: str = ""
) -> Attack:
    rates = {look: pair_figure(pairs, auc, chance=UNLINKABLE, seed=seed) for look, pairs in scores.items()}
    return Attack(
        name=name,
        target=target,
        recognizer=recognizer,
        held_out=held_out,
        released=rates.pop(RELEASED),
        baselines=rates,
        excess=pair_excess(scores[RELEASED], scores[HIDDEN], auc, seed=seed),
        note=note,
    )
