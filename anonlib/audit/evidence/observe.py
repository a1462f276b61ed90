"""Looks at faces as an attacker would: finds them again, and reads all that recognizers and attribute networks say.

Gender, age, expression, pose, mesh and sharpness are read only where a mesh fits, which is where they mean something. A
flat ellipse is not searched at all, since nothing of a face is left.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import CROP, SIDE, Look, frame
from anonlib.config import JobConfig
from anonlib.faces import align
from anonlib.faces.detect import Detector, open_detector
from anonlib.faces.embed import AttributeReader, Recognizer
from anonlib.faces.mesh import MIN_PRESENCE, FaceMesh, five_points
from anonlib.faces.regions import FACE, Regions, labelled_face
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import ARCFACE_POINTS, VERIFIERS
from anonlib.models.requirements import device_of, load
from anonlib.synthesis.canonical import pose_of, shape_model
from anonlib.synthesis.describe import sharpness
from anonlib.workspace.schemas import EXPRESSIONS, MESH_POINTS
from anonlib.workspace.tables import Row

RECOGNIZERS = ("fr-feature", "mobileface", *VERIFIERS)
LOOKED_WITH = (*RECOGNIZERS, "facemesh", "age-gender", "expression")
"""Every model that evidence is gathered with, beside the job's detector."""
SAME_PLACE = 0.35
"""How far a detection's centre may lie from the original's, in longer sides of the original's box."""

Pixels = NDArray[np.uint8]
Meshes = NDArray[np.float32]
Vectors = dict[str, NDArray[np.float32]]


class Observer:
    """Holds the models; each image has one face that matters."""

    def __init__(self, config: JobConfig) -> None:
        cv2.setNumThreads(1)
        models = {name: model_bytes(name) for name in LOOKED_WITH}
        self.detector = open_detector(config.detector, device=device_of(config))
        self.mesh = FaceMesh(load(models, "facemesh", config))
        self.recognizers = [Recognizer(name, load(models, name, config)) for name in RECOGNIZERS]
        self.reader = AttributeReader(load(models, "age-gender", config), load(models, "expression", config))

    def meshes(self, images: Sequence[Pixels], rows: Sequence[Row]) -> Meshes:
        """Meshes (n, 468, 3) of originals out of their FACES rows; fitted here where the job was a redaction."""
        if all(row["mesh"] is not None for row in rows):
            return np.array([row["mesh"] for row in rows], np.float32).reshape(-1, MESH_POINTS, 3)
        return np.concatenate([mesh.points for mesh in self.mesh.fit(images, [faces_of([row]) for row in rows])])

    def vectors(self, images: Sequence[Pixels], meshes: Meshes) -> Vectors:
        """Recognizer -> unit rows (n, d) of the faces at `meshes` (n, 468, 2 or 3)."""
        points = [five_points(mesh) for mesh in meshes]
        return {recognizer.name: recognizer.embed(images, points) for recognizer in self.recognizers}

    def original(self, images: Sequence[Pixels], rows: Sequence[Row]) -> Look:
        """The faces of FACES rows on their own photos."""
        every = np.ones(len(images), bool)
        return self._look(images, rows, self.meshes(images, rows), every, every)

    def changed(self, images: Sequence[Pixels], rows: Sequence[Row], before: Meshes) -> Look:
        """The same faces on photos that were changed, whose meshes were `before` (n, 468, 2)."""
        boxes = [box_of(row) for row in rows]
        return self._look(images, rows, *look_again(self.detector, self.mesh, images, boxes, _deep(before)))

    def hidden(self, images: Sequence[Pixels], rows: Sequence[Row], before: Meshes) -> Look:
        """The same places on photos where nothing of the faces is left."""
        none = np.zeros(len(images), bool)
        return self._look(images, rows, _deep(before), none, none)

    def _look(
        self,
        images: Sequence[Pixels],
        rows: Sequence[Row],
        meshes: Meshes,
        found: NDArray[np.bool_],
        fits: NDArray[np.bool_],
    ) -> Look:
        seen = np.flatnonzero(fits).tolist()
        points = [five_points(mesh) for mesh in meshes]
        age, female, expression = self.reader.read([images[row] for row in seen], [points[row] for row in seen])
        mean, target = shape_model().mean, np.array(ARCFACE_POINTS, np.float32)
        poses = np.array([pose_of(meshes[row], mean).angles() for row in seen], np.float32).reshape(-1, 3)
        sharp = np.array([sharpness(images[row], meshes[row]) for row in seen], np.float32)

        def whole(values: NDArray[np.float32], *shape: int) -> NDArray[np.float32]:
            filled = np.full((len(images), *shape), np.nan, np.float32)
            filled[seen] = values
            return filled

        crops = [
            align.crop(image, align.similarity(five, target), CROP) for image, five in zip(images, points, strict=True)
        ]
        frames = [align.crop(image, frame(box_of(row)), SIDE) for image, row in zip(images, rows, strict=True)]
        return Look(
            vectors=self.vectors(images, meshes),
            found=found,
            female=whole(female),
            age=whole(age),
            expression=whole(expression, len(EXPRESSIONS)),
            pose=whole(poses, 3),
            mesh=whole(meshes[seen, :, :2], MESH_POINTS, 2),
            sharpness=whole(sharp),
            crops=np.array(crops, np.uint8),
            frames=np.array(frames, np.uint8),
        )


