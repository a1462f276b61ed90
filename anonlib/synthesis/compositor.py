"""A surrogate into a photograph: pose and expression stay the photo's, shape and texture become the surrogate's.

No px of the source's face is used: the photo gives pose, expression, light and grain. Hair, caps and scarves stay
before the new face (matte.py), which ends at its own outline; in the region `wide` skin beyond it is repainted too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.faces.mesh import mouth_opening
from anonlib.synthesis.base import Extent, FaceTexture, Floats, Mask, Pixels
from anonlib.synthesis.canonical import (
    RINGS,
    SIZE,
    box_around,
    canonical_frame,
    enlarged,
    filled,
    laid,
    outer_frame,
    pose_of,
    sampled,
    shape_model,
    shrunk,
    split,
    with_rings,
)
from anonlib.synthesis.eyes import Eyes, draw_eyes, with_lids
from anonlib.synthesis.light import (
    SHADE,
    SPREAD,
    STEP,
    STRICT,
    Light,
    brightness_of,
    from_log,
    furthest,
    hair_zone,
    kept_zone,
    relit,
    shade_of,
    shading_of,
    side_zone,
    skin_region,
    tone_of,
)
from anonlib.synthesis.matte import BEYOND, Cover, around, beard, coarser, finer, matte, mixed, outlined, ramp
from anonlib.synthesis.mouth import Mouth, draw_mouth, with_lips
from anonlib.synthesis.occlusion import DIM, GLASSES_STEP, glasses, over_forehead, without_rims
from anonlib.synthesis.skin import Grain, as_sharp, as_strong, relief_at, seed_of
from anonlib.synthesis.textures.average import detail_of, to_side

_EXPRESSION = 8
"""Directions of expression that a new face takes over: more tell whose it is, and no mouth opens better for them
(shape_model.md)."""
_WHOLE, _SHOWS = 0.98, 0.05
_MARGIN = 0.1
_EDGE: dict[Extent, tuple[tuple[float, float, float], ...]] = {
    "skin": ((0.99, 1.10, 0.995), (1.04, 1.36, 1.02)),
    "wide": RINGS,
}
"""Between which factors over the oval a surrogate ends: sideways, up, down."""
_FINE = 4
_COARSE = 45.0
"""Px between the eyes at which what is smooth is fine enough."""
_MIDDLE = np.array([0.5, 0.5, 0], np.float32)  # of a px
_DIMMED = np.log(np.arange(256, dtype=np.float32) + np.float32(DIM))
_RIM, _CALM, _SKIN, _FOLD = 0.94, (0.84, 0.95), 0.07, 0.2
"""Of the oval: how far out it is sampled, and from where to where what it shows comes down to skin, log units; how far
what it shows is from skin elsewhere."""
_WIDEST, _JAW = [7, 29], [12, 24]  # points of the oval between which a face is widest, and its jaw
_NOSE = (4, 48, 64, 98, 97, 2, 326, 327, 294, 278)  # points around its tip and nostrils
_BROW = 1.15  # how far around brows and lips what is strong about them is read
_SOFT = 0.009  # how softly it ends at cheeks and chin, eye distances
_ABOVE = 12.0  # canonical px over the eyes within which what lies beside a face comes to lie before it
_SURE, _ALIKE = 0.9, 1.5  # px of skin; spreads
_HAIR = 0.15  # share of hair beside eyes and ears from which it is shown behind a new face
_GREY_SPREAD, _GREY_SHARE = 16, 0.05
_WHITE, _LEAST_ROOM, _COLOUR = 5.5, 0.1, 0.12
"""Log: the brightest that a detail makes skin, and what it may brighten it by at least; how far its colour goes."""


@dataclass(frozen=True)
class Rendered:
    """`patch` (h, w, 3) to lie at `origin` (x, y) of the photo; `alpha` (h, w) 0-1: how much of it is new. `coverage`:
    share of the source's face, brows to chin, that is hidden."""

    patch: Pixels
    alpha: Floats
    origin: tuple[int, int]
    coverage: float

    def paste(self, image: Pixels) -> None:
        """Put the patch into `image` (H, W, 3) in place."""
        (x, y), (height, width) = self.origin, self.alpha.shape
        image[y : y + height, x : x + width] = self.patch


