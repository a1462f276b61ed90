"""A whole report of a release that never was: figures of the size that audits find, and none of them measured."""

from __future__ import annotations

import math
from typing import Any

from anonlib.audit import findings as f
from anonlib.audit.evidence.evidence import BASELINES, CLEAR
from anonlib.audit.gate import judge
from anonlib.config import PolicyConfig

RECOGNIZERS = {"fr-feature": 0.412, "mobileface": 0.531, "faceres": 0.467}
"""Recognizers and the cosines from which they accept."""
PEOPLE, PHOTOS = 420, 3214
# Attack -> target, chance, and shares by kind of photo: released, clear, blur, pixelate, solid.
_ATTACKS: dict[str, tuple[tuple[str, float, tuple[float, ...]], ...]] = {
    "naive": (
        ("rank-1", 1 / PEOPLE, (0.012, 0.942, 0.418, 0.203, 0.009)),
        ("TAR", 0.001, (0.004, 0.951, 0.302, 0.122, 0.002)),
    ),
    "trained": (("rank-1", 1 / PEOPLE, (0.048, 0.957, 0.883, 0.774, 0.029)),),
    "trained, person's photos together": (("rank-1", 1 / PEOPLE, (0.051, 0.957, 0.901, 0.802, 0.031)),),
    "inversion": (("rank-1", 1 / PEOPLE, (0.014, 0.938, 0.761, 0.402, 0.010)),),
    "averaging": (("rank-1", 1 / PEOPLE, (0.021, 0.981, 0.533, 0.287, 0.014)),),
    "parrot": (("rank-1", 1 / PEOPLE, (0.187, 0.942, 0.731, 0.540, 0.031)),),
    "donors": (("TAR", 0.001, (0.006, 0.001, 0.001, 0.001, 0.001)),),
}
_GROUPS: dict[str, dict[str, float]] = {
    "gender": {"female": 1.3, "male": 0.8},
    "age": {"under 30": 1.2, "30 to 50": 1.0, "over 50": 0.7},
    "pose": {"frontal": 1.1, "turned": 0.6},
    "size": {"under 40 px": 0.5, "40 px and more": 1.2},
}


def figure(value: float, count: int = PHOTOS, chance: float | None = None) -> f.Figure:
    """With the interval that so many independent photos would give (Wilson's)."""
    z = 1.96**2 / count
    middle = (value + z / 2) / (1 + z)
    half = math.sqrt(z * value * (1 - value) + z * z / 4) / (1 + z)
    return f.Figure(value=value, low=max(0.0, middle - half), high=min(1.0, middle + half), count=count, chance=chance)


def unmeasured() -> f.Figure:
    return f.Figure(value=None, low=None, high=None, count=0)


