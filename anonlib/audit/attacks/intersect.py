"""Intersect what was split: a person whom clustering took for several lies in several classes, or has several draws.

A class is a set of people, and who is in several of them is in all: the more sets, the fewer candidates are left. A
method that draws for each subject draws as often as a person was split, and each draw costs its epsilon. Only labels
that the job did not use can show either.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable

import numpy as np

from anonlib.audit.attacks.rates import Shares, difference, figure, rate
from anonlib.audit.evidence.published import Published
from anonlib.audit.findings import Disclosure
from anonlib.verification.certificate import WITHOUT_LABELS

NEEDS_LABELS = (
    "the job formed its subjects without labels, so only labels can show whom it split: name a field of the dataset "
    "by --truth-field"
)
NOTHING = "the method hides nobody in a class and draws for nobody: nothing to intersect"


def intersect(published: Published, *, seed: int = 0) -> list[Disclosure]:
    """People in several classes, and those whom the classes name; of a method that draws, people with several draws."""
    named = published.named
    if not named.any() or (published.clustered and not published.evaluated):
        return [_reported("people in several classes", [], NEEDS_LABELS, seed)]
    digests = published.digests
    classes, people = published.classes, published.people
    subjects = [published.plan.person.get(face, -1) for face in published.faces]
    split = _sets((people[row], subjects[row]) for row in np.flatnonzero(named) if subjects[row] >= 0)
    parts = Counter(len(some) for some in split.values())
    told = (
        f"of {len(split):,} people {sum(parts.values()) - parts[1]:,} were taken for several, "
        f"up to {max(parts, default=0)}"
    )
    if published.claim.k is not None:
        members = _sets((classes[row], people[row]) for row in np.flatnonzero(named & (classes >= 0)))
        lies = _sets((people[row], classes[row]) for row in np.flatnonzero(named & (classes >= 0)))
        several = [float(len(some) > 1) for some in lies.values()]
        left = [len(set.intersection(*(members[one] for one in some))) for some in lies.values()]
        alone = [float(many and count == 1) for many, count in zip(several, left, strict=True)]
        note = f"{told}; {sum(several):.0f} lie in several classes, {sum(alone):.0f} of them alone are in all of theirs"
        return [
            _reported("people in several classes", several, told, seed),
            _judged("people named by their classes", alone, note, published, seed),
        ]
    if published.claim.epsilon is not None:
        shown = [row for row in np.flatnonzero(named) if digests[row] is not None]
        draws = [len(some) for some in _sets((people[row], digests[row]) for row in shown).values()]
        most = max(draws, default=0)
        note = f"{told}; a person shows up to {most} draws, which cost {most} times the epsilon of one"
        return [_judged("people with several draws", [float(count > 1) for count in draws], note, published, seed)]
    return [_reported("people in several classes", [], NOTHING, seed)]


def _sets(pairs: Iterable[tuple[Hashable, Hashable]]) -> dict[Hashable, set[Hashable]]:
    found: dict[Hashable, set[Hashable]] = defaultdict(set)
    for key, value in pairs:
        found[key].add(value)
    return found


def _reported(target: str, values: list[float], note: str, seed: int) -> Disclosure:
    shares: Shares = np.array(values, np.float64)
    found = figure(rate(shares, np.arange(len(shares)), seed=seed))
    return Disclosure(name="intersect", target=target, found=found, note=note)


def _judged(target: str, values: list[float], note: str, published: Published, seed: int) -> Disclosure:
    """A share of the people (n,), of which a claim for every person allows none."""
    shares: Shares = np.array(values, np.float64)
    excess = figure(difference(shares, np.zeros(len(shares)), np.arange(len(shares)), seed=seed))
    by = WITHOUT_LABELS if published.clustered else "the claim is of every person"
    changes = {"allowed": 0.0, "allowed_by": by, "excess": excess, "judged_by": "high"}
    return _reported(target, values, note, seed).model_copy(update=changes)
