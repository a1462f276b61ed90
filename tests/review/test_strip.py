"""A clip's strip shows frames from beginning to end and every track, with boxes where the faces are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonlib.config import LimitsConfig
from anonlib.errors import ImageProblem
from anonlib.review.strip import EVEN, Strip
from tests.support import clips


def row(frames: int, *tracks: tuple[int, int]) -> dict[str, Any]:
    said = {"method": "solid", "fallback": None}
    faces = [said | {"first": a, "last": b, "boxes": [10, 20, 30, 40] * (b - a + 1)} for a, b in tracks]
    return {"frames": frames, "width": 64, "height": 48, "faces": faces}


def test_a_strip_shows_both_ends_and_every_track() -> None:
    strip = Strip(row(1000, (0, 999), (5, 9)))
    assert strip.frames[0] == 0 and strip.frames[-1] == 999 and 7 in strip.frames
    assert len(strip.frames) == EVEN + 1
    assert strip.size == (48 * 5, 64 * 3)


def test_boxes_lie_in_the_frames_that_they_are_of() -> None:
    strip = Strip(row(4, (3, 3)))
    (face,) = strip.faces()
    assert face["box"] == [10, 48 + 20, 30, 48 + 40]


def test_the_frames_of_a_strip_are_those_of_the_clip(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "clip.mp4", 4)
    picture = Strip(row(4)).picture(path.read_bytes(), LimitsConfig())
    for frame, corner in enumerate([(0, 0), (0, 64), (0, 128), (48, 0)]):
        y, x = corner
        shown = picture[y : y + 48, x : x + 64].astype(int)
        assert np.abs(shown - clips.frames_of(path)[frame].rgb).max() == 0


def test_a_clip_without_frames_has_no_strip() -> None:
    with pytest.raises(ImageProblem, match="no frame of it is shown"):
        Strip(row(0))