def groups(share: float, chance: float | None = None) -> dict[str, dict[str, f.Figure]]:
    return {
        by: {part: figure(min(1.0, share * factor), PHOTOS // len(parts), chance) for part, factor in parts.items()}
        for by, parts in _GROUPS.items()
    }


def attack(name: str, target: str, recognizer: str, chance: float, shares: tuple[float, ...]) -> f.Attack:
    """One attack, and what it finds on the baselines; with groups and the worst-off where ranks are counted."""
    own, *others = shares
    solid, shared = others[-1], others[-1] + 0.004

    def apart(value: float) -> f.Figure:
        return f.Figure(value=value, low=value - 0.006, high=value + 0.006, count=PHOTOS)

    ranks, first = target.startswith("rank"), target == "rank-1"
    return f.Attack(
        name=name,
        target=target,
        recognizer=recognizer,
        held_out=recognizer == "fr-feature",
        released=figure(own, chance=chance),
        baselines={
            kind: figure(share, chance=chance)
            for kind, share in zip((CLEAR, *BASELINES), (*others, shared, shared), strict=True)
        },
        identity=apart(own - shared) if ranks or target == "TAR" else None,
        context=apart(shared - solid) if ranks or target == "TAR" else None,
        groups=groups(own, chance) if first else {},
        worst_class=figure(min(1.0, own * 6), 31, chance) if ranks else None,
        worst_person=figure(min(1.0, own * 9), 9, chance) if ranks else None,
    )


def attacks() -> tuple[f.Attack, ...]:
    return tuple(
        attack(name, target, recognizer, chance, (shares[0] * scale, *shares[1:]))
        for name, targets in _ATTACKS.items()
        for target, chance, shares in targets
        for recognizer, scale in zip(RECOGNIZERS, (1.0, 0.85, 1.1), strict=True)
    )


def disclosures(more: float = 0.0135) -> tuple[f.Disclosure, ...]:
    """An attack of each name on what the release says; each finds `more` than is allowed, at most a point more."""
    excess = f.Figure(value=more, low=more - 0.01, high=more + 0.01, count=PHOTOS)
    rows = (
        ("certificate", "rank-1", "fr-feature", 0.012, "the picture alone"),
        ("manifest", "rank-1, picture, manifest", "fr-feature", 0.012, "the picture alone"),
        ("guess", "right guess, all faces, classes by the plan", "", 0.18, "1 / effective k as certified"),
    )
    judged = (
        f.Disclosure(name=name, target=target, recognizer=recognizer, found=figure(allowed + more), allowed=allowed,
                     allowed_by=allowed_by, excess=excess, judged_by="high")
        for name, target, recognizer, allowed, allowed_by in rows
    )  # fmt: skip
    labels = "the job formed its subjects without labels"
    return (
        *judged,
        f.Disclosure(name="intersect", target="people in several classes", found=unmeasured(), note=labels),
    )


def leaks() -> tuple[f.LeakCheck, ...]:
    checked = {"EXIF, XMP, IPTC, comments": 4042, "plain hashes of originals": 4054, "identical px inside masks": 5126}
    return tuple(f.LeakCheck(name=name, checked=count, found=0) for name, count in checked.items())


def missed(passed: bool = True) -> f.Missed:
    """A second look, and where all passes a person's too."""
    judged: dict[str, Any] = {"sampled": 400, "wrong": 2, "upper": 0.0149} if passed else {}
    return f.Missed(second=figure(0.0121, 4054), second_by="centerface at 1280 px", **judged)


def gate(passed: bool = True) -> tuple[f.GateLine, ...]:
    """What the policy says of all this; where it does not pass, it asks for more than there is."""
    policy = PolicyConfig(excess=0.05 if passed else 0.024, reviewed=400, reviewed_upper=0.015)
    return tuple(judge(policy, None, attacks(), leaks(), missed(passed), utility(), disclosures()))


def utility() -> tuple[f.Measure, ...]:
    def measure(name: str, released: float, solid: float, **more: Any) -> f.Measure:
        kinds = {"clear": 0.0 if more.get("better") else 1.0, "blur": (released + solid) / 2, "solid": solid}
        baselines = {kind: figure(value) for kind, value in kinds.items()}
        return f.Measure(**{"name": name, "released": figure(released), "baselines": baselines} | more)

    apart = f.Figure(value=0.041, low=0.039, high=0.043, count=3156)
    few = "solid: too few faces are found again"
    solid = {"solid": unmeasured()}
    return (
        measure("faces found again", 0.982, 0.071),
        f.Measure(
            name="landmarks apart", released=apart, baselines=solid, unit="eye distances", better="lower", note=few
        ),
        measure("expression kept", 0.703, 0.22),
        measure("gender kept", 0.951, 0.53),
        measure("age apart", 0.31, 0.71, better="lower"),
    )


def report(passed: bool = True, **changes: Any) -> f.AuditReport:
    """Of a k-diff release with k = 5; `changes` are fields of the report."""
    claim = "k-anonymity of the identity channel"
    fallbacks = {"next-surrogate: it still matches": 73, "solid: profile beyond N degrees": 231, "solid: cut off": 67}
    models = (("centerface", "detector", "release"), ("fr-feature", "recognizer", "audit"))
    whole: dict[str, Any] = {
        "release": "street-2026-11",
        "method": "k-diff",
        "settings": {"name": "k-diff", "k": 5, "texture": "average", "epsilon": None},
        "certificate_sha256": "9f2b6c" + 58 * "0",
        "claim": {
            "kind": claim,
            "text": f"{claim}, k = 5",
            "k": 5,
            "class_sizes": {5: 61, 6: 14, 7: 6, 8: 2, 9: 1},
            "effective_sizes": {5: 66, 6: 12, 7: 5, 8: 1},
        },
        "people": PEOPLE,
        "photos": PHOTOS,
        "labelled": True,
        "counts": f.ReleaseCounts(
            shards=7, images=4054, released=4021, no_face=21, quarantined=12, faces=5126,
            methods={"k-diff": 4699, "solid": 427}, fallbacks=fallbacks,
            quarantine_reasons={"not an image that can be read": 9, "larger than 100 Mpx": 3},
        ),
        "passed": passed,
        "gate": gate(passed),
        "thresholds": RECOGNIZERS,
        "attacks": attacks(),
        "disclosures": disclosures(),
        "leaks": leaks(),
        "utility": utility(),
        "missed": missed(passed),
        "models": tuple(
            {"name": name, "role": role, "licence": "MIT", "commercial": True, "sha256": 64 * "a", "used_for": use}
            for name, role, use in models
        ),
        "software": {"anonlib": "0.1.0", "onnxruntime": "1.23.0", "Python": "3.11.2"},
    }  # fmt: skip
    return f.AuditReport.model_validate(whole | changes)


def private_report(**changes: Any) -> f.AuditReport:
    """Of a dp-vmf release: a claim of epsilon, and no classes."""
    claim = {
        "kind": "epsilon metric privacy of the identity channel",
        "text": "epsilon metric privacy of the identity channel: 20 a unit of Euclidean distance",
        "epsilon": 20.0,
        "epsilon_unit": "Euclidean distance",
    }
    settings = {"name": "dp-vmf", "kappa": 20.0, "texture": "gallery"}
    return report(**({"release": "drawn", "method": "dp-vmf", "settings": settings, "claim": claim} | changes))
