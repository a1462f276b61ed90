"""Clips: what leaves is frames and their times, and nothing else of the file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonlib.codes import Stripped
from anonlib.config import ClipConfig
from anonlib.errors import StorageError
from anonlib.media import clip
from anonlib.media.clip import clip_info, clip_writer, read_frames
from tests.support import clips
from tests.support.clips import LIMITS, make


def released(path: Path, to: Path, *, sound: bool = False) -> Path:
    """The clip with every frame as it is."""
    settings = ClipConfig(audio="keep" if sound else "drop")
    with clip_writer(to, clip_info(path, LIMITS), path, settings, LIMITS) as writer:
        for window in read_frames(path, LIMITS):
            for each in window:
                writer.write(each.rgb, each.time)
    return to


def test_equal_frames_give_equal_bytes(tmp_path):
    source = make(tmp_path / "a.mp4", 40, size=(320, 180), sound=True)
    outs = [released(source, tmp_path / f"{name}.mp4", sound=True).read_bytes() for name in range(4)]
    assert len(set(outs)) == 1
    assert b"x264" not in outs[0] and b"Lav" not in outs[0]


def test_sound_is_dropped_unless_it_is_asked_for(tmp_path):
    source = make(tmp_path / "a.mp4", sound=True)
    assert clip_info(source, LIMITS).stripped == (Stripped.AUDIO, Stripped.TAGS)
    assert clip_info(source, LIMITS, keep_audio=True).stripped == (Stripped.TAGS,)
    assert not clip_info(released(source, tmp_path / "b.mp4"), LIMITS).audio
    assert clip_info(released(source, tmp_path / "c.mp4", sound=True), LIMITS).audio


def test_an_exception_leaves_no_file(tmp_path):
    info = clip_info(make(tmp_path / "a.mp4"), LIMITS)
    with pytest.raises(ZeroDivisionError), clip_writer(tmp_path / "b.mp4", info, None, ClipConfig(), LIMITS) as writer:
        writer.write(clips.frame(0), Fraction(0))
        raise ZeroDivisionError
    assert not (tmp_path / "b.mp4").exists()


def test_a_full_disk_is_a_sentence_about_the_disk_and_no_problem_of_the_clip(tmp_path):
    info = clip_info(make(tmp_path / "a.mkv", size=(640, 480)), LIMITS)
    (tmp_path / "b.mkv").symlink_to("/dev/full")
    noise = np.random.default_rng(1).integers(0, 255, (480, 640, 3), np.uint8)
    with (
        pytest.raises(StorageError, match="full"),
        clip_writer(tmp_path / "b.mkv", info, None, ClipConfig(), LIMITS) as writer,
    ):
        for number in range(60):
            writer.write(noise, Fraction(number, 25))
    assert not (tmp_path / "b.mkv").is_symlink()


def test_a_decoder_that_something_outside_ends_is_started_anew(tmp_path, monkeypatch):
    path = make(tmp_path / "a.mp4", 40)
    started: list[Any] = []

    class Watched(clip._ClipProcess):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            started.append(self)

    monkeypatch.setattr(clip, "_ClipProcess", Watched)
    numbers = []
    for window in read_frames(path, LIMITS):
        numbers += [each.index for each in window]
        if len(started) == 1:
            started[0]._process.kill()
    assert numbers == list(range(40)) and len(started) == 2
