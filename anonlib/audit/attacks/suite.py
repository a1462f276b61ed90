"""Every attack by name, and running them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from anonlib.audit.attacks.base import Material, RunAttack
from anonlib.audit.attacks.certificate import certificate
from anonlib.audit.attacks.guess import guess
from anonlib.audit.attacks.intersect import intersect
from anonlib.audit.attacks.linkage import linkage
from anonlib.audit.attacks.lookup import averaging, context, donors, naive, parrot
from anonlib.audit.attacks.manifest import flags, manifest
from anonlib.audit.findings import ON_RECORDS, Attack, Disclosure

ATTACKS: dict[str, RunAttack] = {
    "naive": naive,
    "parrot": parrot,
    "context": context,
    "averaging": averaging,
    "linkage": linkage,
    "donors": donors,
    "flags": flags,
    "certificate": certificate,
    "manifest": manifest,
    "guess": guess,
    "intersect": intersect,
}
ON_PICTURES = ("naive", "parrot", "context", "averaging", "linkage", "donors")
"""Attacks that compare photos, and read none of the release's records."""
WITH_PICTURES = frozenset({"certificate", "manifest"})
"""Attacks on records that compare photos too."""


def attack_pictures(material: Material) -> list[Attack]:
    """What ready-made recognizers find in released photos, recognizer by recognizer."""
    return [finding for finding in _run(material, ON_PICTURES) if isinstance(finding, Attack)]


def attack_records(material: Material, only: Collection[str] = ON_RECORDS) -> list[Disclosure]:
    """What the attacks in `only` find in what a release says beside its pictures.

    Flags are part of the attack on the manifest. Raises ValueError for an attack with pictures and no evidence.
    """
    names = [name for name in ATTACKS if name in only or (name == "flags" and "manifest" in only)]
    return [finding for finding in _run(material, names) if isinstance(finding, Disclosure)]


def _run(material: Material, names: Iterable[str]) -> list[Attack | Disclosure]:
    """Findings in the order of the recognizers; those that need none come last."""
    found = [finding for name in names for finding in ATTACKS[name](material)]
    recognizers = [] if material.evidence is None else list(material.evidence.clear.vectors)
    order = {name: number for number, name in enumerate(recognizers)}
    return sorted(found, key=lambda finding: order.get(finding.recognizer, len(order)))
