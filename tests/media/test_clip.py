"""Clips: what leaves is frames and their times, and nothing else of the file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from anonlib.codes import Reason, Stripped
from anonlib.config import ClipConfig
from anonlib.errors import ImageProblem
from anonlib.media.clip import ClipWriter, clip_info, read_frames
from tests.support import clips
from tests.support.clips import LIMITS, frame, frames_of, make


def released(path: Path, to: Path, *, sound: bool = False) -> Path:
    """The clip with every frame as it is."""
    with ClipWriter(to, clip_info(path, LIMITS), path if sound else None, ClipConfig(), LIMITS) as writer:
        for window in read_frames(path, LIMITS):
            for each in window:
                writer.write(each.rgb, each.time)
    return to


def test_frames_come_with_their_numbers_times_and_pixels(tmp_path):
    found = frames_of(make(tmp_path / "a.mp4", 20))
    assert [each.index for each in found] == list(range(20))
    assert [each.time for each in found] == [Fraction(number, 25) for number in range(20)]
    for each in found:
        assert np.abs(each.rgb.astype(int) - frame(each.index)).mean() < 4


def test_a_released_clip_has_the_times_size_and_pixels_of_its_source(tmp_path):
    source = make(tmp_path / "a.mp4")
    out = released(source, tmp_path / "out.mp4")
    before, after = clip_info(source, LIMITS), clip_info(out, LIMITS)
    for name in ("width", "height", "frames", "rate", "duration", "container", "colour"):
        assert getattr(before, name) == getattr(after, name)
    for old, new in zip(frames_of(source), frames_of(out), strict=True):
        assert old.time == new.time
        assert np.abs(old.rgb.astype(int) - new.rgb).mean() < 2


def test_equal_frames_give_equal_bytes(tmp_path):
    source = make(tmp_path / "a.mp4", sound=True)
    outs = [released(source, tmp_path / name, sound=True).read_bytes() for name in ("b.mp4", "c.mp4")]
    assert outs[0] == outs[1]
    assert b"x264" not in outs[0] and b"Lav" not in outs[0]


def test_sound_is_dropped_unless_it_is_asked_for(tmp_path):
    source = make(tmp_path / "a.mp4", sound=True)
    assert clip_info(source, LIMITS).stripped == (Stripped.AUDIO, Stripped.TAGS)
    assert clip_info(source, LIMITS, keep_audio=True).stripped == (Stripped.TAGS,)
    assert not clip_info(released(source, tmp_path / "b.mp4"), LIMITS).audio
    assert clip_info(released(source, tmp_path / "c.mp4", sound=True), LIMITS).audio


@pytest.mark.parametrize("content", [b"", b"no clip at all", b"\0\0\0\x18ftypisom" + bytes(400)])
def test_what_is_no_clip_is_a_problem_with_a_sentence(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(ImageProblem) as problem:
        clip_info(path, LIMITS)
    assert problem.value.reason in (Reason.EMPTY, Reason.NOT_A_CLIP, Reason.DAMAGED)


def test_an_exception_leaves_no_file(tmp_path):
    info = clip_info(make(tmp_path / "a.mp4"), LIMITS)
    with pytest.raises(ZeroDivisionError), ClipWriter(tmp_path / "b.mp4", info, None, ClipConfig(), LIMITS) as writer:
        writer.write(clips.frame(0), Fraction(0))
        raise ZeroDivisionError
    assert not (tmp_path / "b.mp4").exists()
