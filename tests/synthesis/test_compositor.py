"""The surrogate lies where the face was, in the photo's light, and no px of the face is left."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.audit.evidence.pixels import crispness
from anonlib.faces import topology
from anonlib.synthesis.canonical import SIZE, canonical_frame, shape_model, vertices_of
from anonlib.synthesis.compositor import Rendered, as_large, render
from anonlib.synthesis.light import middle, skin_region
from anonlib.synthesis.textures.average import Texture
from tests.support.photos import Pixels

Mask = NDArray[np.bool_]
Mesh = NDArray[np.float32]
Paint = Callable[[Pixels], Pixels]


def put(photo: Pixels, rendered: Rendered) -> Pixels:
    out = photo.copy()
    rendered.paste(out)
    return out


@pytest.fixture(scope="module")
def surrogate() -> Texture:
    detail = np.zeros((SIZE, SIZE, 3), np.float32)
    for part in (topology.LEFT_EYE, topology.RIGHT_EYE, topology.LEFT_BROW, topology.RIGHT_BROW, topology.LIPS_OUTER):
        detail[canonical_frame().polygon(part)] = -0.8
    return Texture(detail, shape_model().mean, 0.5)


@pytest.fixture(scope="module")
def paint(mesh: Mesh, surrogate: Texture) -> Paint:
    """A photo with the surrogate in it."""
    return lambda photo: put(photo, render(photo, mesh, 0.5, surrogate))


@pytest.fixture(scope="module")
def face(photo: Pixels, mesh: Mesh) -> Mask:
    """The px of the photo between brows and chin."""
    grid, covered = canonical_frame().map_out(vertices_of(mesh), *photo.shape[:2])
    inside = cv2.remap(skin_region().astype(np.float32), grid[..., 0], grid[..., 1], cv2.INTER_LINEAR)
    return covered & (inside > 0.9)


def shrunk(mask: Mask, px: int) -> Mask:
    return cv2.erode(mask.astype(np.uint8), np.ones((px, px))).astype(bool)


def test_no_px_of_the_sources_face_is_used(photo: Pixels, mesh: Mesh, face: Mask, paint: Paint) -> None:
    """From brows to lip; at the rim of the forehead checks on hair are hair."""
    marked = photo.copy()
    checks = np.where((np.indices(photo.shape[:2]).sum(axis=0) // 2) % 2, 40, -40)
    marked[face] = np.clip(photo[face].astype(int) + checks[face][:, None], 0, 255)
    grid, _ = canonical_frame().map_out(vertices_of(mesh), *photo.shape[:2])
    inside = cv2.remap(middle().astype(np.float32), grid[..., 0], grid[..., 1], cv2.INTER_LINEAR)
    inner = shrunk(face & (inside > 0.9), 5)
    assert np.abs(marked.astype(float) - photo)[inner].mean() > 25
    assert np.abs(paint(marked).astype(float) - paint(photo))[inner].mean() < 4


def test_the_face_is_covered_in_the_photos_skin_tone_and_nothing_far_from_it_changes(
    photo: Pixels, mesh: Mesh, face: Mask, surrogate: Texture
) -> None:
    rendered = render(photo, mesh, 0.5, surrogate)
    out = put(photo, rendered)
    near = np.zeros(photo.shape[:2], np.uint8)
    cv2.fillConvexPoly(near, cv2.convexHull(np.rint(vertices_of(mesh)[:, :2]).astype(np.int32)), 1)
    far = cv2.dilate(near, np.ones((25, 25))) == 0
    assert (out[far] == photo[far]).all() and rendered.coverage > 0.9
    (x, y), (height, width) = rendered.origin, rendered.alpha.shape
    assert np.percentile(rendered.alpha[face[y : y + height, x : x + width]], 20) > 0.95
    assert np.abs(np.median(out[face], axis=0) - np.median(photo[face], axis=0)).max() < 18


def test_a_photo_without_colour_gets_a_face_without_colour(photo: Pixels, mesh: Mesh, surrogate: Texture) -> None:
    grey = np.repeat(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    coloured = Texture(surrogate.detail + np.array([0.3, 0.0, -0.3], np.float32), surrogate.shape, 0.5)
    assert np.ptp(put(grey, render(grey, mesh, 0.5, coloured)).astype(int), axis=2).max() <= 2


def test_a_face_at_the_border_of_the_photo_is_rendered_too(photo: Pixels, mesh: Mesh, surrogate: Texture) -> None:
    cut = int(mesh[topology.NOSE_TIP, 0])
    part = np.ascontiguousarray(photo[:, cut:])
    out = put(part, render(part, mesh - np.array([cut, 0, 0], np.float32), 0.5, surrogate))
    assert out.shape == part.shape and (out != part).any()


@pytest.fixture
def worn(photo: Pixels, mesh: Mesh) -> tuple[Pixels, Mask]:
    """The photo with a blue cap down to the middle of the forehead, and the cap's px."""
    oval, brows = mesh[list(topology.OVAL), :2], mesh[[*topology.LEFT_BROW, *topology.RIGHT_BROW], :2]
    cap = np.zeros(photo.shape[:2], np.uint8)
    half = 1.2 * np.ptp(oval, axis=0) / 2
    cv2.ellipse(cap, (oval.mean(axis=0).tolist(), (2.4 * half).tolist(), 0.0), 1, -1)
    cap[int((oval[:, 1].min() + brows[:, 1].min()) / 2) :] = 0
    out = photo.copy()
    out[cap > 0] = (40, 60, 200)
    return out, cap > 0


