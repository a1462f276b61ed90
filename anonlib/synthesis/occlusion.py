"""What lies over a face and is not face: a cap, a fringe, a hand, a microphone, glasses.

It is read from the residual: the photo's log texture less the light fitted to its skin, at every STEP-th px of the
canonical frame. Wearers of glasses (logistic regression, see shipped/glasses.md) are not averaged: frames become
ghosts.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import cv2
import numpy as np

from anonlib.faces import topology
from anonlib.synthesis.base import Extent, Floats, Mask, Pixels
from anonlib.synthesis.canonical import SIZE, canonical_frame
from anonlib.synthesis.light import STEP, Light, furthest, hair_zone, kept_zone, skin_region

_SPREADS = 2.5
_LEAST = 0.35  # log units: what differs less from the skin may be skin
DIM = 20.0  # grey levels by which shades of dark skin are brought nearer to each other
_ABOVE_BROWS = 2  # coarse px above the brows at which the forehead begins
_RUN = 2  # coarse px of something else, one above the other, that end the forehead
_ACROSS, _MOSTLY = (7, 1), 0.6
_DEEP = (0.16, 0.26)
"""Shares of the forehead inside the oval: covered less than the first it counts as bare, past the second as covered."""
GLASSES_STEP = 2
"""The readout works on every second px of the canonical frame."""
_UP, _DOWN, _SIDE = 36, 52, 16
_CELL = 2
_BRIGHTNESS = 0.5
_BESIDE = ((-0.1, -0.4), (-0.1, 0.5), (0.7, -0.4), (0.7, 0.5))
"""Corners of the band beside an eye: outwards from its outer corner and down, eye distances."""
_RIM, _STANDS_OUT, _BUSY = 0.2, 12, 80
"""Frames are thinner than this, eye distances, differ by so many grey levels from what is around them, and by more than
this per cent of the px beside an eye."""


def _foreign(residual: Floats, spread: float) -> Mask:
    """Which coarse px (s, s) of a residual (s, s, 3) cannot be skin, whose residuals have this spread."""
    off = cv2.GaussianBlur(furthest(residual), (0, 0), 0.7)
    return np.asarray(off > max(_LEAST, _SPREADS * spread), np.bool_)


def over_forehead(residual: Floats, spread: float, extent: Extent) -> Floats:
    """How surely each coarse px (s, s), 0-1, lies above the end of the bare forehead, the first run of px over the
    brows that cannot be skin. Only what covers much of it is kept: a hairline helps to recognize its owner."""
    other, (forehead, inside, painted, _) = _foreign(residual, spread), _zones(extent)
    run = cv2.erode((other & forehead).astype(np.uint8), np.ones((_RUN, 1), np.uint8), anchor=(0, _RUN - 1))
    above = np.maximum.accumulate(run[::-1], axis=0)[::-1].astype(np.float32)
    # A shadow or a brim as pale as skin is painted over like skin: what is kept must be something else throughout.
    painted = above * painted
    mass = cv2.blur(painted.sum(axis=0)[None], _ACROSS)
    share = cv2.blur((painted * other).sum(axis=0)[None], _ACROSS) / np.maximum(mass, 1e-3)
    smooth = cv2.GaussianBlur(above * (share > _MOSTLY), (0, 0), sigmaX=2.0, sigmaY=0.8)
    covering = smooth * hair_zone()[::STEP, ::STEP]
    low, high = _DEEP
    return np.asarray(covering * np.clip((covering[inside].mean() - low) / (high - low), 0, 1), np.float32)


def bare(residual: Floats, light: Light) -> float:
    """Share of the skin from brows to jaw that nothing covers, of what the photo shows of it; 0 if it shows none. The
    residual is that of this light."""
    seen = _zones("wide")[3] & residual.any(axis=2)
    # In dark skin a few grey levels are much in log space, so DIM is added to what is compared.
    level = np.exp(light.field(STEP))
    change = np.log((level * np.exp(residual) + DIM) / (level + DIM)).astype(np.float32)
    return float(1.0 - _foreign(change, light.spread)[seen].mean()) if seen.any() else 0.0


@cache
def readout() -> tuple[Floats, float]:
    """The shipped readout: weight of each feature and a bias; the logit is above 0 with glasses."""
    with resources.files("anonlib.synthesis").joinpath("shipped/glasses.npz").open("rb") as stream:
        data = np.load(stream)
        return data["weight"].astype(np.float32), float(data["bias"])


def glasses(detail: Floats) -> float:
    """Logit that a face with this detail (S/GLASSES_STEP, S/GLASSES_STEP, 3), log, wears glasses."""
    weight, bias = readout()
    return float(features(detail) @ weight + bias)


def features(detail: Floats) -> Floats:
    """Edge strengths along and across, and brightness, in cells of the eye region, one vector."""
    points = canonical_frame().points
    left, right = points[topology.LEFT_EYE_OUTER], points[topology.RIGHT_EYE_OUTER]
    rows = slice(int(left[1] - _UP) // GLASSES_STEP, int(left[1] + _DOWN) // GLASSES_STEP)
    columns = slice(int(left[0] - _SIDE) // GLASSES_STEP, int(right[0] + _SIDE) // GLASSES_STEP)
    eyes = detail[rows, columns].mean(axis=2)
    size = (eyes.shape[1] // _CELL, eyes.shape[0] // _CELL)
    edges = [np.abs(cv2.Sobel(eyes, cv2.CV_32F, dx, 1 - dx)) for dx in (0, 1)]
    cells = [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in (*edges, eyes * _BRIGHTNESS)]
    return np.stack(cells).ravel().astype(np.float32)


def without_rims(view: Pixels, vertices: Floats, eye_distance: float) -> Pixels:
    """The view (h, w, 3) of a wearer with thin lines beside the eyes replaced by what is around them:
    rims beyond a far cheek and arms lie where no surrogate hides them. `vertices` (468+, 2+) px of the view."""
    band = np.zeros(view.shape[:2], np.uint8)
    left, right = vertices[topology.LEFT_EYE_OUTER, :2], vertices[topology.RIGHT_EYE_OUTER, :2]
    for start, other in ((left, right), (right, left)):
        along = (start - other) / max(float(np.linalg.norm(start - other)), 1e-6)
        across = np.array([-along[1], along[0]])
        reach = [start + eye_distance * (length * along + side * across) for length, side in _BESIDE]
        cv2.fillConvexPoly(band, cv2.convexHull(np.rint(reach).astype(np.int32)), 1)
    rows, columns = np.flatnonzero(band.any(axis=1)), np.flatnonzero(band.any(axis=0))
    if not len(rows):
        return view
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    calm = cv2.medianBlur(np.ascontiguousarray(view[part]), 2 * max(1, round(_RIM * eye_distance)) + 1)
    away = cv2.absdiff(calm, view[part]).max(axis=2)
    # Among curls or blinds, which stand out as much, an arm is what stands out most.
    line = (away > max(_STANDS_OUT, float(np.percentile(away[band[part] > 0], _BUSY)))) & (band[part] > 0)
    line = cv2.dilate(line.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    out = view.copy()
    out[part][line] = calm[line]
    return out


@cache
def _zones(extent: Extent) -> tuple[Mask, Mask, Floats, Mask]:
    """Coarse px (s, s): above the brows; of these, inside the oval; how far they would be the surrogate's if nothing
    lay there, 0-1; and the skin below the tops of the brows."""
    frame = canonical_frame()
    brows = float(frame.points[[*topology.LEFT_BROW, *topology.RIGHT_BROW], 1].min()) / STEP
    rows = np.arange(SIZE // STEP)[:, None]
    forehead = np.broadcast_to(rows < brows - _ABOVE_BROWS, (SIZE // STEP,) * 2)
    inside = frame.polygon(topology.OVAL, 0.97)[::STEP, ::STEP] & forehead
    painted = (1 - kept_zone(extent)[::STEP, ::STEP]) * forehead
    return forehead, inside, painted, skin_region()[::STEP, ::STEP] & (rows > brows)
