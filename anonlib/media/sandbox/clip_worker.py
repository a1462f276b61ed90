"""The program of a process that reads one clip, in windows; confined and watched as worker.py's is.

A container of video is read by PyAV (containers.py), an animated image by Pillow (animations.py): both know `info`,
`frames`, what is UNREADABLE, and `load_what_comes_late`, since later no library can be opened.
"""

from __future__ import annotations

import errno
import io
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.codes import Reason
from anonlib.datasets.names import MEDIA_HEAD, animation_kind
from anonlib.errors import ImageProblem
from anonlib.media.sandbox.worker import channel_and_memory, confined, limit_memory, serve

REQUEST = struct.Struct("<BIdddqq")
"""The kind of request, and what it may take: frames of a window, minutes of the clip, frames a second; the seconds of
its parts; from which key frame on, and up to which one, by their times, NOWHERE for the ends of the clip."""
NOWHERE = -(1 << 63)
INFO, FRAMES, SOUND = range(3)
SOUND_RATE = 48_000
"""Samples a second of the sound that is passed on."""

_WINDOW_BYTES = 96 << 20
_FIXED_BYTES, _PICTURES = 1 << 30, 40
"""Address space of a decoder, beside that of as many pictures of 16 bits as the deepest H.265 refers to."""


def clip_bytes(max_mpx: float) -> int:
    """Bytes of shared memory: a window of full HD, or one frame with an alpha."""
    return max(_WINDOW_BYTES, 4 * round(max_mpx * 1e6))


def main() -> None:
    """Serve the clip whose open file is the fourth argument from the end until the socket ends."""
    file, max_mpx, seconds = io.FileIO(int(sys.argv[-4])), float(sys.argv[-2]), float(sys.argv[-1])
    channel, shared = channel_and_memory(clip_bytes(max_mpx))
    file.seek(0)  # the caller has read in it
    kind = "animations" if animation_kind(file.read(MEDIA_HEAD) or b"") else "containers"
    reader: Any = import_module(f"anonlib.media.sandbox.{kind}")
    reader.load_what_comes_late()
    limit_memory(confined(channel) + _FIXED_BYTES + round(_PICTURES * 6 * max_mpx * 1e6))
    running: Iterator[Any] | None = None

    def answer(wanted: int, most: int, minutes: float, rate: float, part: float, start: int, end: int) -> Any:
        nonlocal running
        with as_problem(reader.UNREADABLE):
            if wanted == INFO:
                return reader.info(file, max_mpx, minutes, rate, part)
            running = running or (
                reader.sound(file, minutes) if wanted == SOUND else reader.frames(file, max_mpx, start, end)
            )
            return _window(running, shared, most)

    serve(channel, REQUEST, seconds, answer)


@contextmanager
def as_problem(unreadable: tuple[type[Exception], ...]) -> Iterator[None]:
    """These errors of a library as an ImageProblem, or as a MemoryError."""
    try:
        yield
    except MemoryError:
        raise
    except unreadable as error:
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise MemoryError from None
        words = getattr(error, "strerror", None) or " ".join(str(error).split())[:160] or type(error).__name__
        raise ImageProblem(Reason.DAMAGED, f"the clip is damaged: {words}") from None


def _window(running: Iterator[Any], shared: NDArray[np.uint8], most: int) -> list[list[int]]:
    """Put up to `most` arrays into the shared memory one behind the other; [shape..., time as a fraction] of each."""
    found: list[list[int]] = []
    start = room = 0
    while len(found) < most and start + room <= len(shared):
        values, more = next(running, (None, None))
        if values is None or more is None:
            break
        shared[start : start + values.size].reshape(values.shape)[:] = values
        start += values.size
        room = max(values.size, values.size // values.shape[-1] * 4)  # the next frame may have an alpha
        found.append([*values.shape, *more])
    return found


def check_size(frame: Any, max_mpx: float) -> None:
    """Raises ImageProblem for a frame, of a `width` and `height`, that is too large."""
    if frame.width * frame.height > max_mpx * 1e6:
        over = f"{frame.width}x{frame.height} px a frame is over the limit of {max_mpx:g} megapixels (limits.clip_mpx)"
        raise ImageProblem(Reason.TOO_MANY_PIXELS, over)


def check_length(frames: int, seconds: float, minutes: float, rate: float) -> None:
    """Raises ImageProblem for a clip of more than `minutes`, by its time or by its frames at the highest rate."""
    if frames > minutes * 60 * rate or seconds > minutes * 60:
        raise ImageProblem(Reason.TOO_LONG, f"the clip is longer than {minutes:g} minutes (limits.clip_minutes)")


def check_rate(rate: float, most: float) -> None:
    """Raises ImageProblem for a clip of more than `most` frames a second."""
    if rate > most:
        over = f"the clip has {rate:,.0f} frames a second, over the limit of {most:g} (limits.clip_fps)"
        raise ImageProblem(Reason.TOO_LONG, over)
