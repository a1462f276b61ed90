"""A mouth is drawn too: as open as the source's, with teeth behind a smile, in lips of a natural colour.

An average of mouths has a smear for teeth, and lips of pale people look painted on darker skin. Lips are opened before
the texture is warped; what lies between them is drawn in the mouth's own frame: the dark, the tongue and the upper row
of teeth, which hangs lower the more the source smiles. Nothing of it is the source's or a donor's.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from anonlib.faces import topology
from anonlib.faces.gaze import eye_frame
from anonlib.synthesis.base import Floats
from anonlib.synthesis.eyes import between, curve, in_frame, over, planes, white_of
from anonlib.synthesis.light import from_log, to_log

_UPPER = topology.LIPS_INNER[:11]
_LOWER = (topology.LIPS_INNER[0], *topology.LIPS_INNER[:9:-1])
_SHUT, _OPENS, _SMILES = 0.11, 0.035, 0.05
"""Gap of the lips, in widths of the mouth, up to which it counts as closed; how much further it is as open as measured;
and how much less is enough of a smile."""
_DROPS = (0.35, 0.65)  # shares of an opening by which the upper lip rises and the lower one drops
_NARROWEST, _TALL = 0.7, 0.25  # of its width, the least a mouth becomes; half its height with skin, eye distances
_REACH = 0.3  # how far from the lips skin follows them, eye distances
_TEETH = (0.065, 0.18)  # how far the upper teeth hang below the lip, eye distances, without a smile and with one
_LONGEST, _WHITENESS = 0.24, 3.4  # eye distances; grey of teeth over that of lit skin
_GAPS = np.array([0.0, 0.135, 0.235, 0.33, 0.405, 0.46], np.float32)  # between teeth, eye distances from the middle
_BETWEEN = (_GAPS[1:] + _GAPS[:-1]) / 2
_WARM, _IVORY = np.array([[0.8, 1.0, 1.05], [1.0, 0.99, 0.98]], np.float32)[..., None, None]
"""What is lost of each channel in the shade of lips; teeth over the white of eyes."""
_HALF = 0.45  # width of half a mouth, eye distances
_CAVITY, _TONGUE = np.array([[0.24, 0.12, 0.11], [0.55, 0.31, 0.29]], np.float32)[..., None, None]  # over lit skin
_MOST_RED, _DARK, _BRIGHT = 0.28, 4.1, 4.75
"""Log red over green of lips, more than of the skin, beyond which only half is kept; log grey of lit skin from which
and up to which lips lose _LESS red: on dark skin those of 38 portraits of men have none more than the skin."""
_TINTS = (0.6, -0.4, 0.0)  # how much of a change of red over green each channel takes
_LESS, _BEYOND = 0.08, 0.1  # how far beyond lips their texture is mended: at the corners it may be dark, share of them
_WET, _CREASE = 0.7, 0.7  # share of what lips are brighter than skin that stays; how dark their lines are at most
_LEAST_RED, _DEEPEST = 0.14, 0.3  # log, of lips on average: how much redder than skin at least, and darker at most


@dataclass(frozen=True)
class Mouth:
    """In a view: edges of the inner lips `upper` and `lower` (11, 2) px from left to right, the `outer` (20, 2), and
    `eye_distance` px."""

    upper: Floats
    lower: Floats
    outer: Floats
    eye_distance: float

    @classmethod
    def of(cls, vertices: Floats, eye_distance: float) -> Mouth:
        """That of `vertices` (468+, 2+) px."""
        upper, lower, outer = (vertices[list(points), :2] for points in (_UPPER, _LOWER, topology.LIPS_OUTER))
        return cls(upper, lower, outer, eye_distance)


def with_lips(shape: Floats, source: Floats, happy: float) -> Floats:
    """A surrogate's shape (468, 3) with its mouth as open as that of a source of this shape (468, 3), so `happy`."""
    shape = _as_wide(shape, source)
    upper, lower = list(_UPPER), list(_LOWER)
    gaps, width = [of[lower, 1] - of[upper, 1] for of in (shape, source)], [_width(of) for of in (shape, source)]
    wanted = gaps[1] / width[1]
    wanted *= np.clip((wanted.max() - _SHUT + _SMILES * happy) / _OPENS, 0, 1)
    missing = np.maximum(wanted, 0) * width[0] - gaps[0]
    middle = shape[upper, 1] + gaps[0] / 2
    order = np.argsort(shape[upper, 0])
    # Each point near the mouth moves with the lip above or below which it lies.
    at = shape[:, 0]
    more, line = (np.interp(at, shape[upper, 0][order], values[order]) for values in (missing, middle))
    off = shape[:, 1] - line
    lips = np.interp(at, shape[upper, 0][order], gaps[0][order]) / 2
    near = np.exp(-0.5 * (np.maximum(np.abs(off) - np.abs(lips), 0) / _REACH) ** 2)
    near *= (at > shape[upper, 0].min()) & (at < shape[upper, 0].max())
    moved = shape.copy()
    moved[:, 1] += np.where(off < 0, -_DROPS[0], _DROPS[1]) * more * near
    moved[upper, 1] = shape[upper, 1] - _DROPS[0] * missing
    moved[lower, 1] = shape[lower, 1] + _DROPS[1] * missing
    return moved


