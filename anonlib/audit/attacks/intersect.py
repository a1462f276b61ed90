"""Intersect what was split: a person whom clustering took for several lies in several classes, or has several draws.

A class is a set of people, and a person in several of them is in all: the more sets, the fewer candidates are left. A
method that draws for each subject draws as often as a person was split, and each draw costs its epsilon. Only labels
that the job did not use can show either.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator

import numpy as np

from anonlib.audit.attacks.base import Material
from anonlib.audit.findings import Disclosure
from anonlib.audit.statistics import difference, rate
from anonlib.verification.certificate import WITHOUT_LABELS

NEEDS_LABELS = (
    "the job formed its subjects without labels, so only labels can show whom it split: name a field of the dataset "
    "by --truth-field"
)
NOTHING = "the method has no classes and no draws: nothing to intersect"


def intersect(material: Material) -> Iterator[Disclosure]:
    """People in several classes, and those whom the classes name; of a method that draws, people with several draws."""
    published, seed = material.records, material.seed
    named, classes, people, digests = published.named, published.classes, published.people, published.digests
    several_classes = "people in several classes"
    allowed_by = WITHOUT_LABELS if published.clustered else "the claim is of every person"
    if not named.any() or (published.clustered and not published.evaluated):
        yield _share(several_classes, [], NEEDS_LABELS, seed)
        return
    subjects = [published.plan.person.get(face, -1) for face in published.faces]
    split = _sets((people[row], subjects[row]) for row in np.flatnonzero(named) if subjects[row] >= 0)
    parts = Counter(len(subjects_of_person) for subjects_of_person in split.values())
    taken = sum(parts.values()) - parts[1]
    note = f"of {len(split):,} people {taken:,} were taken for several, up to {max(parts, default=0)}"
    if published.claim.k is not None:
        rows = np.flatnonzero(named & (classes >= 0))
        members = _sets((classes[row], people[row]) for row in rows)
        of_person = _sets((people[row], classes[row]) for row in rows)
        several = [float(len(sets) > 1) for sets in of_person.values()]
        left = [len(set.intersection(*(members[cls] for cls in sets))) for sets in of_person.values()]
        alone = [float(many and count == 1) for many, count in zip(several, left, strict=True)]
        yield _share(several_classes, several, note, seed)
        note += f"; {sum(several):.0f} lie in several classes, {sum(alone):.0f} of them alone are in all of theirs"
        yield _share("people named by their classes", alone, note, seed, allowed_by)
    elif published.claim.epsilon is not None:
        shown = [row for row in np.flatnonzero(named) if digests[row] is not None]
        draws = [len(drawn) for drawn in _sets((people[row], digests[row]) for row in shown).values()]
        most = max(draws, default=0)
        note += f"; a person shows up to {most} draws, which cost {most} times the epsilon of one"
        yield _share("people with several draws", [float(count > 1) for count in draws], note, seed, allowed_by)
    else:
        yield _share(several_classes, [], NOTHING, seed)


def _sets(pairs: Iterable[tuple[Hashable, Hashable]]) -> dict[Hashable, set[Hashable]]:
    found: dict[Hashable, set[Hashable]] = defaultdict(set)
    for key, value in pairs:
        found[key].add(value)
    return found


def _share(target: str, values: list[float], note: str, seed: int, allowed_by: str = "") -> Disclosure:
    """A share of the people (n,), which is judged if a claim allows none of them."""
    shares, people = np.array(values, np.float64), np.arange(len(values))
    return Disclosure(
        name="intersect",
        target=target,
        found=rate(shares, people, seed=seed),
        allowed=0.0 if allowed_by else None,
        allowed_by=allowed_by,
        excess=difference(shares, np.zeros(len(shares)), people, seed=seed) if allowed_by else None,
        judged_by="high" if allowed_by else None,
        note=note,
    )
