"""What each attack does, in words for a reader who runs none, and which of WP216's three risks it bears on.

The risks are those of the Article 29 Working Party's Opinion 05/2014 on anonymisation techniques (WP216, section 2.2):
a person is singled out, two records of one person are linked, something about a person is inferred.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from anonlib.audit.findings import Attack

SINGLING_OUT, LINKABILITY, INFERENCE = "Singling out", "Linkability", "Inference"


@dataclass(frozen=True)
class Meaning:
    """`title` names the attack to a lay reader, `does` says in a clause what the attacker does."""

    risk: str
    title: str
    does: str


MEANINGS = {
    "naive": Meaning(SINGLING_OUT, "look-up", "a released photo is looked up among clear photos"),
    "trained": Meaning(
        SINGLING_OUT,
        "trained look-up",
        "a recognizer trained on anonymized photos of other people looks a released photo up among clear ones",
    ),
    "inversion": Meaning(
        SINGLING_OUT, "restored look-up", "a network trained on other people restores the face before it is looked up"
    ),
    "averaging": Meaning(
        SINGLING_OUT, "averaged look-up", "all released photos of a person are averaged before they are looked up"
    ),
    "context": Meaning(
        SINGLING_OUT, "context look-up", "the face is hidden, and hair, clothes and place are looked up"
    ),
    "parrot": Meaning(LINKABILITY, "look-up among released", "a released photo is looked up among released photos"),
    "trained, both released": Meaning(
        LINKABILITY,
        "trained look-up among released",
        "a recognizer trained on anonymized photos of other people looks a released photo up among released ones",
    ),
    "linkage": Meaning(LINKABILITY, "comparison of pairs", "two released photos: are they of one person?"),
    "donors": Meaning(
        INFERENCE, "comparison with donors", "a released face is compared with the people that it was made from"
    ),
}
DISCLOSURES = {
    "certificate": Meaning(
        SINGLING_OUT,
        "walk through the tables",
        "the released tables are followed from what a face shows to other faces, whose average is looked up",
    ),
    "manifest": Meaning(
        SINGLING_OUT,
        "questions to the manifest",
        "the numbers, flags and codes of a face's row are held against each person's clear photo",
    ),
    "guess": Meaning(
        SINGLING_OUT, "guess of the most photographed", "the most frequent person of a class is named for all its faces"
    ),
    "intersect": Meaning(
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
    "accepted by portraits": "accepted as somebody whose portrait was averaged into the face",
    "accepted by other photos": "accepted as somebody who was averaged into the face, by another photo",
}
LOWER_IS_STRONGER = frozenset({"EER"})
BASELINES = ("clear", "blur", "pixelate", "solid")
KEPT_ATTRIBUTES = ("gender kept", "age band kept", "expression kept")


def meaning(name: str) -> Meaning:
    """Of an attack; one that nobody described counts as singling out and is called by its name."""
    return MEANINGS.get(name, Meaning(SINGLING_OUT, name, name))


def names_of(risk: str) -> list[str]:
    """The attacks that bear on a risk, as they should have been run."""
    return [name for name, one in MEANINGS.items() if one.risk == risk]


def severity(attack: Attack) -> float:
    """How far the attack may go, by the bad end of its interval; -1 where nothing was measured."""
    figure = attack.released
    if figure.value is None:
        return -1.0
    if attack.target in LOWER_IS_STRONGER:
        return 1.0 - (figure.value if figure.low is None else figure.low)
    return figure.value if figure.high is None else figure.high


def strongest(attacks: Iterable[Attack]) -> Attack | None:
    """The measured attack of the greatest severity; ranks come before other targets, which are on other scales."""
    measured = [one for one in attacks if one.released.value is not None]
    order = {target: -place for place, target in enumerate(("rank-1", "TAR", "rank-5", "AUC", "EER"))}
    best = max((order.get(one.target, -9) for one in measured), default=None)
    return max((one for one in measured if order.get(one.target, -9) == best), key=severity, default=None)


def baseline_order(names: Iterable[str]) -> list[str]:
    """The known baselines in their order, then any others."""
    there = set(names)
    return [name for name in BASELINES if name in there] + sorted(there - set(BASELINES))
