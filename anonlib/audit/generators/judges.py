"""The networks that judge a painted face: four recognizers, two readers of gender and age, one of expression.

What a recognizer's word is worth depends on what it had to do with the making of the face, so each has a standing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.evidence.redetect import look_again
from anonlib.audit.generators.scanned import ScannedPhoto
from anonlib.config import DetectorConfig
from anonlib.faces.attributes import AttributeReader
from anonlib.faces.detect import CenterFaceDetector
from anonlib.faces.embed import Recognizer, model_input
from anonlib.faces.mesh import FaceMesh, five_points
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import PIPELINE_RECOGNIZER
from anonlib.models.runtime import load_engine
from anonlib.privacy.clustering import normalized

STANDING = {
    "fr-feature": "held out",
    "faceres": "held out",
    "mobileface": "may have trained it",
    PIPELINE_RECOGNIZER: "the vector's own",
}
"""The recognizers, and what each may have had to do with a generator."""
REALISM = "fr-feature"
"""In whose feature space painted faces are held against real ones."""
TWO_TASKS = "faceres"
"""The recognizer that also reads gender and age, and that nothing is trained or asked by."""

_AGES = np.arange(1, 101, dtype=np.float32)


@dataclass(frozen=True)
class JudgedFace:
    """n faces as judges see them: `vectors` by recognizer (n, d) unit; `expression` (n, 7) probabilities.

    `female` and `age` (n,) by the network that also says what is asked for, `held_female` and `held_age` by a held-out
    one. Attributes are NaN where no mesh fits; `found` (n,) is the detector's word; `meshes` (n, 468, 3) px.
    """

    found: NDArray[np.bool_]
    meshes: NDArray[np.float32]
    vectors: dict[str, NDArray[np.float32]]
    female: NDArray[np.float32]
    age: NDArray[np.float32]
    held_female: NDArray[np.float32]
    held_age: NDArray[np.float32]
    expression: NDArray[np.float32]

    def rows(self, chosen: slice) -> JudgedFace:
        """Some of the faces."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "vectors"}
        vectors = {name: one[chosen] for name, one in self.vectors.items()}
        return JudgedFace(vectors=vectors, **{name: value[chosen] for name, value in values.items()})


class Judges:
    """Holds the models, one thread each."""

    def __init__(self) -> None:
        cv2.setNumThreads(1)
        engine = {
            name: load_engine(model_bytes(name))
            for name in (*STANDING, "centerface", "facemesh", "age-gender", "expression")
        }
        usual = DetectorConfig()
        self.detector = CenterFaceDetector(engine["centerface"], side=usual.side, score=usual.score)
        self.mesh = FaceMesh(engine["facemesh"])
        self.recognizers = {name: Recognizer(name, engine[name]) for name in STANDING}
        self.reader = AttributeReader(engine["age-gender"], engine["expression"])

    def look(self, photos: Sequence[ScannedPhoto], images: Sequence[NDArray[np.uint8]]) -> JudgedFace:
        """At `images` that were made of `photos`: where is the face now, and whose does it look like?"""
        before = np.stack([photo.mesh for photo in photos])
        meshes, found, fits = look_again(self.detector, self.mesh, images, [photo.box for photo in photos], before)
        points = [five_points(mesh) for mesh in meshes]
        vectors = {name: one.embed(images, points) for name, one in self.recognizers.items() if name != TWO_TASKS}
        held, ages, male = self.recognizers[TWO_TASKS].engine(model_input(TWO_TASKS, images, points))
        vectors[TWO_TASKS] = normalized(held)
        read = self.reader.read(images, points)
        unseen = np.where(fits, 0.0, np.nan).astype(np.float32)
        return JudgedFace(
            found,
            meshes,
            vectors,
            read.female + unseen,
            read.age + unseen,
            1 - male.reshape(len(images)) + unseen,
            ages @ _AGES + unseen,
            read.expression + unseen[:, None],
        )

    def know(self, photos: Sequence[ScannedPhoto], names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Unit vectors (n, d) of photos as they are, the faces where the scan found them, by the recognizers named."""
        images, points = [photo.rgb for photo in photos], [photo.points for photo in photos]
        return {name: self.recognizers[name].embed(images, points) for name in names}


def joined(parts: Sequence[JudgedFace]) -> JudgedFace:
    """Several views as one."""

    def whole(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        if name == "vectors":
            return {one: np.concatenate([value[one] for value in values]) for one in values[0]}
        return np.concatenate(values)

    return JudgedFace(**{field.name: whole(field.name) for field in fields(JudgedFace)})
