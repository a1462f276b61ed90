"""Tracks: one face is one track, in every frame between its ends and half a second beyond, and over no cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.faces.regions import FACE, Regions
from anonlib.faces.track import Track, cuts, link, smoothing

RATE, SCORE = 20.0, 0.4
HALF = 10  # frames of half a second
SIDE = 40.0
FIVE = np.array([(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)], np.float32)


def regions(*found: tuple[float, float, float], kind: str = FACE) -> Regions:
    """Regions of (x, y, score), SIDE px large, with landmarks in their middle."""
    corners = np.array([[x, y, x + SIDE, y + SIDE] for x, y, _ in found], np.float32).reshape(-1, 4)
    landmarks = corners[:, None, :2] + SIDE * FIVE
    return Regions(corners, np.array([score for *_, score in found], np.float32), landmarks, (kind,) * len(found))


def one_shot(frames: int) -> NDArray[np.bool_]:
    return np.zeros(frames, np.bool_)


def test_a_moving_face_is_one_track_from_end_to_end() -> None:
    found = [regions((5.0 * frame, 100.0, 0.9)) for frame in range(50)]
    (track,) = link(found, one_shot(50), RATE, SCORE)
    assert (track.first, track.last) == (0, 49)
    assert (track.scores > 0).all()


def test_a_gap_is_filled_on_the_line_between_its_ends() -> None:
    found = [regions((5.0 * frame, 100.0, 0.9)) if not 20 <= frame < 35 else regions() for frame in range(50)]
    (track,) = link(found, one_shot(50), RATE, SCORE)
    assert (track.scores[20:35] == 0).all()
    np.testing.assert_allclose(track.boxes[20:35, 0], 5.0 * np.arange(20, 35), atol=1e-3)
    np.testing.assert_allclose(track.landmarks[20:35, 0, 0], 5.0 * np.arange(20, 35) + 0.3 * SIDE, atol=1e-3)


def test_after_more_than_a_second_a_face_is_a_new_track() -> None:
    found = [regions((100.0, 100.0, 0.9)) if not 20 <= frame < 60 else regions() for frame in range(80)]
    first, second = link(found, one_shot(80), RATE, SCORE)
    assert (first.first, first.last) == (0, 19 + HALF)
    assert (second.first, second.last) == (60 - HALF, 79)


def test_a_low_score_carries_a_track_on_in_both_directions_and_begins_none() -> None:
    scores = [0.2] * 12 + [0.9] * 5 + [0.2] * 12
    found = [
        regions((100.0, 100.0, score), *([(300.0, 100.0, 0.2)] if frame % 9 == 0 else []))
        for frame, score in enumerate(scores)
    ]
    (track,) = link(found, one_shot(len(scores)), RATE, SCORE)
    assert (track.first, track.last) == (0, len(scores) - 1)
    assert (track.scores > 0).all()


def test_low_scores_that_last_are_a_track_of_their_own() -> None:
    found = [regions((100.0, 100.0, 0.2)) for _ in range(HALF)]
    assert len(link(found, one_shot(HALF), RATE, SCORE)) == 1
    assert not link(found[:-1], one_shot(HALF - 1), RATE, SCORE)


def test_ends_go_on_at_their_speed_and_stop_at_the_ends_of_the_clip_and_of_the_shot() -> None:
    found = [regions((100.0 + 4 * frame, 100.0, 0.9)) if 20 <= frame < 30 else regions() for frame in range(60)]
    (track,) = link(found, one_shot(60), RATE, SCORE)
    assert (track.first, track.last) == (20 - HALF, 29 + HALF)
    assert track.boxes[-1, 0] > found[29].boxes[0, 0] + 10
    assert track.boxes[0, 0] < found[20].boxes[0, 0] - 10
    begins = one_shot(60)
    begins[[17, 33]] = True
    (track,) = link(found, begins, RATE, SCORE)
    assert (track.first, track.last) == (17, 32)


def test_a_cut_ends_a_track_though_another_face_is_in_the_same_place() -> None:
    begins = one_shot(40)
    begins[20] = True
    found = [regions((100.0, 100.0, 0.9)) for _ in range(40)]
    assert [(track.first, track.last) for track in link(found, begins, RATE, SCORE)] == [(0, 19), (20, 39)]


def test_faces_that_cross_keep_their_own_way() -> None:
    found = [regions((6.0 * frame, 100.0, 0.9), (240.0 - 6 * frame, 115.0, 0.8)) for frame in range(41)]
    found[19:22] = [regions((6.0 * frame, 100.0, 0.9)) for frame in range(19, 22)]
    right, left = sorted(link(found, one_shot(41), RATE, SCORE), key=lambda track: float(track.boxes[0, 0]))
    assert right.boxes[-1, 0] == pytest.approx(240)
    assert left.boxes[-1, 0] == pytest.approx(0)
    assert (len(right), len(left)) == (41, 41)


def test_regions_of_two_kinds_are_never_one_track() -> None:
    found = [regions((100.0, 100.0, 0.9), kind=FACE if frame % 2 else "plate") for frame in range(20)]
    assert sorted(track.kind for track in link(found, one_shot(20), RATE, SCORE)) == [FACE, "plate"]


def test_no_stretched_end_lies_on_a_face_that_another_track_has() -> None:
    found = [regions((100.0, 100.0, 0.9), kind=FACE if frame < 20 else "plate") for frame in range(40)]
    first, second = link(found, one_shot(40), RATE, SCORE)
    assert (first.last, second.first) == (19, 20)


def pictures(*levels: int) -> NDArray[np.uint8]:
    """Small pictures, each a ramp that begins at a level."""
    ramp = np.arange(9 * 16 * 3).reshape(9, 16, 3) // 8
    return np.stack([(ramp + level) % 200 for level in levels]).astype(np.uint8)


def test_a_cut_begins_a_shot_and_a_flash_or_a_slow_change_does_not() -> None:
    levels = [10] * 5 + [90] * 5
    assert np.flatnonzero(cuts(pictures(*levels))).tolist() == [5]
    levels[2] = 120
    assert np.flatnonzero(cuts(pictures(*levels))).tolist() == [5]
    assert not cuts(pictures(*range(0, 60, 2))).any()


def smoothed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    weighed = (smoothing(len(values), place, 7) for place in range(len(values)))
    return np.stack([weights @ values[part] for part, weights in weighed])


def test_smoothing_takes_the_jitter_and_neither_delays_nor_flattens_a_motion() -> None:
    time = np.arange(60) / RATE
    motion = np.stack([200 * time**2, 50 - 100 * time], axis=1).astype(np.float32)
    np.testing.assert_allclose(smoothed(motion), motion, atol=1e-2)
    jitter = np.random.default_rng(0).normal(0, 1, motion.shape).astype(np.float32)
    assert (smoothed(motion + jitter) - motion).std() < 0.75 * jitter.std()
    assert (smoothed(motion[:2]) == motion[:2]).all()


def test_points_are_carried_from_frame_to_frame_as_the_box_moves_and_grows() -> None:
    boxes = np.array([[0, 0, 10, 20], [50, 0, 60, 20], [100, 40, 120, 80]], np.float32)
    track = replace(Track.still(boxes[0], 3), first=7, boxes=boxes)
    points = np.array([[5, 10, 3], [0, 20, -1]], np.float32)  # the middle and a corner
    np.testing.assert_allclose(track.carried(points, 7, 8), [[55, 10, 3], [50, 20, -1]])
    np.testing.assert_allclose(track.carried(points, 7, 9), [[110, 60, 6], [100, 80, -2]])
