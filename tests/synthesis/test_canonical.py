import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.synthesis.canonical import SIZE, Pose, canonical_frame, pose_of, shape_model, with_rings


def turned(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Pose:
    y, p, r = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    rotation = (about_z @ about_y @ about_x).astype(np.float32)
    return Pose(60.0, rotation, np.array([150, 140, 0], np.float32))


@settings(deadline=None, max_examples=50)
@given(st.floats(-60, 60), st.floats(-30, 30), st.floats(-40, 40))
def test_a_pose_is_found_again_and_undone(yaw: float, pitch: float, roll: float) -> None:
    mean = shape_model().mean
    pose = turned(yaw, pitch, roll)
    found = pose_of(pose.apply(mean), mean)
    assert np.allclose(found.angles(), (yaw, pitch, roll), atol=0.1)
    assert np.allclose(found.undo(pose.apply(mean)), mean, atol=1e-3)


def test_the_frame_holds_every_point_and_is_nearly_symmetric() -> None:
    points = canonical_frame().points
    assert points.min() > 4 and points.max() < SIZE - 4
    left, right = points[list(topology.LEFT_EYE)].mean(axis=0), points[list(topology.RIGHT_EYE)].mean(axis=0)
    assert abs(left[1] - right[1]) < 1
    assert abs((left[0] + right[0]) / 2 - SIZE / 2) < 1


def test_the_canonical_mouth_is_ajar() -> None:
    points = canonical_frame().points
    gap = points[topology.LIP_BOTTOM, 1] - points[topology.LIP_TOP, 1]
    width = points[topology.LIPS_INNER[10], 0] - points[topology.LIPS_INNER[0], 0]
    assert 0.15 < gap / width < 0.4


def test_rings_reach_past_the_oval_all_round() -> None:
    shape = with_rings(shape_model().mean)
    centre = shape[list(topology.OVAL), :2].mean(axis=0)
    radius = [
        np.linalg.norm(shape[r, :2] - centre, axis=1) for r in (list(topology.OVAL), range(468, 504), range(504, 540))
    ]
    assert (radius[0] < radius[1]).all() and (radius[1] < radius[2]).all()


@pytest.mark.parametrize("yaw", [0, 25, -40])
def test_warping_in_and_out_gives_the_face_back(yaw: float) -> None:
    frame = canonical_frame()
    rows, columns = np.mgrid[0:300, 0:300]
    photo = np.stack([rows * 0.8, columns * 0.8, 120 + 40 * np.sin(rows / 25)], axis=-1).astype(np.uint8)
    vertices = turned(yaw).apply(with_rings(shape_model().mean))
    texture, _ = frame.warp_in(photo, vertices)
    grid, covered = frame.map_out(vertices, 300, 300)
    back = cv2.remap(texture, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR)
    core = cv2.erode(covered.astype(np.uint8), np.ones((9, 9))).astype(bool)
    assert core.sum() > 10_000
    assert np.percentile(np.abs(back[core] - photo[core]), 98) < 6


def test_the_far_cheek_of_a_turned_head_never_covers_the_near_one() -> None:
    frame = canonical_frame()
    vertices = turned(50).apply(with_rings(shape_model().mean))
    grid, covered = frame.map_out(vertices, 300, 300)
    nose = np.rint(vertices[topology.NOSE_TIP, :2]).astype(int)
    found = grid[nose[1], nose[0]]
    assert covered[nose[1], nose[0]]
    assert np.linalg.norm(found - frame.points[topology.NOSE_TIP]) < 6


def test_a_coarse_warp_is_the_fine_one_subsampled(photo: NDArray[np.uint8], mesh: NDArray[np.float32]) -> None:
    pose = pose_of(mesh, shape_model().mean)
    vertices = pose.apply(with_rings(pose.undo(mesh)))
    fine, _ = canonical_frame().warp_in(photo, vertices)
    coarse, _ = canonical_frame().warp_in(photo, vertices, 4)
    assert coarse.shape == (SIZE // 4, SIZE // 4, 3)
    assert np.abs(cv2.GaussianBlur(fine, (0, 0), 2)[::4, ::4] - coarse)[16:48, 16:48].mean() < 8


def test_expression_is_only_part_of_a_shape() -> None:
    model = shape_model()
    assert np.allclose(model.expression_of(model.mean), 0, atol=1e-4)
    rng = np.random.default_rng(0)
    offset = 0.02 * rng.normal(size=model.mean.shape).astype(np.float32)
    assert np.linalg.norm(model.expression_of(model.mean + offset)) < np.linalg.norm(offset)
