"""The writer of a new clip from frames, whole or part by part, with the sound of another.

PyAV (FFmpeg's libraries) is imported when a clip comes. What is written has the pixels and samples that it was given
and nothing else of a source.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from anonlib.config import ClipConfig, LimitsConfig
from anonlib.datasets.names import ANIMATIONS
from anonlib.media.animation import AnimationWriter
from anonlib.media.clip import ClipInfo, read_sound
from anonlib.media.sandbox.clip_worker import SOUND_RATE
from anonlib.storage.local import as_sentence
from anonlib.storage.scratch import A_CLIP

_CODEC, _CODECS = "libx264", {"webm": "libvpx-vp9", "avi": "mpeg4"}
_AUDIO = {"webm": "libopus", "avi": "ac3"}
_THREADS = 4
"""Of the encoders, whatever the machine has: x264 decides by their number how it cuts a clip."""
_MOST_TICKS, _MOST_TICKS_OF_MPEG4 = 1_000_000, 65_535
"""A second."""


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

        from anonlib.media.sandbox.clip_colour import ACCURATE

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
        self._sound = read_sound(source, limits) if source is not None and keep else iter(())
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
