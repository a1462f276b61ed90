"""Skin tone and light as a smooth field, so that a texture can be taken out of one light and put into another.

In log space a face is detail plus light. The light of a colour channel is a cubic polynomial over the canonical frame,
fitted robustly (Tukey's biweight) to the skin: ten numbers carry no face. Outside the skin, where polynomials explode,
it is read at the nearest place inside. What light does on a face that is finer, the shade beside a nose or the shine on
a forehead, is a mean and a few directions of many portraits (shipped/shading.md): a new face has the photo's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.synthesis.base import Extent, Floats, Mask
from anonlib.synthesis.canonical import SIZE, canonical_frame, enlarged, filled

REPLACED: dict[Extent, tuple[float, float, float]] = {"skin": (0.93, 0.80, 1.03), "wide": (1.10, 1.28, 1.06)}
"""How far out every px is replaced, of the oval: sideways, up, down. Past that only skin is."""
STEP = 4
"""The light is fitted on every fourth px, each way: it is smooth."""
_STIFF = (300, 100, 30, 10, 5, 3, 3)
"""Times _RIDGE, in each round: were it curved at first, the light would follow hair at the sides."""
_TUKEY = 2.5
_SHINE = (1, 1, 1, 1.3, 1.3, 1.3, 1)
"""How much further off is what is brighter, for the next round: at last the light of skin is without its shine."""
SPREAD = 1.4826  # standard deviation over median absolute deviation, of a Gaussian
_SPREADS = (0.03, 0.25)
"""Bounds of what is believed of the spread of skin, log units: past the upper one half the face is not skin."""
_GREYER = 2.0  # how much more it says that red is less over blue than that a channel is
STRICT = 0.14  # spread past which what is weighed is not more spread
_LEAST = 20  # px of the middle that must be seen for the fit to start from it
_RIDGE = 1e-3
_CLEAR = 0.35
_MIDDLE_UP, _MIDDLE_SIDE = 6, 0.75  # the middle of the face: so many px above the brows, so far across
_SIDE_RAMP = 3.0  # how soon the zone beside a face begins
_REACH, _NO_TONE, _TONES = (6.0, 2.0), 0.05, (1.5, 2.5)
"""Standard deviations, coarse px, of the Gaussians under which a skin's brightness and its colour are taken over (with
brightness under 2 a recognizer names three times as many people); the weight of no tone; how many spreads off the
light skin is below the nose, where there may be a beard, and above."""
_SHINING = 0.15  # log units brighter than its light at which skin shines
_NO_SHADE, _FURTHEST = 0.4, 2.0
"""Log units off the mean shading at which what is seen is hardly shading; standard deviations that it is at most off
the mean along each direction."""
SHADE = np.array([0.80, 1.03, 1.17], np.float32)
"""How much darker red, green and blue are where skin is darker by 1 log unit: the mean of the gallery's faces."""
_SHADE_LIMITS, _SHADE_PRIOR, _NO_SKIN = (0.65, 1.35), 50.0, 0.5
_FLOOR = 4.0  # added to 0-255 values before the logarithm, so that black noise does not dominate
_POWERS = np.array([(i, j) for i in range(4) for j in range(4 - i)])  # of x and y in each monomial (10, 2)
_PENALTY = np.diag(_POWERS.sum(axis=1).astype(np.float64) ** 2)
"""Ridge on everything but the constant, harder on higher degrees."""
_BROWS = (*topology.LEFT_BROW, *topology.RIGHT_BROW)
_NOT_SKIN = (
    *((topology.LEFT_EYE, 1.5), (topology.RIGHT_EYE, 1.5), (topology.LEFT_BROW, 1.3), (topology.RIGHT_BROW, 1.3)),
    (topology.LIPS_OUTER, 1.15),
)


def to_log(texture: Floats) -> Floats:
    """0-255 -> log space."""
    return np.asarray(cv2.log(np.float32(_FLOOR) + texture), np.float32).reshape(texture.shape)


def from_log(values: Floats) -> Floats:
    """Log space -> 0-255, clipped."""
    out = np.asarray(cv2.exp(values), np.float32).reshape(values.shape)
    out -= _FLOOR
    return np.clip(out, 0.0, 255.0, out=out)


