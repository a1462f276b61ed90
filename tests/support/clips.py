"""Clips made for tests, with PyAV: a bright square that moves over a gradient."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anonlib.config import LimitsConfig
from anonlib.media.clip import read_frames
from tests.support import photos

LIMITS = LimitsConfig()


def frame(number: int, size: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    """Frame `number` of a clip of this width and height."""
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    picture = np.dstack([rows * 3, columns * 2, np.full_like(rows, 90)]).clip(0, 200).astype(np.uint8)
    left = 4 + number * 2 % (width - 16)
    picture[8:20, left : left + 12] = 235
    return picture


def make(
    path: Path,
    count: int = 12,
    *,
    size: tuple[int, int] = (64, 48),
    rate: int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: list[Fraction] | None = None,
    tags: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    context: dict[str, Any] | None = None,
    container: dict[str, str] | None = None,
    format: str | None = None,
    sound: bool = False,
    picture: Callable[[int], NDArray[np.uint8]] | None = None,
) -> Path:
    """Write a clip of `count` frames, with `times` in s where they are not even; `context`: of the encoder."""
    with av.open(str(path), "w", format=format, options=container or {}) as out:
        out.metadata.update(tags or {})
        stream: Any = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.options = options or ({"crf": "10", "preset": "ultrafast"} if codec == "libx264" else {})
        if times:
            stream.codec_context.time_base = Fraction(1, 90_000)
        for name, value in (context or {}).items():
            setattr(stream.codec_context, name, value)
        voice: Any = out.add_stream("aac", rate=48_000, layout="stereo") if sound else None
        for number in range(count):
            shown = av.VideoFrame.from_ndarray(picture(number) if picture else frame(number, size))
            shown = shown.reformat(format=pix_fmt)
            shown.pts = round(times[number] * 90_000) if times else number
            shown.time_base = Fraction(1, 90_000) if times else Fraction(1, rate)
            out.mux(stream.encode(shown))
        out.mux(stream.encode(None))
        if voice:
            wave = (8000 * np.sin(np.arange(48_000 * count // rate) / 20)).astype(np.int16).repeat(2).reshape(1, -1)
            samples = av.AudioFrame.from_ndarray(wave, format="s16", layout="stereo")
            samples.sample_rate = 48_000
            out.mux([*voice.encode(samples), *voice.encode(None)])
    return path


FACE_AT, FACE_STEP = 92, 4
"""Where the middle of the astronaut's face is in the first frame of `moving_face`, and its way to the next, px."""


def walking(number: int) -> NDArray[np.uint8]:
    """A frame of the astronaut before a grey wall, 288x192 px, who moves to the right."""
    wall = np.full((192, 288, 3), 120, np.uint8)
    left = FACE_STEP * number
    wall[8:, left : left + 184] = cv2.resize(photos.astronaut()[:256, 96:352], (184, 184), interpolation=cv2.INTER_AREA)
    return wall


def moving_face(path: Path, count: int = 12, **options: Any) -> Path:
    """A clip of `walking`, or by its ending an animated image."""
    if path.suffix not in (".gif", ".png", ".webp"):
        return make(path, count, size=(288, 192), rate=12, picture=walking, **options)
    first, *others = (Image.fromarray(walking(number)) for number in range(count))
    kept = {"quality": 90} if path.suffix == ".webp" else {}
    first.save(path, save_all=True, append_images=others, duration=80, loop=0, **kept, **options)
    return path


def frames_of(path: Path) -> list[Any]:
    return [frame for window in read_frames(path, LIMITS) for frame in window]
