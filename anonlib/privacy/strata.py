"""Strata (a gender, an age band) as tuples from coarse to fine: what several of them share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

Stratum = tuple[str, ...]
_AGE_BANDS = (35.0, 50.0)


def stratum_of(female: float, age: float) -> Stratum:
    """Gender and age band, each as the estimate says."""
    return "female" if female >= 0.5 else "male", f"age-{sum(age >= limit for limit in _AGE_BANDS)}"


def kinship(stratum: Stratum, other: Stratum) -> int:
    """How many leading parts two strata share."""
    shared = 0
    for one, two in zip(stratum, other, strict=False):
        if one != two:
            break
        shared += 1
    return shared


def common(strata: Iterable[Stratum]) -> Stratum:
    """The leading parts that all share; () of none."""
    kinds = sorted(set(strata))
    return kinds[0][: kinship(kinds[0], kinds[-1])] if kinds else ()


def prevailing(strata: Sequence[Stratum]) -> Stratum:
    """The leading parts that more than half of all members share.

    One member of unsure gender does not make a class of women wear a man's face.
    """
    found: Stratum = ()
    while True:
        parts = Counter(one[len(found)] for one in strata if one[: len(found)] == found and len(one) > len(found))
        part, count = max(parts.items(), key=lambda one: (one[1], one[0]), default=("", 0))
        if 2 * count <= len(strata):
            return found
        found = (*found, part)