@dataclass(frozen=True)
class Composite:
    """Where a surrogate of a neutral `shape` (468, 3) goes in a photo: the photo's `view` (h, w, 3), its `ground`
    without what would stick out, canonical px `grid` (h, w, 2) and log `light` (h, w, 3) of each px, the `shade` (3,)
    of its skin, `skin_grid` where its relief is read, how surely it is `skin` (h, w), and one of the `features` (h, w),
    brows and lips; the `part` that is painted, in whose px its `eyes` and `mouth` are; the `grain` of its skin, the
    `opening` of the mouth and the `eye_distance` px; else as in Rendered."""

    view: Pixels
    ground: Pixels
    grid: Floats
    light: Floats
    shade: Floats
    alpha: Floats
    eyes: Eyes
    mouth: Mouth
    grain: Grain
    shape: Floats
    skin_grid: Floats
    skin: Floats
    features: Floats
    opening: float
    eye_distance: float
    part: tuple[slice, slice]
    origin: tuple[int, int]
    coverage: float

    def paint(self, detail: Floats, happy: float, age: float) -> Rendered:
        """A dressed detail (S, S, 3), log, put there, so `happy` (0-1), with skin of this `age` (years)."""
        part = self.part
        light, alpha, patch = self.light[part], self.alpha[part], self.ground.copy()
        shown = calmed(relit(shrunk(detail, self.eye_distance)))
        pixels = from_log(lit(laid(shown, self.grid[part]), light, self.shade))
        pixels = draw_mouth(draw_eyes(pixels, self.eyes, light), self.mouth, light, happy)
        relief = relief_at(self.skin_grid[part], self.eye_distance, self.shape, age)
        skin = self.skin[part] * (alpha > _SHOWS)
        pixels = as_strong(in_its_colours(self.view, pixels), self.grain, self.features[part] * (alpha > _WHOLE))
        sharp = as_sharp(pixels, self.grain, skin, relief, seed_of(self.shape))
        patch[part] = mixed(patch[part], cv2.convertScaleAbs(sharp), alpha)
        return Rendered(patch, self.alpha, self.origin, self.coverage)


def _box(alpha: Floats) -> tuple[slice, slice]:
    """The part of a mask (h, w) that is not empty; all of an empty one."""
    rows, columns = (np.flatnonzero(alpha.any(axis=axis)) for axis in (1, 0))
    return np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else np.s_[:, :]


def render(
    image: Pixels,
    mesh: Floats,
    happy: float,
    texture: FaceTexture,
    extent: Extent = "skin",
    gaze: Floats | None = None,
    light: Light | None = None,
) -> Rendered:
    """Put `texture` where `mesh` (468, 3) px lies in `image` (H, W, 3), as `happy` (0-1) as the source looks, with its
    `gaze` (8,) of faces/gaze.py, in this `light` or that of the image."""
    composite = place(image, mesh, texture.shape, extent, gaze, happy, light)
    return composite.paint(texture.dressed(happy, composite.opening), happy, texture.age)


