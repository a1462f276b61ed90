"""Eyes of a surrogate are drawn, as open as the source's and at its gaze: an average of people shows double irises.

Lids are moved to the source's opening before the texture is warped, so closed eyes are lid skin. What lies between them
is drawn px by px in the eye's own frame: white, iris, pupil, the light's reflection and the lid's shadow. The colour of
the iris is the surrogate's own, out of its shape; of the source come the place of the iris and the light.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from anonlib.faces.gaze import CONTOURS, eye_frame
from anonlib.synthesis.base import Floats

_LOWER, _UPPER, _CREASE = (
    slice(1, 8),
    slice(9, 16),
    slice(25, 32),
)  # of a contour: edges of the lids, and above the upper
_SHUT, _OPEN = 0.07, 0.13
"""Gaps of the lids, in distances between the corners, up to which an eye counts as closed, and from which it is as open
as it is measured."""
_APART = 1.4  # times as far as the less open eye that the other is open at most
_WIDEST = 1.6  # times its own opening that an eye is opened at most
_FOLLOW = (0.6, 0.35)  # shares of an upper lid's way that the crease above it and the skin over that go
_OVER = ((113, 225, 224, 223, 222, 221, 189), (342, 445, 444, 443, 442, 441, 413))
"""The mesh's points over each crease, in its order."""
_STRAIGHT = (0.0, -0.07, 0.3, 0.22)  # the numbers (faces/gaze.py) of an eye of which none are known
_RADIUS = 0.205  # of an iris, 11.7 mm across, in distances between the corners of an eye, 28.5 mm
_COVERED, _NARROWED = 0.12, 0.92
"""Of its radius that the upper lid covers of an iris, for which an eye narrows to this share of its opening at most."""
_LOWERED = 0.3  # of its opening that a lower lid is moved at most
_WHITE = (1.86, 0.6, 0.45)
"""Log brightness of the white of an eye is the first + the second times that of lit skin; it has the third times its
colour. By 394 eyes of the CC0 portraits, less steep, as dim light is commoner than dark skin."""
_AT = (0.0, 0.35, 0.6, 0.72, 0.81, 0.9, 1.0)
_COLOURS = np.array(
    [
        [0.20, 0.13, 0.11],
        [0.33, 0.21, 0.15],
        [0.42, 0.29, 0.20],
        [0.44, 0.36, 0.25],
        [0.42, 0.42, 0.35],
        [0.42, 0.46, 0.49],
        [0.38, 0.47, 0.57],
    ]
)
"""Irises over the white beside them, from dark brown to blue, at these shares of surrogates in bright skin."""
_VEINS, _CARUNCLE = np.array([[0.92, 0.68, 0.64], [0.78, 0.55, 0.52]], np.float32)[..., None, None]
"""Of the corners of an eye: their colour over its white, and that of the inner one over lit skin."""
_DARK, _BRIGHT = 90.0, 175.0  # grey levels of lit skin up to which every iris is brown, and from which any is
_FIBRES = (7, 11, 17, 23, 31, 43)
_PIECES = 8  # straight ones that a curve is drawn in between two points


