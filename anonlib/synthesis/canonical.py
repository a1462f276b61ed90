"""The canonical frame, where textures live, and the two warps between it and a photograph.

The frame is the mean shape of the 468-point mesh (Procrustes), mouth ajar so that its inside has room, plus two rings
of points around the face oval, since what a mesh hull leaves outside gives people away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.synthesis.base import Floats, Mask, Pixels
from anonlib.workspace.schemas import MESH_POINTS

SIZE = 256
"""Side of the canonical frame in px."""
RINGS = ((1.12, 1.20, 1.06), (1.24, 1.42, 1.13))
"""Factors of each ring over the oval: sideways, up, down (from METHODS: 1.22, 1.38, 1.12)."""
_RING_DEPTH = (0.10, 0.28)
EYE_SPAN = 0.255
"""The eyes' distance, of the frame's side."""
_EYE_LINE = 0.445
_MOUTH_GAP = 0.22
_SLIVER = 4.0  # a triangle over which the frame changes so many times faster than over the whole face


@dataclass(frozen=True)
class ShapeModel:
    """What shapes are like: `mean` (468, 3) in eye distances; `expression` (1404, r) @ `read` (r, 1404) gives what of a
    shape varies within a person: the posterior mean in a two-factor Gaussian, W (W + B)^-1 with W and B the within- and
    between-person covariances."""

    mean: Floats
    expression: Floats
    read: Floats

    def expression_of(self, shape: Floats, directions: int | None = None) -> Floats:
        """The expression part (468, 3) of an aligned shape (468, 3), as an offset from the mean, along the first
        `directions`, by default all."""
        codes = self.read[:directions] @ (shape - self.mean).ravel()
        return np.asarray((self.expression[:, :directions] @ codes).reshape(-1, 3), np.float32)


@dataclass(frozen=True)
class Pose:
    """Canonical shape -> image px: `points * scale @ rotation.T + offset`, third coordinate depth (small is near)."""

    scale: float
    rotation: Floats
    offset: Floats

    def apply(self, points: Floats) -> Floats:
        return np.asarray(self.scale * points @ self.rotation.T + self.offset, np.float32)

    def undo(self, points: Floats) -> Floats:
        return np.asarray((points - self.offset) @ self.rotation / self.scale, np.float32)

    def angles(self) -> tuple[float, float, float]:
        """Yaw, pitch, roll in degrees; 0 looks into the camera."""
        r = self.rotation
        radians = np.arcsin(np.clip(-r[2, 0], -1, 1)), np.arctan2(r[2, 1], r[2, 2]), np.arctan2(r[1, 0], r[0, 0])
        yaw, pitch, roll = np.degrees(radians).tolist()
        return yaw, pitch, roll


@cache
def shape_model() -> ShapeModel:
    """The shipped shape model (see shape_model.md beside it)."""
    with resources.files("anonlib.synthesis").joinpath("shipped/shape_model.npz").open("rb") as stream:
        data = np.load(stream)
        return ShapeModel(*(data[name].astype(np.float32) for name in ("mean", "expression", "read")))


def pose_of(mesh: Floats, mean: Floats) -> Pose:
    """The similarity (Umeyama 1991, in 3-D) that takes `mean` (468, 3) onto a mesh (468, 3) in image px."""
    source_mean, target_mean = mean.mean(axis=0), mesh.mean(axis=0)
    a, b = mean - source_mean, mesh - target_mean
    u, s, vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
    rotation = u @ np.diag(sign) @ vt
    scale = float((s * sign).sum() / max(float((a**2).sum() / len(a)), 1e-12))
    offset = target_mean - scale * rotation @ source_mean
    return Pose(scale, rotation.astype(np.float32), offset.astype(np.float32))


def enlarged(ring: Floats, factors: tuple[float, float, float]) -> Floats:
    """A ring of points (n, 2) about its centre by factors sideways, up and down."""
    side, up, down = factors
    delta = ring - ring.mean(axis=0)
    vertical = np.where(delta[:, 1] < 0, up, down)
    return np.asarray(ring.mean(axis=0) + delta * np.stack([np.full(len(ring), side), vertical], axis=1))


def with_rings(shape: Floats) -> Floats:
    """An upright shape (468, 3) with its two rings appended: (540, 3)."""
    oval = shape[list(topology.OVAL)]
    half_width = float(np.ptp(oval[:, 0])) / 2
    rings = [
        np.column_stack([enlarged(oval[:, :2], factors), oval[:, 2] + depth * half_width])
        for factors, depth in zip(RINGS, _RING_DEPTH, strict=True)
    ]
    return np.concatenate([shape, *rings]).astype(np.float32)


def vertices_of(mesh: Floats) -> Floats:
    """A mesh (468, 3) in image px with its rings (540, 3)."""
    pose = pose_of(mesh, shape_model().mean)
    return pose.apply(with_rings(pose.undo(mesh)))


def box_around(points: Floats, size: tuple[int, ...], margin: float = 0.0) -> tuple[int, int, int, int]:
    """The part x0, y0, x1, y1 of an image (H, W, ...) around points (n, 2), by `margin` times their extent larger."""
    low, high = points.min(axis=0), points.max(axis=0)
    room = margin * float((high - low).max())
    x0, y0 = np.clip(np.floor(low - room), 0, [size[1] - 1, size[0] - 1]).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(high + room), [x0 + 1, y0 + 1], [size[1], size[0]]).astype(int).tolist()
    return x0, y0, x1, y1


def sampled(values: NDArray[Any], grid: Floats, step: int = 1) -> Floats:
    """A map, given at every step-th px, read at each place (x, y) of a grid (h, w, 2)."""
    grid = grid if step == 1 else grid * np.float32(1 / step)
    # The stub knows no None, which says that the first map has both coordinates.
    read = cv2.remap(values, grid, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(read, np.float32)


def split(maps: Floats) -> list[Floats]:
    """The channels of (h, w, n), (h, w) each."""
    return [np.asarray(part, np.float32) for part in cv2.split(maps)]


def shrunk(detail: Floats, eye_distance: float) -> Floats:
    """A detail (S, S, ...) of any S as small as a photo with this eye distance shows it, where it is coarser, since
    cv2.remap does not average what it skips."""
    wanted = round(eye_distance / EYE_SPAN)
    if len(detail) > SIZE and wanted < len(detail):
        detail = np.asarray(cv2.resize(detail, (wanted, wanted), interpolation=cv2.INTER_AREA), np.float32)
    return detail


def laid(detail: Floats, grid: Floats) -> Floats:
    """A detail (S, S, ...) of any S read at canonical px `grid` (h, w, 2)."""
    return sampled(detail, (grid + 0.5) * np.float32(len(detail) / SIZE) - 0.5)


def filled(points: Floats, height: int = SIZE, width: int = SIZE) -> Pixels:
    """1 inside a polygon of points (n, 2), else 0, (height, width)."""
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.rint(points * 16).astype(np.int32)], 1, shift=4)
    return mask


class CanonicalFrame:
    """Both warps. `points` (540, 2) and `triangles` (t, 3) of the frame; for each px (S, S) the triangle that covers
    it, `triangle_index`, 0 where none is `inside`; `hull`: px inside the oval."""

    def __init__(self, mean: Floats, vertices: Sequence[int] | None = None) -> None:
        """Of a mean shape (468, 3), with triangles between these vertices of it and its rings, or all."""
        from scipy.sparse import csr_array
        from scipy.spatial import Delaunay

        flat = _mouth_ajar(with_rings(mean)[:, :2])
        left = flat[list(topology.LEFT_EYE)].mean(axis=0)
        right = flat[list(topology.RIGHT_EYE)].mean(axis=0)
        scale = SIZE * EYE_SPAN / float(np.linalg.norm(right - left))
        centre = np.array([SIZE / 2, SIZE * _EYE_LINE])
        self.points = ((flat - (left + right) / 2) * scale + centre).astype(np.float32)
        used = np.arange(len(self.points)) if vertices is None else np.array(vertices)
        self.triangles = used[Delaunay(self.points[used].astype(np.float64)).simplices]
        index = _raster(self.points, self.triangles, np.zeros(len(self.triangles)), SIZE, SIZE)
        self.inside, self.triangle_index = index >= 0, np.maximum(index, 0)
        corners = self.triangles[self.triangle_index]
        rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
        # Barycentric weights (S, S, 3) of each px in its triangle, as rows of a sparse matrix (S^2, 540).
        a, b, c = (self.points[corners[..., corner]] for corner in range(3))
        v0, v1, v2 = b - a, c - a, np.stack([columns, rows], axis=-1) - a
        area = _cross(v0, v1)
        area = np.where(np.abs(area) < 1e-9, 1e-9, area)
        second, third = _cross(v2, v1) / area, _cross(v0, v2) / area
        weights = np.stack([1 - second - third, second, third], axis=-1).astype(np.float32)
        bounds = np.arange(0, 3 * SIZE**2 + 1, 3)
        self._weights = csr_array((weights.ravel(), corners.ravel(), bounds), shape=(SIZE**2, len(self.points)))
        self._of_step = {1: self._weights}
        p, q, r = (self.points[self.triangles[:, corner]] for corner in range(3))
        self.orientation = np.sign(_cross(q - p, r - p))
        self.hull = self.polygon(topology.OVAL)

    def polygon(self, indices: tuple[int, ...], grow: float = 1.0) -> Mask:
        """The canonical px (S, S) inside a ring of vertices, enlarged about its centre by `grow`."""
        points = self.points[list(indices)]
        return filled(points.mean(axis=0) + (points - points.mean(axis=0)) * grow).astype(bool)

    def grid_in(self, vertices: Floats, step: int = 1) -> Floats:
        """The place (S/step, S/step, 2) in a photo with `vertices` (540, 2+) of every step-th px of the frame."""
        # Each canonical px lies in one triangle at fixed barycentric weights, so its place in the photo is those
        # weights of the triangle's corners there.
        if step not in self._of_step:
            wanted = np.arange(SIZE**2).reshape(SIZE, SIZE)[::step, ::step].ravel()
            self._of_step[step] = self._weights[wanted]
        side = -(-SIZE // step)
        return np.asarray(self._of_step[step] @ vertices[:, :2], np.float32).reshape(side, side, 2)

    def warp_in(self, image: Pixels, vertices: Floats, step: int = 1, finer: int = 1) -> tuple[Floats, Mask]:
        """Every step-th px of the canonical texture of a photo (H, W, 3) with `vertices` (540, 2+) in its px; or, with
        step 1, `finer` times as many. Returns the texture (s, s, 3), 0-255, and which of its px the photo shows."""
        source, grid, inside = vertices[:, :2], self.grid_in(vertices, step), self.inside[::step, ::step]
        if finer > 1:
            size = (finer * SIZE, finer * SIZE)
            grid = np.asarray(cv2.resize(grid.astype(np.float32), size, interpolation=cv2.INTER_LINEAR), np.float32)
            inside = cv2.resize(inside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        span = float(np.ptp(source[list(topology.OVAL), 0]))
        canonical_span = float(np.ptp(self.points[list(topology.OVAL), 0])) / step * finer
        shrink = span / canonical_span
        # A photo much larger than the frame is shrunk first, since cv2.remap does not average what it skips.
        if shrink > 1.5:
            factor = 1.0 / shrink
            image = np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)
            grid = (grid + 0.5) * factor - 0.5
        grid = grid.astype(np.float32)
        height, width = image.shape[:2]
        shown = (grid >= -0.5).all(axis=2) & (grid[..., 0] < width) & (grid[..., 1] < height)
        return sampled(image, grid), inside & shown

    def map_out(self, vertices: Floats, height: int, width: int) -> tuple[Floats, Mask]:
        """For each px of a (height, width) view: canonical coordinates (h, w, 2) and whether a triangle covers it.
        `vertices` (540, 3) in px of the view, third coordinate depth."""
        # A triangle that a turned head shows from behind is left out. The others are drawn back to front, so that each
        # px (h, w) has the number of the nearest triangle over it, -1 where there is none.
        seen = vertices[:, :2].astype(np.float64)[self.triangles]
        area = _cross(seen[:, 1] - seen[:, 0], seen[:, 2] - seen[:, 0])
        facing = np.sign(area) == self.orientation
        front = self.triangles[facing]
        index = _raster(vertices[:, :2], front, vertices[front, 2].mean(axis=1), height, width)
        # The affine map of each triangle to the frame: its place there moves (n, 2) with each column and each row.
        (a, b, c), (p, q, r) = (of.transpose(1, 0, 2) for of in (seen[facing], self.points[front].astype(np.float64)))
        area = area[facing, None]
        inverse = np.divide(1, area, out=np.zeros_like(area), where=np.abs(area) > 1e-3)
        across = ((q - p) * (c - a)[:, 1:] - (r - p) * (b - a)[:, 1:]) * inverse
        down = ((r - p) * (b - a)[:, :1] - (q - p) * (c - a)[:, :1]) * inverse
        start = p - across * a[:, :1] - down * a[:, 1:]
        # Number -1 is the last, at the corner of the frame. Both coordinates are taken at once, as one complex number.
        chosen = index.astype(np.intp)
        grid, by_row, offset = (
            np.append(part, [[0.0, 0.0]], axis=0).astype(np.float32).view(np.complex64)[chosen, 0].view(np.float32)
            for part in (across, down, start)
        )
        grid *= np.repeat(np.arange(width, dtype=np.float32), 2)
        by_row *= np.arange(height, dtype=np.float32)[:, None]
        grid += by_row
        grid += offset
        grid = grid.reshape(height, width, 2)
        # A px at the rim of a sliver, as where lids meet, would be read far beyond it.
        fastest = np.maximum(np.abs(across), np.abs(down)).max(axis=1)
        sliver = np.append(fastest > _SLIVER * SIZE / float(np.ptp(vertices[:, 0])), False)
        at = np.nonzero(sliver[chosen])
        low, high = np.minimum(np.minimum(p, q), r), np.maximum(np.maximum(p, q), r)
        grid[at] = np.clip(grid[at], low[chosen[at]], high[chosen[at]])
        return grid, index >= 0


@cache
def canonical_frame() -> CanonicalFrame:
    """The frame of the shipped mean shape."""
    return CanonicalFrame(shape_model().mean)


@cache
def outer_frame() -> CanonicalFrame:
    """The same with fewer triangles, which is enough to say where a face ends."""
    features = *topology.LEFT_BROW, *topology.RIGHT_BROW, *topology.LIPS_OUTER, topology.NOSE_TIP
    eyes = topology.LEFT_EYE_OUTER, topology.LEFT_EYE_INNER, topology.RIGHT_EYE_OUTER, topology.RIGHT_EYE_INNER
    rings = range(MESH_POINTS, MESH_POINTS + len(RINGS) * len(topology.OVAL))
    return CanonicalFrame(shape_model().mean, sorted({*features, *eyes, *topology.OVAL, *rings}))


def _mouth_ajar(flat: Floats) -> Floats:
    """Lower the lower lip and the chin so that the inner lips stand `_MOUTH_GAP` of their width apart."""
    lips = list(topology.LIPS_INNER)
    left, right = flat[lips[0]], flat[lips[10]]
    width = float(np.linalg.norm(right - left))
    top, bottom = flat[topology.LIP_TOP, 1], flat[topology.LIP_BOTTOM, 1]
    drop = max(0.0, _MOUTH_GAP * width - float(bottom - top))
    line = (top + bottom) / 2
    # The drop fades sideways past the corners of the mouth, and downwards within 1.6 mouth widths.
    across = np.abs(flat[:, 0] - (left[0] + right[0]) / 2) / (width / 2)
    near = np.clip(1.0 - 0.85 * across**2, 0.0, 1.0)
    lower = np.zeros(len(flat))
    below = flat[:, 1] > line
    lower[below] = near[below] * np.clip(1.0 - (flat[below, 1] - line) / (1.6 * width), 0.0, 1.0)
    lower[lips[11:]] = near[lips[11:]]
    lower[lips[:11]] = 0.0
    opened = flat.copy()
    opened[:, 1] += (drop * lower).astype(np.float32)
    return opened


def _raster(
    points: Floats, triangles: NDArray[np.int64], depth: NDArray[np.floating], height: int, width: int
) -> NDArray[np.int32]:
    """Index of the nearest triangle over each px (height, width), -1 where there is none."""
    index = np.full((height, width), -1, np.int32)
    corners = np.rint(points[triangles] * 16).astype(np.int32)
    order = np.argsort(-depth, kind="stable")  # later ones cover earlier ones
    for number, triangle in zip(order.tolist(), corners[order], strict=True):
        cv2.fillConvexPoly(index, triangle, number, cv2.LINE_8, 4)
    return index


def _cross(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])