def place(
    image: Pixels,
    mesh: Floats,
    neutral: Floats,
    extent: Extent = "skin",
    gaze: Floats | None = None,
    happy: float = 0.0,
    light: Light | None = None,
) -> Composite:
    """Where a surrogate of `neutral` shape (468, 3) goes in an image (H, W, 3) whose face has `mesh` (468, 3) px, and
    looks so (`gaze`, `happy`, `light`: see render)."""
    frame, model, oval = canonical_frame(), shape_model(), list(topology.OVAL)
    pose = pose_of(mesh, model.mean)
    source = pose.undo(mesh)
    shape = as_large(neutral + model.expression_of(source, _EXPRESSION), source)
    shape = with_lips(with_lids(shape, source, gaze), source, happy)
    source_vertices, vertices = (pose.apply(with_rings(points)) for points in (source, shape))
    x0, y0, x1, y1 = box_around(np.concatenate([source_vertices, vertices])[:, :2], image.shape, _MARGIN)
    # What is smooth is computed at every step-th px: where it lies in the canonical frame of the source's face, and of
    # the surrogate's, and what is known of that place.
    step, height, width = max(1, round(pose.scale / _COARSE)), y1 - y0, x1 - x0
    border = 0, -height % step, 0, -width % step
    view = np.asarray(cv2.copyMakeBorder(image[y0:y1, x0:x1], *border, cv2.BORDER_REPLICATE), np.uint8)
    origin = np.array([x0, y0, 0], np.float32)
    source_vertices, vertices = source_vertices - origin, vertices - origin
    detail, light = detail_of(view, source_vertices, GLASSES_STEP, light)
    residual = np.ascontiguousarray(detail[:: STEP // GLASSES_STEP, :: STEP // GLASSES_STEP])
    size = view.shape[0] // step, view.shape[1] // step
    source_grid, _ = outer_frame().map_out(_coarser(source_vertices, step), *size)
    grid, covered = frame.map_out(_coarser(vertices, step), *size)
    grid = _spilled(grid, covered)
    light_out = sampled(light.field(STEP), grid, STEP)
    zone, feather, inner, skin_here, features_here = split(sampled(_of_surrogate(extent), grid))
    source_zone, hull, features_there, skin_there, source_sides = split(sampled(_of_source(extent), source_grid))
    reached = cv2.GaussianBlur(covered.astype(np.float32), (0, 0), 1.0)
    maps = feather, hull, skin_here, skin_there, reached, features_here, features_there
    fine = [np.asarray(finer(of, step), np.float32) for of in maps]
    feather, hull, skin_here, skin_there, reached, features_here, features_there = fine
    inside = hull > 0.5
    cover = Cover(
        np.minimum(zone, source_zone),
        np.minimum(sampled(side_zone(), grid), source_sides),
        np.clip((float(frame.points[topology.LEFT_EYE_OUTER, 1]) - grid[..., 1]) / _ABOVE, 0, 1),
        sampled(over_forehead(residual, light.spread, extent), source_grid, STEP),
    )
    # Of a dark channel a few grey levels are much in log space, so _DIM is added to what is compared.
    bared = view
    if glasses(detail) > 0:
        bared = np.where(inside[..., None], without_rims(view, source_vertices, pose.scale), view)
    skin = from_log(light_out)
    unlike = np.asarray(cv2.LUT(bared, _DIMMED), np.float32) - finer(np.log(skin + np.float32(DIM)), step)
    distance, thin = furthest(unlike), np.s_[::step, ::step]
    spread = min(SPREAD * float(np.median(distance[thin][inside[thin]])), STRICT) if inside[thin].any() else STRICT
    kept, ground = matte(bared, unlike, spread, inside, cover, pose.scale, step)
    temples = finer(sampled(_temples(), source_grid), step)
    if extent == "skin":
        # Below the eyes it ends at the outline as the photo would show it.
        seen = filled(vertices[oval, :2], *inside.shape)
        seen[finer(inner, step) > 0.5] = 1  # a cheek that hides the far part of the oval
        outline = cv2.GaussianBlur(seen.astype(np.float32), (0, 0), max(0.6, _SOFT * pose.scale))
        outline = np.minimum(1.5 * outline, 1)
        feather = outline + finer(cover.above, step) * (np.maximum(feather, outline) - outline)
        # Beside eyes and ears a head is too narrow to be filled from beside it, so all of the source's face is covered.
        wide = cv2.dilate(hull, around(BEYOND * pose.scale))
        feather = np.maximum(feather, temples * cv2.GaussianBlur(wide, (0, 0), max(0.6, _SOFT * pose.scale)))
    alpha = feather * (1 - kept) * ramp(reached, (0.4, 0.6))
    alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), max(0.5, pose.scale * 0.004)), np.float32)
    # What is beside the source's outline moves to the surrogate's, so that none of the face is left between them.
    face = inside & (kept < 0.5)
    strap = beard(coarser(unlike, step), coarser(inside.astype(np.float32), step) > 0.5, source_grid, pose.scale / step)
    bearded = finer(strap, step) > 0.5
    face |= bearded
    bare = bearded | (inside & (kept < 0.5 - (0.5 - _HAIR) * temples))
    ground = outlined(ground, bare, source_vertices[oval, :2], vertices[oval, :2], _pull(), pose.scale)
    left = face & (alpha < _WHOLE)
    coverage = 1.0 - float(left.sum()) / max(int(face.sum()), 1)
    tone = tone_of(residual, light.spread)
    beside = (distance < _ALIKE * light.spread) & ~(inside | (alpha > _SHOWS))
    grain = Grain.of(view, skin_there > _SURE, beside, face & (features_there > _SURE), pose.scale)
    read = np.where(covered[..., None], sampled(_rim(), grid), grid) if extent == "skin" else grid
    shade = shade_of(residual)
    shading = sampled(shading_of(residual - tone), grid, STEP)
    smooth = light_out + sampled(tone, read, STEP)
    field = finer(smooth + below_white(shading, smooth)[..., None] * shade, step)
    whole: tuple[NDArray[Any], ...] = (view, ground, finer(read, step), field, alpha, finer(grid, step))
    view, ground, read, field, alpha, grid, skin, features = (
        np.asarray(of[:height, :width]) for of in (*whole, skin_here, features_here)
    )
    part = _box(alpha)
    drawn = vertices - np.array([part[1].start or 0, part[0].start or 0, 0], np.float32)
    looks = Eyes.of(drawn, gaze, neutral), Mouth.of(drawn, pose.scale), grain, neutral
    rest = (*looks, grid, skin, features, mouth_opening(shape), pose.scale, part, (x0, y0), coverage)
    return Composite(view, ground, read, field, shade, alpha, *rest)