def test_a_cap_stays_over_the_new_forehead(worn: tuple[Pixels, Mask], paint: Paint) -> None:
    capped, cap = worn
    out = paint(capped)[shrunk(cap, 11)].astype(int)
    assert (np.abs(out - (40, 60, 200)).max(axis=1) < 40).mean() > 0.9


@pytest.mark.parametrize("sign", [1, -1])
def test_skin_that_shows_through_a_cap_does_not_survive(
    photo: Pixels, mesh: Mesh, face: Mask, worn: tuple[Pixels, Mask], paint: Paint, sign: int
) -> None:
    capped, cap = worn
    rows, columns = np.mgrid[0 : photo.shape[0], 0 : photo.shape[1]]
    oval = np.zeros(photo.shape[:2], np.uint8)
    cv2.fillPoly(oval, [np.rint(mesh[list(topology.OVAL), :2]).astype(np.int32)], 1)
    hole = cap & (oval > 0) & (columns % 24 < 6)
    skin = np.median(photo[face], axis=0)
    marks = np.where((rows + columns) % 4 < 2, 12, -12)
    capped[hole] = np.clip(skin + sign * marks[hole][:, None], 0, 255)
    inner = shrunk(hole, 3)
    out = paint(capped).astype(float)[inner]
    assert abs(np.corrcoef(out.mean(axis=1), marks[inner])[0, 1]) < 0.2
    assert np.abs(out - skin).max(axis=1).mean() > 40


def test_nothing_of_what_covers_the_mouth_is_left_inside_the_face(
    photo: Pixels, mesh: Mesh, face: Mask, paint: Paint
) -> None:
    covered = photo.copy()
    mouth = mesh[list(topology.LIPS_OUTER), :2].mean(axis=0)
    cv2.circle(covered, tuple(np.rint(mouth).astype(int)), int(np.ptp(mesh[:, 0]) / 5), (20, 200, 30), -1)
    assert np.abs(paint(covered).astype(float) - paint(photo))[face].mean() < 8


def test_the_outline_follows_four_numbers_of_the_source_and_the_middle_of_the_face_none() -> None:
    shape, oval = shape_model().mean, list(topology.OVAL)
    source = shape * np.array([1.1, 1.0, 1.0], np.float32)
    wider = as_large(shape, source)
    assert np.allclose(np.ptp(wider[oval, 0]), np.ptp(source[oval, 0]), rtol=0.02)
    assert (
        np.abs(wider[[topology.NOSE_TIP, topology.LIP_TOP]] - shape[[topology.NOSE_TIP, topology.LIP_TOP]]).max() < 0.02
    )
    odd = source.copy()
    odd[[topology.OVAL[index] for index in (4, 10, 14, 21, 27, 33)], :2] *= 0.95
    assert np.allclose(as_large(shape, odd), wider, atol=1e-5)


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
