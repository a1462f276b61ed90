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
from anonlib.media.clip import clip_info, read_frames
from anonlib.media.clip_writer import clip_writer, part_writer
from tests.support.clips import LIMITS, frames_of, make


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


@pytest.mark.parametrize(
    ("name", "codec", "cut"),
    [("a.mp4", "libx264", 12), ("a.mkv", "libx264", 12), ("a.webm", "libvpx-vp9", 12), ("open.mp4", "libx264", None)],
)
def test_a_clip_in_parts_has_the_frames_of_the_whole_and_is_joined_as_one(tmp_path, name, codec, cut):
    """A key frame that frames behind it are shown before, as of an open group of pictures, is no cut."""
    options = {"g": "12", "keyint_min": "12"} | ({} if cut else {"x264-params": "open-gop=1:bframes=3"})
    source = make(tmp_path / name, 40, rate=12, codec=codec, options=options, sound=codec == "libx264")
    info, whole = clip_info(source, LIMITS, segment=1, keep_audio=True), frames_of(source)
    assert [first for _, first in info.cuts] == ([cut, 2 * cut, 3 * cut] if cut else [])
    settings, found = ClipConfig(audio="keep"), []
    with clip_writer(tmp_path / f"out-{name}", info, source, settings, LIMITS) as writer:
        for number, part in enumerate(info.parts):
            with part_writer(tmp_path / "part", info, number, settings) as of_part:
                for window in read_frames(source, LIMITS, part=part):
                    for each in window:
                        of_part.write(each.rgb, each.time)
                        found.append(each)
            with (tmp_path / "part").open("rb") as file:
                writer.append(file)
    assert all((one.rgb == other.rgb).all() for one, other in zip(whole, found, strict=True))
    after = frames_of(tmp_path / f"out-{name}")
    assert [(each.index, each.time) for each in whole] == [(each.index, each.time) for each in after]
    assert all(np.abs(one.rgb.astype(int) - other.rgb).mean() < 3 for one, other in zip(whole, after, strict=True))
    again = clip_info(tmp_path / f"out-{name}", LIMITS)
    assert (again.duration, again.rate, again.audio) == (info.duration, info.rate, info.audio)


def test_sound_is_dropped_unless_it_is_asked_for(tmp_path):
    source = make(tmp_path / "a.mp4", sound=True)
    assert clip_info(source, LIMITS).stripped == (Stripped.AUDIO, Stripped.TAGS)
    assert clip_info(source, LIMITS, keep_audio=True).stripped == (Stripped.TAGS,)
    assert not clip_info(released(source, tmp_path / "b.mp4"), LIMITS).audio
    assert clip_info(released(source, tmp_path / "c.mp4", sound=True), LIMITS).audio


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
