"""Where a new face ends: at hair, strand by strand, at a cap or a scarf, and at its own outline.

A px at the rim mixes skin with what lies over it; the share of that is how far the px is from the light of the skin,
compared with the hair around it. What stays of the photo there is shown in the colour of what lies over the skin, so
that no skin of the source is left between strands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.synthesis.base import Floats, Mask, Pixels
from anonlib.synthesis.canonical import SIZE, canonical_frame
from anonlib.synthesis.light import brightness_of, unlike

_SURE, _LEAST = 3.5, 0.4
"""What differs from the light of the skin by so many of its spreads, and by so much, log units, is not skin."""
_CELL, _NEAR = 0.03, (0.1, 0.25)
"""Side of the cells in which hair is gathered; how far its colour counts, and how far what it differs by; eye
distances."""
_ENOUGH = 0.15
_NONE, _WHOLE = 0.25, 0.75
"""Shares of what the hair around differs by, at which a px shows none of it and nothing else."""
_STRAND, _ROUGH, _FOREHEAD = 0.03, 2.0, 0.4
"""Hair brighter than skin is so many times rougher than the skin at this width, eye distances; what shines on the face
or within so far of it, eye distances, is not."""
_REDDER, _DEEPEST = (0.25, 2.5), 1.2
"""How much less dark red is than blue where skin is darker by 1 log unit, at least and at most; the deepest shade of
skin, log."""
_PALER = 0.5  # how much brighter grey hair is at most than it is greyer, log
_OUTSIDE = 0.3  # least share outside the face of what reaches into it
_SPECK = 0.12  # side of what is too small to be hair, eye distances
_BRIM = (0.6, 0.95)
"""Of a hat at most the first of these is strands or nothing, and past the second it is hat throughout."""
_DENSE = (0.45, 0.7)
"""Shares of what is not skin around a px of a hat, at which it may be skin and cannot."""
_MIXED = 0.4
_DARK = (0.35, 0.55)  # log units below the light of the skin at which what hangs over a cheek is no shade of skin
_WOVEN = (0.3, 0.5)  # shares of it around a px there, at which it may be some and is
_CURTAIN, _BEHIND = 0.1, (0.15, 0.5)
"""Hair beside the face lies behind it where it hangs over less of the face nearby, eye distances, than the first share,
and before it past the second."""
_GRID, _ALONG, _FADE, _MOST = 0.14, 0.08, (0.2, 0.4), 0.25
"""Of what is beside an outline, eye distances: the cells in which its shift is known, how smooth that is along the
outline, how far out it ends beside the cheeks and below the chin, and the largest."""
_STEPS = (0.0, 0.5)
_STRAP, _UNDER, _BEARDED = 0.16, 0.55, 0.18
"""Beard grows beyond an outline by at most the first, eye distances, and is taken out below this share of the face's
width, where it covers more than that share of the chin."""
_STUBBLE = (0.2, 1.5)  # how much darker than skin it is at least, log, and rougher
_RAGGED, _DEEP = 0.03, 0.3  # how softly what is mirrored into a face is shown at last, how far in, eye distances
BEYOND = 0.03  # eye distances past the outline in which px still hold something of the face


def strands(
    view: Pixels, residual: Floats, spread: float, face: Mask, eye_distance: float, step: int = 1
) -> tuple[Floats, Pixels]:
    """Of each px (h, w) of a view (h, w, 3) the share, 0-1, that is not skin and reaches over the `face` (h, w) from
    outside; and (h, w, 3) its colour. `residual` (h, w, 3): the view less the light of its skin, log, whose spread is
    `spread`. What is hair is decided on px that are `step` times as large."""
    size, whole, eye_distance = view.shape[1::-1], unlike(residual), eye_distance / step
    view, residual, face = coarser(view, step), coarser(residual, step), coarser(face.astype(np.float32), step) > 0.5
    distance, brightness = unlike(residual), brightness_of(residual)
    sure = distance > max(_LEAST, _SURE * spread)
    # A mesh ends below the hairline.
    head = cv2.distanceTransform(np.uint8(1) - face, cv2.DIST_L2, 5) <= _FOREHEAD * eye_distance
    # Smooth skin that is in the shade becomes redder, and what shines brighter more than paler; hair is rougher, not so
    # red, or grey.
    redder = residual[..., 0] - residual[..., 2]
    shade = (redder > -_REDDER[0] * brightness) & (redder < -_REDDER[1] * brightness) & (brightness > -_DEEPEST)
    sure &= (
        ((brightness < np.maximum(-_PALER * redder, 0)) & ~shade)
        | ~head
        | (_roughness(brightness, face, eye_distance) > _ROUGH)
    )
    _, labels, about, _ = cv2.connectedComponentsWithStats(sure.astype(np.uint8), connectivity=8)
    beyond = np.bincount(labels[~face], minlength=len(about))
    area = about[:, cv2.CC_STAT_AREA]
    reaching = (beyond > _OUTSIDE * area) & (area > (_SPECK * eye_distance) ** 2)
    reaching[0] = False
    sure = reaching[labels]
    # Only hair itself and the px beside it: not a wrinkle nearby, nor a brow.
    near = cv2.GaussianBlur(sure.astype(np.float32), (0, 0), max(0.6, _STRAND * eye_distance))
    parts = (near, *_around(view, distance, sure, eye_distance))
    near, colour, usual = (cv2.resize(part, size, interpolation=cv2.INTER_LINEAR) for part in parts)
    share = (whole - _NONE * usual) / np.maximum((_WHOLE - _NONE) * usual, np.float32(0.1))
    return np.clip(share, 0, 1) * np.clip(near / _ENOUGH, 0, 1), np.asarray(colour, np.uint8)


def _roughness(brightness: Floats, face: Mask, eye_distance: float) -> Floats:
    """How rough each px (h, w) is at the width of strands, in units of the median of the face."""
    width = max(0.6, _STRAND * eye_distance)
    fine = np.abs(brightness - cv2.GaussianBlur(brightness, (0, 0), width))
    around = blurred(fine, 2 * width)
    usual = float(np.median(around[face])) if face.any() else 1.0
    return np.asarray(around / max(usual, 1e-3), np.float32)


def beard(residual: Floats, face: Mask, grid: Floats, eye_distance: float) -> Floats:
    """How surely px (h, w) are beard that grows beyond the outline of a `face` (h, w), 0-1, and would stay as a strap
    under a new chin; `residual` as in `strands`, `grid` (h, w, 2): the canonical place of each px."""
    points = canonical_frame().points
    mouth, chin = points[[topology.LIP_TOP, topology.CHIN], 1].tolist()
    half = _UNDER * float(np.ptp(points[list(topology.OVAL), 0])) / 2
    below = (grid[..., 1] > (mouth + chin) / 2) & (np.abs(grid[..., 0] - SIZE / 2) < half)
    brightness = brightness_of(residual)
    hair = below & (brightness < -_STUBBLE[0]) & (_roughness(brightness, face, eye_distance) > _STUBBLE[1])
    chin = hair[below & face]
    if not chin.any() or chin.mean() < _BEARDED:
        return np.zeros_like(brightness)
    near = cv2.distanceTransform(np.uint8(1) - face, cv2.DIST_L2, 5) < _STRAP * eye_distance
    width = max(0.6, 0.03 * eye_distance)
    return np.asarray(2 * cv2.GaussianBlur((hair & near).astype(np.float32), (0, 0), width), np.float32)


def _around(view: Pixels, distance: Floats, sure: Mask, eye_distance: float) -> tuple[Pixels, Floats]:
    """What hair there is around each cell of px: the mean colour (r, c, 3) of px that are `sure` (h, w) to be some, and
    their mean `distance` (r, c); those that differ most from skin count most."""
    height, width = sure.shape
    cell = max(1, round(_CELL * eye_distance))
    size = (max(1, width // cell), max(1, height // cell))
    weight = np.where(sure, distance, 0).astype(np.float32)
    near, wide = (reach * eye_distance / cell for reach in _NEAR)
    parts = cv2.multiply(view, cv2.merge([weight] * 3), dtype=cv2.CV_32F), distance * weight, weight
    colours, distances, weights = (cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in parts)
    about = [np.maximum(cv2.GaussianBlur(weights, (0, 0), reach), 1e-4) for reach in (near, wide)]
    colour = cv2.GaussianBlur(colours, (0, 0), near) / about[0][..., None]
    usual = cv2.GaussianBlur(distances, (0, 0), wide) / about[1]
    return np.rint(colour).astype(np.uint8), np.asarray(usual, np.float32)


@dataclass(frozen=True)
class Cover:
    """Of every step-th px of a view, 0-1: where what lies over a face `may_stay`, and `beside` it what is dark; how far
    it is `above` the eyes, where hair beside a face lies before it; where a `hat` is."""

    may_stay: Floats
    beside: Floats
    above: Floats
    hat: Floats


def matte(
    view: Pixels, residual: Floats, spread: float, face: Mask, cover: Cover, eye_distance: float, step: int = 1
) -> tuple[Floats, Pixels]:
    """How far each px (h, w) of a view stays as what lies over its `face`, 0-1, and the view (h, w, 3) without skin of
    the face where it does; else as in `strands`."""
    fine, colour = strands(view, residual, spread, face, eye_distance, step)
    share, of = coarser(fine, step), coarser(face.astype(np.float32), step)
    # Beside cheeks and jaw hair hangs over the face, and goes on beyond it, or lies behind.
    curtains = share * of, of, share, -brightness_of(coarser(residual, step))
    hangs, around, dense, dark = (blurred(part, _CURTAIN * eye_distance / step) for part in curtains)
    hangs = ramp(hangs / np.maximum(around, 1e-3), _BEHIND)
    zone = cover.may_stay * np.where(of > 0.5, 1, np.maximum(cover.above, hangs))
    # A hat stays where it is as pale as skin too; between the strands of a fringe there is skin.
    hat = ramp(cover.hat, _BRIM) * ramp(dense, _DENSE)
    # Over a cheek stays what is dark on the whole, as a curtain without holes.
    curtain = cover.beside * ramp(dark, _DARK) * ramp(dense, _WOVEN)
    by_strand, throughout = np.maximum(zone, curtain), np.maximum(hat, curtain * ramp(dense, _DENSE))
    kept = np.maximum(finer(by_strand, step) * fine, finer(throughout, step))
    return kept, mixed(view, colour, ((kept > 0) & face) * np.clip((1 - fine) * 2 - _MIXED, 0, 1))


def ramp(values: NDArray[np.floating], ends: tuple[float, float]) -> Floats:
    """0 up to the first of the ends, 1 from the second on."""
    return np.asarray(np.clip((values - ends[0]) / (ends[1] - ends[0]), 0, 1), np.float32)


def blurred(values: Floats, deviation: float) -> Floats:
    """A Gaussian blur of (h, w), on larger px where that is as good."""
    step = max(1, int(deviation / 2))
    small = cv2.GaussianBlur(coarser(values, step), (0, 0), deviation / step)
    return np.asarray(cv2.resize(small, values.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def coarser(values: NDArray[Any], step: int) -> NDArray[Any]:
    """Values (h, w, ...) on px that are `step` times as large."""
    return cv2.resize(values, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA) if step > 1 else values


def finer(values: NDArray[Any], step: int) -> NDArray[Any]:
    """Values (h, w, ...) of px that are `step` times as large, between them."""
    return cv2.resize(values, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR) if step > 1 else values


def mixed(below: Pixels, above: NDArray[Any], share: Floats) -> Pixels:
    """`above` (h, w, 3), 0-255, laid over px (h, w, 3) by a share (h, w)."""
    return np.asarray(cv2.blendLinear(below, above, 1 - share, share), np.uint8)


def outlined(view: Pixels, face: Mask, old: Floats, new: Floats, pull: Floats, eye_distance: float) -> Pixels:
    """The view (h, w, 3) with its `face` (h, w) taken out and what was beside its `old` outline (n, 2) px moved to a
    `new` one: neck, collar, hair and their shadows, inwards as far as `pull[0]` (n,) says, 0-1, outwards `pull[1]`."""
    filled = without(view, face, eye_distance)
    height, width = face.shape
    outwards = old - old.mean(axis=0)
    outwards /= np.maximum(np.linalg.norm(outwards, axis=1, keepdims=True), 1e-6)
    shift = new - old - BEYOND * eye_distance * outwards
    along = (shift * outwards).sum(axis=1)
    reach = np.where(along < 0, *pull) * np.minimum(1, _MOST * eye_distance / np.maximum(np.abs(along), 1e-6))
    fade = eye_distance * (_FADE[0] + (_FADE[1] - _FADE[0]) * pull[1])
    top = max(0, int((new[:, 1] - fade)[pull[0] > 0].min()))
    if top >= height:
        return filled
    # All in steps so fine that the nearest of them is the nearest place of the outline.
    parts = (part[:, None] if part.ndim == 1 else part for part in (new, shift * reach[:, None], fade))
    new, shift, fade = (
        np.concatenate([part + step * (np.roll(part, -1, axis=0) - part) for step in _STEPS]) for part in parts
    )
    cell = max(1, round(_GRID * eye_distance))
    rows, columns = (np.arange(-(-side // cell) + 1, dtype=np.float32) * cell for side in (height - top, width))
    places = np.stack(np.meshgrid(columns, rows + top), axis=-1)
    squares = (places[..., :1] - new[:, 0]) ** 2 + (places[..., 1:] - new[:, 1]) ** 2
    nearest = squares.min(axis=2, keepdims=True)
    weights = np.exp(-0.5 * (squares - nearest) / (_ALONG * eye_distance) ** 2)
    weights /= weights.sum(axis=2, keepdims=True)
    moved = (weights @ shift) * np.clip(1 - np.sqrt(nearest) / (weights @ fade), 0, 1)
    to_border = np.minimum(places, np.array([width - 1, height - 1], np.float32) - places).min(axis=2, keepdims=True)
    moved *= np.clip(to_border / (2 * cell), 0, 1)
    moved = cv2.resize(moved.astype(np.float32), None, fx=cell, fy=cell, interpolation=cv2.INTER_LINEAR)
    # A coarse px stands at the corner of its cell, and cv2.resize puts it into the middle.
    half = cell // 2
    moved = moved[half : half + height - top, half : half + width]
    x = np.arange(width, dtype=np.float32) - moved[..., 0]
    y = np.arange(top, height, dtype=np.float32)[:, None] - moved[..., 1]
    filled[top:] = cv2.remap(filled, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return filled


def around(reach: float) -> NDArray[np.uint8]:
    """The kernel by which `cv2.dilate` reaches `reach` px further, one px at least."""
    side = 2 * max(1, round(reach)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def without(view: Pixels, face: Mask, eye_distance: float) -> Pixels:
    """The view (h, w, 3) without a face (h, w): what is beside it is mirrored into it at its outline."""
    blocked = cv2.dilate(face.astype(np.uint8), around(BEYOND * eye_distance))
    if blocked.all():
        return np.zeros_like(view)
    x, y, width, height = cv2.boundingRect(blocked)
    top, left = max(y - 1, 0), max(x - 1, 0)
    part = blocked[top : y + height + 1, left : x + width + 1]  # what is nearest to any of its px is in it
    deep, labels = cv2.distanceTransformWithLabels(part, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    free = np.flatnonzero(part == 0).astype(np.int32)
    places = np.zeros(int(labels.max()) + 1, np.int32)
    places[labels.ravel()[free]] = free
    rows, columns = np.divmod(places[labels], np.int32(part.shape[1]))
    old_rows, old_columns = (np.arange(length, dtype=np.int32) for length in part.shape)
    last_row, last_column = face.shape[0] - 1, face.shape[1] - 1
    far_rows = np.clip(2 * rows - old_rows[:, None] + top, 0, last_row)
    far = far_rows * np.int32(last_column + 1) + np.clip(2 * columns - old_columns + left, 0, last_column)
    nearest = (rows + top) * np.int32(last_column + 1) + columns + left
    mirrored = np.take(view.reshape(-1, 3), np.where(np.take(blocked, far) > 0, nearest, far), axis=0)
    # Where mirror images of two places meet, deep inside, they are ragged.
    soft = cv2.GaussianBlur(mirrored, (0, 0), max(0.8, _RAGGED * eye_distance))
    out = view.copy()
    share = np.minimum(deep / np.float32(_DEEP * eye_distance), 1)
    out[top : y + height + 1, left : x + width + 1] = mixed(mirrored, soft, share)
    return out