def furthest(residual: Floats) -> Floats:
    """The largest distance of any channel, (h, w, 3) -> (h, w); channel by channel, which is much the fastest."""
    red, green, blue = cv2.split(np.abs(residual))
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.float32)


def unlike(residual: Floats) -> Floats:
    """How far (h, w) what is seen is from skin, of a residual (h, w, 3), log: of any channel, and in how grey it is,
    which a face's skin is alike in, unlike hair, but for what shines, which is brighter too."""
    red, _, blue = cv2.split(residual)
    grey = blue - red - np.maximum(brightness_of(residual), 0)
    return np.asarray(cv2.max(furthest(residual), np.float32(_GREYER) * grey), np.float32)


def brightness_of(residual: Floats) -> Floats:
    """The mean of the channels, (h, w, 3) -> (h, w)."""
    return np.asarray(cv2.transform(residual, np.full((1, 3), 1 / 3)), np.float32)


@cache
def skin_region() -> Mask:
    """Canonical px (S, S) that are skin on any face: inside the oval, without eyes, brows, nostrils and mouth."""
    frame = canonical_frame()
    region = frame.polygon(topology.OVAL, 0.94)
    for part, grow in _NOT_SKIN:
        region &= ~hull_of(frame.points[list(part)], grow)
    return region


@cache
def middle() -> Mask:
    """The skin (S, S) from the brows to the upper lip, without the rim: what no hair, cap or scarf reaches."""
    points = canonical_frame().points
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    top = float(points[list(_BROWS), 1].mean()) - _MIDDLE_UP
    bottom = float(points[list(topology.LIPS_OUTER), 1].mean())
    half_width = float(np.ptp(points[list(topology.OVAL), 0])) / 2
    inside = (rows > top) & (rows < bottom) & (np.abs(columns - SIZE / 2) < _MIDDLE_SIDE * half_width)
    return np.asarray(skin_region() & inside, np.bool_)


@cache
def hair_zone() -> Floats:
    """Where hair may lie over a face, (S, S) 0-1: 0 from brows to jaw, 1 on the rim of the forehead and beyond. In this
    zone a px is asked whether it is skin; outside it every px is face."""
    points = canonical_frame().points
    oval, eye_line = points[list(topology.OVAL)], float(points[list(topology.LEFT_EYE), 1].mean())
    lower = oval[oval[:, 1] > eye_line]
    lower = lower.mean(axis=0) + (lower - lower.mean(axis=0)) * np.array([0.97, 1.0])
    core = hull_of(np.concatenate([lower, points[list(_BROWS)]]).astype(np.float32), 1.0)
    zone = cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(np.clip(zone / (0.05 * SIZE), 0, 1), np.float32)


@cache
def side_zone() -> Floats:
    """Where what hangs down beside the face may cover it, (S, S) 0-1: 0 between the outer corners of the eyes, 1 at the
    outline, ending at the chin."""
    points = canonical_frame().points
    middle, half = SIZE / 2, float(np.ptp(points[list(topology.OVAL), 0])) / 2
    corner = middle - float(points[topology.LEFT_EYE_OUTER, 0])
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    mouth, chin = points[[topology.LIP_TOP, topology.CHIN], 1].tolist()
    out = np.clip(_SIDE_RAMP * (np.abs(columns - middle) - corner) / (half - corner), 0, 1)
    return np.asarray(out * np.clip(2 * (chin - rows) / (chin - mouth), 0, 1), np.float32)


@cache
def kept_zone(extent: Extent) -> Floats:
    """Where a photo may keep its hair, clothes and background, (S, S) 0-1: outside the oval times REPLACED, and nowhere
    from brows to jaw. Inside, every px is the surrogate's."""
    mask = filled(enlarged(canonical_frame().points[list(topology.OVAL)], REPLACED[extent]))
    return np.asarray(hair_zone() * (1 - cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 3)), np.float32)


