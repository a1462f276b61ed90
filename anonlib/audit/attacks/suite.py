"""Every attack by name, and running them: an attack is a file here and a line in one of two dicts."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from anonlib.audit.attacks.base import Material, RunAttack
from anonlib.audit.attacks.certificate import certificate
from anonlib.audit.attacks.guess import guess
from anonlib.audit.attacks.intersect import intersect
from anonlib.audit.attacks.linkage import linkage
from anonlib.audit.attacks.lookup import averaging, context, donors, naive, parrot
from anonlib.audit.attacks.manifest import manifest
from anonlib.audit.findings import Attack, Disclosure

ON_PICTURES: dict[str, RunAttack] = {
    "naive": naive,
    "parrot": parrot,
    "context": context,
    "averaging": averaging,
    "linkage": linkage,
    "donors": donors,
}
"""Attacks that compare photos, and read none of the release's records."""
ON_RECORDS: dict[str, RunAttack] = {
    "certificate": certificate,
    "manifest": manifest,
    "guess": guess,
    "intersect": intersect,
}
"""Attacks on what a release says beside its pictures; the first two compare photos too."""
WITH_PICTURES = frozenset({"certificate", "manifest"})


def attack_pictures(material: Material) -> list[Attack]:
    """What ready-made recognizers find in released photos, recognizer by recognizer."""
    return [finding for finding in _run(material, ON_PICTURES.values()) if isinstance(finding, Attack)]


def attack_records(material: Material, only: Collection[str] = tuple(ON_RECORDS)) -> list[Disclosure]:
    """What the attacks in `only` find in what a release says beside its pictures.

    Raises ValueError for an attack with pictures and no evidence.
    """
    attacks = [attack for name, attack in ON_RECORDS.items() if name in only]
    return [finding for finding in _run(material, attacks) if isinstance(finding, Disclosure)]


def _run(material: Material, attacks: Iterable[RunAttack]) -> list[Attack | Disclosure]:
    """Findings in the order of the recognizers; those that need none come last."""
    found = [finding for attack in attacks for finding in attack(material)]
    recognizers = [] if material.evidence is None else list(material.evidence.clear.vectors)
    order = {name: number for number, name in enumerate(recognizers)}
    return sorted(found, key=lambda finding: order.get(finding.recognizer, len(order)))
