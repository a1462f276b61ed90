"""Intersect what was split: a person whom clustering took for several lies in several classes, or has several draws.

The more classes, the fewer candidates are left in all of them, and each draw costs its epsilon. Only labels that the
job did not use can show either.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from anonlib.audit.attacks.base import Material
from anonlib.audit.findings import Disclosure
from anonlib.audit.statistics import Numbers, difference, rate
from anonlib.verification.certificate import WITHOUT_LABELS

NEEDS_LABELS = (
    "the job formed its subjects without labels, so only labels can show whom it split: name a field of the dataset "
    "by --truth-field"
)
NOTHING = "the method has no classes and no draws: nothing to intersect"


def intersect(material: Material) -> Iterator[Disclosure]:
    """People in several classes, and those whom the classes name; of a method that draws, people with several draws."""
    published, seed = material.records, material.seed
    named, classes, people, claim = published.named, published.classes, published.people, published.claim
    several_classes = "people in several classes"
    allowed_by = WITHOUT_LABELS if published.clustered else "the claim is of every person"
    if not named.any() or (published.clustered and not published.evaluated):
        yield _share(several_classes, [], NEEDS_LABELS, seed)
        return
    subjects = np.array([published.plan.person.get(face, -1) for face in published.faces], np.int64)
    split = _sets(people, subjects, named & (subjects >= 0))
    parts = Counter(map(len, split.values()))
    taken = len(split) - parts[1]
    note = f"of {len(split):,} people {taken:,} were taken for several, up to {max(parts, default=0)}"
    if claim.k is not None:
        in_class = named & (classes >= 0)
        members, of_person = _sets(classes, people, in_class), _sets(people, classes, in_class)
        several = [len(sets) > 1 for sets in of_person.values()]
        left = [len(set.intersection(*(members[cls] for cls in sets))) for sets in of_person.values()]
        alone = [many and count == 1 for many, count in zip(several, left, strict=True)]
        yield _share(several_classes, several, note, seed)
        note += f"; {sum(several)} lie in several classes, {sum(alone)} of them alone are in all of theirs"
        yield _share("people named by their classes", alone, note, seed, allowed_by)
    elif claim.epsilon is not None:
        shown = published.shown
        draws = [len(drawn) for drawn in _sets(people, shown, named & (shown >= 0)).values()]
        most = max(draws, default=0)
        note += f"; a person shows up to {most} draws, which cost {most} times the epsilon of one"
        yield _share("people with several draws", [count > 1 for count in draws], note, seed, allowed_by)
    else:
        yield _share(several_classes, [], NOTHING, seed)


def _sets(keys: Numbers, values: Numbers, rows: np.ndarray) -> dict[int, set[int]]:
    """The values (n,) that each key (n,) has in these rows (n,)."""
    sets: dict[int, set[int]] = defaultdict(set)
    for key, value in zip(keys[rows].tolist(), values[rows].tolist(), strict=True):
        sets[key].add(value)
    return sets


def _share(target: str, hits: Iterable[bool], note: str, seed: int, allowed_by: str = "") -> Disclosure:
    """A share of the people (n,), which is judged if a claim allows none of them."""
    shares = np.array(list(hits), np.float64)
    people = np.arange(len(shares))
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
