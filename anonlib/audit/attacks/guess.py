"""Guess the most photographed: an attacker who knows the people of a class names its most frequent member.

That is right for the share of the class's faces which that member has, which 1/k bounds only where all have as many
photos. So a class is worth min(people, photos / photos of the most photographed), its effective k, and what the
certificate says of it must not be more. The share is counted over the whole release, so it is judged as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from anonlib.audit.attacks.base import Material
from anonlib.audit.evidence.published import Published
from anonlib.audit.findings import Disclosure
from anonlib.audit.statistics import Numbers, Shares, difference, nothing, rate

NO_CLASSES = "the release has no classes: nothing to guess"
NOT_SAID = "the certificate gives these groups no effective k to hold this against"


def guess(material: Material) -> Iterator[Disclosure]:
    """By the plan's classes, and by what faces show, as an outsider groups them.

    Of all faces, which is what the certificate counts and the gate judges, and of those alone whom the dataset names.
    """
    published = material.records
    named, classes, digests = published.named, published.classes, published.digests
    shows = np.array([digest is not None for digest in digests], bool)
    if published.claim.k is None or not (shows & (classes >= 0)).any():
        yield Disclosure(name="guess", target="right guess", found=nothing(), note=NO_CLASSES)
        return
    order = {digest: number for number, digest in enumerate(dict.fromkeys(filter(None, digests)))}
    shown = np.array([-1 if digest is None else order[digest] for digest in digests], np.int64)
    certified = _effective_by_digest(published)
    by_digest = np.array([certified.get(digest or "", np.nan) for digest in digests], np.float64)
    sizes = np.array([*published.plan.sizes, (0, 0)], np.float64)
    by_class = np.where(classes >= 0, sizes[classes, 1], np.nan)
    for how, groups, effective in (("by the plan", classes, by_class), ("by what faces show", shown, by_digest)):
        for whose, rows in (("all faces", shows & (groups >= 0)), ("named faces", shows & named & (groups >= 0))):
            if rows.any() and (whose == "all faces" or not named[shows].all()):
                target = f"right guess, {whose}, classes {how}"
                people = published.people[rows]
                judged = whose == "all faces"
                k = published.claim.k
                yield _guessed(target, people, groups[rows], effective[rows], k, judged, material.seed)


def _guessed(
    target: str, people: Numbers, groups: Numbers, effective: Shares, k: int, judged: bool, seed: int
) -> Disclosure:
    """The right guesses of these faces (n,), whose group has the certified `effective` k (n,), or NaN."""
    _, group = np.unique(groups, return_inverse=True)
    # A pair is a group and a person in it; `counts` are its faces.
    pairs, pair = np.unique(np.stack([group, people]), axis=1, return_inverse=True)
    counts = np.bincount(pair.reshape(-1))
    faces, members = np.bincount(group), np.bincount(pairs[0])
    most = np.zeros(len(faces), np.int64)
    np.maximum.at(most, pairs[0], counts)
    # Of those who share the first place the first is named.
    first = np.full(len(faces), -1)
    for row in np.flatnonzero(counts == most[pairs[0]])[::-1]:
        first[pairs[0][row]] = pairs[1][row]
    right = (people == first[group]).astype(np.float64)
    top = most / faces
    worth = np.minimum(members, 1 / top)
    allowed, bound = 1 / effective, 1 / max(k, 1)
    over, worst = top[group] > bound + 1e-9, int(np.argmax(top))
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


def _effective_by_digest(published: Published) -> Mapping[str, float]:
    """What the released tables give as the effective k of those who show a surrogate: the least of all rows."""
    found: dict[str, float] = {}
    for rows in published.tables.values():
        for row in rows:
            digest, effective = row.get("wears"), row.get("effective_k")
            if isinstance(digest, str) and effective:
                found[digest] = min(found.get(digest, np.inf), float(effective))
    return found
