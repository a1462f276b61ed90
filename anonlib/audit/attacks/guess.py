"""Guess the most photographed: who knows the people of a class, and nothing of a face, names its most frequent member.

That is right for the share of the class's faces which that member has, which 1/k bounds only where all have as many
photos. So a class is worth min(people, photos / photos of the most photographed), its effective k, and what the
certificate says of it must not be more. The share is counted over the whole release, so it is judged as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from anonlib.audit.attacks.rates import Numbers, Shares, difference, figure, rate
from anonlib.audit.evidence.published import Published
from anonlib.audit.findings import Disclosure

NO_CLASSES = "nobody hides in a class here: nothing to guess"
NOT_SAID = "the certificate gives these groups no effective k to hold this against"


def guess(published: Published, *, seed: int = 0) -> list[Disclosure]:
    """By the plan's classes, and by what faces show, as an outsider groups them.

    Of all faces, which is what the certificate counts and the gate judges, and of those alone whom the dataset names.
    """
    people, named, classes = published.people, published.named, published.classes
    digests = published.digests
    shows = np.array([one is not None for one in digests], bool)
    if published.claim.k is None or not (shows & (classes >= 0)).any():
        nothing = figure(rate(np.zeros(0), np.zeros(0, np.int64)))
        return [Disclosure(name="guess", target="right guess", found=nothing, note=NO_CLASSES)]
    order = {digest: number for number, digest in enumerate(dict.fromkeys(one for one in digests if one is not None))}
    worn = np.array([-1 if one is None else order[one] for one in digests], np.int64)
    sizes = np.array([*published.plan.sizes, (0, 0)], np.float64)
    told = _effective_by_digest(published)
    by_digest = np.array([np.nan if one is None else told.get(one, np.nan) for one in digests], np.float64)
    by_class = np.where(classes >= 0, sizes[classes, 1], np.nan)
    found = []
    for how, groups, effective in (("by the plan", classes, by_class), ("by what faces show", worn, by_digest)):
        for whose, rows in (("all faces", shows & (groups >= 0)), ("named faces", shows & named & (groups >= 0))):
            if rows.any() and (whose == "all faces" or not named[shows].all()):
                which = f"{whose}, classes {how}"
                judged = whose == "all faces"
                found.append(_guessed(which, people[rows], groups[rows], effective[rows], published, judged, seed))
    return found


def _guessed(
    which: str, people: Numbers, groups: Numbers, effective: Shares, published: Published, judged: bool, seed: int
) -> Disclosure:
    """The right guesses of these faces (n,), in whose group an effective k is told or NaN."""
    _, group = np.unique(groups, return_inverse=True)
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
    allowed = 1 / effective
    bound = 1 / max(published.claim.k or 1, 1)
    over, worst = top[group] > bound + 1e-9, int(np.argmax(top))
    note = (
        f"1/people {np.mean(1 / members[group]):.1%}, 1/effective k measured here {np.mean(1 / worth[group]):.1%}; "
        f"{over.mean():.1%} of the faces lie in classes that allow more than 1/k = {bound:.1%}; the worst class "
        f"allows {top[worst]:.1%}, of {faces[worst]:,} faces of {members[worst]:,} people"
    )
    said = not np.isnan(allowed).all()
    return Disclosure(
        name="guess",
        target=f"right guess, {which}",
        found=figure(rate(right, people, chance=float(np.mean(1 / members[group])), seed=seed)),
        allowed=float(np.nanmean(allowed)) if said else None,
        allowed_by="1 / effective k as certified, mean over these faces" if said else "",
        excess=figure(difference(right, allowed, people, seed=seed)) if said else None,
        judged_by="value" if said and judged else None,
        note=note if said else f"{note}; {NOT_SAID}",
    )


def _effective_by_digest(published: Published) -> Mapping[str, float]:
    """What the released tables say is the effective k of those who show a surrogate: the least that a row says."""
    found: dict[str, float] = {}
    rows: list[dict[str, Any]] = [row for table in published.tables.values() for row in table]
    for row in rows:
        worn, effective = row.get("wears"), row.get("effective_k")
        if isinstance(worn, str) and effective:
            found[worn] = min(found.get(worn, np.inf), float(effective))
    return found
