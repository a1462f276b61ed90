"""Eyes: where they look, how far they are open, and where their lids are, more exactly than the mesh says.

By the iris network of MediaPipe (Ablavatski et al. 2020, arXiv 2006.11341), which sees a crop of each eye. Of an eye
four numbers are kept, the image's left eye first, in distances between its corners: how far right and how far below
their middle the iris lies, along and across the line of the corners, the gap of the lids, and the radius of the iris.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anonlib.faces import align
from anonlib.faces.regions import Images
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import Engine, prepare
from anonlib.workspace.schemas import EYES

OPEN = 0.12
"""Gap of the lids from which enough of an iris shows to say where it looks."""
# fmt: off
CONTOURS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173,
     130, 25, 110, 24, 23, 22, 26, 112, 243, 247, 30, 29, 27, 28, 56, 190),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398,
     359, 255, 339, 254, 253, 252, 256, 341, 463, 467, 260, 259, 257, 258, 286, 414),
)
# fmt: on
"""The mesh's points that the network's first 32 are, of each eye: the edges of the lids, then a ring around them."""
_OUTER, _INNER, _BELOW, _ABOVE, _EDGE = 0, 8, 4, 12, 16
_TURN = 2.7  # distance between the corners (30 mm) over that of the iris from the eye's centre of rotation (11 mm)
_AWAY, _RATIO = 0.2, 1.5
"""How far the network's lids may lie from the mesh's, in distances of the corners, and how much wider they may be."""

Points = NDArray[np.float32]


def refine(engine: Engine, images: Images, meshes: Sequence[Points]) -> Points:
    """Puts the lids of meshes (n, 468, 3) px where the network `iris` sees them in these images, in place. Returns both
    eyes of each (n, 8), NaN of an eye that it does not see where the mesh has it."""
    if not len(images):
        return np.zeros((0, EYES), np.float32)
    wanted = MODELS["iris"].input
    size = wanted.size[0] if wanted.size else 0
    crops, views = np.zeros((len(images), 2, size, size, 3), np.uint8), []
    for face, (image, mesh) in enumerate(zip(images, meshes, strict=True)):
        for eye, points in enumerate(CONTOURS):
            first, second = sorted((mesh[points[_OUTER], :2], mesh[points[_INNER], :2]), key=lambda end: end[0])
            side, angle = wanted.zoom * float(np.linalg.norm(second - first)), align.roll(np.stack([first, second]))
            view = align.square(np.float32(0.5) * (first + second), side, angle, size)
            if eye == 1:  # the network knows image-left eyes, so this one is seen in a mirror
                moved = np.array([[0, 0, size - 1], [0, 0, 0]], np.float32)
                view = np.array([[-1], [1]], np.float32) * view + moved
            crops[face, eye] = align.crop(image, view, size)
            views.append(view)
    outputs = engine(prepare(MODELS["iris"], crops.reshape(-1, size, size, 3)))
    eyes = np.full((len(images), 2, 4), np.nan, np.float32)
    for row, (view, contour, iris) in enumerate(zip(views, *outputs, strict=True)):
        (face, eye), back = divmod(row, 2), align.inverse(view)
        lids = align.apply(back, contour[: len(CONTOURS[eye]), :2])
        known = meshes[face][list(CONTOURS[eye]), :2]
        width, before = (float(np.linalg.norm(ring[_INNER] - ring[_OUTER])) for ring in (lids, known))
        away = np.linalg.norm(lids - known, axis=1)[:_EDGE].mean()
        if away <= _AWAY * before and before / _RATIO <= width <= before * _RATIO:
            meshes[face][list(CONTOURS[eye]), :2] = lids
            eyes[face, eye] = _numbers(lids, align.apply(back, iris[:, :2]))
    return eyes.reshape(-1, EYES)


def _numbers(lids: Points, iris: Points) -> Points:
    """The four numbers (4,) of an eye with these lids (32, 2) and this iris (5, 2), px."""
    ends = lids[[_OUTER, _INNER]]
    across, down, width = eye_frame(ends[np.argsort(ends[:, 0])])
    offset = (iris[0] - ends.mean(axis=0)) / width
    gap = (lids[_BELOW] - lids[_ABOVE]) @ down / width
    radius = np.linalg.norm(iris[1:] - iris[0], axis=1).mean() / width
    return np.array([offset @ across, offset @ down, max(gap, 0.0), radius], np.float32)


def eye_frame(ends: Points) -> tuple[Points, Points, float]:
    """Unit vectors right and down (2,) of an eye with corners (2, 2) px, left before right, and their distance."""
    along = ends[1] - ends[0]
    width = max(float(np.linalg.norm(along)), 1e-6)
    right = along / width
    return right, np.array([-right[1], right[0]], np.float32), width


def gaze_angles(eyes: ArrayLike) -> Points:
    """How far faces with these eyes (n, 8) look right and down of straight ahead, degrees (n, 2), the mean of the eyes
    that are open; NaN where none is."""
    each = np.asarray(eyes, np.float32).reshape(-1, 2, 4)
    turned = np.degrees(np.arcsin(np.clip(_TURN * each[:, :, :2], -1, 1)))
    seen = (each[:, :, 2] >= OPEN)[..., None]
    count = seen.sum(axis=1)
    return np.asarray(np.where(seen, turned, 0).sum(axis=1) / np.where(count > 0, count, np.nan), np.float32)


def gaze_error(before: ArrayLike, after: ArrayLike) -> Points:
    """The angle between two gazes of the same faces, degrees (n,), by their eyes (n, 8); NaN where one is unseen."""
    return np.asarray(np.linalg.norm(gaze_angles(after) - gaze_angles(before), axis=1), np.float32)
