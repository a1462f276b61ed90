import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.synthesis.canonical import SIZE, canonical_frame, pose_of, shape_model, with_rings
from anonlib.synthesis.compositor import Rendered, render
from anonlib.synthesis.light import skin_region
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


def inside_oval(photo: NDArray[np.uint8], mesh: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The px of the photo inside the oval of the mesh."""
    mask = np.zeros(photo.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.rint(mesh[list(topology.OVAL), :2]).astype(np.int32)], 1)
    return mask.astype(bool)


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


def worn(photo: NDArray[np.uint8], mesh: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The photo with a blue cap down to the middle of the forehead, and the cap's px."""
    oval, brows = mesh[list(topology.OVAL), :2], mesh[[*topology.LEFT_BROW, *topology.RIGHT_BROW], :2]
    brim = (oval[:, 1].min() + brows[:, 1].min()) / 2
    cap = np.zeros(photo.shape[:2], np.uint8)
    centre, half = oval.mean(axis=0), 1.2 * np.ptp(oval, axis=0) / 2
    cv2.ellipse(cap, (tuple(map(float, centre)), tuple(map(float, 2.4 * half)), 0.0), 1, -1)
    cap[int(brim) :] = 0
    out = photo.copy()
    out[cap > 0] = (40, 60, 200)
    return out, cap > 0


def test_a_cap_stays_over_the_new_forehead(
    photo: NDArray[np.uint8], mesh: NDArray[np.float32], surrogate: Texture
) -> None:
    capped, cap = worn(photo, mesh)
    inner = cv2.erode(cap.astype(np.uint8), np.ones((11, 11))).astype(bool)
    out = pasted(capped, render(capped, mesh, 0.5, surrogate))
    assert (np.abs(out[inner].astype(int) - (40, 60, 200)).max(axis=1) < 40).mean() > 0.9


def test_skin_that_shows_through_a_cap_does_not_survive(
    photo: NDArray[np.uint8], mesh: NDArray[np.float32], surrogate: Texture
) -> None:
    capped, cap = worn(photo, mesh)
    rows, columns = np.mgrid[0 : photo.shape[0], 0 : photo.shape[1]]
    hole = cap & inside_oval(photo, mesh) & (columns % 24 < 6)
    skin = np.median(photo[face_px(photo, mesh)], axis=0)
    marks = np.where((rows + columns) % 4 < 2, 12, -12)
    for sign in (1, -1):
        capped[hole] = np.clip(skin + sign * marks[hole][:, None], 0, 255)
        out = pasted(capped, render(capped, mesh, 0.5, surrogate)).astype(float)
        inner = cv2.erode(hole.astype(np.uint8), np.ones((3, 3))).astype(bool)
        seen = out[inner].mean(axis=1)
        assert abs(np.corrcoef(seen, marks[inner])[0, 1]) < 0.2
        assert np.abs(out[inner] - skin).max(axis=1).mean() > 40


def test_arms_of_glasses_leave_nothing_beside_the_face(
    photo: NDArray[np.uint8], mesh: NDArray[np.float32], surrogate: Texture
) -> None:
    bare = pasted(photo, render(photo, mesh, 0.5, surrogate)).astype(int)
    glasses = photo.copy()
    for eye, rim in ((topology.LEFT_EYE_OUTER, 127), (topology.RIGHT_EYE_OUTER, 356)):
        start, end = mesh[eye, :2], mesh[eye, :2] + 1.15 * (mesh[rim, :2] - mesh[eye, :2])
        cv2.line(glasses, tuple(np.rint(start).astype(int)), tuple(np.rint(end).astype(int)), (15, 15, 15), 3)
    drawn = np.abs(glasses.astype(int) - photo).max(axis=2) > 30
    out = pasted(glasses, render(glasses, mesh, 0.5, surrogate)).astype(int)
    assert np.abs(out - bare)[drawn].max(axis=1).mean() < 15


def test_nothing_of_what_covers_the_mouth_is_left_inside_the_face(
    photo: NDArray[np.uint8], mesh: NDArray[np.float32], surrogate: Texture
) -> None:
    plain = pasted(photo, render(photo, mesh, 0.5, surrogate)).astype(float)
    covered = photo.copy()
    mouth = mesh[list(topology.LIPS_OUTER), :2].mean(axis=0)
    cv2.circle(covered, tuple(np.rint(mouth).astype(int)), int(np.ptp(mesh[:, 0]) / 5), (20, 200, 30), -1)
    rendered = render(covered, mesh, 0.5, surrogate)
    face = face_px(photo, mesh)
    assert np.abs(pasted(covered, rendered) - plain)[face].mean() < 8
    assert rendered.bare < render(photo, mesh, 0.5, surrogate).bare - 0.1