@dataclass(frozen=True)
class Eyes:
    """Both eyes in a view: edges of the lids `upper` and `lower` (2, 9, 2) px from left to right, `iris` (2, 2) px,
    `radius` px, `flat` (2,) how wide either looks for its height, and `seed`."""

    upper: Floats
    lower: Floats
    iris: Floats
    radius: float
    flat: Floats
    seed: int

    @classmethod
    def of(cls, vertices: Floats, gaze: Floats | None, neutral: Floats) -> Eyes:
        """Those of a surrogate of `neutral` shape (468, 3) whose `vertices` (468+, 2+) lie so in a view, looking as the
        source does (8,)."""
        known = np.full((2, 4), np.nan) if gaze is None else np.reshape(gaze, (2, 4))
        other = np.where(np.isnan(known[::-1]), _STRAIGHT, known[::-1])
        numbers = np.where(np.isnan(known), other, known)
        upper, lower, iris, flat = [], [], [], []
        deep = np.mean([np.linalg.norm(vertices[ring[0]] - vertices[ring[8]]) for ring in CONTOURS])
        for eye, points in enumerate(CONTOURS):
            ring = vertices[list(points), :2]
            edges = [np.concatenate([ring[:1], ring[lid], ring[8:9]])[:: 1 - 2 * eye] for lid in (_UPPER, _LOWER)]
            right, down, width = eye_frame(edges[0][[0, -1]])
            across, below = numbers[eye, :2]
            upper.append(edges[0])
            lower.append(edges[1])
            iris.append(edges[0][[0, -1]].mean(axis=0) + width * (across * right + below * down))
            flat.append(np.sqrt(np.clip(width / max(deep, 1e-6), 0.25, 1)))
        seed = int.from_bytes(hashlib.sha256(np.ascontiguousarray(neutral, np.float16).tobytes()).digest()[:4])
        return cls(np.stack(upper), np.stack(lower), np.stack(iris), float(_RADIUS * deep), np.array(flat), seed)


def with_lids(shape: Floats, source: Floats, gaze: Floats | None) -> Floats:
    """A surrogate's shape (468, 3), its lids where those of a source with this shape (468, 3) and gaze (8,) are to the
    corners of its eyes: as open at most, and over the top of the iris."""
    moved = shape.copy()
    known = np.full((2, 4), np.nan) if gaze is None else np.reshape(gaze, (2, 4))
    least = float(np.fmin(*known[:, 2]))  # lids move together: makeup and hair hide a gap sooner than a face winks
    for points, over_crease, below in zip(CONTOURS, _OVER, known[:, 1], strict=True):
        lower, upper, crease = (np.array(points[lid]) for lid in (_LOWER, _UPPER, _CREASE))
        gap, width = (lower[3], upper[3]), (points[0], points[8])
        own, wanted = (_distance(of, *gap) / max(_distance(of, *width), 1e-6) for of in (shape, source))
        sunk, its = (_sunk(of, lower[3], *width) for of in (shape, source))
        wanted = float(np.fmin(wanted, _APART * least))
        wanted *= float(np.clip((np.fmin(wanted, least) - _SHUT) / (_OPEN - _SHUT), 0, 1))
        wanted *= min(1.0, _distance(source, *width) / max(_distance(shape, *width), 1e-6))
        covered = its - (below - (1 - _COVERED) * _RADIUS)
        wanted = min(wanted, max(_NARROWED * wanted, float(np.fmin(covered, wanted))))
        lowered = float(np.clip((its - sunk) / max(own, 1e-6), -_LOWERED, _LOWERED))
        gaps = shape[lower] - shape[upper]
        moved[lower] += np.float32(lowered) * gaps
        way = np.float32(1 + lowered - min(wanted / max(own, 1e-6), _WIDEST)) * gaps
        moved[upper] += way
        for ring, share in zip((crease, np.array(over_crease)), _FOLLOW, strict=True):
            moved[ring] += np.float32(share) * way
    return moved


def draw_eyes(pixels: Floats, eyes: Eyes, light: Floats) -> Floats:
    """A face's px (h, w, 3) 0-255 with its `eyes` under a `light` (h, w, 3), log."""
    out = pixels.copy()
    height, width = pixels.shape[:2]
    corners = np.rint(eyes.upper[:, [0, -1]].reshape(-1, 2)).astype(int)
    tones = light[np.clip(corners[:, 1], 0, height - 1), np.clip(corners[:, 0], 0, width - 1)]
    bright = float(np.exp(tones.mean()))  # of both, as their irises are alike
    for eye in range(2):
        ends = eyes.upper[eye][[0, -1]]
        room = 0.13 * float(np.linalg.norm(ends[1] - ends[0])) + 2  # for lashes
        around = np.concatenate([eyes.upper[eye], eyes.lower[eye]])
        x0, y0 = np.clip(np.floor(around.min(axis=0) - room), 0, [width, height]).astype(int)
        x1, y1 = np.clip(np.ceil(around.max(axis=0) + room), 0, [width, height]).astype(int)
        if x1 - x0 < 2 or y1 - y0 < 2:
            continue
        part = np.s_[y0:y1, x0:x1]
        out[part] = _drawn(planes(out[part]), eyes, eye, (x0, y0), light[part], bright).transpose(1, 2, 0)
    return out


