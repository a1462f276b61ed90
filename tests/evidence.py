"""Evidence made by hand: people as points, whose photos scatter about them, for what judges a release."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks import first_of_each
from anonlib.audit.evidence import Evidence

NAME = "fr-feature"


def units(count: int, seed: int, size: int = 16) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(size=(count, size))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def blurred(centres: NDArray[np.float32], photos: int, noise: float, seed: int) -> NDArray[np.float32]:
    """`photos` unit vectors around each centre, person by person."""
    moved = np.repeat(centres, photos, axis=0)
    moved = moved + noise * np.random.default_rng(seed).normal(size=moved.shape)
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)


def evidence(**changes: Any) -> Evidence:
    """60 people with 5 photos each in classes of 5, released as they are, wearing the next class's surrogate."""
    subjects = np.repeat(np.arange(60), 5)
    clear = blurred(units(60, 1), 5, 0.05, 2)
    count = len(subjects)
    nothing = np.full(count, np.nan)
    whole = Evidence(
        subjects=subjects,
        names=np.array([f"p{number:02d}" for number in subjects]),
        people=subjects,
        classes=subjects // 5,
        worn=(subjects // 5 + 1) % 12,
        averaged=first_of_each(subjects),
        replaced=np.ones(count, bool),
        found=np.ones(count, bool),
        clear={NAME: clear},
        released={NAME: clear},
        context=None,
        female_before=nothing.astype(np.float32),
        female_after=nothing.astype(np.float32),
        expression_before=np.full((count, 7), np.nan, np.float32),
        expression_after=np.full((count, 7), np.nan, np.float32),
        mesh_error=nothing,
        donors={NAME: clear[::5]},
        donor_people=np.arange(60),
        donor_classes=np.arange(60) // 5,
        labelled_fallbacks=(None,) * count,
        fallbacks=(None,) * count,
        images=count,
        quarantined=0,
    )
    return replace(whole, **changes)