@dataclass(frozen=True)
class Light:
    """`coefficients` (10, 3) of the field; `spread` of skin about it, log units; `clarity`: share of skin that fits."""

    coefficients: NDArray[np.float64]
    spread: float
    clarity: float

    def field(self, step: int = 1) -> Floats:
        """The light at every step-th px (S/step, S/step, 3), log."""
        side = SIZE // step
        return (_basis(step) @ self.coefficients.astype(np.float32)).reshape(side, side, 3)

    @property
    def tone(self) -> float:
        """Mean grey level of the skin in this light."""
        return float(from_log(self.field(STEP))[skin_region()[::STEP, ::STEP]].mean())


def fit_light(coarse: Floats, weight: Floats) -> Light:
    """The light of a log texture taken at every STEP-th px, (s, s, 3), where `weight` (s, s) >= 0 says what is seen.
    The middle of the face says what skin is, so that a cap or a scarf at the rim stays an outlier."""
    region, basis, central = _fitted()
    values = np.ascontiguousarray(coarse[region].T, np.float64)
    base = weight[region].astype(np.float64) + 1e-6
    seen = base > 1e-3
    skin = seen & central
    skin = skin if int(skin.sum()) >= _LEAST else seen
    # All channels together decide what is an outlier, from the median outwards: dark hair must not win the first round.
    start = np.median(values[:, skin], axis=1)[:, None] if skin.any() else values
    residual = np.abs(values - start).max(axis=0)
    for stiff, shine in zip(_STIFF, _SHINE, strict=True):
        spread = min(max(SPREAD * float(np.median(residual[skin])), _SPREADS[0]), _SPREADS[1]) if skin.any() else 0.1
        # Tukey's biweight of each px (n,), then ridge regression of the channels (3, n) on the monomials (10, n).
        robust = base * np.maximum(1 - (residual / (2 * _TUKEY * min(spread, STRICT))) ** 2, 0) ** 2
        weighted = basis * robust
        normal = weighted @ basis.T + stiff * _RIDGE * max(float(robust.sum()), 1.0) * _PENALTY
        coefficients = np.asarray(np.linalg.solve(normal, weighted @ values.T), np.float64)
        over = values - coefficients.T @ basis
        residual = np.abs(over).max(axis=0) * np.where(over.sum(axis=0) > 0, shine, 1.0)
    clarity = float((residual[seen] < _CLEAR).mean()) if seen.any() else 0.0
    return Light(coefficients, spread, clarity)


def tone_of(residual: Floats, spread: float) -> Floats:
    """What to add to the field, log (s, s, 3), so that it is as uneven as the photo's skin and meets neck and ears in
    their own tone: the `residual` (s, s, 3) of skin of this `spread`, without all that a Gaussian takes away."""
    bearded = np.arange(len(residual))[:, None] > canonical_frame().points[topology.NOSE_TIP, 1] / STEP
    weight = np.exp(-0.5 * (unlike(residual) / (np.where(bearded, *_TONES) * spread)) ** 2) * _bare()
    return _smooth(residual, (weight * residual.any(axis=2)).astype(np.float32))


def relit(detail: Floats) -> Floats:
    """A detail (S, S, 3) of any S, log, without what it gets of a photo instead: its tone and its shading."""
    side = len(_bare())
    coarse = np.asarray(cv2.resize(detail, (side, side), interpolation=cv2.INTER_AREA), np.float32)
    smooth = _smooth(coarse, _bare())
    change = np.asarray(-shading_of(coarse - smooth)[..., None] * SHADE - smooth, np.float32)
    return np.asarray(detail + cv2.resize(change, detail.shape[1::-1], interpolation=cv2.INTER_CUBIC), np.float32)


class Shadings(NamedTuple):
    """How light shades faces: the `mean` (s, s) and directions (d, s, s), log units of brightness, the standard
    deviation (d,) along each, the `region` (s, s) where they are read, and the `noise` that they leave there."""

    mean: Floats
    directions: Floats
    deviations: Floats
    region: Mask
    noise: float


