"""How measured figures are written: for people, and as JSON."""

from __future__ import annotations

import math
from typing import Any

from anonlib.audit.attacks import Rate


def percent(rate: Rate) -> str:
    """`12.3% [10.1 14.0]`, or a dash where nothing was counted."""
    return f"{rate.value:.1%} [{100 * rate.low:.1f} {100 * rate.high:.1f}]" if rate.count else "-"


def cosine(rate: Rate) -> str:
    """`.670 [.650 .690]`, or a dash where nothing was counted."""
    return f"{rate.value:.3f} [{rate.low:.3f} {rate.high:.3f}]" if rate.count else "-"


def without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {name: without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