def as_large(shape: Floats, source: Floats) -> Floats:
    """A surrogate's shape (468, 3) in the mean face's outline, made as wide at eyes and jaw, and as high above and
    below the middle, as a source (468, 3): a face that is wider than its head covers ears and background."""
    mean = shape_model().mean[list(topology.OVAL), :2]
    own, its = (of[list(topology.OVAL), :2] for of in (shape, source))
    centre = mean.mean(axis=0)
    wide, high = (mean - centre).T
    across = [np.ptp(its[pair, 0]) / np.ptp(mean[pair, 0]) for pair in (_WIDEST, _JAW)]
    wide = wide * np.interp(mean[:, 1], [mean[pair, 1].mean() for pair in (_WIDEST, _JAW)], across)
    up, down = ((of(its[:, 1]) - centre[1]) / of(high) for of in (np.min, np.max))
    new = np.stack([its[_WIDEST, 0].mean() + wide, centre[1] + high * np.where(high < 0, up, down)], axis=1)
    # All points move as the outline does in their direction, those in the middle not at all.
    turns = [np.arctan2(*(of[:, :2] - centre).T) for of in (own, shape)]
    order = np.argsort(turns[0])
    parts = np.column_stack([new - own, np.linalg.norm(own - centre, axis=1)])[order]
    *moves, reach = (np.interp(turns[1], turns[0][order], part, period=2 * np.pi) for part in parts.T)
    share = np.clip(np.linalg.norm(shape[:, :2] - centre, axis=1) / reach, 0, 1) ** 4
    moved = shape.copy()
    moved[:, :2] += share[:, None] * np.stack(moves, axis=1)
    return moved


def _coarser(vertices: Floats, step: int) -> Floats:
    """Vertices (n, 3) in px that are `step` times as large."""
    return np.asarray((vertices + _MIDDLE) / step - _MIDDLE, np.float32)