def _drawn(skin: Floats, eyes: Eyes, eye: int, origin: tuple[int, int], light: Floats, bright: float) -> Floats:
    """One eye over the planes (3, h, w) of its part of the view, which begins at `origin` (x, y), in skin so `bright`,
    under a `light` (h, w, 3)."""
    ends = eyes.upper[eye][[0, -1]]
    _, _, width = eye_frame(ends)
    # In the eye's frame: x from -.5 at the left corner to .5; px below the upper and above the lower lid; x outwards.
    (x, y), points = in_frame(ends, origin, skin.shape[1:], eyes.upper[eye], eyes.lower[eye], eyes.iris[eye][None])
    upper, lower = (curve(x, *edge.T) for edge in points[:2])
    below, above = y - upper, lower - y
    x, iris = x / width, points[2][0]
    away, outwards = np.abs(x), x if eye else -x
    tone = light.reshape(-1, 3).mean(axis=0)[:, None, None]
    lit, white = np.exp(tone), white_of(tone)
    # The white is a ball in the shadow of the lids, reddish towards its corners, most where the tears gather.
    shade = 1.04 - 0.65 * np.exp(-np.maximum(below, 0) / (0.075 * width)) - 1.2 * x**2
    shade -= 0.3 * np.exp(-np.maximum(above, 0) / (0.05 * width))
    ball = white * (1 - np.clip((away - 0.14) / 0.3, 0, 1) * (1 - _VEINS))
    ball = over(ball, lit * _CARUNCLE, np.exp(-(((outwards + 0.5) / 0.09) ** 2)))
    across, down = (x * width - iris[0]) / (eyes.radius * float(eyes.flat[eye])), (y - iris[1]) / eyes.radius
    soft = 1 / eyes.radius
    share = 1 - 0.6 * float(np.clip((_BRIGHT - bright) / (_BRIGHT - _DARK), 0, 1))
    coloured, disc = _iris(across, down, share, np.random.default_rng(eyes.seed), soft)
    ball = over(ball, coloured * white, disc) * shade
    side = 0.3 if light[:, -1].mean() > light[:, 0].mean() else -0.3  # the light's reflection is on its own side
    spot = _disc(np.hypot(across - side, down + np.float32(0.28)), 0.16, max(1.3 * soft, 0.16))
    ball = over(ball, np.minimum(1.6 * white + 30, 250), 0.8 * spot)
    inside = between(below, above, max(1.0, 0.02 * width)) * (away < 0.5)
    # Lashes: a dark line along the upper lid, heavier outwards, and a faint one along the lower.
    lines = ((below, 0.034, 0.75 * np.clip(0.75 + 0.8 * outwards, 0.4, 1)), (above, 0.025, 0.2))
    lash = sum(dark * np.exp(-(((way + 0.012 * width) / max(thick * width, 0.6)) ** 2)) for way, thick, dark in lines)
    lash = np.minimum(lash * np.clip((0.52 - away) / 0.04, 0, 1), 1)
    return over(over(skin, ball, inside), 0.16 * lit, lash)


def _iris(
    across: Floats, down: Floats, share: float, random: np.random.Generator, soft: float
) -> tuple[Floats, Floats]:
    """An iris (3, h, w) over the white of its eye, and how far it reaches (h, w); `across` and `down` (h, w): each px's
    place in radii; from `share` 0, only brown, to 1, all colours."""
    distance, angle = np.hypot(across, down), np.arctan2(down, across)
    share *= random.uniform()
    colour = np.array([[[np.interp(share, _AT, channel)]] for channel in _COLOURS.T], np.float32)
    fibres = sum(np.cos(order * angle + random.uniform(0, 7) + 2 * distance) for order in _FIBRES) / len(_FIBRES)
    collar = np.exp(-(((distance - 0.5) / 0.15) ** 2))
    rim = 1 - 0.35 * np.clip((distance - 0.6) / 0.4, 0, 1)
    iris = colour * ((1 + 0.25 * fibres + 0.15 * collar + 0.25 * down) * rim)
    pupil = _disc(distance, random.uniform(0.32, 0.4), max(1.3 * soft, 0.16))
    return over(iris, np.float32(0.09), pupil), _disc(distance, 1.0, max(1.5 * soft, 0.25))


