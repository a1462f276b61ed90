"""The checker says whether a face is still there and still the source's, from pixels alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.mesh import FaceMesh, five_points
from anonlib.methods import models_of
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from anonlib.stages.render_state import OutputRecheck
from anonlib.synthesis.redact import redact
from tests.support import photos
from tests.support.runs import job


@dataclass
class Photo:
    rgb: photos.Pixels
    out: photos.Pixels


@dataclass
class Face:
    box: NDArray[np.float32]
    mesh: NDArray[np.float32]
    second: NDArray[np.float32]
    findings: list[dict[str, Any]] = field(default_factory=list)
    detected_again: bool | None = None


def test_a_face_matches_itself_and_not_what_covers_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One face each of two people who never lived and of the astronaut, checked together and alone."""
    config = job("in", tmp_path_factory.mktemp("check"))
    checker = OutputRecheck(config, {name: model_bytes(name) for name in models_of(config)[1]})
    pixels = [photos.astronaut(), *(shot for _, shot in photos.people(2, 1))]
    found = CenterFaceDetector(load_engine(model_bytes("centerface")), side=640, score=0.4).detect(pixels)
    meshes = FaceMesh(load_engine(model_bytes("facemesh"))).fit(pixels, found)
    second = checker.recognizer.embed(pixels, [five_points(mesh.points[0]) for mesh in meshes])
    faces = [Face(boxes.boxes[0], mesh.points[0], own) for boxes, mesh, own in zip(found, meshes, second, strict=True)]

    def checked(outputs: list[photos.Pixels]) -> tuple[list[bool], list[float]]:
        """Which faces still match, and how alike the recognizer finds each to its source."""
        pairs: Any = [(Photo(*shots), face) for *shots, face in zip(pixels, outputs, faces, strict=True)]
        matching = {id(face) for _, face in checker.check(pairs)}
        together = [face.findings[0]["to_source"] for face in faces]
        for number, pair in enumerate(pairs):
            checker.check([pair])
            assert faces[number].findings[0]["to_source"] == together[number], "it depends on its neighbours"
        return [id(face) in matching for face in faces], together

    matches, similarity = checked([image.copy() for image in pixels])
    assert all(matches) and min(similarity) > 0.999 and all(face.detected_again for face in faces)
    assert all(checked([np.asarray(cv2.GaussianBlur(image, (0, 0), 1.5), np.uint8) for image in pixels])[0])
    covered = [image.copy() for image in pixels]
    for image, face in zip(covered, faces, strict=True):
        redact(image, face.box, "solid")
    assert not any(checked(covered)[0]) and not any(face.detected_again for face in faces)