@cache
def shadings() -> Shadings:
    """Those that ship (shading.md)."""
    with resources.files("anonlib.synthesis").joinpath("shipped/shading.npz").open("rb") as stream:
        stored = np.load(stream)
        mean, directions, deviations = (
            stored[name].astype(np.float32) for name in ("mean", "directions", "deviations")
        )
        return Shadings(mean, directions, deviations, stored["region"], float(stored["noise"]))


def shading_of(shades: Floats) -> Floats:
    """What of shades (s, s, 3), log, a face's light does to its brightness (s, s): by ridge regression on the shipped
    directions, so that a few numbers say it."""
    mean, directions, deviations, region, noise = shadings()
    grey = brightness_of(shades) - mean
    weight = (np.exp(-0.5 * (grey / _NO_SHADE) ** 2) * shades.any(axis=2))[region]
    basis = directions[:, region]
    normal = (basis * weight) @ basis.T + np.diag((noise / deviations) ** 2)
    numbers = np.linalg.solve(normal, (basis * weight) @ grey[region]).astype(np.float32)
    numbers = np.clip(numbers, -_FURTHEST * deviations, _FURTHEST * deviations)
    return np.asarray(mean + np.tensordot(numbers, directions, 1), np.float32)


def _smooth(values: Floats, weight: Floats) -> Floats:
    """Values (s, s, 3) that weigh (s, s) under a Gaussian: a wide one of brightness, a narrower one of colour."""
    brightness = brightness_of(values)
    grey = np.asarray(brightness[..., None] * SHADE, np.float32)
    # What shines is pale without being brighter for long: a grey stain, were its colour taken over.
    matt = weight * np.exp(-((np.maximum(brightness, 0) / _SHINING) ** 2))
    parts = (
        cv2.GaussianBlur(part * seen[..., None], (0, 0), reach)
        / (cv2.GaussianBlur(seen, (0, 0), reach) + _NO_TONE)[..., None]
        for part, seen, reach in zip((grey, values - grey), (weight, matt), _REACH, strict=True)
    )
    return np.asarray(sum(parts), np.float32)


@cache
def _bare() -> Floats:
    """Which coarse px (s, s) are skin if they look like it: not those of eyes, brows and mouth."""
    hull = canonical_frame().hull
    return np.where(hull, skin_region(), True)[::STEP, ::STEP].astype(np.float32)


def shade_of(residual: Floats) -> Floats:
    """SHADE in a photo, (3,), of what is not light, log (s, s, 3): some shadows and some skin are more colourful."""
    values = residual[middle()[::STEP, ::STEP] & (furthest(residual) < _NO_SKIN)]
    grey = values.mean(axis=1)
    slope = (grey @ values + _SHADE_PRIOR * SHADE) / (grey @ grey + _SHADE_PRIOR)
    return np.asarray(np.clip(slope, *_SHADE_LIMITS), np.float32)


@cache
def _basis(step: int) -> Floats:
    """Monomials to degree 3 at every step-th px, (S^2/step^2, 10), read at the nearest place of the skin."""
    region = canonical_frame().polygon(topology.OVAL, 0.94)
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(~region, return_distances=False, return_indices=True)
    smooth = [cv2.GaussianBlur(axis.astype(np.float64), (0, 0), 6) for axis in (columns, rows)]
    x, y = (2.0 * axis[::step, ::step].ravel() / SIZE - 1.0 for axis in smooth)
    return np.stack([x**i * y**j for i, j in _POWERS], axis=-1).astype(np.float32)


@cache
def _fitted() -> tuple[Mask, NDArray[np.float64], Mask]:
    """Which coarse px (s, s) are skin, and of these, (n,): the monomials (10, n), and which are of the middle."""
    region = skin_region()[::STEP, ::STEP]
    return region, _basis(STEP)[region.ravel()].T.astype(np.float64), middle()[::STEP, ::STEP][region]


def hull_of(points: Floats, grow: float) -> Mask:
    """The canonical px (S, S) inside the convex hull of points (n, 2), enlarged about their mean by `grow`."""
    centre = points.mean(axis=0)
    hull = cv2.convexHull((centre + (points - centre) * grow).astype(np.float32))
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillConvexPoly(mask, np.rint(hull * 16).astype(np.int32), 1, shift=4)
    return mask.astype(bool)