def white_of(tone: Floats) -> Floats:
    """The white of an eye (3, ...), 0-255, beside skin of this `tone` (3, ...), log."""
    grey = tone.mean()
    return np.asarray(np.exp(_WHITE[0] + _WHITE[1] * grey + _WHITE[2] * (tone - grey)))


def planes(pixels: Floats) -> Floats:
    """The channels of (h, w, 3), (3, h, w)."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def in_frame(
    ends: Floats, origin: tuple[int, int], size: tuple[int, ...], *edges: Floats
) -> tuple[tuple[Floats, Floats], list[Floats]]:
    """How far right and how far below the middle of `ends` (2, 2), along the line through both, each px of a part of
    this size (h, w) at `origin` (x, y) lies, and the points (n, 2) of each edge."""
    right, down, _ = eye_frame(ends)
    middle = ends.mean(axis=0)
    columns, rows = (np.arange(length, dtype=np.float32) for length in size[::-1])
    columns, rows = columns + (origin[0] - middle[0]), (rows + (origin[1] - middle[1]))[:, None]
    px = columns * right[0] + rows * right[1], columns * down[0] + rows * down[1]
    return px, [(edge - middle) @ np.stack([right, down], axis=1) for edge in edges]


def over(below: Floats, colour: Floats | np.float32, share: Floats) -> Floats:
    """A `colour` laid over planes (3, h, w) by a share (h, w)."""
    return np.asarray(below + share * (colour - below), np.float32)


def _disc(distance: Floats, radius: float, soft: float) -> Floats:
    """1 within `radius` of the middle, falling to 0 over `soft` around it."""
    return np.asarray(np.clip((radius - distance) / soft + 0.5, 0, 1), np.float32)


def between(below: Floats, above: Floats, soft: float) -> Floats:
    """How far px (h, w) lie between two edges, 0-1, `below` the upper and `above` the lower by so many px."""
    inside = np.clip(np.minimum(below, above) / soft + 0.5, 0, 1)
    return np.asarray(inside * np.clip((below + above) / soft, 0, 1), np.float32)


def curve(x: Floats, along: Floats, height: Floats) -> Floats:
    """The height at each x (h, w) of an edge of lids or lips, a smooth curve through its points (n,) that does not
    overshoot them (Fritsch and Butland 1984)."""
    along = np.maximum.accumulate(along) + 1e-4 * np.arange(len(along))
    step, rise = np.diff(along), np.diff(height)
    slope = rise / step
    product, total = slope[1:] * slope[:-1], slope[1:] + slope[:-1]
    inner = np.divide(2 * product, total, out=np.zeros_like(total), where=product > 0)
    first, last = np.append(slope[0], inner), np.append(inner, slope[-1])
    t = np.linspace(0, 1, _PIECES, endpoint=False)[:, None]
    fine = height[:-1] + t * rise + t * (1 - t) * ((1 - t) * (first - slope) - t * (last - slope)) * step
    places = along[:-1] + t * step
    read = np.interp(x, np.append(places.T, along[-1]), np.append(fine.T, height[-1]))
    return np.asarray(read, np.float32)


def _distance(shape: Floats, first: int, second: int) -> float:
    return float(np.linalg.norm(shape[first, :2] - shape[second, :2]))


def _sunk(shape: Floats, point: int, first: int, second: int) -> float:
    """How far a point lies below the line of an eye's corners, in their distances."""
    ends = shape[[first, second], :2]
    _, down, width = eye_frame(ends[np.argsort(ends[:, 0])])
    return float((shape[point, :2] - ends.mean(axis=0)) @ down / width)
