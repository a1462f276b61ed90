"""Clips made for tests, with PyAV: a bright square that moves over a gradient."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from anonlib.config import LimitsConfig
from anonlib.media.clip import read_frames

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
            picture = av.VideoFrame.from_ndarray(frame(number, size)).reformat(format=pix_fmt)
            picture.pts = round(times[number] * 90_000) if times else number
            picture.time_base = Fraction(1, 90_000) if times else Fraction(1, rate)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
        if voice:
            wave = (8000 * np.sin(np.arange(48_000 * count // rate) / 20)).astype(np.int16).repeat(2).reshape(1, -1)
            samples = av.AudioFrame.from_ndarray(wave, format="s16", layout="stereo")
            samples.sample_rate = 48_000
            out.mux([*voice.encode(samples), *voice.encode(None)])
    return path


def frames_of(path: Path) -> list[Any]:
    return [frame for window in read_frames(path, LIMITS) for frame in window]
