"""468 points of a face in image px, by the face-mesh network, from a box and 5 landmarks.

Its own answer is a better box than the detector's, so it looks twice. Where that does not fit other views are tried,
and a mesh counts only if it agrees with the detector's landmarks: else most of these lie on a neighbour or on nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anonlib.faces import align, gaze, topology
from anonlib.faces.regions import Images, Regions
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import Engine, prepare
from anonlib.workspace.schemas import EYES, MESH_POINTS

SIZE = 192
MIN_PRESENCE = 0.5  # below this the network says that its crop holds no face it can fit
_BY_BOX = ((1.5, True), (1.2, True), (1.8, True), (1.5, False), (1.2, False))
"""Sides of the box that a first view is wide, and whether it is turned upright by the landmarks; in the order tried."""
_BY_POINTS = (5.2, 6.0)
"""Then how wide a view around the landmarks is, of their root mean square distance from their middle: a photo's edge
cuts boxes off. Of 172 faces of LFW that no view of a box fits, 15 are fitted so."""
_LOOKS, _SECOND_SIDE = 2, 1.5
_MESH_AWAY, _MESH_RATIO = 0.3, 2.0
"""How far, in sides of its box, and how much larger or smaller a mesh may be than its face."""
_POINTS_AWAY = 0.15
"""How far the five points may lie from the detector's, in box sides; 99.5 % of LFW's main faces lie within .06."""


class Meshes(NamedTuple):
    """`points` (n, 468, 3) px, small z is near; `presence` (n,): 0-1, is it a face, 0 where the mesh drifted off it;
    `eyes` (n, 8): see gaze.py."""

    points: NDArray[np.float32]
    presence: NDArray[np.float32]
    eyes: NDArray[np.float32]


class FaceMesh:
    """Meshes of faces that a detector found."""

    def __init__(self, engine: Engine, iris: Engine | None = None) -> None:
        """`iris`: the network that looks at the eyes; without it lids are the mesh's, and `eyes` NaN."""
        self.engine, self.iris = engine, iris

    def fit(self, images: Images, faces: Sequence[Regions]) -> list[Meshes]:
        """For each image the meshes of its faces."""
        owners = [image for image, found in zip(images, faces, strict=True) for _ in range(len(found))]
        eyes = np.full((len(owners), EYES), np.nan, np.float32)
        if not owners:
            return [Meshes(np.zeros((0, MESH_POINTS, 3), np.float32), np.zeros(0, np.float32), eyes) for _ in faces]
        boxes = np.concatenate([found.boxes for found in faces])
        landmarks = np.concatenate([found.landmarks for found in faces])
        meshes = np.zeros((len(owners), MESH_POINTS, 3), np.float32)
        presence = np.zeros(len(owners), np.float32)
        remaining = np.arange(len(owners))
        first_views = [partial(_by_box, *view) for view in _BY_BOX] + [partial(_by_points, side) for side in _BY_POINTS]
        for first_view in first_views:
            views = [first_view(boxes[face], landmarks[face]) for face in remaining]
            for _ in range(_LOOKS):
                looked, scores = self._look([owners[face] for face in remaining], views)
                views = [from_mesh(mesh) for mesh in looked]
                for face, mesh, score in zip(remaining, looked, scores, strict=True):
                    fits = score >= MIN_PRESENCE and lies_on(mesh, boxes[face], landmarks[face])
                    if fits or presence[face] == 0:
                        meshes[face], presence[face] = mesh, score if fits else 0
            remaining = remaining[presence[remaining] == 0]
            if not len(remaining):
                break
        if self.iris:
            fits = np.flatnonzero(presence > 0)
            refined = [meshes[face] for face in fits]
            eyes[fits] = gaze.refine(self.iris, [owners[face] for face in fits], refined)
        bounds = np.cumsum([0, *(len(found) for found in faces)])
        return [
            Meshes(*(column[start:stop] for column in (meshes, presence, eyes))) for start, stop in pairwise(bounds)
        ]

    def follow(
        self,
        image: NDArray[np.uint8],
        faces: Regions,
        before: Sequence[NDArray[np.float32] | None],
        again: NDArray[np.bool_],
    ) -> Meshes:
        """The meshes of one frame's faces, each with its mesh `before` (468, 3) in the last frame, which is the best
        first view. A face without one, or that it does not fit, is fitted as in a photo where `again` (n,) says so.

        Where nothing was found (score 0) the landmarks are guessed, and only the box counts.
        """
        points, presence = np.zeros((len(faces), MESH_POINTS, 3), np.float32), np.zeros(len(faces), np.float32)
        eyes = np.full((len(faces), EYES), np.nan, np.float32)
        known = [(row, from_mesh(mesh)) for row, mesh in enumerate(before) if mesh is not None]
        looked = self._look([image] * len(known), [view for _, view in known]) if known else ((), ())
        for (row, _), mesh, score in zip(known, *looked, strict=True):
            landmarks = faces.landmarks[row] if faces.scores[row] else five_points(mesh)
            if score >= MIN_PRESENCE and lies_on(mesh, faces.boxes[row], landmarks):
                points[row], presence[row] = mesh, score
        fits = np.flatnonzero(presence > 0)
        if self.iris and len(fits):
            refined = [points[row] for row in fits]
            eyes[fits] = gaze.refine(self.iris, [image] * len(fits), refined)
        left = (presence == 0) & again
        if left.any():
            (found,) = self.fit([image], [faces.rows(left)])
            points[left], presence[left], eyes[left] = found
        return Meshes(points, presence, eyes)

    def _look(self, images: Images, views: Sequence[align.Affine]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Meshes (n, 468, 3) px of the images and presence (n,), as the network sees them in one view each."""
        crops = np.stack([align.crop(image, matrix, SIZE) for image, matrix in zip(images, views, strict=True)])
        outputs = self.engine(prepare(MODELS["facemesh"], crops))
        points = outputs[0].reshape(len(views), MESH_POINTS, 3)
        meshes = np.empty_like(points, np.float32)
        for mesh, seen, view in zip(meshes, points, views, strict=True):
            back = align.inverse(view)
            mesh[:, :2] = align.apply(back, seen[:, :2])
            mesh[:, 2] = seen[:, 2] * float(np.sqrt(abs(np.linalg.det(back[:, :2]))))
        return meshes, outputs[1].reshape(-1)


def _by_box(side: float, upright: bool, box: NDArray[np.float32], landmarks: NDArray[np.float32]) -> align.Affine:
    low, high = box[:2], box[2:]
    centre = ((low + high) / 2).astype(np.float32)
    angle = align.roll(landmarks) if upright else 0.0
    return align.square(centre, side * float((high - low).max()), angle, SIZE)


def _by_points(side: float, box: NDArray[np.float32], landmarks: NDArray[np.float32]) -> align.Affine:
    centre = landmarks.mean(axis=0)
    spread = float(np.sqrt(((landmarks - centre) ** 2).sum(axis=1).mean()))
    return align.square(centre, side * spread, align.roll(landmarks), SIZE)


def from_mesh(mesh: NDArray[np.float32]) -> align.Affine:
    """The network's crop around a mesh (468, 3) in image px."""
    flat = mesh[:, :2]
    left, right = (flat[list(eye)].mean(axis=0) for eye in (topology.LEFT_EYE, topology.RIGHT_EYE))
    angle = float(np.arctan2(right[1] - left[1], right[0] - left[0]))
    cos, sin = np.cos(angle), np.sin(angle)
    turned = flat @ np.array([[cos, -sin], [sin, cos]], np.float32)
    low, high = turned.min(axis=0), turned.max(axis=0)
    centre = (low + high) / 2 @ np.array([[cos, sin], [-sin, cos]])
    return align.square(centre.astype(np.float32), _SECOND_SIDE * float((high - low).max()), angle, SIZE)


def lies_on(mesh: NDArray[np.float32], box: NDArray[np.float32], landmarks: NDArray[np.float32]) -> bool:
    """Whether a mesh (468, 3) px fits the box (4,) that it was sought in, and the detector's landmarks (5, 2) there.

    At a photo's edge, or beside another face, it may drift off by half a face, and then the face would stay.
    """
    low, high = mesh[:, :2].min(axis=0), mesh[:, :2].max(axis=0)
    side = np.maximum(box[2:] - box[:2], 1e-6)
    away = np.abs((low + high - box[:2] - box[2:]) / 2) / side
    ratio = float((high - low).max() / side.max())
    apart = np.linalg.norm(five_points(mesh) - landmarks, axis=1).mean() / np.sqrt(side.prod())
    return bool(away.max() <= _MESH_AWAY and 1 / _MESH_RATIO <= ratio <= _MESH_RATIO and apart <= _POINTS_AWAY)


def five_points(mesh: NDArray[np.float32]) -> NDArray[np.float32]:
    """Eye centres, nose tip and mouth corners (5, 2) px of a mesh (468, 3)."""
    eyes = [mesh[list(eye), :2].mean(axis=0) for eye in (topology.LEFT_EYE, topology.RIGHT_EYE)]
    others = mesh[[topology.NOSE_TIP, topology.MOUTH_LEFT, topology.MOUTH_RIGHT], :2]
    return np.concatenate([eyes, others]).astype(np.float32)


def mouth_opening(mesh: NDArray[np.float32]) -> float:
    """Gap between the inner lips over the mouth's width."""
    gap = _distance(mesh, topology.LIP_TOP, topology.LIP_BOTTOM)
    return gap / max(_distance(mesh, topology.MOUTH_LEFT, topology.MOUTH_RIGHT), 1e-6)


def eye_opening(mesh: NDArray[np.float32]) -> float:
    """Mean gap between the lids over the eyes' width."""
    left = topology.LEFT_EYE_LIDS, (topology.LEFT_EYE_OUTER, topology.LEFT_EYE_INNER)
    right = topology.RIGHT_EYE_LIDS, (topology.RIGHT_EYE_OUTER, topology.RIGHT_EYE_INNER)
    return sum(_distance(mesh, *lids) / max(_distance(mesh, *width), 1e-6) for lids, width in (left, right)) / 2


def _distance(mesh: NDArray[np.float32], first: int, second: int) -> float:
    return float(np.linalg.norm(mesh[first] - mesh[second]))
