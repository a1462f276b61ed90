"""Meshes of a track are bridged where they are missing for a moment, and smooth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anonlib.errors import StorageError
from anonlib.faces.track import Track
from anonlib.stages.track_meshes import TrackMeshes, runs
from anonlib.workspace.schemas import EYES, MESH_POINTS

RATE = 20.0
BRIDGED = 5  # frames of a quarter of a second


def meshes(folder: Path, shown: list[bool], *, jitter: float = 0.0, stray: int | None = None) -> TrackMeshes:
    """The meshes of one track that moves by 2 px a frame, with some frames without one; in `stray` it is elsewhere."""
    frames = len(shown)
    boxes = np.array([0, -50, 100, 50]) + 2.0 * np.arange(frames)[:, None]
    if stray is not None:
        boxes[stray] += 90
    still = Track.still(np.zeros(4, np.float32), frames)
    track = replace(still, boxes=boxes.astype(np.float32))
    held = TrackMeshes(folder / "meshes", [track], RATE)
    noise = np.random.default_rng(0).normal(0, jitter, (frames, 1)) if jitter else np.zeros((frames, 1))
    rows = 2.0 * np.arange(frames)[:, None] + noise + np.zeros((frames, 3 * MESH_POINTS + 32 + EYES))
    rows[:, : 3 * MESH_POINTS : 3] += np.linspace(0, 100, MESH_POINTS)  # a face of 100 px
    for start, stop in runs(np.array(shown)):
        held.put(0, start, rows[start:stop].astype(np.float32))
    held.finish()
    return held


def test_a_short_gap_is_bridged_and_a_long_one_is_not(tmp_path: Path) -> None:
    shown = [True] * 20 + [False] * BRIDGED + [True] * 20 + [False] * (BRIDGED + 1) + [True] * 20
    held = meshes(tmp_path, shown)
    assert held.shown(0).tolist() == [*range(45), *range(45 + BRIDGED + 1, len(shown))]
    face = held.at(0, 22) or pytest.fail("no mesh")
    assert face["mesh"][0, 0] == pytest.approx(44, abs=1e-3) and face["gaze"].shape == (EYES,)
    assert held.at(0, 46) is None


def test_a_bridged_mesh_beside_the_face_is_not_shown(tmp_path: Path) -> None:
    shown = [True] * 20 + [False] * BRIDGED + [True] * 20
    held = meshes(tmp_path, shown, stray=22)
    assert held.at(0, 21) is not None and held.at(0, 22) is None


def test_what_shows_for_less_than_a_quarter_of_a_second_is_hidden(tmp_path: Path) -> None:
    shown = [True] * 20 + [False] * 20 + [True] * BRIDGED + [False] * 20
    assert meshes(tmp_path, shown).shown(0).tolist() == list(range(20))


def test_a_track_that_shows_for_a_moment_alone_still_shows_its_surrogate(tmp_path: Path) -> None:
    assert meshes(tmp_path, [False] * 20 + [True] * 2 + [False] * 20).shown(0).tolist() == [20, 21]


def test_a_track_of_few_frames_that_all_have_a_mesh_shows_it(tmp_path: Path) -> None:
    assert meshes(tmp_path, [True] * 3).shown(0).tolist() == [0, 1, 2]


def test_meshes_are_smooth_and_not_late(tmp_path: Path) -> None:
    held = meshes(tmp_path, [True] * 60, jitter=0.5)
    smooth = np.array([(held.at(0, frame) or pytest.fail("no mesh"))["mesh"][0, 0] for frame in range(60)])
    raw = held.rows(0, 0, 60)[:, 0]
    truth = 2.0 * np.arange(60)
    assert np.diff(smooth - truth).std() < 0.5 * np.diff(raw - truth).std()
    assert abs((smooth - truth).mean()) < 0.3


def test_an_eye_that_is_hidden_in_a_frame_has_the_gaze_of_its_neighbours(tmp_path: Path) -> None:
    held = meshes(tmp_path, [True] * 20)
    row = held.rows(0, 10, 11).copy()
    row[:, -EYES:] = np.nan
    held.put(0, 10, row)
    face = held.at(0, 10) or pytest.fail("no mesh")
    assert face["gaze"] == pytest.approx([20] * EYES, abs=0.5)


def test_a_full_disk_is_a_sentence_and_no_end_of_the_process(tmp_path: Path) -> None:
    (tmp_path / "meshes").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="the disk or quota is full"):
        meshes(tmp_path, [True] * 20)
