import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from anonlib.faces import topology
from anonlib.synthesis.canonical import SIZE, Pose, canonical_frame, pose_of, shape_model, with_rings


def turned(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Pose:
    rotation = Rotation.from_euler("ZYX", [roll, yaw, pitch], degrees=True).as_matrix().astype(np.float32)
    return Pose(60.0, rotation, np.array([150, 140, 0], np.float32))


@settings(deadline=None, max_examples=50)
@given(st.floats(-60, 60), st.floats(-30, 30), st.floats(-40, 40))
def test_a_pose_is_found_again_and_undone(yaw: float, pitch: float, roll: float) -> None:
    mean = shape_model().mean
    mesh = turned(yaw, pitch, roll).apply(mean)
    pose = pose_of(mesh, mean)
    assert np.allclose(pose.angles(), (yaw, pitch, roll), atol=0.1)
    assert np.allclose(pose.undo(mesh), mean, atol=1e-3)


def test_the_frame_holds_every_point_is_nearly_symmetric_and_has_its_mouth_ajar() -> None:
    points = canonical_frame().points
    assert points.min() > 4 and points.max() < SIZE - 4
    left, right = points[list(topology.LEFT_EYE)].mean(axis=0), points[list(topology.RIGHT_EYE)].mean(axis=0)
    assert abs(left[1] - right[1]) < 1 and abs((left[0] + right[0]) / 2 - SIZE / 2) < 1
    gap = points[topology.LIP_BOTTOM, 1] - points[topology.LIP_TOP, 1]
    assert 0.15 < gap / (points[topology.LIPS_INNER[10], 0] - points[topology.LIPS_INNER[0], 0]) < 0.4


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
    x, y = np.rint(vertices[topology.NOSE_TIP, :2]).astype(int)
    assert covered[y, x] and np.linalg.norm(grid[y, x] - frame.points[topology.NOSE_TIP]) < 6


def test_few_directions_of_expression_do_not_see_what_the_others_read() -> None:
    model = shape_model()
    others = np.linalg.pinv(model.read)[:, 8:].sum(axis=1).reshape(-1, 3)
    shape = model.mean + 0.3 * others / np.abs(others).max()
    assert np.abs(model.expression_of(shape)).max() > 0.01
    assert np.abs(model.expression_of(shape, 8)).max() < 1e-4
