"""The few marks that the demo's places and its people are both drawn with, on float images of 0..1.

Everything in a demo photo but the face is drawn: soft-edged shapes, smooth noise, mixed colours. Keeping those here
leaves demo_scene.py and demo_photo.py to say what a thing looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Random = np.random.Generator
T = TypeVar("T")


def f32(values: ArrayLike) -> Floats:
    return np.asarray(values, np.float32)


def u8(values: NDArray[Any]) -> Pixels:
    """0..1 -> 0..255."""
    return np.asarray(np.clip(values, 0, 1) * 255 + 0.5, np.uint8)


def one_of(choices: Sequence[T], rng: Random) -> T:
    return choices[int(rng.integers(len(choices)))]


def axes(h: int, w: int) -> tuple[Floats, Floats]:
    """y (h, 1, 1) and x (1, w, 1) from 0 to 1."""
    return f32(np.linspace(0, 1, h))[:, None, None], f32(np.linspace(0, 1, w))[None, :, None]


def blur(image: NDArray[Any], sigma: float) -> Floats:
    return f32(cv2.GaussianBlur(f32(image), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)).reshape(image.shape)


def ramp(t: NDArray[Any]) -> Floats:
    t = np.clip(t, 0, 1)
    return f32(t * t * (3 - 2 * t))


def mix(a: ArrayLike, b: ArrayLike, t: NDArray[Any] | float) -> Floats:
    share = np.clip(t, 0, 1)
    return f32(f32(a) * (1 - share) + f32(b) * share)


def clouds(h: int, w: int, cell: int, rng: Random) -> Floats:
    """Smooth noise (h, w, 1) of unit variance, its features about `cell` pixels wide."""
    field = blur(rng.standard_normal((h, w), np.float32), cell / 3)
    return f32(field / field.std())[..., None]


def rounded(points: NDArray[Any], width: int) -> Floats:
    """A path (N, 2), closed if its ends meet, with its corners rounded over `width` eighths of a step."""
    at = np.linspace(0, len(points) - 1, len(points) * 8)
    fine = np.stack([np.interp(at, np.arange(len(points)), points[:, k]) for k in (0, 1)], 1)
    closed = bool(np.allclose(points[0], points[-1]))
    padded = np.pad(fine, ((width // 2, width // 2), (0, 0)), mode="wrap" if closed else "edge")
    kernel = np.hanning(width + 2)[1:-1] / np.hanning(width + 2).sum()
    return f32(np.stack([np.convolve(padded[:, k], kernel, "valid") for k in (0, 1)], 1))


def both(*right: tuple[float, float]) -> Floats:
    """The right half of a symmetric shape, top to bottom -> the rounded whole."""
    half = rounded(np.array(right), 11)
    return np.vstack([half, half[::-1] * f32((-1, 1))])


def fill(shape: tuple[int, int], points: Floats, soft: float) -> Floats:
    mask = np.zeros(shape, np.float32)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    return blur(mask, soft)


def paint(image: Floats, mask: Floats, colour: Floats) -> None:
    image += mask[..., None] * (colour - image)
