"""The check recognizes the source, and misses no face that is still there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.mesh import FaceMesh
from anonlib.methods import models_of
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from anonlib.stages.recheck import OutputRecheck, RecheckResult
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
    findings: list[RecheckResult] = field(default_factory=list)
    detected_again: bool | None = None


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> OutputRecheck:
    config = job("in", tmp_path_factory.mktemp("check"))
    return OutputRecheck(config, {name: model_bytes(name) for name in models_of(config)[1]})


@pytest.fixture(scope="module")
def faces() -> list[tuple[photos.Pixels, Face]]:
    """One face each of two people who never lived and of the astronaut."""
    pixels = [photos.astronaut(), *(shot for _, shot in photos.people(2, 1))]
    detector = CenterFaceDetector(load_engine(model_bytes("centerface")), side=640, score=0.4)
    found = detector.detect(pixels)
    meshes = FaceMesh(load_engine(model_bytes("facemesh"))).fit(pixels, found)
    return [
        (image, Face(boxes.boxes[0], mesh.points[0])) for image, boxes, mesh in zip(pixels, found, meshes, strict=True)
    ]


def test_a_face_that_was_not_changed_matches_itself(
    checker: OutputRecheck, faces: list[tuple[photos.Pixels, Face]]
) -> None:
    pairs = [(Photo(pixels, pixels.copy()), face) for pixels, face in faces]
    assert checker.check(pairs) == pairs
    for _, face in pairs:
        assert face.findings[0].similarity > 0.999 and face.findings[0].matches
        assert face.detected_again


def test_a_covered_face_matches_nothing_and_is_not_found_again(
    checker: OutputRecheck, faces: list[tuple[photos.Pixels, Face]]
) -> None:
    pairs = []
    for pixels, face in faces:
        out = pixels.copy()
        redact(out, face.box, "solid")
        pairs.append((Photo(pixels, out), face))
    assert checker.check(pairs) == []
    assert not any(face.detected_again for _, face in pairs)


def test_a_faint_blur_is_still_the_same_person(checker: OutputRecheck, faces: list[tuple[photos.Pixels, Face]]) -> None:
    pairs = [
        (Photo(pixels, np.asarray(cv2.GaussianBlur(pixels, (0, 0), 1.5), np.uint8)), face) for pixels, face in faces
    ]
    assert len(checker.check(pairs)) == len(pairs)


def test_the_answer_for_a_face_does_not_depend_on_its_neighbours(
    checker: OutputRecheck, faces: list[tuple[photos.Pixels, Face]], tmp_path: Path
) -> None:
    def similarities(chosen: list[tuple[photos.Pixels, Face]]) -> list[float]:
        pairs = [(Photo(pixels, 255 - pixels), face) for pixels, face in chosen]
        checker.check(pairs)
        return [face.findings[0].similarity for _, face in pairs]

    assert similarities(faces) == [similarities([one])[0] for one in faces]
