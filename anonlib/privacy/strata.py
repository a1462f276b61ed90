"""Strata (a gender, an age band, a tone of skin) as tuples from coarse to fine: what several of them share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile

Stratum = tuple[str, ...]
_AGE_BANDS = (35.0, 50.0)
_DARK = 122.0  # grey levels of lit skin below which features of dark faces go with it


def stratum_of(female: float, age: float, tone: float | None = None) -> Stratum:
    """Gender and age band, each as the estimate says, and whether skin of this `tone`, grey levels, is dark."""
    looks = ("female" if female >= 0.5 else "male", f"age-{sum(age >= limit for limit in _AGE_BANDS)}")
    return looks if tone is None else (*looks, f"tone-{int(tone >= _DARK)}")


def common(strata: Iterable[Stratum]) -> Stratum:
    """The leading parts that all share; () of none."""
    kinds = sorted(set(strata)) or [()]
    alike = takewhile(lambda parts: parts[0] == parts[1], zip(kinds[0], kinds[-1], strict=False))
    return tuple(part for part, _ in alike)


def prevailing(strata: Sequence[Stratum]) -> Stratum:
    """The leading parts that more than half share: one member of unsure gender does not give women a man's face."""
    shared: Stratum = ()
    while True:
        level = len(shared)
        parts = Counter(own[level] for own in strata if own[:level] == shared and len(own) > level)
        part, count = max(parts.items(), key=lambda counted: (counted[1], counted[0]), default=("", 0))
        if 2 * count <= len(strata):
            return shared
        shared = (*shared, part)
