"""Ridge regressions of an attacker: pixels to pixels, to points, to identity.

A blur is linear, so its best linear inverse under noise is a ridge regression from what is left to what was there. It
is found from pairs alone and knows neither the kernel nor where the face ends; eight-bit rounding is all that limits
it. A mosaic is linear too. Penalties are chosen on people who are kept aside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import SIDE
from anonlib.audit.trained.data import BatchDraw, DataSplit, Pixels, Points, TrainingPairs
from anonlib.faces import align

COARSE, FINE = 24, 48
"""Sides of the pictures that are read and drawn; nothing finer survives a redaction."""
PENALTIES = tuple(10.0**power for power in range(-8, 1))

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Ridge:
    """x (n, a) -> y (n, b)."""

    x_mean: Floats
    y_mean: Floats
    weights: Floats
    penalty: float

    def __call__(self, x: Floats) -> Floats:
        return np.asarray((x - self.x_mean) @ self.weights + self.y_mean, np.float32)


def ridge(x: Floats, y: Floats, aside: Floats, score: Callable[[Floats], float]) -> Ridge:
    """The regression of y (n, b) on x (n, a) with the penalty, per row, whose answers to `aside` (m, a) score highest.

    `score` is given the answers (m, b).
    """
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    # In single precision the directions that a blur nearly wipes out drown in rounding.
    a, b = (x - x_mean).astype(np.float64), y - y_mean
    wide = x.shape[1] > len(x)
    # Of both ways to write it down, the smaller system.
    values, vectors = np.linalg.eigh(a @ a.T if wide else a.T @ a)
    turned = vectors.T @ (b if wide else a.T @ b)
    basis = a.T @ vectors if wide else vectors
    seen = (aside - x_mean) @ basis

    def shrunk(penalty: float) -> NDArray[np.float64]:
        return np.asarray(turned / (np.maximum(values, 0) + penalty * len(x))[:, None], np.float64)

    def scored(penalty: float) -> float:
        return score((seen @ shrunk(penalty) + y_mean).astype(np.float32))

    best = max(PENALTIES, key=scored)
    return Ridge(x_mean, y_mean, (basis @ shrunk(best)).astype(np.float32), best)


def stretch(boxes: Points) -> list[align.Affine]:
    """Frame px -> px of a picture in which every box has the same two sides, so that every ellipse is one circle."""
    sides = boxes[:, 2:] - boxes[:, :2]
    grow = sides.max(axis=1, keepdims=True) / np.maximum(sides, 1e-3)
    half = SIDE / 2
    return [np.array([[x, 0, half - half * x], [0, y, half - half * y]], np.float32) for x, y in grow]


def small(frames: Pixels, boxes: Points, side: int) -> Floats:
    """Frames (n, SIDE, SIDE, 3), stretched, as (n, side, side, 3) in 0-1."""
    shrunk = np.zeros((len(frames), side, side, 3), np.float32)
    for index, (picture, matrix) in enumerate(zip(frames, stretch(boxes), strict=True)):
        wide = cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        shrunk[index] = cv2.resize(wide.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return shrunk / np.float32(255)


def flat(pictures: Floats) -> Floats:
    """(n, s, s, c) -> (n, s * s * c)."""
    return pictures.reshape(len(pictures), -1)


def _planes(pictures: Floats) -> Floats:
    """(n, s, s, 3) -> (n * 3, s * s), colour by colour."""
    return pictures.transpose(0, 3, 1, 2).reshape(len(pictures) * 3, -1)


def _grey(pictures: Floats) -> Floats:
    return flat(pictures.mean(axis=3, keepdims=True))


@dataclass(frozen=True)
class Restorer:
    """What was there, as far as a linear map can tell, and where its five points lie."""

    pixels: Ridge
    points: Ridge

    def __call__(self, released: Pixels, boxes: Points) -> Pixels:
        """Frames (n, SIDE, SIDE, 3) -> frames of the same size; each colour is restored by the same map."""
        changes = self.pixels(_planes(small(released, boxes, COARSE))).reshape(-1, 3, FINE, FINE).transpose(0, 2, 3, 1)
        restored = released.copy()
        for index, (change, matrix) in enumerate(zip(changes, stretch(boxes), strict=True)):
            grown = cv2.resize(np.ascontiguousarray(change), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            back = cv2.warpAffine(grown, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
            restored[index] = np.clip(np.rint(restored[index] + 255 * back), 0, 255)
        return restored

    def find(self, released: Pixels, boxes: Points) -> Points:
        """Five points (n, 5, 2) in px of the frame."""
        found = self.points(_grey(small(released, boxes, COARSE))).reshape(-1, 5, 2)
        pairs = zip(stretch(boxes), found, strict=True)
        return np.array([align.apply(align.inverse(matrix), points) for matrix, points in pairs])


def fit_restorer(pairs: TrainingPairs, parts: DataSplit, times: int, random: np.random.Generator) -> Restorer:
    """From the attacker's own people, each photo as it is and moved `times`; penalties by those kept aside."""
    learn, choose = pairs.many(parts.learn, times, random), pairs.many(parts.choose, 0, random)
    coarse, aside = small(learn.released, learn.boxes, COARSE), small(choose.released, choose.boxes, COARSE)

    def lost(drawn: BatchDraw) -> Floats:
        return _planes(small(drawn.clear, drawn.boxes, FINE) - small(drawn.released, drawn.boxes, FINE))

    def stretched(drawn: BatchDraw) -> Floats:
        moved = [align.apply(matrix, points) for matrix, points in zip(stretch(drawn.boxes), drawn.points, strict=True)]
        return np.array(moved, np.float32).reshape(len(moved), -1)

    def fitted(x: Floats, y: Floats, aside_x: Floats, aside_y: Floats) -> Ridge:
        return ridge(x, y, aside_x, lambda answers: -float(np.square(answers - aside_y).mean()))

    pixels = fitted(_planes(coarse), lost(learn), _planes(aside), lost(choose))
    return Restorer(pixels, fitted(_grey(coarse), stretched(learn), _grey(aside), stretched(choose)))
