from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from anonlib.faces import align
from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.mesh import (
    _BY_POINTS,
    SIZE,
    FaceMesh,
    Meshes,
    _by_points,
    eye_opening,
    five_points,
    from_mesh,
    lies_on,
    mouth_opening,
)
from anonlib.faces.regions import Regions
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import Engine, load_engine


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


def test_a_smile_with_teeth_is_an_open_mouth_and_her_eyes_are_open(mesh: Meshes) -> None:
    assert 0.05 < mouth_opening(mesh.points[0]) < 0.5
    assert eye_opening(mesh.points[0]) > 0.15


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


def test_other_views_are_tried_where_the_first_shows_no_face(found: Regions, mesh: Meshes) -> None:
    engine = load_engine(model_bytes("facemesh"))
    calls = 0

    def blind_at_first(batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        nonlocal calls
        calls += 1
        points, presence, *rest = engine(batch)
        return [points, presence * (calls > 2), *rest]

    fitted = FaceMesh(cast(Engine, blind_at_first)).fit([data.astronaut()], [found])[0]
    assert calls == 4 and fitted.presence[0] > 0.9
    assert np.abs(five_points(fitted.points[0]) - five_points(mesh.points[0])).max() < 3


def test_a_view_around_the_landmarks_shows_the_face_as_its_mesh_would_whatever_its_box(
    found: Regions, mesh: Meshes
) -> None:
    """The network fits a face that a photo's edge cuts off by such a view; its box is another there."""
    known = from_mesh(mesh.points[0])
    nose = mesh.points[0, 1, :2]
    for side in _BY_POINTS:
        view = _by_points(side, np.full(4, np.nan, np.float32), found.landmarks[0])
        assert 0.9 < np.sqrt(np.linalg.det(view[:, :2]) / np.linalg.det(known[:, :2])) < 1.5
        assert np.linalg.norm(align.apply(view, nose) - SIZE / 2) < SIZE / 4


def test_a_face_is_followed_from_its_mesh_in_the_last_frame(found: Regions, mesh: Meshes) -> None:
    image, fitting = data.astronaut(), FaceMesh(load_engine(model_bytes("facemesh")))
    never, always = np.array([False]), np.array([True])
    moved = mesh.points[0] + np.float32([4, -3, 0])  # where it was
    followed = fitting.follow(image, found, [moved], never)
    assert followed.presence[0] > 0.9
    assert np.linalg.norm((followed.points - mesh.points)[0, :, :2], axis=1).mean() < 3
    assert fitting.follow(image, found, [None], never).presence[0] == 0
    np.testing.assert_array_equal(fitting.follow(image, found, [None], always).points, mesh.points)
