import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from anonlib.faces import topology
from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.gaze import gaze_angles, gaze_error
from anonlib.faces.mesh import (
    FaceMesh,
    Meshes,
    five_points,
    lies_on,
)
from anonlib.faces.regions import Regions
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from tests.support import photos


@pytest.fixture(scope="module")
def found() -> Regions:
    return CenterFaceDetector(load_engine(model_bytes("centerface")), side=640, score=0.4).detect([data.astronaut()])[0]


@pytest.fixture(scope="module")
def mesh(found: Regions) -> Meshes:
    return FaceMesh(load_engine(model_bytes("facemesh"))).fit([data.astronaut()], [found])[0]


def test_the_mesh_agrees_with_the_detectors_landmarks(found: Regions, mesh: Meshes) -> None:
    eyes = np.linalg.norm(found.landmarks[0, 1] - found.landmarks[0, 0])
    distance = np.linalg.norm(five_points(mesh.points[0]) - found.landmarks[0], axis=1)
    assert mesh.presence[0] > 0.9
    assert distance.max() < 0.25 * eyes


def test_a_mesh_lies_on_its_face_only_where_box_and_landmarks_agree(found: Regions, mesh: Meshes) -> None:
    box, landmarks = found.boxes[0], found.landmarks[0]
    side = box[2:] - box[:2]
    assert lies_on(mesh.points[0], box, landmarks)
    assert not lies_on(mesh.points[0], box + 0.5 * np.tile(side, 2), landmarks)
    assert not lies_on(mesh.points[0], box, landmarks + 0.2 * side)


def test_a_mesh_that_the_network_finds_beside_its_box_is_no_face(found: Regions) -> None:
    aside = 0.9 * (found.boxes[0, 2:] - found.boxes[0, :2])
    beside = Regions(found.boxes + np.tile(aside, 2), found.scores, found.landmarks + aside)
    drifted = FaceMesh(load_engine(model_bytes("facemesh"))).fit([data.astronaut()], [beside])[0]
    assert drifted.presence[0] == 0


def test_a_face_is_followed_from_its_mesh_in_the_last_frame(found: Regions, mesh: Meshes) -> None:
    image, fitting = data.astronaut(), FaceMesh(load_engine(model_bytes("facemesh")))
    never, always = np.array([False]), np.array([True])
    moved = mesh.points[0] + np.float32([4, -3, 0])  # where it was
    followed = fitting.follow(image, found, [moved], never)
    assert followed.presence[0] > 0.9
    assert np.linalg.norm((followed.points - mesh.points)[0, :, :2], axis=1).mean() < 3
    assert fitting.follow(image, found, [None], never).presence[0] == 0
    np.testing.assert_array_equal(fitting.follow(image, found, [None], always).points, mesh.points)


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


def test_the_error_of_a_gaze_is_an_angle_and_closed_eyes_have_none() -> None:
    ahead, aside, shut = [0.0, 0, 0.3, 0.2] * 2, [0.1, 0, 0.3, 0.2] * 2, [0.1, 0, 0.05, 0.2] * 2
    error = gaze_error([ahead, ahead, ahead], [ahead, aside, shut])
    assert error[0] == 0 and 12 < error[1] < 20 and np.isnan(error[2])