def _as_wide(shape: Floats, source: Floats) -> Floats:
    """A shape (468, 3), its mouth no wider than that of a source (468, 3) and its corners no higher over the middle: a
    neutral shape that smiles a little would smile twice."""
    ends, middle = list(topology.LIPS_OUTER[:11:10]), [topology.LIP_TOP, topology.LIP_BOTTOM]
    half, wanted = (np.ptp(of[ends, 0]) / 2 for of in (shape, source))
    hang, least = (float(of[ends, 1].mean() - of[middle, 1].mean()) for of in (shape, source))
    off = shape[:, :2] - np.array([shape[ends, 0].mean(), shape[middle, 1].mean()], np.float32)
    near = np.exp(-0.5 * (np.maximum(np.abs(off) - [half, _TALL], 0) ** 2).sum(axis=1) / _REACH**2)
    across = near * np.clip(off[:, 0] / half, -1, 1)
    moved = shape.copy()
    moved[:, 0] += (np.clip(wanted / half, _NARROWEST, 1) - 1) * half * across
    moved[:, 1] += max(least - hang, 0) * across**2 / np.maximum(near, 1e-6)
    return moved


def draw_mouth(pixels: Floats, mouth: Mouth, light: Floats, happy: float) -> Floats:
    """A face's px (h, w, 3) 0-255 with its `mouth` under a `light` (h, w, 3), log, as `happy` (0-1) as it is."""
    room = 0.1 * mouth.eye_distance + 2
    low, high = mouth.outer.min(axis=0) - room, mouth.outer.max(axis=0) + room
    x0, y0 = np.clip(np.floor(low), 0, pixels.shape[1::-1]).astype(int)
    x1, y1 = np.clip(np.ceil(high), 0, pixels.shape[1::-1]).astype(int)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return pixels
    part, out = np.s_[y0:y1, x0:x1], pixels.copy()
    lips = planes(_lips(out[part], mouth, np.array([x0, y0]), light[part]))
    out[part] = _inside(lips, mouth, (x0, y0), light[part], happy).transpose(1, 2, 0)
    return out


def _lips(skin: Floats, mouth: Mouth, origin: Floats, light: Floats) -> Floats:
    """Px (h, w, 3) with lips of a natural red."""
    mask = np.zeros(skin.shape[:2], np.float32)
    wide = mouth.outer + _BEYOND * (mouth.outer - mouth.outer.mean(axis=0)) - origin
    cv2.fillPoly(mask, [np.rint(wide * 16).astype(np.int32)], 1.0, shift=4)
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), max(0.6, 0.03 * mouth.eye_distance)), np.float32)
    values = to_log(skin)
    red, green, blue = planes(values - light)
    grey, red = (red + green + blue) / 3, red - green
    dark = float(np.clip((_BRIGHT - light.mean()) / (_BRIGHT - _DARK), 0, 1))
    change = np.minimum(red, _MOST_RED) + 0.5 * np.maximum(red - _MOST_RED, 0) - _LESS * dark - red
    inner = np.concatenate([mouth.upper, mouth.lower[::-1]]) - origin
    lips = cv2.fillPoly(mask.copy(), [np.rint(inner * 16).astype(np.int32)], 0.0, shift=4)
    redness, depth = (float((lips * of).sum() / max(float(lips.sum()), 1e-6)) for of in (red + change, grey))
    change, wanted = change + max(_LEAST_RED - redness, 0.0), grey + max(-_DEEPEST - depth, 0.0)
    # A lip that was wet, or is a tooth in the texture, is little brighter than skin; the dark between lips is drawn.
    wanted = np.maximum(np.minimum(wanted, 0) + _WET * np.maximum(wanted, 0), -_CREASE) - grey
    return from_log(values + cv2.merge([mask * (tint * change + wanted) for tint in _TINTS]))


