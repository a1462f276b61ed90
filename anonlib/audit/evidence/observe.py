"""Looks at faces as an attacker would: finds them again, and reads all that recognizers and attribute networks say.

Gender, age, expression, pose, mesh and sharpness are read only where a mesh fits, which is where they mean something. A
flat ellipse is not searched at all, since nothing of a face is left.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from anonlib.audit.evidence.evidence import CROP, JUDGES, SIDE, Look, frame
from anonlib.audit.evidence.pixels import crispness
from anonlib.config import JobConfig, RayConfig
from anonlib.faces import align, gaze
from anonlib.faces.detect import open_detector
from anonlib.faces.embed import Recognizer, model_input, read_attributes
from anonlib.faces.mesh import MIN_PRESENCE, FaceMesh, five_points
from anonlib.faces.regions import FACE, Regions, labelled_face
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import ARCFACE_POINTS, VERIFIERS
from anonlib.models.requirements import best_precision, device_of, load
from anonlib.models.runtime import Placement, Precision
from anonlib.synthesis.canonical import pose_of, shape_model
from anonlib.synthesis.describe import sharpness
from anonlib.workspace.schemas import EXPRESSIONS, EYES, MESH_POINTS
from anonlib.workspace.tables import Row

RECOGNIZERS = ("fr-feature", "facenet", "mobileface", *VERIFIERS)
LOOKED_WITH = (*RECOGNIZERS, *JUDGES, "facemesh", "iris", "age-gender", "expression")
"""Every model that evidence is gathered with, beside the job's detector."""
SAME_PLACE = 0.35
"""How far a detection's centre may lie from the original's, in longer sides of the original's box."""

_ALIGNED = 112
"""Side in px of what ARCFACE_POINTS are the five points of."""

Pixels = NDArray[np.uint8]
Meshes = NDArray[np.float32]
Mask = NDArray[np.bool_]
Vectors = dict[str, NDArray[np.float32]]


