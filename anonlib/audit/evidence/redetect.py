"""Looks for a face again where one was changed, as an attacker would: by detector and mesh on the changed image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anonlib.faces.detect import CenterFaceDetector, Faces
from anonlib.faces.mesh import MIN_PRESENCE, FaceMesh

SAME_PLACE = 0.35
"""How far a detection's centre may lie from the original's, in longer sides of the original's box."""


def look_again(
    detector: CenterFaceDetector,
    mesh: FaceMesh,
    images: Sequence[NDArray[np.uint8]],
    boxes: Sequence[NDArray[np.float32]],
    before: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Meshes (n, 468, 3) of the faces nearest to `boxes` (4,) px; whether a face was found (n,), and a mesh fits (n,).

    Where none does, the mesh is that of `before` (n, 468, 3), so that a hidden face is not taken for a safe one.
    """
    chosen = [nearest(faces, box) for faces, box in zip(detector.detect(images), boxes, strict=True)]
    found = np.array([len(faces) > 0 for faces in chosen], bool)
    after, fits = before.copy(), np.zeros(len(images), bool)
    for index, meshes in enumerate(mesh.fit(images, chosen)):
        if len(meshes) and meshes.presence[0] >= MIN_PRESENCE:
            after[index], fits[index] = meshes.points[0], True
    return after, found, fits


def nearest(faces: Faces, box: NDArray[np.float32]) -> Faces:
    """The one of `faces` whose centre is nearest to that of `box` (4,) px and within SAME_PLACE of it, or none."""
    if len(faces) == 0:
        return faces
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    away = np.linalg.norm(centres - (box[:2] + box[2:]) / 2, axis=1)
    best = int(away.argmin())
    kept = [best] if away[best] <= SAME_PLACE * float((box[2:] - box[:2]).max()) else []
    return Faces(faces.boxes[kept], faces.scores[kept], faces.landmarks[kept])
