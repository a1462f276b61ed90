"""Looks at faces as an attacker would: finds them again, and reads all that recognizers and attribute networks say.

What shows no face is not asked for one: gender, age, expression, pose, mesh and sharpness are read only where a mesh
fits, which is where they mean something. A flat ellipse is not searched at all, since nothing of a face is left.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import CROP, Look
from anonlib.audit.evidence.redetect import look_again
from anonlib.audit.trained.data import SIDE, framed
from anonlib.config import JobConfig
from anonlib.faces import align
from anonlib.faces.attributes import AttributeReader
from anonlib.faces.detect import CenterFaceDetector, Faces
from anonlib.faces.embed import Recognizer
from anonlib.faces.mesh import FaceMesh, five_points
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import ARCFACE_POINTS, VERIFIERS
from anonlib.models.requirements import load
from anonlib.synthesis.canonical import pose_of, shape_model
from anonlib.synthesis.describe import sharpness
from anonlib.workspace.schemas import EXPRESSIONS, MESH_POINTS

RECOGNIZERS = ("fr-feature", "mobileface", *VERIFIERS)
LOOKED_WITH = (*RECOGNIZERS, "centerface", "facemesh", "age-gender", "expression")
"""Every model that evidence is gathered with."""

Pixels = NDArray[np.uint8]
Meshes = NDArray[np.float32]
Vectors = dict[str, NDArray[np.float32]]
Row = Mapping[str, Any]


class Observer:
    """Holds the models; each image has one face that matters."""

    def __init__(self, config: JobConfig) -> None:
        cv2.setNumThreads(1)
        models = {name: model_bytes(name) for name in LOOKED_WITH}
        self.detector = CenterFaceDetector(
            load(models, "centerface", config), side=config.detector.side, score=config.detector.score
        )
        self.mesh = FaceMesh(load(models, "facemesh", config))
        self.recognizers = [Recognizer(name, load(models, name, config)) for name in RECOGNIZERS]
        self.reader = AttributeReader(load(models, "age-gender", config), load(models, "expression", config))

    def meshes(self, images: Sequence[Pixels], rows: Sequence[Row]) -> Meshes:
        """Meshes (n, 468, 3) of originals out of their FACES rows; fitted here where the job was a redaction."""
        if all(row["mesh"] is not None for row in rows):
            return np.array([row["mesh"] for row in rows], np.float32).reshape(-1, MESH_POINTS, 3)
        return np.concatenate([one.points for one in self.mesh.fit(images, [faces_of([row]) for row in rows])])

    def vectors(self, images: Sequence[Pixels], meshes: Meshes) -> Vectors:
        """Recognizer -> unit rows (n, d) of the faces at `meshes` (n, 468, 2 or 3)."""
        points = [five_points(mesh) for mesh in meshes]
        return {one.name: one.embed(images, points) for one in self.recognizers}

    def original(self, images: Sequence[Pixels], rows: Sequence[Row]) -> Look:
        """The faces of FACES rows on their own photos."""
        meshes = self.meshes(images, rows)
        return self._look(images, rows, meshes, *(np.ones(len(images), bool),) * 2)

    def changed(self, images: Sequence[Pixels], rows: Sequence[Row], before: Meshes) -> Look:
        """The same faces on photos that were changed, whose meshes were `before` (n, 468, 2)."""
        boxes = [box_of(row) for row in rows]
        return self._look(images, rows, *look_again(self.detector, self.mesh, images, boxes, _deep(before)))

    def hidden(self, images: Sequence[Pixels], rows: Sequence[Row], before: Meshes) -> Look:
        """The same places on photos where nothing of the faces is left."""
        return self._look(images, rows, _deep(before), *(np.zeros(len(images), bool),) * 2)

    def _look(
        self,
        images: Sequence[Pixels],
        rows: Sequence[Row],
        meshes: Meshes,
        found: NDArray[np.bool_],
        fits: NDArray[np.bool_],
    ) -> Look:
        count, seen = len(images), np.flatnonzero(fits).tolist()
        points = [five_points(mesh) for mesh in meshes]
        read = self.reader.read([images[row] for row in seen], [points[row] for row in seen])
        mean = shape_model().mean
        poses = np.array([pose_of(meshes[row], mean).angles() for row in seen], np.float32).reshape(-1, 3)
        sharp = np.array([sharpness(images[row], meshes[row]) for row in seen], np.float32)

        def whole(values: NDArray[np.float32], *shape: int) -> NDArray[np.float32]:
            filled = np.full((count, *shape), np.nan, np.float32)
            filled[seen] = values
            return filled

        return Look(
            vectors=self.vectors(images, meshes),
            found=found,
            female=whole(read.female),
            age=whole(read.age),
            expression=whole(read.expression, len(EXPRESSIONS)),
            pose=whole(poses, 3),
            mesh=whole(meshes[seen, :, :2], MESH_POINTS, 2),
            sharpness=whole(sharp),
            crops=np.array([crop_of(*one) for one in zip(images, points, strict=True)], np.uint8),
            frames=np.array([framed(image, box_of(row)) for image, row in zip(images, rows, strict=True)], np.uint8),
        )


def crop_of(image: Pixels, points: NDArray[np.float32]) -> Pixels:
    """The face (112, 112, 3) with its five points (5, 2) px where ArcFace wants them."""
    return align.crop(image, align.similarity(points, np.array(ARCFACE_POINTS, np.float32)), CROP)


def box_of(row: Row) -> NDArray[np.float32]:
    """The detector's box (4,) px of a FACES row."""
    return np.array(row["box"], np.float32)


