"""What each attack does, for a reader who runs none, and which of WP216's three risks it bears on.

The risks are those of the Article 29 Working Party's Opinion 05/2014 on anonymisation techniques (WP216, section 2.2):
a person is singled out, two records of one person are linked, something about a person is inferred.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from anonlib.audit.findings import Attack

SINGLING_OUT, LINKABILITY, INFERENCE = "Singling out", "Linkability", "Inference"


@dataclass(frozen=True)
class AttackMeaning:
    """`title` names the attack to a lay reader, `action` is a clause: what the attacker does."""

    risk: str
    title: str
    action: str


PICTURE_MEANINGS = {
    "naive": AttackMeaning(SINGLING_OUT, "look-up", "a released photo is looked up among clear photos"),
    "trained": AttackMeaning(
        SINGLING_OUT,
        "trained look-up",
        "a recognizer trained on anonymized photos of other people looks a released photo up among clear photos",
    ),
    "inversion": AttackMeaning(
        SINGLING_OUT, "restored look-up", "a network trained on other people restores the face before it is looked up"
    ),
    "averaging": AttackMeaning(
        SINGLING_OUT, "averaged look-up", "all released photos of a person are averaged before they are looked up"
    ),
    "context": AttackMeaning(
        SINGLING_OUT, "context look-up", "the face is hidden, and hair, clothes and place are looked up"
    ),
    "parrot": AttackMeaning(
        LINKABILITY, "look-up among released", "a released photo is looked up among released photos"
    ),
    "trained, both released": AttackMeaning(
        LINKABILITY,
        "trained look-up among released",
        "a recognizer trained on anonymized photos of other people looks a released photo up among released photos",
    ),
    "linkage": AttackMeaning(LINKABILITY, "comparison of pairs", "two released photos: are they of one person?"),
    "donors": AttackMeaning(
        INFERENCE, "comparison with donors", "a released face is compared with the people that it was made from"
    ),
}
RECORD_MEANINGS = {
    "certificate": AttackMeaning(
        SINGLING_OUT,
        "walk through the tables",
        "the released tables are followed from what a face shows to other faces, whose average is looked up",
    ),
    "manifest": AttackMeaning(
        SINGLING_OUT,
        "questions to the manifest",
        "the numbers, flags and codes of a face's row are held against each person's clear photo",
    ),
    "guess": AttackMeaning(
        SINGLING_OUT, "guess of the most photographed", "the most frequent person of a class is named for all its faces"
    ),
    "intersect": AttackMeaning(
        SINGLING_OUT,
        "intersection of what was split",
        "classes, or draws, of a person whom clustering took for several are put together",
    ),
}
"""Attacks on what a release says beside its pictures."""
TARGETS = {
    "rank-1": "the right person comes first",
    "rank-5": "the right person is among the first five",
    "TAR": "accepted as the same person",
    "EER": "errors where both kinds are as frequent",
    "AUC": "a pair of one person is more alike than a pair of two",
    "AUC, same gender": "a pair of one person is more alike than a pair of two of one gender",
    "rank-1 within the class": "the right person comes first, among those of the class alone",
    "rank-1 of replaced faces": "the right person comes first, flat ellipses left out",
    "cosine of one surrogate": "cosine of two photos of one person that wear one surrogate",
    "accepted by portraits": "accepted as a person whose portrait was averaged into the face",
    "accepted by other photos": "accepted as a person who was averaged into the face, by another photo",
}
BASELINES = ("clear", "blur", "pixelate", "solid")
KEPT_ATTRIBUTES = ("gender kept", "age band kept", "expression kept")
_TARGET_ORDER = ("rank-1", "TAR", "rank-5", "AUC", "EER")


def meaning(name: str) -> AttackMeaning:
    """Of an attack; one that is not described here counts as singling out under its own name."""
    return PICTURE_MEANINGS.get(name, AttackMeaning(SINGLING_OUT, name, name))


def severity(attack: Attack) -> float:
    """How far the attack may go, by the unfavourable end of its interval; -1 where nothing was measured."""
    figure = attack.released
    if figure.value is None:
        return -1.0
    if attack.target == "EER":
        return 1.0 - (figure.value if figure.low is None else figure.low)
    return figure.value if figure.high is None else figure.high


def strongest(attacks: Iterable[Attack]) -> Attack | None:
    """The measured attack of the greatest severity; ranks come before other targets, which are on other scales."""
    measured = [attack for attack in attacks if attack.released.value is not None]

    def order(attack: Attack) -> int:
        return _TARGET_ORDER.index(attack.target) if attack.target in _TARGET_ORDER else len(_TARGET_ORDER)

    first = min(map(order, measured), default=0)
    return max((attack for attack in measured if order(attack) == first), key=severity, default=None)


def baseline_order(names: Iterable[str]) -> list[str]:
    """The known baselines in their order, then any others."""
    found = set(names)
    return [name for name in BASELINES if name in found] + sorted(found - set(BASELINES))
