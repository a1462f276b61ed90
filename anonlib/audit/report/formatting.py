"""How figures are said: a share with its interval and its n, a count, a list; and that nothing was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable

from anonlib.audit.findings import ClaimSection, Figure

NBSP = "\u00a0"
DASH = "\u2013"
MINUS = "\u2212"
NOT_MEASURED = "not measured"


def share(value: float) -> str:
    """`12.3 %`; below a tenth of a per cent, with two digits that say something."""
    percent = 100 * value
    if 0 < abs(percent) < 0.1:
        return f"{percent:.{1 - math.floor(math.log10(abs(percent)))}f}{NBSP}%"
    return f"{percent:.1f}{NBSP}%"


def number(value: float) -> str:
    """Up to four digits that say something, thousands apart."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def amount(value: float, unit: str = "share") -> str:
    """A value of a measure in its unit; `share` is said in per cent."""
    return share(value) if unit == "share" else f"{number(value)}{NBSP}{unit}".strip(f"{NBSP} ")


def interval(figure: Figure, unit: str = "share") -> str:
    """`10.1 to 14.0 %`, empty where there is none."""
    if figure.low is None or figure.high is None:
        return ""
    low, high = amount(figure.low, unit), amount(figure.high, unit)
    ending = f"{NBSP}%" if unit == "share" else f"{NBSP}{unit}" if unit else ""
    return f"{low.removesuffix(ending)} to {high}"


def said(figure: Figure | None, unit: str = "share") -> str:
    """`12.3 % (10.1 to 14.0 %, n = 3,214)`, or that nothing was measured."""
    if figure is None or figure.value is None:
        return NOT_MEASURED
    inside = ", ".join(part for part in (interval(figure, unit), f"n{NBSP}={NBSP}{figure.count:,}") if part)
    return f"{amount(figure.value, unit)} ({inside})"


def points(figure: Figure) -> str:
    """A difference of shares in percentage points, signed, with its interval."""
    if figure.value is None:
        return NOT_MEASURED
    ends = signed_interval(figure)
    inside = ", ".join(part for part in (ends, f"n{NBSP}={NBSP}{figure.count:,}") if part)
    return f"{signed(figure.value)} points ({inside})"


def signed(value: float) -> str:
    """A share in percentage points with its sign."""
    return f"{round(100 * value, 1) + 0.0:+.1f}".replace("-", MINUS)


def signed_interval(figure: Figure) -> str:
    """`+1.3 to +2.5`, empty where there is none."""
    if figure.low is None or figure.high is None:
        return ""
    return f"{signed(figure.low)} to {signed(figure.high)}"


def counted(count: int, thing: str, things: str | None = None) -> str:
    """`1 face`, `2 faces`, `no face`."""
    if count == 0:
        return f"no {thing}"
    return f"{count:,} {thing if count == 1 else things or thing + 's'}"


def listed(parts: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = list(parts) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def span(sizes: dict[int, int]) -> str:
    """`5 to 9` of size -> how many there are; `no` where there is none."""
    there = [size for size, many in sizes.items() if many]
    if not there:
        return "no"
    return f"{min(there)}" if min(there) == max(there) else f"{min(there)} to {max(there)}"


def of(part: int, whole: int) -> str:
    """`439 of 5,138 (8.5 %)`."""
    return f"{part:,} of {whole:,} ({share(part / whole)})" if whole else f"{part:,} of {whole:,}"


def epsilon(claim: ClaimSection) -> str:
    """`20 a unit of Euclidean distance between two people`; the units are those of privacy.dp.Cost."""
    if claim.epsilon is None:
        return NOT_MEASURED
    ends = {
        "release": " a release, for any two people",
        "radian": " a radian between two people",
        "Euclidean distance": " a unit of Euclidean distance between two people",
    }
    return number(claim.epsilon) + ends.get(claim.epsilon_unit, f" {claim.epsilon_unit}".rstrip())
