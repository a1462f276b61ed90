"""A face's crop comes out aligned, and what is made of it goes back where it was."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.faces import align, topology
from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.mesh import FaceMesh, five_points
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from anonlib.synthesis import crops
from anonlib.synthesis.feature_transfer import POINTS
from tests.support import photos

Face = tuple[photos.Pixels, NDArray[np.float32]]


@pytest.fixture(scope="module")
def face() -> Face:
    """The astronaut and her mesh (468, 3)."""
    image = photos.astronaut()
    found = CenterFaceDetector(load_engine(model_bytes("centerface")), side=640, score=0.5).detect([image])
    return image, FaceMesh(load_engine(model_bytes("facemesh"))).fit([image], found)[0].points[0]


def nothing() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.zeros((128, 128, 3), np.float32), np.zeros((16, 16, 2), np.float32)


def oval(face: Face, grow: float) -> NDArray[np.bool_]:
    """The px (H, W) inside the face's oval, enlarged about its centre."""
    image, mesh = face
    points = mesh[list(topology.OVAL), :2]
    points = points.mean(axis=0) + grow * (points - points.mean(axis=0))
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)
    return mask > 0


def pasted(face: Face, rendered: crops.Rendered) -> photos.Pixels:
    out = face[0].copy()
    rendered.paste(out)
    return out


def test_the_five_points_fall_where_they_are_wanted(face: Face) -> None:
    crop = crops.take(*face, POINTS)
    away = np.linalg.norm(align.apply(crop.matrix, five_points(face[1])) - POINTS, axis=1)
    assert crop.pixels.shape == (128, 128, 3) and away.max() < 12


def test_no_change_changes_nothing(face: Face) -> None:
    image, mesh = face
    rendered = crops.change(image, mesh, crops.take(image, mesh, POINTS), *nothing())
    assert np.array_equal(pasted(face, rendered), image)
    assert rendered.coverage > 0.95


def test_a_tint_is_added_to_the_face_and_fades_around_it(face: Face) -> None:
    image, mesh = face
    tints, shifts = nothing()
    rendered = crops.change(image, mesh, crops.take(image, mesh, POINTS), tints + np.float32([0, 9, 0]), shifts)
    more = pasted(face, rendered).astype(int) - image
    inside = oval(face, 0.9) & (image < 240).all(axis=2)
    assert np.median(more[inside], axis=0).tolist() == [0, 9, 0]
    assert (more[~oval(face, 1.6)] == 0).all()
    assert more[oval(face, 1.3) & ~oval(face, 1.2)].mean() < 2


def test_a_shift_moves_the_face_and_keeps_it_sharp(face: Face) -> None:
    """Fetched from two crop px to the right, so the face moves two crop px to the left."""
    image, mesh = face
    crop = crops.take(image, mesh, POINTS)
    tints, shifts = nothing()
    out = pasted(face, crops.change(image, mesh, crop, tints, shifts + np.float32([2, 0])))
    by = 2 * align.inverse(crop.matrix)[:, 0]
    moved = cv2.warpAffine(
        image, np.float32([[1, 0, -by[0]], [0, 1, -by[1]]]), image.shape[1::-1], flags=cv2.INTER_CUBIC
    )
    inside = oval(face, 0.8)
    assert np.abs(out[inside].astype(int) - moved[inside]).mean() < 1.5
    assert np.abs(out[inside].astype(int) - image[inside]).mean() > 3


def test_new_px_are_laid_where_the_old_were_in_their_colours(face: Face) -> None:
    image, mesh = face
    crop = crops.take(image, mesh, POINTS)
    again = pasted(face, crops.replace(image, mesh, crop, crop.pixels))
    assert np.abs(again.astype(int) - image)[oval(face, 0.9)].mean() < 4
    tinted = np.clip(0.7 * crop.pixels + [30, 0, 0], 0, 255).astype(np.uint8)
    recoloured = pasted(face, crops.replace(image, mesh, crop, tinted))
    assert np.abs(recoloured[oval(face, 0.9)].mean(axis=0) - image[oval(face, 0.9)].mean(axis=0)).max() < 3
    assert (recoloured[~oval(face, 1.6)] == image[~oval(face, 1.6)]).all()


def test_a_face_that_the_photo_cuts_is_changed_as_far_as_it_is_there(face: Face) -> None:
    image, mesh = face
    x = round(float(mesh[topology.NOSE_TIP, 0]))
    half, tints, shifts = np.ascontiguousarray(image[:, :x]), *nothing()
    rendered = crops.change(half, mesh, crops.take(half, mesh, POINTS), tints + 9, shifts)
    (x0, y0), (height, width) = rendered.origin, rendered.alpha.shape
    assert x0 >= 0 and x0 + width <= x and y0 >= 0 and y0 + height <= len(image)
    assert rendered.patch.shape == (height, width, 3)


def test_a_photo_without_colour_stays_without(face: Face) -> None:
    image, mesh = face
    grey = np.repeat(image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    tints, shifts = nothing()
    rendered = crops.change(grey, mesh, crops.take(grey, mesh, POINTS), tints + np.float32([30, 0, -30]), shifts)
    assert (np.ptp(rendered.patch, axis=2) == 0).all()
