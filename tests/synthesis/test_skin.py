"""A new face is as sharp and as grainy as the skin of the photo that it goes into."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.audit.evidence.pixels import crispness
from anonlib.synthesis.canonical import SIZE, shape_model
from anonlib.synthesis.compositor import render
from anonlib.synthesis.skin import AGES, Grain, as_blurred, relief_at
from anonlib.synthesis.textures.average import Texture
from tests.support.photos import Pixels

SMOOTH = Texture(np.zeros((SIZE, SIZE, 3), np.float32), shape_model().mean, 0.5)
ROUGH = Texture(
    np.random.default_rng(0).normal(0, 0.1, (SIZE, SIZE, 3)).astype(np.float32), shape_model().mean, 0.5, 30.0
)


@pytest.fixture(params=["sharp", "blurred", "grainy"])
def taken(request: pytest.FixtureRequest, photo: Pixels) -> Pixels:
    """The photo as other cameras would have taken it."""
    if request.param == "blurred":
        return np.asarray(cv2.GaussianBlur(photo, (0, 0), 1.5), np.uint8)
    grain = np.random.default_rng(1).normal(0, 3 * (request.param == "grainy"), photo.shape)
    return np.clip(photo + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("texture", [SMOOTH, ROUGH], ids=["smooth", "rough"])
def test_a_new_face_is_as_sharp_as_the_photo(taken: Pixels, mesh: NDArray[np.float32], texture: Texture) -> None:
    out, again = taken.copy(), taken.copy()
    render(taken, mesh, 0.5, texture).paste(out)
    render(taken, mesh, 0.5, texture).paste(again)
    assert 0.8 <= crispness(out, mesh) / crispness(taken, mesh) <= 1.27
    assert (out == again).all()


def test_a_painted_face_is_no_measure_of_skin() -> None:
    view = np.full((64, 64, 3), 120, np.uint8)
    view[:, 32:] += np.random.default_rng(0).integers(0, 3, (64, 32, 1), dtype=np.uint8)
    view[:, :32][np.indices((64, 32)).sum(axis=0) % 2 == 0] = 20
    face = np.arange(64) < 32
    masks = (np.broadcast_to(mask, (64, 64)) for mask in (face, ~face, face))
    grain = Grain.of(view, *masks)
    assert 0 < grain.fine < 20


def test_features_are_no_sharper_than_those_of_the_photo_and_stay_as_they_are_in_a_sharp_one() -> None:
    lines = (40.0 * (np.indices((96, 96))[1] // 12 % 2) + 100).astype(np.float32)
    sharp, everywhere = np.repeat(lines[..., None], 3, axis=2), np.ones((96, 96), bool)
    blurred = np.asarray(cv2.GaussianBlur(sharp, (0, 0), 2), np.float32)
    grains = [Grain.of(of.astype(np.uint8), everywhere, everywhere, everywhere) for of in (sharp, blurred)]
    same, less = (as_blurred(sharp, grain, everywhere.astype(np.float32)) for grain in grains)
    steepest = [np.abs(np.diff(of[..., 0], axis=1)).max() for of in (sharp, same, less, blurred)]
    assert steepest[1] > 0.8 * steepest[0] and steepest[2] < 0.6 * steepest[0] and steepest[2] > 0.5 * steepest[3]


def test_a_surrogate_always_wears_the_same_skin_of_its_age() -> None:
    rows, columns = np.mgrid[60:200, 60:200].astype(np.float32)
    grid, shape = np.stack([columns, rows], axis=-1), shape_model().mean
    young, old = (relief_at(grid, 131.0, shape, age) for age in (AGES[0] - 1, AGES[1] + 1))
    assert (young == relief_at(grid, 131.0, shape, AGES[0] - 9)).all()
    assert abs(np.corrcoef(young.ravel(), old.ravel())[0, 1]) < 0.2 and 0.3 < young.std() < 1.5