class Observer:
    """Holds the models; of each image one face is observed, and a list of images may be empty."""

    def __init__(self, config: JobConfig) -> None:
        cv2.setNumThreads(1)
        # Several observers look at the same time, each on a core.
        how = {"precision": precision(config), "ray": RayConfig(actors=1, num_gpus=config.ray.num_gpus)}
        config, models = config.model_copy(update=how), {name: model_bytes(name) for name in LOOKED_WITH}
        engines = {name: load(models, name, config) for name in LOOKED_WITH}
        self.detector = open_detector(config.detector.searching, where=Placement(device_of(config), precision(config)))
        self.mesh, self.iris = FaceMesh(engines["facemesh"], engines["iris"]), engines["iris"]
        self.recognizers = [Recognizer(name, engines[name]) for name in RECOGNIZERS]
        self.judges = {name: engines[name] for name in JUDGES}
        self.attributes = engines["age-gender"], engines["expression"]

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

    def changed(self, images: Sequence[Pixels], rows: Sequence[Row], before: Meshes, *, searched: bool = True) -> Look:
        """The same faces on photos that were changed, whose meshes were `before` (n, 468, 2).

        Where none is found, or no mesh fits, vectors are taken at `before`, so that a hidden face is not counted as a
        safe one. Not `searched` are photos where nothing of the faces is left.
        """
        after = np.pad(before, ((0, 0), (0, 0), (0, 1)))  # a depth of 0, which no reader uses
        found, fits = np.zeros(len(images), bool), np.zeros(len(images), bool)
        if searched:
            regions = zip(self.detector.detect(images), rows, strict=True)
            chosen = [nearest(faces.faces, np.array(row["box"], np.float32)) for faces, row in regions]
            found[:] = [len(faces) > 0 for faces in chosen]
            for index, meshes in enumerate(self.mesh.fit(images, chosen)):
                if len(meshes.points) and meshes.presence[0] >= MIN_PRESENCE:
                    after[index], fits[index] = meshes.points[0], True
        return self._look(images, rows, after, found, fits)

    def _look(self, images: Sequence[Pixels], rows: Sequence[Row], meshes: Meshes, found: Mask, fits: Mask) -> Look:
        seen = np.flatnonzero(fits).tolist()
        points = [five_points(mesh) for mesh in meshes]
        shown, where = [images[row] for row in seen], [points[row] for row in seen]
        age, female, expression = read_attributes(*self.attributes, shown, where)
        # The first number of either network is the probability that the face is real.
        real = [judge(model_input(name, shown, where))[0][:, 0] for name, judge in self.judges.items()]
        mean, target = shape_model().mean, np.array(ARCFACE_POINTS, np.float32)
        crops = np.zeros((len(images), CROP, CROP), np.uint8)
        frames = np.zeros((len(images), SIDE, SIDE, 3), np.uint8)
        for number, (image, row, five) in enumerate(zip(images, rows, points, strict=True)):
            grey = cv2.cvtColor(align.crop(image, align.similarity(five, target), _ALIGNED), cv2.COLOR_RGB2GRAY)
            crops[number] = cv2.resize(grey, (CROP, CROP), interpolation=cv2.INTER_AREA)
            frames[number] = align.crop(image, frame(np.array(row["box"], np.float32)), SIDE)

        def whole(values: ArrayLike, *shape: int) -> NDArray[np.float32]:
            filled = np.full((len(images), *shape), np.nan, np.float32)
            filled[seen] = np.asarray(values, np.float32).reshape(-1, *shape)
            return filled

        return Look(
            vectors=self.vectors(images, meshes),
            found=found,
            female=whole(female),
            age=whole(age),
            expression=whole(expression, len(EXPRESSIONS)),
            pose=whole([pose_of(meshes[row], mean).angles() for row in seen], 3),
            mesh=whole(meshes[seen, :, :2], MESH_POINTS, 2),
            real=whole(np.stack(real, axis=1), len(JUDGES)),
            sharpness=whole([sharpness(images[row], meshes[row]) for row in seen]),
            crispness=whole([crispness(images[row], meshes[row]) for row in seen]),
            eyes=whole(gaze.refine(self.iris, shown, [meshes[row].copy() for row in seen]), EYES),
            crops=crops,
            frames=frames,
        )


def precision(config: JobConfig) -> Precision:
    """In what the networks compute here whose answers hold in bfloat16, where the job does not want f32."""
    return "f32" if config.precision == "f32" else best_precision(config)


def nearest(faces: Regions, box: NDArray[np.float32]) -> Regions:
    """The face of `faces` whose centre is nearest to that of `box` (4,) px and within SAME_PLACE of it, or none."""
    if len(faces) == 0:
        return faces
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    away = np.linalg.norm(centres - (box[:2] + box[2:]) / 2, axis=1)
    best = int(away.argmin())
    near = away[best] <= SAME_PLACE * float((box[2:] - box[:2]).max())
    return faces.rows(slice(best, best + 1) if near else slice(0, 0))


def faces_of(rows: Sequence[Row]) -> Regions:
    """FACES rows as the detector gave them."""
    return Regions(
        np.array([row["box"] for row in rows], np.float32).reshape(-1, 4),
        np.array([row["score"] for row in rows], np.float32),
        np.array([row["landmarks"] for row in rows], np.float32).reshape(-1, 5, 2),
        tuple(row["kind"] or FACE for row in rows),
    )


def main_of(rows: Sequence[Row], labelled: bool) -> Row | None:
    """The main face of a photo: the one with the label, or without labels the large and central one."""
    if labelled:
        return next((row for row in rows if row["label"] is not None), None)
    chosen = labelled_face(faces_of(rows), (rows[0]["height"], rows[0]["width"])) if rows else -1
    return rows[chosen] if chosen >= 0 else None
