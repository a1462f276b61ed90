import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from anonlib.faces import topology
from anonlib.faces.mesh import mouth_opening
from anonlib.synthesis.canonical import Pose, canonical_frame, pose_of, shape_model, with_rings
from anonlib.synthesis.mouth import with_lips


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


Shape = NDArray[np.float32]


def opened(by: float) -> Shape:
    """The mean shape with its lips `by` mouth widths apart."""
    shape = shape_model().mean.copy()
    width = np.linalg.norm(shape[topology.MOUTH_LEFT] - shape[topology.MOUTH_RIGHT])
    upper, lower = list(topology.LIPS_INNER[1:10]), list(topology.LIPS_INNER[:10:-1])
    arch = 1 - np.linspace(-1, 1, 9) ** 2
    shape[lower] = shape[upper]
    shape[lower, 1] += by * width * arch
    return shape


@pytest.mark.parametrize("by", [0.15, 0.3])
def test_an_open_mouth_stays_as_open_and_a_closed_one_closed(by: float) -> None:
    closed, wide = opened(0.02), opened(by)
    assert abs(mouth_opening(with_lips(closed, wide, 1.0)) - mouth_opening(wide)) < 0.02
    assert mouth_opening(with_lips(wide, closed, 0.0)) < 0.02
    far = np.linalg.norm(closed[:, :2] - closed[topology.LIP_TOP, :2], axis=1) > 1.0
    assert np.abs(with_lips(closed, wide, 1.0) - closed)[far].max() < 0.02