def look_again(
    detector: Detector,
    mesh: FaceMesh,
    images: Sequence[Pixels],
    boxes: Sequence[NDArray[np.float32]],
    before: Meshes,
) -> tuple[Meshes, NDArray[np.bool_], NDArray[np.bool_]]:
    """Meshes (n, 468, 3) of the faces nearest to `boxes` (4,) px; whether a face was found (n,), and a mesh fits (n,).

    Where none does, the mesh is that of `before` (n, 468, 3), so that a hidden face is not taken for a safe one.
    """
    chosen = [nearest(regions.faces, box) for regions, box in zip(detector.detect(images), boxes, strict=True)]
    found = np.array([len(faces) > 0 for faces in chosen], bool)
    after, fits = before.copy(), np.zeros(len(images), bool)
    for index, meshes in enumerate(mesh.fit(images, chosen)):
        if len(meshes.points) and meshes.presence[0] >= MIN_PRESENCE:
            after[index], fits[index] = meshes.points[0], True
    return after, found, fits


def nearest(faces: Regions, box: NDArray[np.float32]) -> Regions:
    """The face of `faces` whose centre is nearest to that of `box` (4,) px and within SAME_PLACE of it, or none."""
    if len(faces) == 0:
        return faces
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    away = np.linalg.norm(centres - (box[:2] + box[2:]) / 2, axis=1)
    best = int(away.argmin())
    near = away[best] <= SAME_PLACE * float((box[2:] - box[:2]).max())
    return faces.rows(slice(best, best + 1) if near else slice(0, 0))


def _deep(meshes: Meshes) -> Meshes:
    """Points in the image (n, 468, 2) with a depth of 0, which no reader uses."""
    return np.pad(meshes, ((0, 0), (0, 0), (0, 1)))


def joined(looks: Sequence[Look]) -> Look:
    """One look at all their faces, in order."""
    several = [look.arrays() for look in looks if len(look.found)]
    if not several:
        return _nothing_seen()
    return Look.of_arrays({name: np.concatenate([arrays[name] for arrays in several]) for name in several[0]})


def _nothing_seen() -> Look:
    """A look at no faces."""
    none = np.zeros(0, np.float32)
    return Look(
        vectors={name: np.zeros((0, 1), np.float32) for name in RECOGNIZERS},
        found=np.zeros(0, bool),
        female=none,
        age=none,
        expression=np.zeros((0, len(EXPRESSIONS)), np.float32),
        pose=np.zeros((0, 3), np.float32),
        mesh=np.zeros((0, MESH_POINTS, 2), np.float32),
        sharpness=none,
        crops=np.zeros((0, CROP, CROP, 3), np.uint8),
        frames=np.zeros((0, SIDE, SIDE, 3), np.uint8),
    )


def faces_of(rows: Sequence[Row]) -> Regions:
    """FACES rows as the detector gave them."""
    return Regions(
        np.array([row["box"] for row in rows], np.float32).reshape(-1, 4),
        np.array([row["score"] for row in rows], np.float32),
        np.array([row["landmarks"] for row in rows], np.float32).reshape(-1, 5, 2),
        tuple(row["kind"] or FACE for row in rows),
    )


def box_of(row: Row) -> NDArray[np.float32]:
    """The detector's box (4,) px of a FACES row."""
    return np.array(row["box"], np.float32)


def main_of(rows: Sequence[Row], labelled: bool) -> Row | None:
    """The face that a photo is of: the one with the label, or without labels the large and central one."""
    if labelled:
        return next((row for row in rows if row["label"] is not None), None)
    chosen = labelled_face(faces_of(rows), (rows[0]["height"], rows[0]["width"])) if rows else -1
    return rows[chosen] if chosen >= 0 else None
