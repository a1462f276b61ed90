"""Clips: what a file holds, its frames in windows, and the writer of a new clip from frames.

A clip's file is demuxed and decoded by a process of its own that is confined as that of photos is; this process sees
checked numbers, pixels and samples of sound, and encodes those alone. So no tag, subtitle, position or chapter has a
way through. PyAV (FFmpeg's libraries) is imported when a clip comes; an animated image is a clip that Pillow reads and
writes (animation.py).
"""

from __future__ import annotations

import io
import math
import struct
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter

from anonlib.codes import Note, Reason, Stripped
from anonlib.config import ClipConfig, LimitsConfig
from anonlib.datasets.names import ANIMATIONS, MEDIA_HEAD, animation_kind, is_clip
from anonlib.errors import BackendMissing, ImageProblem, SandboxDied
from anonlib.media.animation import AnimationWriter
from anonlib.media.codec import Picture
from anonlib.media.colour import ColourSpace
from anonlib.media.sandbox import clip_worker
from anonlib.media.sandbox.clip_worker import NOWHERE, SOUND_RATE
from anonlib.media.sandbox.process import MOST_JSON, DecoderProcess
from anonlib.storage.local import as_sentence
from anonlib.storage.scratch import A_CLIP, SpooledFile

__all__ = [
    "ClipInfo",
    "Frame",
    "Part",
    "clip_info",
    "clip_writer",
    "frames_in",
    "is_clip",
    "part_writer",
    "read_frames",
]

WINDOW = 16
"""Frames that are decoded at once; fewer where they are larger than full HD."""
_CODEC, _CODECS = "libx264", {"webm": "libvpx-vp9", "avi": "mpeg4"}
_AUDIO = {"webm": "libopus", "avi": "ac3"}
_THREADS = 4
"""Of the encoders, whatever the machine has: x264 decides by their number how it cuts a clip."""
_MOST_TICKS, _MOST_TICKS_OF_MPEG4 = 1_000_000, 65_535
"""A second."""


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


def _read_sound(path: Path, limits: LimitsConfig) -> Iterator[NDArray[np.int16]]:
    """The sound from second 0 on as blocks (samples, channels) of SOUND_RATE; raises as read_frames."""
    for found in _read(path, limits, "SOUND", 2, WINDOW):
        yield from (block.view(np.int16) for block, _ in found)


