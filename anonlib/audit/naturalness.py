"""Do the pixels of a face look photographed? Quality without a reference, by the statistics of natural scenes.

Locally normalized brightness of photographs follows nearly one law whatever they show; blur, flat paint, noise and
seams leave it. The 36 numbers are those of NIQE (Mittal, Soundararajan and Bovik 2013, IEEE SPL 20(3)), and so is the
distance to a Gaussian of undistorted ones; the undistorted ones here are the clear faces of other people in the same
dataset, so camera, size and compression are the same and only what was done to the face counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.rates import Numbers, Shares

FEATURES = 36
LEAST = 5 * FEATURES
"""Clear faces of other people below which their covariance says nothing."""

_SPREAD = 7 / 6
_FACE = (slice(16, 112), slice(8, 104))
"""Where the face lies in an aligned crop of 112 px."""
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
_ROWS = 64


def strangeness(seen: NDArray[np.float64], clear: NDArray[np.float64], subjects: Numbers) -> Shares:
    """(n,) Distance of `features` (n, 36) to those of other people's `clear` faces, in standard deviations.

    The people `subjects` (n,) number are cut into two halves; a face is held against the clear faces of the half that
    its person is not in. About 1 for a clear face; NaN where a half has fewer than LEAST, or a face has no features.
    """
    half = np.unique(subjects, return_inverse=True)[1] % 2
    found = np.full(len(seen), np.nan)
    for side in (0, 1):
        reference = clear[(half != side) & ~np.isnan(clear).any(axis=1)]
        if len(reference) < LEAST:
            continue
        inverse = np.linalg.pinv(np.cov(reference, rowvar=False))
        away = seen[half == side] - reference.mean(axis=0)
        squared = np.einsum("ij,ij->i", away @ inverse, away)
        found[half == side] = np.sqrt(np.maximum(squared, 0) / FEATURES)
    return found


def features(crops: NDArray[np.uint8], wanted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n, 36) Shapes and spreads of locally normalized brightness and of its neighbours' products, at two scales.

    Of aligned crops (n, 112, 112, 3); NaN where not `wanted` (n,), or where a face is all flat.
    """
    found = np.full((len(crops), FEATURES), np.nan)
    rows = np.flatnonzero(wanted)
    for some in np.array_split(rows, -(-len(rows) // _ROWS) or 1):
        if len(some):
            greys = [cv2.cvtColor(crops[row], cv2.COLOR_RGB2GRAY).astype(np.float32)[_FACE] for row in some]
            halved = [cv2.resize(one, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for one in greys]
            found[some] = np.concatenate([_at_one_scale(greys), _at_one_scale(halved)], axis=1)
    return found


def _at_one_scale(greys: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    normal = np.stack([_normalized(grey) for grey in greys])
    height, width = normal.shape[1:]
    parts = [_symmetric(_rows(normal))]
    for down, right in _NEIGHBOURS:
        here = normal[:, : height - down, max(0, -right) : width - max(0, right)]
        there = normal[:, down:, max(0, right) : width + min(0, right)]
        parts.append(_lopsided(_rows(here * there)))
    return np.concatenate(parts, axis=1)


def _normalized(grey: NDArray[Any]) -> NDArray[Any]:
    mean = cv2.GaussianBlur(grey, (7, 7), _SPREAD)
    spread = np.sqrt(np.maximum(cv2.GaussianBlur(grey * grey, (7, 7), _SPREAD) - mean * mean, 0))
    return np.asarray((grey - mean) / (spread + 1))


def _rows(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values.reshape(len(values), -1), np.float32)


def _squares(values: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", values, values), np.float64)


def _symmetric(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Shape and variance (n, 2) of generalized Gaussians, by moments (Sharifi and Leon-Garcia 1995)."""
    variance, size = _squares(values) / values.shape[1], np.abs(values).mean(axis=1, dtype=np.float64)
    return np.stack([_shape(_over(size**2, variance)), variance], axis=1)


def _lopsided(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Shape, mean, variance left and right (n, 4) of asymmetric ones (Lasmar, Stitou and Berthoumieu 2009)."""
    from scipy.special import gamma

    below, above = np.minimum(values, 0), np.maximum(values, 0)
    left = np.sqrt(_over(_squares(below), (values < 0).sum(axis=1)))
    right = np.sqrt(_over(_squares(above), (values > 0).sum(axis=1)))
    size = (above - below).mean(axis=1, dtype=np.float64) ** 2
    ratio = _over(left, right)
    squares = _squares(values) / values.shape[1]
    shape = _shape(_over(size, squares) * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2)
    mean = (right - left) * gamma(2 / shape) / np.sqrt(gamma(1 / shape) * gamma(3 / shape))
    return np.stack([shape, mean, left**2, right**2], axis=1)


def _over(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """The quotient; NaN where there is nothing to divide by, as where a face is flat."""
    return np.where(other > 0, one / np.where(other > 0, other, 1), np.nan)


def _shape(ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shapes, from 0.2 to 10, of generalized Gaussians whose squared mean size over their variance is `ratio`."""
    from scipy.special import gammaln

    shapes = np.arange(0.2, 10.001, 0.001)
    ratios = np.exp(2 * gammaln(2 / shapes) - gammaln(1 / shapes) - gammaln(3 / shapes))
    found = shapes[np.minimum(np.searchsorted(ratios, ratio), len(shapes) - 1)]
    return np.where(np.isnan(ratio), np.nan, found)
