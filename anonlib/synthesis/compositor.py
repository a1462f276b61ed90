"""A surrogate into a photograph: pose and expression stay the photo's, shape and texture become the surrogate's.

No px of the source's face is used: the photo gives pose, expression and light. Outside the oval skin is repainted;
hair, clothes and background stay, and so does a cap or a fringe that hides much of the forehead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from anonlib.faces.mesh import mouth_opening
from anonlib.synthesis.base import FaceTexture, Floats, Pixels
from anonlib.synthesis.canonical import (
    EYE_SPAN,
    SIZE,
    box_around,
    canonical_frame,
    filled,
    pose_of,
    sampled,
    shape_model,
    with_rings,
)
from anonlib.synthesis.light import STEP, from_log, kept_zone, toned
from anonlib.synthesis.occlusion import GLASSES_STEP, bare, glasses, mended, over_forehead, skin_of, without_rims
from anonlib.synthesis.textures.average import detail_of

_WHOLE = 0.98
_MARGIN = 0.1
_GREY_SPREAD, _GREY_SHARE = 16, 0.05


@dataclass(frozen=True)
class Rendered:
    """`patch` (h, w, 3) to lie at `origin` (x, y) of the photo; `alpha` (h, w) 0-1: how much of it is new. `coverage`:
    share of the source's face, brows to chin, that is hidden; `bare`: share of its skin that nothing covers."""

    patch: Pixels
    alpha: Floats
    origin: tuple[int, int]
    coverage: float
    bare: float = 1.0

    def paste(self, image: Pixels) -> None:
        """Put the patch into `image` (H, W, 3) in place."""
        (x, y), (height, width) = self.origin, self.alpha.shape
        image[y : y + height, x : x + width] = self.patch


@dataclass(frozen=True)
class Composite:
    """Where a surrogate of one shape goes in a photo: the photo's `view` (h, w, 3), its `ground` without what would
    stick out, canonical px `grid` (h, w, 2) and log `light` (h, w, 3) of each px; `opening` of the mouth;
    `eye_distance` px; else as in Rendered."""

    view: Pixels
    ground: Pixels
    grid: Floats
    light: Floats
    alpha: Floats
    opening: float
    eye_distance: float
    origin: tuple[int, int]
    coverage: float
    bare: float

    def paint(self, detail: Floats) -> Rendered:
        """A dressed detail (S, S, 3), log, put there."""
        synthetic = in_its_colours(self.view, from_log(laid(detail, self.grid, self.eye_distance) + self.light))
        mixed = self.ground + self.alpha[..., None] * (synthetic - self.ground)
        patch = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
        return Rendered(patch, self.alpha, self.origin, self.coverage, self.bare)


def render(image: Pixels, mesh: Floats, happy: float, texture: FaceTexture) -> Rendered:
    """Put `texture` where `mesh` (468, 3) px lies in `image` (H, W, 3), as `happy` (0-1) as the source looks."""
    composite = place(image, mesh, texture.shape)
    return composite.paint(texture.dressed(happy, composite.opening))


def place(image: Pixels, mesh: Floats, neutral: Floats) -> Composite:
    """Where a surrogate of `neutral` shape (468, 3) goes in an image (H, W, 3) whose face has `mesh` (468, 3) px."""
    frame, model = canonical_frame(), shape_model()
    pose = pose_of(mesh, model.mean)
    source = pose.undo(mesh)
    shape = neutral + model.expression_of(source)
    source_vertices, vertices = (pose.apply(with_rings(points)) for points in (source, shape))
    x0, y0, x1, y1 = box_around(np.concatenate([source_vertices, vertices])[:, :2], image.shape, _MARGIN)
    view = image[y0:y1, x0:x1]
    origin = np.array([x0, y0, 0], np.float32)
    source_vertices, vertices = source_vertices - origin, vertices - origin
    detail, light = detail_of(view, source_vertices, GLASSES_STEP)
    residual = np.ascontiguousarray(detail[:: STEP // GLASSES_STEP, :: STEP // GLASSES_STEP])
    # Where each px of the view lies in the canonical frame: of the source's face, and of the surrogate's.
    source_grid, source_covered = frame.map_out(source_vertices, y1 - y0, x1 - x0)
    grid, covered = frame.map_out(vertices, y1 - y0, x1 - x0)
    light_out = sampled(light.field(STEP), grid, STEP)
    skin = skin_of(view, light_out, light.spread, pose.scale)
    covering = over_forehead(residual, light.spread)
    ground, hat = mended(view, skin, sampled(covering, source_grid, STEP), pose.scale)
    if glasses(detail) > 0:
        ground = without_rims(ground, source_vertices, pose.scale)
    zone = sampled(kept_zone(), grid)
    feather = cv2.remap(_feather(), grid[..., 0], grid[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    # Outside the oval enlarged (zone) only skin is repainted, and what covers the forehead (hat) stays.
    alpha = feather * np.minimum(1 - zone * (1 - skin), 1 - hat) * covered
    alpha = np.asarray(cv2.GaussianBlur(alpha.astype(np.float32), (0, 0), max(0.6, pose.scale * 0.012)), np.float32)
    inside = source_covered & (sampled(frame.hull.astype(np.float32), source_grid) > 0.5)
    face = inside & (np.maximum(zone, hat) < 0.5)
    # Px of the source's face that the surrogate's outline does not reach are filled from the background.
    left = face & (alpha < _WHOLE)
    if left.any():
        hole = cv2.dilate(left.astype(np.uint8), np.ones((3, 3), np.uint8))
        ground = np.asarray(cv2.inpaint(ground, hole, 3, cv2.INPAINT_TELEA), np.uint8)
    coverage = 1.0 - float(left.sum()) / max(int(face.sum()), 1)
    shown, light_out = bare(residual, light.spread), light_out + sampled(toned(residual, light.spread), grid, STEP)
    opening = mouth_opening(shape)
    return Composite(view, ground, grid, light_out, alpha, opening, pose.scale, (x0, y0), coverage, shown)


def laid(detail: Floats, grid: Floats, eye_distance: float) -> Floats:
    """A detail (S, S, 3) of any S read at canonical px `grid` (h, w, 2) of a photo with this eye distance, shrunk first
    where the photo is coarser, since cv2.remap does not average what it skips."""
    wanted = round(eye_distance / EYE_SPAN)
    if len(detail) > SIZE and wanted < len(detail):
        detail = np.asarray(cv2.resize(detail, (wanted, wanted), interpolation=cv2.INTER_AREA), np.float32)
    return sampled(detail, (grid + 0.5) * np.float32(len(detail) / SIZE) - 0.5)


def in_its_colours(view: Pixels, pixels: Floats) -> Floats:
    """New px (h, w, 3), without colour where they go into a view (h, w, 3) of a photo without colour."""
    red, green, blue = cv2.split(view)
    spread = cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue)
    if float((spread > _GREY_SPREAD).mean()) > _GREY_SHARE:
        return pixels
    return np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)


@cache
def _feather() -> Floats:
    """(S, S): 1 up to the first ring, falling to 0 at the second."""
    points = canonical_frame().points
    inner, outer = filled(points[468:504]), filled(points[504:540])
    to_inner = cv2.distanceTransform(1 - inner, cv2.DIST_L2, 5)
    to_outside = cv2.distanceTransform(outer, cv2.DIST_L2, 5)
    ramp = to_outside / np.maximum(to_outside + to_inner, 1e-6)
    return np.where(inner > 0, 1.0, ramp).astype(np.float32)
