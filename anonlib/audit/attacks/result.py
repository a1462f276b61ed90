"""An attack as the report has it, out of what it gave photo by photo: rates, what the face adds, groups, the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.groups import By
from anonlib.audit.attacks.rates import FEWEST, Numbers, Shares, difference, figure, rate, worst
from anonlib.audit.evidence.evidence import BASELINES, CLEAR, HIDDEN, RELEASED
from anonlib.audit.findings import Attack, Group

ByLook = Mapping[str, Shares]
Part = tuple[By, str, NDArray[np.bool_]]


def made(
    name: str,
    target: str,
    values: ByLook,
    who: Numbers,
    *,
    recognizer: str,
    held_out: bool,
    chance: float | None = None,
    groups: Sequence[Part] = (),
    classes: Numbers | None = None,
    curve: tuple[float, ...] = (),
    note: str = "",
    seed: int = 0,
) -> Attack:
    """`values` (n,) by look, NaN where a photo was not asked, of the people `who` (n,).

    With `groups` of the n, or `classes` (n,), -1 for none, the worst person and class are told too.
    """
    released, hidden = values[RELEASED], values.get(HIDDEN)
    rates = {
        look: figure(rate(values[look], who, chance=chance, seed=seed))
        for look in (RELEASED, CLEAR, *BASELINES)
        if look in values
    }
    detailed = bool(groups) or classes is not None
    return Attack(
        name=name,
        target=target,
        recognizer=recognizer,
        held_out=held_out,
        released=rates.pop(RELEASED),
        baselines=rates,
        excess=None if hidden is None else figure(difference(released, hidden, who, seed=seed)),
        groups=tuple(
            Group(by=by, name=part, figure=figure(rate(released[rows], who[rows], chance=chance, seed=seed)))
            for by, part, rows in groups
            if np.count_nonzero(~np.isnan(released[rows])) >= FEWEST
        ),
        worst_class=figure(worst(released, classes)) if classes is not None and (classes >= 0).any() else None,
        worst_person=figure(worst(released, who)) if detailed else None,
        curve=curve,
        note=note,
    )
