"""Guess the most photographed: an attacker who knows the people of a class names its most frequent member.

That is right for this member's share of the class's faces, which 1/k bounds only where all have as many photos. So a
class is worth min(people, photos / photos of the most photographed), its effective k, and none more may be certified.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from anonlib.audit.attacks.base import Material
from anonlib.audit.findings import Disclosure
from anonlib.audit.statistics import Numbers, Shares, difference, nothing, rate

NO_CLASSES = "the release has no classes: nothing to guess"
NOT_SAID = "the certificate gives these groups no effective k to hold this against"


def guess(material: Material) -> Iterator[Disclosure]:
    """By the plan's classes, and by what faces show; of all faces, which the gate judges, and of the named alone."""
    published = material.records
    named, classes, shown, k = published.named, published.classes, published.shown, published.claim.k
    shows = shown >= 0
    if k is None or not (shows & (classes >= 0)).any():
        yield Disclosure(name="guess", target="right guess", found=nothing(), note=NO_CLASSES)
        return
    # What the released tables give as the effective k of those who show a surrogate: the least of all rows.
    certified = np.full(len(published.surrogates), np.nan)
    number = {digest: position for position, digest in enumerate(published.surrogates)}
    for row in (row for rows in published.tables.values() for row in rows):
        digest, effective = row.get("wears"), row.get("effective_k")
        if isinstance(digest, str) and digest in number and effective:
            certified[number[digest]] = np.fmin(certified[number[digest]], float(effective))
    planned = np.array([effective for _, effective in published.plan.sizes], np.float64)
    for how, groups, effective_k in (("by the plan", classes, planned), ("by what faces show", shown, certified)):
        for whose, rows in (("all faces", shows & (groups >= 0)), ("named faces", shows & named & (groups >= 0))):
            if rows.any() and (whose == "all faces" or not named[shows].all()):
                target, judged = f"right guess, {whose}, classes {how}", whose == "all faces"
                people, bound = published.people[rows], 1 / max(k, 1)
                yield _guessed(target, people, groups[rows], effective_k[groups[rows]], bound, judged, material.seed)


def _guessed(
    target: str, people: Numbers, groups: Numbers, effective: Shares, bound: float, judged: bool, seed: int
) -> Disclosure:
    """The right guesses of these faces (n,), whose group has the certified `effective` k (n,), or NaN."""
    _, group = np.unique(groups, return_inverse=True)
    # A pair is a group and a person in it; `counts` are its faces.
    pairs, counts = np.unique(np.stack([group, people]), axis=1, return_counts=True)
    faces, members = np.bincount(group), np.bincount(pairs[0])
    # In each group the pair with most faces comes first, and of several the person with the lowest number.
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    named = order[np.unique(pairs[0][order], return_index=True)[1]]
    right = (people == pairs[1][named][group]).astype(np.float64)
    top = counts[named] / faces
    worth = np.minimum(members, 1 / top)
    allowed, over, worst = 1 / effective, top[group] > bound + 1e-9, int(np.argmax(top))
    note = (
        f"1/people {np.mean(1 / members[group]):.1%}, 1/effective k measured here {np.mean(1 / worth[group]):.1%}; "
        f"{over.mean():.1%} of the faces lie in classes that allow more than 1/k = {bound:.1%}; the worst class "
        f"allows {top[worst]:.1%}, of {faces[worst]:,} faces of {members[worst]:,} people"
    )
    certified = not np.isnan(allowed).all()
    return Disclosure(
        name="guess",
        target=target,
        found=rate(right, people, chance=float(np.mean(1 / members[group])), seed=seed),
        allowed=float(np.nanmean(allowed)) if certified else None,
        allowed_by="1 / effective k as certified, mean over these faces" if certified else "",
        excess=difference(right, allowed, people, seed=seed) if certified else None,
        judged_by="value" if certified and judged else None,
        note=note if certified else f"{note}; {NOT_SAID}",
    )
