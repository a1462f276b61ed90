"""What each attack does, in words for a lay reader, and which of WP216's three risks it bears on.

The risks are those of the Article 29 Working Party's Opinion 05/2014 on anonymisation techniques (WP216, section 2.2):
a person is singled out, two records of one person are linked, something about a person is inferred.
"""

from __future__ import annotations

from collections.abc import Iterable

from anonlib.audit.findings import Attack, Measure

SINGLING_OUT, LINKABILITY, INFERENCE = "Singling out", "Linkability", "Inference"

_TRAINED = "a recognizer trained on anonymized photos of other people looks a released photo up among"
_TOGETHER = "what a recognizer trained on other people makes of a person's released photos is averaged and looked up"
_PLANNED = f"{_TRAINED} clear photos of its own class, which the plan alone tells"
_RESTORED = "a network trained on other people restores the face before it is looked up"
_AVERAGED = "all released photos of a person are averaged before they are looked up"
ON_PICTURES = {
    "naive": (SINGLING_OUT, "look-up", "a released photo is looked up among clear photos"),
    "trained": (SINGLING_OUT, "trained look-up", f"{_TRAINED} clear photos"),
    "trained, person's photos together": (SINGLING_OUT, "trained look-up of a person", _TOGETHER),
    "trained, with the plan": (SINGLING_OUT, "trained look-up within the class", _PLANNED),
    "inversion": (SINGLING_OUT, "restored look-up", _RESTORED),
    "open set": (
        SINGLING_OUT,
        "open-set look-up",
        "a released photo is looked up among clear photos of half the people",
    ),
    "pairs": (SINGLING_OUT, "pairs", "a released photo and a clear one: are they of one person?"),
    "averaging": (SINGLING_OUT, "averaged look-up", _AVERAGED),
    "context": (SINGLING_OUT, "context look-up", "the face is hidden, and hair, clothes and place are looked up"),
    "parrot": (LINKABILITY, "look-up among released", "a released photo is looked up among released photos"),
    "trained, both released": (LINKABILITY, "trained look-up among released", f"{_TRAINED} released photos"),
    "linkage": (LINKABILITY, "comparison of pairs", "two released photos: are they of one person?"),
    "donors": (INFERENCE, "comparison with donors", "a released face is compared with the people it was made from"),
}
"""Attacks by name: the risk, a title for a lay reader, and a clause that says what the attacker does."""
ON_RECORDS = {
    "certificate": (
        "walk through the tables",
        "the released tables are followed from what a face shows to other faces, whose average is looked up",
    ),
    "manifest": ("questions to the manifest", "what a face's row says is held against each person's clear photo"),
    "guess": ("guess of the most photographed", "the most frequent person of a class is named for all its faces"),
    "intersect": ("intersection of what was split", "classes or draws of a person whom clustering split are joined"),
}
"""Attacks on what a release says beside its pictures, by name: title and clause."""
TARGETS = {
    "rank-1": "the right person comes first",
    "rank-5": "the right person is among the first five",
    "TAR": "accepted as the same person",
    "found at FPIR 0.01": "found, where 1 % of the people who are not enrolled are taken for one who is",
    "accuracy": "pairs told right",
    "EER": "errors where both kinds are as frequent",
    "AUC": "a pair of one person is more alike than a pair of two",
    "AUC, same gender": "a pair of one person is more alike than a pair of two of one gender",
    "rank-1 within the class": "the right person comes first, among those of the class alone",
    "rank-1 of replaced faces": "the right person comes first, ellipses left out",
    "cosine of one surrogate": "cosine of two photos of one person that wear one surrogate",
    "accepted by portraits": "accepted as a person whose portrait was averaged into the face",
    "accepted by other photos": "accepted as a person who was averaged into the face, by another photo",
}
BASELINES = ("clear", "blur", "pixelate", "solid", "one-face", "one-face-all")
_TARGET_ORDER = ("rank-1", "TAR", "rank-5", "AUC", "EER")


def meaning(name: str) -> tuple[str, str, str]:
    """Of an attack on pictures; one that is not described here counts as singling out under its own name."""
    return ON_PICTURES.get(name, (SINGLING_OUT, name, name))


def strongest(attacks: Iterable[Attack]) -> Attack | None:
    """The measured attack that may go furthest, by the unfavourable end of its interval.

    Ranks come before other targets, which are on other scales.
    """

    def order(attack: Attack) -> tuple[int, float]:
        figure, target = attack.released, attack.target
        place = _TARGET_ORDER.index(target) if target in _TARGET_ORDER else len(_TARGET_ORDER)
        end = figure.low if target == "EER" else figure.high
        reached = (figure.value if end is None else end) or 0.0
        return place, reached if target == "EER" else -reached

    return min((attack for attack in attacks if attack.released.value is not None), key=order, default=None)


def baselines_of(findings: Iterable[Attack | Measure]) -> list[str]:
    """The baselines that findings have: the known ones in their order, then any others."""
    names = {name for finding in findings for name in finding.baselines}
    return [name for name in BASELINES if name in names] + sorted(names - set(BASELINES))
