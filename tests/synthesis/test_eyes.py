"""A surrogate looks where the source looks, closes its eyes with it, and has the same eyes in every photo."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.faces.gaze import gaze_error, refine
from anonlib.faces.mesh import eye_opening
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from anonlib.synthesis.compositor import render
from anonlib.synthesis.eyes import with_lids
from anonlib.synthesis.textures.average import Texture, member_texture, portrait
from tests.support.photos import Pixels

Mesh = NDArray[np.float32]
EYES = (topology.LEFT_EYE, topology.RIGHT_EYE)


@pytest.fixture(scope="module")
def surrogate(photo: Pixels, mesh: Mesh) -> Texture:
    return member_texture([portrait(photo, mesh, 1.0)])


def rendered(photo: Pixels, mesh: Mesh, surrogate: Texture, across: float, below: float) -> Pixels:
    out = photo.copy()
    render(photo, mesh, 1.0, surrogate, gaze=np.array([across, below, 0.35, 0.22] * 2, np.float32)).paste(out)
    return out


def inside(mesh: Mesh, points: tuple[int, ...], photo: Pixels) -> Pixels:
    """The px of the upright box around an eye."""
    (x0, y0), (x1, y1) = (np.rint(edge(mesh[list(points), :2], axis=0)).astype(int) for edge in (np.min, np.max))
    return photo[y0 : y1 + 1, x0 : x1 + 1]


@pytest.mark.parametrize(("across", "below"), [(-0.12, -0.06), (0.12, -0.06), (0.0, 0.02)])
def test_the_network_reads_the_gaze_that_was_drawn(
    photo: Pixels, mesh: Mesh, surrogate: Texture, across: float, below: float
) -> None:
    out = rendered(photo, mesh, surrogate, across, below)
    seen = refine(load_engine(model_bytes("iris")), [out], [mesh.copy()])
    assert gaze_error([[across, below, 0.35, 0.22] * 2], seen)[0] < 10


def test_closed_eyes_stay_closed_and_are_skin(photo: Pixels, mesh: Mesh, surrogate: Texture) -> None:
    shut = mesh.copy()
    for points in EYES:  # each upper point onto the lower one that stands under it
        ring = list(points)
        shut[ring[1:8]] = shut[ring[:8:-1]]
    assert eye_opening(mesh) > 0.2 and eye_opening(shut) < 0.05
    assert eye_opening(with_lids(mesh, shut, None)) < 0.05 and abs(eye_opening(with_lids(shut, shut, None))) < 0.05
    for gaps in ((0.05, 0.05), (0.05, 0.3)):  # lids move together
        gaze = np.array([[0, 0, gap, 0.2] for gap in gaps], np.float32)
        assert eye_opening(with_lids(mesh, mesh, gaze)) < 0.05
    open_eye, shut_eye = (
        inside(mesh, EYES[0], rendered(photo, of, surrogate, 0.0, -0.06)).astype(int) for of in (mesh, shut)
    )
    assert np.percentile(open_eye.sum(axis=2), 5) < 0.5 * np.percentile(shut_eye[:-3].sum(axis=2), 5)


def test_no_px_of_the_sources_eyes_is_used(photo: Pixels, mesh: Mesh, surrogate: Texture) -> None:
    marked = photo.copy()
    for points in EYES:
        eye = inside(mesh, points, marked)
        eye[:] = np.random.default_rng(0).integers(0, 256, eye.shape)
    before, after = (rendered(of, mesh, surrogate, 0.0, -0.06).astype(int) for of in (photo, marked))
    for points in EYES:  # skin beside them gives the smooth tone
        change = (inside(mesh, points, after) - inside(mesh, points, before)).astype(np.float32)
        assert np.abs(change).max() < 20 and np.abs(change - cv2.blur(change, (5, 5))).mean() < 1
