"""Eyes are read where they are, a mirrored face looks the other way, and what is no eye is not read."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.gaze import gaze_angles, gaze_error, refine
from anonlib.faces.mesh import FaceMesh, Meshes
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import Engine, load_engine
from tests.support import photos


def read(photo: photos.Pixels) -> tuple[Meshes, NDArray[np.float32]]:
    """The astronaut's mesh with her eyes, and her mesh without."""
    engine = load_engine(model_bytes("facemesh"))
    found = CenterFaceDetector(load_engine(model_bytes("centerface")), side=640, score=0.4).detect([photo])
    refined, plain = (
        FaceMesh(engine, iris).fit([photo], found)[0] for iris in (load_engine(model_bytes("iris")), None)
    )
    return refined, plain.points[0]


@pytest.fixture(scope="module")
def astronaut() -> tuple[Meshes, NDArray[np.float32]]:
    return read(photos.astronaut())


def test_her_open_eyes_look_nearly_ahead_and_only_her_lids_move(astronaut: tuple[Meshes, NDArray[np.float32]]) -> None:
    meshes, plain = astronaut
    moved = np.linalg.norm(meshes.points[0] - plain, axis=1)
    width = np.linalg.norm(plain[topology.LEFT_EYE_INNER] - plain[topology.LEFT_EYE_OUTER])
    assert 0 < moved[list(topology.LEFT_EYE)].mean() < 0.15 * width and (moved > 0).sum() <= 64
    eyes = meshes.eyes[0].reshape(2, 4)
    assert (eyes[:, 2] > 0.2).all() and (eyes[:, 3] > 0.15).all() and (eyes[:, 3] < 0.3).all()
    assert np.abs(gaze_angles(meshes.eyes)).max() < 25


def test_a_mirrored_face_looks_the_other_way(astronaut: tuple[Meshes, NDArray[np.float32]]) -> None:
    eyes = astronaut[0].eyes[0].reshape(2, 4)
    mirrored = read(np.ascontiguousarray(photos.astronaut()[:, ::-1]))[0].eyes[0].reshape(2, 4)[::-1]
    assert np.abs(mirrored * [-1, 1, 1, 1] - eyes).max() < 0.04


def test_an_answer_that_does_not_fit_the_mesh_is_no_eye_and_moves_nothing(
    astronaut: tuple[Meshes, NDArray[np.float32]],
) -> None:
    engine, plain = load_engine(model_bytes("iris")), astronaut[1]

    def narrow(batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [32 + (points - 32) * np.float32(0.5) for points in engine(batch)]

    mesh = plain.copy()
    eyes = refine(cast(Engine, narrow), [photos.astronaut()], [mesh])
    assert np.isnan(eyes).all() and (mesh == plain).all()


def test_the_error_of_a_gaze_is_an_angle_and_closed_eyes_have_none() -> None:
    ahead, aside, shut = [0.0, 0, 0.3, 0.2] * 2, [0.1, 0, 0.3, 0.2] * 2, [0.1, 0, 0.05, 0.2] * 2
    error = gaze_error([ahead, ahead, ahead], [ahead, aside, shut])
    assert error[0] == 0 and 12 < error[1] < 20 and np.isnan(error[2])
