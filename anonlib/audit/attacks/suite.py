"""Every attack by name, and running them: an attack is a file here and a line in one of two dicts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from anonlib.audit.attacks.base import Material, RunAttack
from anonlib.audit.attacks.certificate import certificate
from anonlib.audit.attacks.guess import guess
from anonlib.audit.attacks.intersect import intersect
from anonlib.audit.attacks.linkage import linkage
from anonlib.audit.attacks.lookup import averaging, context, donors, naive, open_set, parrot
from anonlib.audit.attacks.manifest import manifest
from anonlib.audit.findings import Attack, Disclosure

ON_PICTURES: dict[str, RunAttack] = {
    attack.__name__.replace("_", " "): attack
    for attack in (naive, parrot, context, averaging, open_set, linkage, donors)
}
"""Attacks that compare photos, and read none of the release's records."""
ON_RECORDS: dict[str, RunAttack] = {attack.__name__: attack for attack in (certificate, manifest, guess, intersect)}
"""Attacks on what a release says beside its pictures; the first two compare photos too."""
WITH_PICTURES = frozenset({"certificate", "manifest"})
RECORDS_ALONE = frozenset(ON_RECORDS) - WITH_PICTURES


def attack_pictures(material: Material) -> list[Attack]:
    """What ready-made recognizers find in released photos, recognizer by recognizer."""
    return _run(material, ON_PICTURES)


def attack_records(material: Material, only: Collection[str] = tuple(ON_RECORDS)) -> list[Disclosure]:
    """What the attacks in `only` find in what a release says beside its pictures; WITH_PICTURES need evidence."""
    return _run(material, {name: attack for name, attack in ON_RECORDS.items() if name in only})


def _run(material: Material, attacks: Mapping[str, RunAttack]) -> list[Any]:
    """Findings in the order of the recognizers; those that need none come last."""
    recognizers = [] if material.evidence is None else list(material.evidence.clear.vectors)
    order = {name: number for number, name in enumerate(recognizers)}
    findings = [finding for attack in attacks.values() for finding in attack(material)]
    return sorted(findings, key=lambda finding: order.get(finding.recognizer, len(order)))