def _inside(skin: Floats, mouth: Mouth, origin: tuple[int, int], light: Floats, happy: float) -> Floats:
    """Planes (3, h, w) of a part of the view that begins at `origin` (x, y), under a `light` (h, w, 3), with what shows
    between the lips."""
    ends, unit = mouth.upper[[0, -1]], mouth.eye_distance
    _, _, width = eye_frame(ends)
    (x, y), edges = in_frame(ends, origin, skin.shape[1:], mouth.upper, mouth.lower)
    upper, lower = (curve(x, *edge.T) for edge in edges)
    below, above = y - upper, lower - y
    tone = light.reshape(-1, 3).mean(axis=0)[:, None, None]
    lit = np.exp(tone)
    gap = np.maximum(lower - upper, 1e-3)
    # Upper teeth, counted from the middle of the lip, each side as foreshortened as its half of the mouth.
    centre = float(edges[0][5, 0])
    halves = np.clip(np.array([centre + width / 2, width / 2 - centre], np.float32) / (_HALF * unit), 0.2, 1.3)
    far = np.abs(x - centre) / (unit * np.where(x < centre, *halves))
    nearest = np.abs(far - _GAPS[np.searchsorted(_BETWEEN, far)]) * unit
    tooth = np.searchsorted(_GAPS, far) - 1
    hang = unit * (_TEETH[0] + happy * (_TEETH[1] - _TEETH[0])) * (1 - 0.8 * np.minimum(far, 0.7) ** 2)
    hang = np.maximum(hang, np.minimum(0.95 * happy * gap, _LONGEST * unit))  # a smile shows them to the lower lip
    hang -= unit * (0.014 * (tooth == 1) + 0.014 * np.exp(-((nearest / (0.025 * unit)) ** 2)))
    white = white_of(tone)
    teeth = white * np.sqrt(_WHITENESS * np.exp(tone.mean()) / white.mean()) * _IVORY
    # In the shade of the lip and of the cheeks; each is rounded, darker where it meets the next and at the gum.
    fine = max(0.012 * unit, 0.6)
    shade = 1.0 - 0.4 * np.exp(-np.maximum(below, 0) / (0.045 * unit)) - 2.2 * np.minimum(far, 0.6) ** 2
    parting = np.clip(below / np.maximum(hang, 1e-3), 0, 1) ** 2 + 0.4
    shade -= min(0.22, 0.12 * unit / 60) * parting * np.exp(-((nearest / fine) ** 2))
    shade -= 0.08 * np.exp(-((nearest / (0.035 * unit)) ** 2)) + 0.04 * (tooth == 1) + 0.08 * (tooth == 2)
    tongue = np.clip(1.2 - above / (0.5 * gap), 0, 1) * np.clip(gap / (0.2 * unit) - 0.4, 0, 1)
    hollow = over(lit * _CAVITY, lit * _TONGUE, tongue)
    row = np.clip((hang - below) / max(0.014 * unit, 1.0) + 0.5, 0, 1)
    hollow = over(hollow, teeth * np.maximum(shade, 0.15) ** _WARM, row)
    hollow *= 1 - 0.35 * np.exp(-np.maximum(above, 0) / (0.03 * unit))
    inside = between(below, above, max(1.0, 0.015 * unit)) * (np.abs(x) < width / 2)
    # Teeth of the texture show as specks between lips that it does not close, and are blurred. Where the lips meet, or
    # the upper one shades the teeth, is a line.
    near = np.minimum(np.abs(below), np.abs(above))
    blurred = np.stack([cv2.GaussianBlur(plane, (0, 0), 0.03 * unit + 0.5) for plane in skin])
    skin = over(skin, blurred, np.exp(-((near / max(0.025 * unit, 1.0)) ** 4)) * (np.abs(x) < 0.55 * width))
    line = 0.6 * np.exp(-((near / max(0.014 * unit, 0.7)) ** 2))
    line *= np.clip((width / 2 - np.abs(x)) / (0.2 * unit), 0, 1)
    return over(over(skin, hollow, inside), lit * _CAVITY * 1.6, line)


def _width(shape: Floats) -> float:
    return float(np.linalg.norm(shape[_UPPER[0], :2] - shape[_UPPER[-1], :2]))