def faces_of(rows: Sequence[Row]) -> Faces:
    """FACES rows as the detector gave them."""
    return Faces(
        np.array([row["box"] for row in rows], np.float32).reshape(-1, 4),
        np.array([row["score"] for row in rows], np.float32),
        np.array([row["landmarks"] for row in rows], np.float32).reshape(-1, 5, 2),
    )


def _deep(meshes: Meshes) -> Meshes:
    """Points in the image (n, 468, 2) with a depth that nobody asks for."""
    return np.pad(meshes, ((0, 0), (0, 0), (0, 1)))


# ---- many of them ---------------------------------------------------------------------------------------------


def nothing_seen() -> Look:
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


def joined(looks: Sequence[Look]) -> Look:
    """One look at all their faces, in order."""
    several = [one for one in looks if len(one.found)]
    if len(several) < 2:
        return several[0] if several else nothing_seen()
    arrays = [to_arrays(one) for one in several]
    return from_arrays({name: np.concatenate([one[name] for one in arrays]) for name in arrays[0]})


def taken(look: Look, rows: NDArray[np.bool_]) -> Look:
    """The look at some of the faces (n,)."""
    return look if rows.all() else from_arrays({name: array[rows] for name, array in to_arrays(look).items()})


def to_arrays(look: Look) -> dict[str, NDArray[Any]]:
    """Its arrays by name; `vectors/NAME` of each recognizer."""
    plain = {one.name: getattr(look, one.name) for one in fields(look) if one.name != "vectors"}
    return plain | {f"vectors/{name}": array for name, array in look.vectors.items()}


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Look:
    """The way back."""
    vectors = {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith("vectors/")}
    return Look(vectors=vectors, **{name: array for name, array in arrays.items() if "/" not in name})


def to_bytes(faces: Sequence[str], looks: Mapping[str, Look]) -> bytes:
    """Looks by kind at the faces with these ids, as one compressed .npz file."""
    arrays = {f"{kind}/{name}": array for kind, look in looks.items() for name, array in to_arrays(look).items()}
    sink = io.BytesIO()
    np.savez_compressed(sink, faces=np.array(faces, np.str_), **arrays)  # type: ignore[arg-type]
    return sink.getvalue()


def from_bytes(data: bytes, kinds: Sequence[str]) -> tuple[list[str], dict[str, Look]]:
    """The way back."""
    with np.load(io.BytesIO(data)) as stored:
        looks = {
            kind: from_arrays(
                {name.partition("/")[2]: stored[name] for name in stored.files if name.startswith(f"{kind}/")}
            )
            for kind in kinds
        }
        return stored["faces"].tolist(), looks