def _spilled(grid: Floats, covered: Mask) -> Floats:
    """A grid (h, w, 2) whose px that are not `covered` (h, w) are as those beside them, so that nothing is mixed with
    the corner of the frame."""
    known = cv2.merge([covered.astype(np.float32)] * 2)
    near = cv2.blur(grid * known, (3, 3)) / np.maximum(cv2.blur(known, (3, 3)), 1e-3)
    return np.asarray(np.where(known > 0, grid, near), np.float32)


def light_of(image: Pixels, mesh: Floats) -> Light:
    """The light on a face of an image (H, W, 3) with `mesh` (468, 3) px."""
    pose = pose_of(mesh, shape_model().mean)
    vertices = pose.apply(with_rings(pose.undo(mesh)))
    x0, y0, x1, y1 = box_around(vertices[:, :2], image.shape, _MARGIN)
    view = np.ascontiguousarray(image[y0:y1, x0:x1])
    return detail_of(view, vertices - np.array([x0, y0, 0], np.float32), STEP)[1]


def calmed(detail: Floats) -> Floats:
    """A detail (S, S, 3) of any S, log, without what is not skin at its rim, where donors have hair, ears and shade
    that a turned head would show large, and with folds and stains that are fainter on skin."""
    over = detail / cv2.merge([to_side(_limit(), len(detail))] * 3)
    return np.asarray(detail / cv2.sqrt(1 + over * over), np.float32)


def lit(detail: Floats, light: Floats, shade: Floats) -> Floats:
    """A detail (h, w, 3) in a light (h, w, 3), log, with shadows in the colours of the photo's (`shade`). What shines
    on dark skin would be white or orange stains on bright skin, so brightness nears white without reaching it, and what
    colour differs from skin is bounded."""
    grey = brightness_of(detail)
    dark_and_shine = cv2.merge([np.minimum(grey, 0), below_white(np.maximum(grey, 0), light)])
    out = light + cv2.transform(dark_and_shine, np.stack([shade, SHADE], axis=1))
    out += np.float32(_COLOUR) * _tanh(cv2.transform(detail, (np.eye(3) - SHADE[:, None] / 3) / _COLOUR))
    return out


def below_white(grey: Floats, light: Floats) -> Floats:
    """Brightness (h, w) to be added to a light (h, w, 3), log, which nears white without reaching it."""
    room = np.maximum(_WHITE + _least(-light), _LEAST_ROOM)
    return np.asarray(np.where(grey > 0, room * _tanh(grey / room), grey), np.float32)


def _least(values: Floats) -> Floats:
    """The smallest of the channels, (h, w, 3) -> (h, w)."""
    red, green, blue = cv2.split(values)
    return np.asarray(cv2.min(cv2.min(red, green), blue), np.float32)


def _tanh(values: NDArray[Any]) -> Floats:
    """The hyperbolic tangent of (h, w, ...), by cv2.exp, which is faster."""
    return np.asarray(1 - 2 / (cv2.exp(2 * values) + 1), np.float32)


@cache
def _limit() -> Floats:
    """How far a detail may be from skin (S, S), log: without end where eyes, brows, nose and mouth are, somewhat on
    skin, and little at the rim."""
    frame = canonical_frame()
    inner, outer = (frame.polygon(topology.OVAL, by).astype(np.uint8) for by in _CALM)
    to_inner, to_outer = (cv2.distanceTransform(mask, cv2.DIST_L2, 5) for mask in (1 - inner, outer))
    rim = to_inner / np.maximum(to_inner + to_outer, 1e-6)
    skin = skin_region() & ~frame.polygon(_NOSE, 1.25)
    folds = cv2.GaussianBlur(skin.astype(np.float32), (0, 0), 2)
    return np.asarray(1 / (folds / _FOLD + np.where(inner > 0, 0, rim) / _SKIN + 0.01), np.float32)


def in_its_colours(view: Pixels, pixels: Floats) -> Floats:
    """New px (h, w, 3), without colour where they go into a view (h, w, 3) of a photo without colour."""
    red, green, blue = cv2.split(view)
    spread = cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue)
    if float((spread > _GREY_SPREAD).mean()) > _GREY_SHARE:
        return pixels
    return np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)


