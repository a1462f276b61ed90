"""Where a demo photo was taken: six kinds of place, drawn out of focus, and the marks that people are drawn with, too.

Out of focus, a place is little more than its colours, so it can be drawn, and the dataset needs neither photos of
places nor a licence for them. Everything in a demo photo but the face is drawn, on float images of 0..1: soft-edged
shapes, smooth noise, mixed colours.
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

SCENES = {
    "park": "in a park",
    "sea": "by the sea",
    "street": "in a street",
    "evening": "in the city at night",
    "office": "in an office",
    "wall": "in front of a wall",
}


def draw_scene(width: int, height: int, scene: str, rng: Random) -> Floats:
    """A place out of focus (height, width, 3), 0..1. Raises ValueError for a scene that SCENES does not name."""
    if scene not in SCENES:
        raise ValueError(f"No scene is called {scene!r}; there are {', '.join(SCENES)}.")
    draw = {"park": _park, "sea": _sea, "street": _street, "evening": _evening, "office": _office, "wall": _wall}[scene]
    small = draw(height // 4, width // 4, rng) * f32(rng.uniform(0.92, 1.08, 3))  # small: all of it gets blurred
    soft = blur(np.clip(small, 0, 1), 1.7)
    image = blur(f32(cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC)), 2.5)
    if scene == "evening":
        _lights(image, 30, ((1.0, 0.72, 0.38), (1.0, 0.88, 0.66), (0.95, 0.35, 0.28), (0.55, 0.72, 1.0)), 0.75, rng)
    elif scene in ("park", "street"):
        _lights(image, 22 if scene == "park" else 6, ((0.95, 1.0, 0.7), (1.0, 0.9, 0.75)), 0.22, rng)
    return image


def _park(h: int, w: int, rng: Random) -> Floats:
    y, x = axes(h, w)
    horizon = rng.uniform(0.5, 0.7)
    leaves = mix((0.50, 0.58, 0.40), (0.20, 0.30, 0.14), y / horizon) * (1 + 0.32 * clouds(h, w, 7, rng))
    grass = mix((0.42, 0.50, 0.25), (0.34, 0.38, 0.20), (y - horizon) * 2)
    sky = np.clip(clouds(h, w, 12, rng) - 0.9, 0, 1) * (y < 0.5) * f32((0.5, 0.5, 0.42))
    park = np.where(y < horizon, leaves, grass) + sky
    for _ in range(int(rng.integers(1, 4))):
        park = np.where(np.abs(x - rng.uniform()) < rng.uniform(0.01, 0.03), f32((0.22, 0.18, 0.14)), park)
    return f32(park)


def _sea(h: int, w: int, rng: Random) -> Floats:
    y, x = axes(h, w)
    horizon = rng.uniform(0.42, 0.58)
    sky = mix((0.50, 0.64, 0.80), (0.84, 0.86, 0.86), y / horizon) + 0.03 * clouds(h, w, 14, rng)
    water = mix((0.33, 0.46, 0.54), (0.42, 0.55, 0.58), (y - horizon) * 3) * (1 + 0.03 * clouds(h, w, 3, rng))
    sand = f32((0.70, 0.63, 0.51)) * (1 + 0.04 * clouds(h, w, 5, rng))
    return np.where(y < horizon, sky, np.where(y < horizon + 0.25 + 0.06 * x, water, sand))


def _street(h: int, w: int, rng: Random) -> Floats:
    street = mix((0.72, 0.74, 0.77), (0.45, 0.44, 0.43), axes(h, w)[0]).repeat(w, axis=1)
    left = -int(rng.integers(0, 20))
    while left < w:
        right = left + int(rng.integers(14, 34))
        wall = rng.uniform(0.35, 0.66) * np.array((1, 0.94, 0.86)) * rng.uniform(0.94, 1.06, 3)
        roof = max(int(rng.uniform(-0.1, 0.25) * h), 0)
        street[roof : int(0.82 * h), max(left, 0) : right] = wall
        for row in range(roof + 4, int(0.72 * h), 9):
            for column in range(max(left, 0) + 2, right - 3, 6):
                street[row : row + 5, column : column + 3] = wall * rng.choice((0.5, 0.65, 1.25))
        left = right + int(rng.integers(0, 6))
    return street


def _evening(h: int, w: int, rng: Random) -> Floats:
    return mix((0.08, 0.10, 0.18), (0.17, 0.13, 0.12), axes(h, w)[0]) * (1 + 0.25 * clouds(h, w, 10, rng))


def _office(h: int, w: int, rng: Random) -> Floats:
    office = mix((0.75, 0.73, 0.69), (0.61, 0.59, 0.56), axes(h, w)[0]).repeat(w, axis=1)
    window, shelf = int(rng.uniform(-0.1, 0.5) * w), int(rng.uniform(0.55, 0.8) * w)
    for pane in range(window, window + 42, 14):
        office[int(0.04 * h) : int(0.6 * h), max(pane, 0) : max(pane + 12, 0)] = (0.88, 0.92, 0.95)
    for row in range(4):
        bottom = int((0.2 + 0.17 * row) * h)
        office[bottom : bottom + 2, shelf:] = (0.40, 0.31, 0.24)
        for book in range(shelf, w - 2, 3):
            top = bottom - int(rng.integers(7, 12))
            office[top:bottom, book : book + 3] = mix(rng.uniform(0.2, 0.6, 3), (0.4, 0.36, 0.3), 0.6)
    return office


def _wall(h: int, w: int, rng: Random) -> Floats:
    y, x = axes(h, w)
    paint = f32(one_of(((0.50, 0.54, 0.58), (0.58, 0.52, 0.46), (0.44, 0.50, 0.47)), rng))
    spot = (x - np.float32(rng.uniform(0.3, 0.7))) ** 2 + (y - np.float32(0.4)) ** 2
    return f32(paint * (1.2 - 0.9 * spot) * (1 + 0.04 * clouds(h, w, 12, rng)))


def _lights(image: Floats, many: int, hues: Sequence[tuple[float, ...]], strength: float, rng: Random) -> None:
    """Points of light out of focus, in place: discs as wide as the lens is open."""
    height, width = image.shape[:2]
    widest = rng.uniform(0.018, 0.034) * width
    for _ in range(many):
        radius = int(widest * rng.uniform(0.6, 1.1))
        x, y = int(rng.uniform(0, width)), int(rng.uniform(0, 0.75) * height)
        spot = np.zeros((2 * radius + 9, 2 * radius + 9), np.float32)
        cv2.circle(spot, (radius + 4, radius + 4), radius, 1.0, -1, cv2.LINE_AA)
        top, left = y - radius - 4, x - radius - 4
        part = image[max(top, 0) : max(top, 0) + spot.shape[0], max(left, 0) : max(left, 0) + spot.shape[1]]
        glow = blur(spot, 1.3)[max(-top, 0) :, max(-left, 0) :][: part.shape[0], : part.shape[1]]
        part = part[: glow.shape[0], : glow.shape[1]]
        part += (1 - part) * glow[..., None] * f32(one_of(hues, rng)) * np.float32(strength * rng.uniform(0.3, 1))


# ---- marks ----


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
