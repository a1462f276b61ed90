import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.synthesis.canonical import SIZE, canonical_frame, pose_of, shape_model, with_rings
from anonlib.synthesis.light import skin_region
from anonlib.synthesis.render import Rendered, render
from anonlib.synthesis.textures.average import Texture


@pytest.fixture(scope="module")
def surrogate() -> Texture:
    detail = np.zeros((SIZE, SIZE, 3), np.float32)
    for part in (topology.LEFT_EYE, topology.RIGHT_EYE, topology.LEFT_BROW, topology.RIGHT_BROW, topology.LIPS_OUTER):
        detail[canonical_frame().polygon(part)] = -0.8
    return Texture(detail, shape_model().mean, 0.5)


def face_px(photo: NDArray[np.uint8], mesh: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The px of the photo between brows and chin."""
    pose = pose_of(mesh, shape_model().mean)
    grid, covered = canonical_frame().map_out(pose.apply(with_rings(pose.undo(mesh))), *photo.shape[:2])
    inside = cv2.remap(skin_region().astype(np.float32), grid[..., 0], grid[..., 1], cv2.INTER_LINEAR)
    return covered & (inside > 0.9)


def pasted(photo: NDArray[np.uint8], rendered: Rendered) -> NDArray[np.uint8]:
    out = photo.copy()
    rendered.paste(out)
    return out


def test_no_px_of_the_sources_face_is_used(
    photo: NDArray[np.uint8], mesh: NDArray[np.float32], surrogate: Texture
) -> None:
    plain = pasted(photo, render(photo, mesh, 0.5, surrogate)).astype(float)
    marked = photo.copy()
    face = face_px(photo, mesh)
    checks = np.where((np.indices(photo.shape[:2]).sum(axis=0) // 2) % 2, 40, -40)
    marked[face] = np.clip(photo[face].astype(int) + checks[face][:, None], 0, 255)
    out = pasted(marked, render(marked, mesh, 0.5, surrogate)).astype(float)
    inner = cv2.erode(face.astype(np.uint8), np.ones((5, 5))).astype(bool)
    assert np.abs(marked.astype(float) - photo)[inner].mean() > 25
    assert np.abs(out - plain)[inner].mean() < 4


def test_nothing_far_from_the_face_changes(
    photo: NDArray[np.uint8], mesh: NDArray[np.float32], surrogate: Texture
) -> None:
    out = pasted(photo, render(photo, mesh, 0.5, surrogate))
    pose = pose_of(mesh, shape_model().mean)
    outline = pose.apply(with_rings(pose.undo(mesh)))[:, :2]
    near = np.zeros(photo.shape[:2], np.uint8)
    cv2.fillConvexPoly(near, cv2.convexHull(np.rint(outline).astype(np.int32)), 1)
    far = cv2.dilate(near, np.ones((25, 25))) == 0
    assert (out[far] == photo[far]).all()
    assert (out[face_px(photo, mesh)] != photo[face_px(photo, mesh)]).any(axis=1).mean() > 0.9


def test_the_surrogate_wears_the_photos_skin_tone(
    photo: NDArray[np.uint8], mesh: NDArray[np.float32], surrogate: Texture
) -> None:
    face = face_px(photo, mesh)
    out = pasted(photo, render(photo, mesh, 0.5, surrogate))
    assert np.abs(np.median(out[face], axis=0) - np.median(photo[face], axis=0)).max() < 14


def test_a_photo_without_colour_gets_a_face_without_colour(
    photo: NDArray[np.uint8], mesh: NDArray[np.float32], surrogate: Texture
) -> None:
    grey = np.repeat(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    coloured = Texture(surrogate.detail + np.array([0.3, 0.0, -0.3], np.float32), surrogate.shape, 0.5)
    out = pasted(grey, render(grey, mesh, 0.5, coloured))
    assert np.ptp(out.astype(int), axis=2).max() <= 2


def test_the_mask_covers_the_face(photo: NDArray[np.uint8], mesh: NDArray[np.float32], surrogate: Texture) -> None:
    rendered = render(photo, mesh, 0.5, surrogate)
    assert rendered.coverage > 0.9
    x, y = rendered.origin
    height, width = rendered.alpha.shape
    face = face_px(photo, mesh)[y : y + height, x : x + width]
    assert np.percentile(rendered.alpha[face], 5) > 0.95


def test_a_face_at_the_border_of_the_photo_is_rendered_too(
    photo: NDArray[np.uint8], mesh: NDArray[np.float32], surrogate: Texture
) -> None:
    cut = int(mesh[topology.NOSE_TIP, 0])
    moved = mesh - np.array([cut, 0, 0], np.float32)
    part = np.ascontiguousarray(photo[:, cut:])
    assert pasted(part, render(part, moved, 0.5, surrogate)).shape == part.shape
