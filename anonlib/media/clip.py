"""Clips: what a file holds, its frames in windows, and its sound.

A clip's file is demuxed and decoded by a process of its own that is confined as that of photos is; this process sees
checked numbers, pixels and samples of sound, and encodes those alone (clip_writer.py). So no tag, subtitle, position or
chapter has a way through. An animated image is a clip that Pillow reads and writes (animation.py).
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter

from anonlib.codes import Note, Reason, Stripped
from anonlib.config import LimitsConfig
from anonlib.datasets.names import MEDIA_HEAD, animation_kind, is_clip
from anonlib.errors import BackendMissing, ImageProblem, SandboxDied
from anonlib.media.codec import Picture
from anonlib.media.colour import ColourSpace
from anonlib.media.sandbox import clip_worker
from anonlib.media.sandbox.clip_worker import NOWHERE
from anonlib.media.sandbox.process import MOST_JSON, DecoderProcess
from anonlib.storage.scratch import SpooledFile

__all__ = [
    "ClipInfo",
    "Frame",
    "Part",
    "clip_info",
    "frames_in",
    "is_clip",
    "read_frames",
    "read_parts",
    "read_sound",
]

WINDOW = 16
"""Frames that are decoded at once; fewer where they are larger than full HD."""


def _fraction(parts: Any) -> Fraction:
    match parts:
        case [int(over), int(under)] if abs(over) < 1 << 62 and 0 < under < 1 << 40:
            return Fraction(over, under)
    raise ValueError("no fraction")


_Natural = Annotated[int, Field(ge=1, lt=1 << 40)]
_Integer = Annotated[int, Field(gt=-(1 << 62), lt=1 << 62)]
_Time = Annotated[Fraction, PlainValidator(_fraction)]
_Ratio = Annotated[_Time, Field(gt=0, lt=1 << 40)]
_Level = Annotated[int, Field(ge=0, le=32)]
_Loops = Annotated[int, Field(ge=0, lt=1 << 32)]


class Part(NamedTuple):
    """A part of a clip: from the key frame at the time `start` up to the one at `end`, in the clip's time base, and
    NOWHERE for the ends of the clip; `first`: the number of its first frame."""

    start: int = NOWHERE
    end: int = NOWHERE
    first: int = 0


_WHOLE = Part()


class ClipInfo(NamedTuple):
    """What a clip is, as a player shows it: `width` and `height` in px after its rotation, `rate` in frames a second.

    frames: as many packets as its video has, which is nearly always the number of frames. time_base: what times are
    multiples of, in s. aspect: width to height of a px. start, end: of the first and last frame, in s. colour: matrix,
    primaries and transfer as ITU-T H.273 numbers them. container: which the output is too. audio: whether it has
    sound. stripped and notes: what a release leaves out and converts. Of an animated image: loops, None where it does
    not say how often it is played and 0 for without end; its colour space; whether a frame is not opaque. cuts: where
    the parts behind the first begin, and with which frame.
    """

    width: _Natural
    height: _Natural
    frames: _Natural
    rate: _Ratio
    time_base: _Ratio
    aspect: _Ratio
    start: _Time
    end: _Time
    colour: tuple[_Level, _Level, _Level]
    container: Literal["mp4", "mov", "matroska", "webm", "avi", "gif", "png", "webp"]
    codec: Annotated[str, Field(max_length=32, pattern=r"^[a-z0-9_]+$")]
    audio: bool
    stripped: Annotated[tuple[Stripped, ...], Field(max_length=16)]
    notes: Annotated[tuple[Note, ...], Field(max_length=8)]
    loop: _Loops | None = None
    space: ColourSpace | None = None
    transparent: bool = False
    cuts: Annotated[tuple[tuple[_Integer, _Natural], ...], Field(max_length=100_000)] = ()

    @property
    def parts(self) -> list[Part]:
        """The parts in which it is worked on; one, if it is not to be cut."""
        starts = [(NOWHERE, 0), *self.cuts]
        ends = [*(at for at, _ in self.cuts), NOWHERE]
        return [Part(start, end, first) for (start, first), end in zip(starts, ends, strict=True)]

    @property
    def duration(self) -> float:
        """In s."""
        return float(self.end - self.start)


_Problem = tuple[Reason, Annotated[str, Field(max_length=300)]]
_Block = Annotated[list[_Integer], Field(min_length=4, max_length=5)]
_ANSWERS: TypeAdapter[Any] = TypeAdapter(ClipInfo | _Problem | list[_Block], config=ConfigDict(strict=True))


@dataclass(frozen=True)
class Frame:
    """A frame: its number from 0, its time in s as the file says it, its px (H, W, 3) uint8, and its alpha (H, W) where
    it is not opaque."""

    index: int
    time: Fraction
    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None = None

    @property
    def picture(self) -> Picture:
        """The frame as a photo."""
        return Picture(self.rgb, self.alpha, "PNG", None, (), (), (self.rgb.shape[0], self.rgb.shape[1]))


class _ClipProcess(DecoderProcess):
    """The process of one clip; see clip_worker.py."""

    _worker = "clip_worker"

    def __init__(self, path: Path, limits: LimitsConfig) -> None:
        self.protocol, self._limits = clip_worker, limits
        with path.open("rb") as file:
            if find_spec("av") is None and animation_kind(file.read(MEDIA_HEAD)) is None:
                raise BackendMissing(
                    "The input has clips, and PyAV, which reads and writes them, is not installed: run "
                    "pip install 'anonlib[clips]', or give a pattern that leaves them out."
                )
            self._files = (file.fileno(),)
            # A window has many frames, and INFO reads the file to its end.
            gib = file.seek(0, io.SEEK_END) / (1 << 30)
            super().__init__(limits.clip_mpx, limits.image_seconds * (2 + gib))

    def _shared_bytes(self) -> int:
        return self.protocol.clip_bytes(self.max_mpx)

    def request(self, wanted: int, most: int = 0, segment: float = 0.0, part: Part = _WHOLE) -> None:
        """Ask for INFO, or for the next frames of a part or sound; the process works while the caller does."""
        self._deadline = time.monotonic() + self.seconds
        limits = self._limits.clip_minutes, self._limits.clip_fps
        with self._watched():
            self._send(self.protocol.REQUEST.pack(wanted, most, *limits, segment, *part[:2]))

    def described(self) -> ClipInfo:
        """The answer to INFO; raises ImageProblem and SandboxDied."""
        answer = self._next()
        if not isinstance(answer, ClipInfo):
            raise SandboxDied("reading the clip made the decoder answer with something else")
        return answer

    def arrays(self, sides: int) -> list[tuple[NDArray[np.uint8], Fraction]]:
        """Copies of the arrays that were asked for, each of `sides` axes, and their times; none behind the end.

        Raises as described.
        """
        answer, start, found = self._next(), 0, []
        if not isinstance(answer, list) or len(answer) > WINDOW:
            raise SandboxDied("reading the clip made the decoder answer with something else")
        for *shape, over, under in answer:
            size = math.prod(shape)
            if len(shape) != sides or min(shape) < 1 or start + size > len(self._shared) or under < 1:
                raise SandboxDied("reading the clip made the decoder answer with a size that cannot be")
            found.append((self._copied(start, tuple(shape)), Fraction(over, under)))
            start += size
        return found

    def _next(self) -> Any:
        with self._watched():
            answer = self._answer(_ANSWERS, MOST_JSON, self._deadline)
        if isinstance(answer, tuple) and not isinstance(answer, ClipInfo):
            raise ImageProblem(*answer) if answer[1].isprintable() else SandboxDied("reading the clip failed")
        return answer


def clip_info(path: Path, limits: LimitsConfig, *, keep_audio: bool = False, segment: float | None = None) -> ClipInfo:
    """What the clip in a local file is; raises ImageProblem for one that cannot be released, and SandboxUnavailable.

    Every packet of the file is read, and its first frame decoded. `segment`: the seconds of its parts.
    """
    if path.stat().st_size > limits.clip_mib * (1 << 20):
        over = f"the clip is over the limit of {limits.clip_mib:g} MiB (limits.clip_mib)"
        raise ImageProblem(Reason.TOO_LARGE, over)
    for last in (False, True):
        try:
            with closing(_ClipProcess(path, limits)) as process:
                process.request(process.protocol.INFO, segment=segment or 0.0)
                found = process.described()
            break
        except SandboxDied as death:
            _raise_unless_again(death, last)
    stripped = {*found.stripped, *([Stripped.AUDIO] if found.audio and not keep_audio else [])}
    return found._replace(stripped=tuple(sorted(stripped)))


def _raise_unless_again(death: SandboxDied, last: bool) -> None:
    """A process that something outside ended says nothing about its clip, so it is tried once more."""
    if last or not death.from_outside:
        raise ImageProblem(death.reason, str(death)) from None


def _read(
    path: Path, limits: LimitsConfig, kind: str, sides: int, most: int, part: Part = _WHOLE
) -> Iterator[list[Any]]:
    """What the process of a clip has of a kind, FRAMES or SOUND, in lists; the next one is made meanwhile."""
    given, last = 0, False
    while True:
        try:
            with closing(_ClipProcess(path, limits)) as process:
                wanted, number = getattr(process.protocol, kind), 0
                process.request(wanted, most, part=part)
                while found := process.arrays(sides):
                    process.request(wanted, most)
                    number += 1
                    if number > given:
                        given = number
                        yield found
                return
        except SandboxDied as death:
            _raise_unless_again(death, last)
            last = True


def read_frames(path: Path, limits: LimitsConfig, window: int = WINDOW, part: Part = _WHOLE) -> Iterator[list[Frame]]:
    """All frames of a part in order, in lists of at most `window` (1 to 16); meanwhile the next one is decoded.

    A list is emptied when the next is asked for. Raises ImageProblem where a frame cannot be decoded, and
    SandboxUnavailable.
    """
    index = part.first
    for found in _read(path, limits, "FRAMES", 3, window, part):
        frames = [
            Frame(index + number, time, px[..., :3], px[..., 3] if px.shape[2] == 4 else None)
            for number, (px, time) in enumerate(found)
        ]
        index += len(found)
        found.clear()
        yield frames
        frames.clear()


def read_parts(
    path: Path, info: ClipInfo, limits: LimitsConfig, wanted: Collection[int] | None = None
) -> Iterator[list[Frame]]:
    """`read_frames` of all parts one by one, or of those alone that have one of the `wanted` frames."""
    for part, last in zip(info.parts, [*(first for _, first in info.cuts), math.inf], strict=True):
        if wanted is None or any(part.first <= frame < last for frame in wanted):
            yield from read_frames(path, limits, part=part)


def frames_in(data: bytes, limits: LimitsConfig) -> Iterator[Frame]:
    """All frames of a clip in memory; raises as read_frames."""
    file = SpooledFile(io.BytesIO(), data)
    for window in read_frames(file.path, limits):
        yield from window


def read_sound(path: Path, limits: LimitsConfig) -> Iterator[NDArray[np.int16]]:
    """The sound from second 0 on as blocks (samples, channels) of SOUND_RATE; raises as read_frames."""
    for found in _read(path, limits, "SOUND", 2, WINDOW):
        yield from (block.view(np.int16) for block, _ in found)