class _Encoder:
    """Frames into packets of H.264, in WebM VP9, and in AVI, which has no times of presentation that H.264 needs,
    MPEG-4 part 2. `context`: the codec's, which is set up here."""

    def __init__(self, context: Any, info: ClipInfo, crf: int) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self._av, self._context, self._matrix = av, context, info.colour[0]
        self._reformatter = VideoReformatter()
        self._last: int | None = None
        self._ends: dict[int, int] = {}
        context.width, context.height = info.width, info.height
        odd = info.width % 2 or info.height % 2
        context.pix_fmt = "yuv444p" if context.name == "libx264" and odd else "yuv420p"
        most = _MOST_TICKS_OF_MPEG4 if context.name == "mpeg4" else _MOST_TICKS
        self.tick = context.time_base = max(info.time_base.limit_denominator(most), Fraction(1, most))
        context.sample_aspect_ratio = info.aspect
        context.colorspace, context.color_primaries, context.color_trc = info.colour
        context.color_range = 1
        context.thread_count = _THREADS
        context.flags |= av.codec.context.Flags.bitexact
        context.options = {
            # Without it macroblock trees are weighed by SIMD whose last bits differ from run to run, on some CPUs.
            "libx264": {"crf": str(crf), "preset": "veryfast", "x264-params": "cpu-independent=1"},
            "libvpx-vp9": {"crf": str(crf + 12), "b": "0", "deadline": "good", "cpu-used": "5", "tile-columns": "2"},
            "mpeg4": {"qmin": str(1 + crf // 9), "qmax": str(1 + crf // 9)},
        }[context.name]

    def encode(self, rgb: NDArray[np.uint8], time: Fraction) -> list[Any]:
        """Packets that are ready with the next frame (H, W, 3), shown from `time` on; times grow."""
        from av.video.reformatter import ColorRange

        from anonlib.media.sandbox.containers import ACCURATE

        at = round(time / self.tick)
        at = at if self._last is None else max(at, self._last + 1)
        if self._last is not None:
            self._ends[self._last] = at
        self._last = at
        coded = self._reformatter.reformat(
            self._av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb)),
            format=self._context.pix_fmt,
            interpolation=ACCURATE,
            src_colorspace=self._matrix,
            dst_colorspace=self._matrix,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        coded.pts, coded.time_base = at, self.tick
        return self._with_ends(self._context.encode(coded))

    def finish(self, end: Fraction) -> list[Any]:
        """The packets that are left; the last frame is shown until `end`."""
        if self._last is None:
            return []
        self._ends[self._last] = max(self._last + 1, round(end / self.tick))
        return self._with_ends(self._context.encode(None))

    def _with_ends(self, packets: list[Any]) -> list[Any]:
        for packet in packets:
            end = self._ends.pop(packet.pts, None)
            if end is not None:
                packet.duration = end - packet.pts
        return packets


_PACKET = struct.Struct("<qqqBI")
"""Of a packet in the file of a part: times of showing and decoding, duration, whether it is a key frame, its bytes."""


class PartWriter:
    """The packets of a part of a clip in a file, which `ClipWriter.append` reads; equal frames, equal bytes.

    `end`: of its last frame, in s.
    """

    def __init__(self, path: Path, info: ClipInfo, end: Fraction, settings: ClipConfig) -> None:
        import av

        context: Any = av.CodecContext.create(_CODECS.get(info.container, _CODEC), "w")
        context.framerate = info.rate
        context.flags |= av.codec.context.Flags.global_header
        self._encoder, self._end = _Encoder(context, info, settings.crf), end
        self._file = path.open("wb")

    def write(self, rgb: NDArray[np.uint8], time: Fraction, alpha: object = None) -> None:
        """As a ClipWriter."""
        self._add(self._encoder.encode(rgb, time))

    def _add(self, packets: list[Any]) -> None:
        with as_sentence("write", A_CLIP):
            for packet in packets:
                head = packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, packet.size
                self._file.write(_PACKET.pack(*head) + bytes(packet))

    def close(self) -> None:
        """Finish the file."""
        self._add(self._encoder.finish(self._end))
        with as_sentence("write", A_CLIP):
            self._file.close()

    def abort(self) -> None:
        """Let go of the file."""
        self._file.close()


class ClipWriter:
    """A new clip at `path`, of the container, size and times of `info`; equal frames, equal bytes.

    The sound of the clip `source` comes along if the settings keep it. Raises ImageProblem where the source's sound
    cannot be decoded, and StorageError where the disk fails.
    """

    def __init__(
        self, path: Path, info: ClipInfo, source: Path | None, settings: ClipConfig, limits: LimitsConfig
    ) -> None:
        import av

        self._av, self._path, self._info = av, path, info
        keep = info.audio and settings.audio == "keep"
        self._sound = _read_sound(source, limits) if source is not None and keep else iter(())
        first = next(self._sound, None)
        options = {"fflags": "+bitexact", **({"movflags": "+faststart"} if info.container in ("mp4", "mov") else {})}
        self._out = av.open(str(path), "w", format=info.container, options=options)
        self._stream: Any = self._out.add_stream(_CODECS.get(info.container, _CODEC), rate=info.rate)
        self._encoder = _Encoder(self._stream.codec_context, info, settings.crf)
        self._decoded = -1 << 62
        self._samples, self._audio = 0, None
        if first is not None:
            self._audio, self._sound = self._voice(first.shape[1]), chain([first], self._sound)
        with as_sentence("write", A_CLIP):
            self._out.start_encoding()
        # x264 describes itself and its settings in an SEI unit (type 6) of the first frame.
        units = "filter_units=remove_types=6"
        h264 = self._stream.codec_context.name == "libx264"
        self._bare = av.BitStreamFilterContext(units, self._stream) if h264 else None

    def write(self, rgb: NDArray[np.uint8], time: Fraction, alpha: object = None) -> None:
        """The next frame (H, W, 3), shown from `time` on; times grow. No video has an alpha."""
        packets = self._encoder.encode(rgb, time)
        with as_sentence("write", A_CLIP):
            self._mux_sound(time)
            self._mux(packets)

    def append(self, part: BinaryIO) -> None:
        """The next part, as a PartWriter has written it; a clip is of parts alone."""
        while head := part.read(_PACKET.size):
            shown, decoded, duration, key, size = _PACKET.unpack(head)
            packet: Any = self._av.Packet(part.read(size))
            # An encoder begins some frames before its first; of a part, these are of the one before.
            self._decoded = max(decoded, self._decoded + 1)
            packet.pts, packet.dts, packet.duration, packet.is_keyframe = shown, self._decoded, duration, bool(key)
            packet.time_base = self._encoder.tick
            with as_sentence("write", A_CLIP):
                self._mux_sound(shown * self._encoder.tick)
                self._mux([packet])

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.stream = self._stream
            self._out.mux(self._bare.filter(packet) if self._bare else packet)

    def _voice(self, channels: int) -> Any:
        stream: Any = self._out.add_stream(_AUDIO.get(self._info.container, "aac"), rate=SOUND_RATE)
        stream.codec_context.layout = "mono" if channels == 1 else "stereo"
        stream.codec_context.bit_rate = 96_000 * channels
        stream.codec_context.flags |= self._av.codec.context.Flags.bitexact
        return stream

    def _mux_sound(self, until: Fraction | None) -> None:
        """Encode the sound up to a time in s or to its end, so that the muxer need not hold either stream back."""
        while self._audio is not None and (until is None or self._samples < until * SOUND_RATE):
            block = next(self._sound, None)
            if block is None:
                self._out.mux(self._audio.encode(None))
                self._audio = None
                return
            frame = self._av.AudioFrame.from_ndarray(
                block.reshape(1, -1), format="s16", layout=self._audio.codec_context.layout.name
            )
            frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, self._samples, Fraction(1, SOUND_RATE)
            self._samples += len(block)
            self._out.mux(self._audio.encode(frame))

    def close(self) -> None:
        """Finish the file."""
        with as_sentence("write", A_CLIP):
            self._mux_sound(None)
            self._mux(self._encoder.finish(self._info.end))
            self._out.close()

    def abort(self) -> None:
        """Let go of the file."""
        with suppress(OSError, self._av.FFmpegError):
            self._out.close()


@contextmanager
def clip_writer(
    path: Path, info: ClipInfo, source: Path | None, settings: ClipConfig, limits: LimitsConfig
) -> Iterator[ClipWriter | AnimationWriter]:
    """The writer of a new clip, which is finished behind the block; an exception removes what was written."""
    if info.container in ANIMATIONS:
        make: Callable[[], Any] = partial(AnimationWriter, path, info, 100 - settings.crf)
    else:
        make = partial(ClipWriter, path, info, source, settings, limits)
    with _finished(path, make) as writer:
        yield writer


@contextmanager
def part_writer(path: Path, info: ClipInfo, number: int, settings: ClipConfig) -> Iterator[PartWriter]:
    """As clip_writer, of the part `number` of a clip."""
    end = info.end if number == len(info.cuts) else info.cuts[number][0] * info.time_base
    with _finished(path, partial(PartWriter, path, info, end, settings)) as writer:
        yield writer


@contextmanager
def _finished(path: Path, make: Callable[[], Any]) -> Iterator[Any]:
    try:
        writer = make()
        try:
            yield writer
            writer.close()
        except BaseException:
            writer.abort()
            raise
    except BaseException:
        path.unlink(missing_ok=True)
        raise
