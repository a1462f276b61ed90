"""A face's crop comes out aligned, and what is made of it goes back where it was."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.faces import align, topology
from anonlib.synthesis import feature_transfer as crops
from anonlib.synthesis.feature_transfer import POINTS
from tests.support.photos import Pixels

Mesh = NDArray[np.float32]
TINTS, SHIFTS = np.zeros((128, 128, 3), np.float32), np.zeros((16, 16, 2), np.float32)


@pytest.fixture
def taken(photo: Pixels, mesh: Mesh) -> tuple[Pixels, Mesh]:
    return crops.take(photo, mesh, POINTS)


def changed(photo: Pixels, mesh: Mesh, tints: Mesh = TINTS, shifts: Mesh = SHIFTS) -> crops.Rendered:
    return crops.change(photo, mesh, crops.take(photo, mesh, POINTS)[1], tints, shifts)


def oval(photo: Pixels, mesh: Mesh, grow: float) -> NDArray[np.bool_]:
    """The px (H, W) inside the face's oval, enlarged about its centre."""
    points = mesh[list(topology.OVAL), :2]
    points = points.mean(axis=0) + grow * (points - points.mean(axis=0))
    mask = np.zeros(photo.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)
    return mask > 0


def pasted(photo: Pixels, rendered: crops.Rendered) -> Pixels:
    out = photo.copy()
    rendered.paste(out)
    return out


def test_no_change_changes_nothing(photo: Pixels, mesh: Mesh) -> None:
    rendered = changed(photo, mesh)
    assert np.array_equal(pasted(photo, rendered), photo) and rendered.coverage > 0.95


def test_a_tint_is_added_to_the_face_and_fades_around_it(photo: Pixels, mesh: Mesh) -> None:
    more = pasted(photo, changed(photo, mesh, TINTS + np.float32([0, 9, 0]))).astype(int) - photo
    inside = oval(photo, mesh, 0.9) & (photo < 240).all(axis=2)
    assert np.median(more[inside], axis=0).tolist() == [0, 9, 0]
    assert (more[~oval(photo, mesh, 1.6)] == 0).all()
    assert more[oval(photo, mesh, 1.3) & ~oval(photo, mesh, 1.2)].mean() < 2


def test_a_shift_moves_the_face_and_keeps_it_sharp(photo: Pixels, mesh: Mesh, taken: tuple[Pixels, Mesh]) -> None:
    """Fetched from two crop px to the right, so the face moves two crop px to the left."""
    out = pasted(photo, changed(photo, mesh, shifts=SHIFTS + np.float32([2, 0])))
    x, y = 2 * align.inverse(taken[1])[:, 0]
    moved = cv2.warpAffine(photo, np.float32([[1, 0, -x], [0, 1, -y]]), photo.shape[1::-1], flags=cv2.INTER_CUBIC)
    inside = oval(photo, mesh, 0.8)
    assert np.abs(out[inside].astype(int) - moved[inside]).mean() < 1.5
    assert np.abs(out[inside].astype(int) - photo[inside]).mean() > 3


def test_new_px_are_laid_where_the_old_were_in_their_colours(
    photo: Pixels, mesh: Mesh, taken: tuple[Pixels, Mesh]
) -> None:
    pixels, matrix = taken
    inside, outside = oval(photo, mesh, 0.9), ~oval(photo, mesh, 1.6)
    again = pasted(photo, crops.replace(photo, mesh, matrix, pixels))
    assert np.abs(again.astype(int) - photo)[inside].mean() < 4
    tinted = np.clip(0.7 * pixels + [30, 0, 0], 0, 255).astype(np.uint8)
    recoloured = pasted(photo, crops.replace(photo, mesh, matrix, tinted))
    assert np.abs(recoloured[inside].mean(axis=0) - photo[inside].mean(axis=0)).max() < 3
    assert (recoloured[outside] == photo[outside]).all()


def test_a_face_that_the_photo_cuts_is_changed_as_far_as_it_is_there(photo: Pixels, mesh: Mesh) -> None:
    half = np.ascontiguousarray(photo[:, : round(float(mesh[topology.NOSE_TIP, 0]))])
    out = pasted(half, changed(half, mesh, TINTS + 9))
    assert out.shape == half.shape and (out != half).any()
