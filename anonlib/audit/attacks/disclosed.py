"""The attacks on what a release publishes beside its pictures, by name, so that any of them can be run alone."""

from __future__ import annotations

from collections.abc import Collection

from anonlib.audit.attacks.candidates import Candidates
from anonlib.audit.attacks.certificate import certificate, walks
from anonlib.audit.attacks.guess import guess
from anonlib.audit.attacks.intersect import intersect
from anonlib.audit.attacks.manifest import flags, manifest
from anonlib.audit.evidence.evidence import Evidence
from anonlib.audit.evidence.published import Published
from anonlib.audit.findings import ON_RECORDS, Disclosure

WITH_PICTURES = frozenset({"certificate", "manifest"})
"""Those that look at photos, and need evidence."""


def disclosed(
    published: Published,
    evidence: Evidence | None,
    *,
    used: Collection[str],
    only: Collection[str] = ON_RECORDS,
    seed: int = 0,
) -> list[Disclosure]:
    """What the attacks in `only` find, those with pictures by every recognizer that the method has not `used`.

    Where it has used all of them, by all; flags are looked up by all in any case. Raises ValueError for an attack with
    pictures and no evidence.
    """
    found: list[Disclosure] = []
    if WITH_PICTURES & set(only):
        if evidence is None:
            raise ValueError("certificate and manifest need evidence")
        known = list(evidence.clear.vectors)
        held_out = [name for name in known if name not in used] or known
        for recognizer in known:
            candidates = Candidates(evidence, published, recognizer, seed=seed)
            found += flags(candidates, published) if "manifest" in only else []
            if recognizer not in held_out:
                continue
            followed = walks(candidates, evidence, published)
            if "certificate" in only:
                found += certificate(candidates, followed)
            if "manifest" in only:
                found += manifest(candidates, evidence, published, followed)
    found += guess(published, seed=seed) if "guess" in only else []
    return found + (intersect(published, seed=seed) if "intersect" in only else [])
