"""What a release is still good for: are faces found, do they look the same kind of person and move the same way.

Judged by networks, so each number is an agreement of two estimates, on originals where the first one is sure. A face
replaced by a flat ellipse has no use left; those are counted, with the reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks import Rate, Shares, rate
from anonlib.faces import topology
from anonlib.records import EXPRESSIONS

if TYPE_CHECKING:
    from anonlib.audit.evidence import Evidence

SURE = 0.7
"""Probability of a gender from which an original counts, and one minus it for the other."""
_KEPT = ("neutral", "happy")


@dataclass(frozen=True)
class Fallbacks:
    """Of `faces`, how many became a flat ellipse, and why."""

    faces: int
    solid: int
    reasons: dict[str, int]

    @property
    def share(self) -> float:
        return self.solid / self.faces if self.faces else float("nan")


@dataclass(frozen=True)
class Utility:
    """`rates` by measure over replaced labelled faces; what fell back; images that were not released."""

    rates: dict[str, Rate]
    labelled: Fallbacks
    all_faces: Fallbacks
    images: int
    quarantined: int


def gender_kept(before: NDArray[np.float32], after: NDArray[np.float32]) -> Shares:
    """(n,) Whether both probabilities of female lie on one side of a half; NaN where the original is not sure."""
    sure = (before > SURE) | (before < 1 - SURE)
    return np.where(sure & ~np.isnan(after), ((before > 0.5) == (after > 0.5)).astype(np.float64), np.nan)


def expression_kept(before: NDArray[np.float32], after: NDArray[np.float32]) -> Shares:
    """(n,) Whether the likeliest of the expressions (n, 7) is still the same, for originals neutral or happy."""
    known = ~np.isnan(before).any(axis=1) & ~np.isnan(after).any(axis=1)
    first, second = (np.nan_to_num(one, nan=0.0).argmax(axis=1) for one in (before, after))
    asked = known & np.isin(first, [EXPRESSIONS.index(name) for name in _KEPT])
    return np.where(asked, (first == second).astype(np.float64), np.nan)


def mesh_error(before: NDArray[np.float32], after: NDArray[np.float32]) -> Shares:
    """(n,) Mean distance of the points of meshes (n, 468, 2 or 3) in the image, over the original's eye distance."""
    left, right = (before[:, list(eye), :2].mean(axis=1) for eye in (topology.LEFT_EYE, topology.RIGHT_EYE))
    eyes = np.linalg.norm(right - left, axis=1)
    moved = np.linalg.norm(after[:, :, :2] - before[:, :, :2], axis=2).mean(axis=1)
    return np.asarray(moved / np.maximum(eyes, 1e-6), np.float64)


def fallbacks(reasons: Iterable[str | None]) -> Fallbacks:
    """Counts of faces by why they fell back, None if they did not; numbers in a reason do not make it another one."""
    seen = list(reasons)
    why = Counter(re.sub(r"\d+(\.\d+)?", "N", reason) for reason in seen if reason is not None)
    return Fallbacks(len(seen), sum(why.values()), dict(why.most_common()))


def measure(evidence: Evidence, *, seed: int = 0) -> Utility:
    """Everything that is measured of utility."""
    replaced = np.where(evidence.replaced, 0.0, np.nan)
    before, after = evidence.clear, evidence.released
    values = {
        "found again": after.found.astype(np.float64),
        "gender kept": gender_kept(before.female, after.female),
        "expression kept": expression_kept(before.expression, after.expression),
        "landmark error": mesh_error(before.mesh, after.mesh),
    }
    return Utility(
        {name: rate(one + replaced, evidence.subjects, seed=seed) for name, one in values.items()},
        fallbacks(evidence.labelled_fallbacks),
        fallbacks(evidence.fallbacks),
        evidence.images,
        evidence.quarantined,
    )