@cache
def _of_surrogate(extent: Extent) -> Floats:
    """What is asked of a place on the surrogate's face, (S, S, 5): whether what lies there may stay, how far the
    surrogate reaches, whether it is well inside the oval, skin, a brow or a lip. Far outside all are as in the
    corner."""
    inner = canonical_frame().polygon(topology.OVAL, _RIM)
    return np.dstack([_zone(extent), _feather(extent), inner, skin_region(), _features()]).astype(np.float32)


@cache
def _of_source(extent: Extent) -> Floats:
    """The same of a place on the source's face, (S, S, 5): what may stay, whether it is inside the oval, a brow or a
    lip, skin, whether hair beside the cheeks may stay."""
    frame = canonical_frame()
    zones = [_zone(extent), frame.hull, _features(), skin_region(), side_zone()]
    return np.dstack(zones).astype(np.float32)


def _features() -> Mask:
    """Brows and lips (S, S), without what is drawn."""
    frame = canonical_frame()
    brows = frame.polygon(topology.LEFT_BROW, _BROW) | frame.polygon(topology.RIGHT_BROW, _BROW)
    return brows | (frame.polygon(topology.LIPS_OUTER, _BROW) & ~frame.polygon(topology.LIPS_INNER))


def _zone(extent: Extent) -> Floats:
    return hair_zone() if extent == "skin" else kept_zone(extent)


@cache
def _rim() -> Floats:
    """Where each canonical px reads a texture, (S, S, 2): where it is, but at cheeks and chin no further out than skin
    is on every face, since beyond it donors have ears, hair and collars."""
    inner = canonical_frame().polygon(topology.OVAL, _RIM)
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(~inner, return_distances=False, return_indices=True)
    nearest = cv2.GaussianBlur(np.stack([columns, rows], axis=-1).astype(np.float32), (0, 0), 2)
    own = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1).astype(np.float32)
    eyes = float(canonical_frame().points[topology.LEFT_EYE_OUTER, 1])
    below = np.clip((own[..., 1:] - eyes) / _ABOVE + 1, 0, 1) * ~inner[..., None]
    return np.asarray(own + below * (nearest - own), np.float32)


@cache
def _temples() -> Floats:
    """(S, S): 1 as far down as the tip of the nose, 0 from the lower lip on."""
    nose, lip = canonical_frame().points[[topology.NOSE_TIP, topology.LIP_BOTTOM], 1].tolist()
    down = np.clip((lip - np.arange(SIZE, dtype=np.float32)) / (lip - nose), 0, 1)
    return np.repeat(down[:, None], SIZE, axis=1)


@cache
def _pull() -> Floats:
    """How far what is beside each point of the oval moves with it, (2, 36) inwards and outwards: not at the forehead,
    inwards beside the cheeks, both ways below the chin."""
    points = canonical_frame().points
    height = points[list(topology.OVAL), 1]
    eyes, mouth, chin = points[[topology.LEFT_EYE_OUTER, topology.LIP_TOP, topology.CHIN], 1].tolist()
    inwards = np.clip((height - eyes) / (0.5 * (mouth - eyes)), 0, 1)
    return np.stack([inwards, np.clip((height - mouth) / (chin - mouth), 0, 1)]).astype(np.float32)


@cache
def _feather(extent: Extent) -> Floats:
    """(S, S): 1 as far as the surrogate reaches, falling to 0 just beyond."""
    oval = canonical_frame().points[list(topology.OVAL)]
    inner, outer = (filled(_FINE * enlarged(oval, by), _FINE * SIZE, _FINE * SIZE) for by in _EDGE[extent])
    to_inner = cv2.distanceTransform(1 - inner, cv2.DIST_L2, 5)
    to_outside = cv2.distanceTransform(outer, cv2.DIST_L2, 5)
    ramp = np.where(inner > 0, 1.0, to_outside / np.maximum(to_outside + to_inner, 1e-6))
    return np.asarray(cv2.resize(ramp, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.float32)
