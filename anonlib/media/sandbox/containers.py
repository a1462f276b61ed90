"""A container of video (MP4, MOV, MKV, WebM, AVI), demuxed and decoded by PyAV in the process of clip_worker.py.

Of a file it passes on the pixels of its first video stream, their times, and the samples of its first sound: subtitles,
data (GPS, gyro), chapters, attachments, covers and tags end here. Pixels are turned as a player shows them, interlaced
ones become progressive, and their numbers become RGB (clip_colour.py).
"""

from __future__ import annotations

import io
import os
import re
import struct
from array import array
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.subtitles.codeccontext  # PyAV imports it with the first stream of subtitles, which is too late here
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from anonlib.codes import Note, Reason, Stripped
from anonlib.datasets.names import clip_kind
from anonlib.errors import ImageProblem
from anonlib.media.sandbox.clip_colour import ClipColour
from anonlib.media.sandbox.clip_worker import NOWHERE, SOUND_RATE, check_length, check_rate, check_size

_DEMUXERS = {"mp4": "mov", "mov": "mov", "matroska": "matroska", "webm": "matroska", "avi": "avi"}
_DOLBY_VISION = {"dvh1", "dvhe", "dva1", "dvav", "dav1"}
_ONE = 1 << 16
_BEFORE = 3
"""Seconds."""
_OF_EVERY_FILE = {
    "major_brand": r"[\w ]{4}",
    "minor_version": r"\d{1,10}",
    "compatible_brands": r"[\w ]{0,64}",
    "language": r"und|eng",
    "handler_name": r"(Video|Sound)Handler",
    "vendor_id": r"(\[0\]){4}|FFMP",
    "encoder": "Lavf",
    "DURATION": r"[\d:.]{1,20}",
}
"""Tags, and their values, that muxers write of themselves; ours, too."""
UNREADABLE = (av.FFmpegError, OSError, ValueError, LookupError, ArithmeticError)


def load_what_comes_late() -> None:
    """Write and read a clip: later no library can be opened."""
    av.logging.set_level(None)
    written = io.BytesIO()
    with av.open(written, "w", format="matroska") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))
        out.mux([*stream.encode(frame), *stream.encode(None)])
    for picture, _ in _decoded(io.BytesIO(written.getvalue())):
        ClipColour(picture).rgb(picture, VideoReformatter())


def _opened(file: io.RawIOBase | io.BytesIO) -> tuple[str, Any]:
    """The container's kind, and the container; raises ImageProblem."""
    file.seek(0)
    head = file.read(4096) or b""
    if not head:
        raise ImageProblem(Reason.EMPTY)
    kind = clip_kind(head)
    if kind not in _DEMUXERS:
        raise ImageProblem(Reason.NOT_A_CLIP)
    file.seek(0)
    try:
        return kind, av.open(file, format=_DEMUXERS[kind], metadata_errors="replace", buffer_size=1 << 18)
    except av.FFmpegError as error:
        why = f"the clip is damaged, or its index is missing: {error.strerror}"
        raise ImageProblem(Reason.DAMAGED, why) from None


def _video(container: Any) -> Any:
    """The first stream of video that is no cover; raises ImageProblem."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise ImageProblem(Reason.NOT_A_CLIP, "the clip's video is coded in a way that is not known here")
            if stream.metadata.get("alpha_mode", "0") != "0":  # Matroska keeps it apart, and the decoder drops it
                raise ImageProblem(Reason.CLIP_FORMAT, "the clip's video is partly transparent")
            return stream
    raise ImageProblem(Reason.NO_VIDEO)


def _decoded(
    file: io.RawIOBase | io.BytesIO, start: int = NOWHERE, end: int = NOWHERE
) -> Iterator[tuple[Any, Fraction]]:
    """Every frame from one key frame up to another, progressive, with its time in s; raises ImageProblem where one is
    damaged or of another size."""
    _, container = _opened(file)
    with container:
        stream = _video(container)
        context = stream.codec_context
        context.thread_count = 1
        context.options = {"err_detect": "explode"}
        first = graph = None
        last, step = None, stream.time_base
        for packet in _packets(container, stream, start):
            over = packet.pts == end and packet.is_keyframe
            frames = context.decode(None) if over else packet.decode()
            for frame in frames:
                first = first or frame
                if frame.is_corrupt:
                    raise ImageProblem(Reason.DAMAGED, "a frame of the clip is damaged")
                if (frame.width, frame.height, frame.format.name) != (first.width, first.height, first.format.name):
                    raise ImageProblem(Reason.CLIP_FORMAT, "the clip's frames change their size or pixel format")
                if frame.interlaced_frame and graph is None:
                    graph = _deinterlacer(frame, step)
            if graph is not None:
                frames = _through(graph, frames, over or packet.size == 0)
            for frame in frames:
                time = None if frame.pts is None else frame.pts * (frame.time_base or step)
                if time is None or (last is not None and time <= last):
                    time = Fraction(0) if last is None else last + step
                last = time
                yield frame, time
            if over:
                return


def _packets(container: Any, stream: Any, start: int) -> Iterator[Any]:
    """The packets from a key frame on."""
    if start != NOWHERE:
        # Indexes are of times of decoding in some containers, and of showing in others, so it is sought from before.
        container.seek(max(start - round(_BEFORE / stream.time_base), stream.start_time or 0), stream=stream)
    waiting = start != NOWHERE
    for packet in container.demux(stream):
        waiting = waiting and not (packet.pts == start and packet.is_keyframe)
        if waiting and (packet.pts is None or packet.pts > start):
            raise ImageProblem(Reason.DAMAGED, "the clip's index leads elsewhere; leave clip.segment out")
        if not waiting:
            yield packet


def _deinterlacer(frame: Any, time_base: Fraction) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or time_base
    )
    graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def _through(graph: Graph, frames: list[Any], end: bool) -> list[Any]:
    """What a filter gives for these frames, and at the `end` what it still holds."""
    found = []
    for frame in [*frames, *([None] if end else [])]:
        graph.push(frame)
        while True:
            try:
                found.append(graph.pull())
            except (av.BlockingIOError, av.EOFError):
                break
    return found


def _turned(frame: Any) -> tuple[bool, bool, bool]:
    """Whether rows and columns are exchanged, then columns mirrored, then rows, to show a frame; raises ImageProblem.

    A display matrix maps (x, y) to (a x + c y, b x + d y), as 16.16 numbers (ISO/IEC 14496-12, 8.3.2).
    """
    if Type.DISPLAYMATRIX not in frame.side_data:
        return False, False, False
    a, b, _, c, d = struct.unpack_from("<5i", bytes(frame.side_data[Type.DISPLAYMATRIX]))
    if (abs(a), abs(d), b, c) == (_ONE, _ONE, 0, 0):
        return False, a < 0, d < 0
    if (a, d, abs(b), abs(c)) == (0, 0, _ONE, _ONE):
        return True, c < 0, b < 0
    raise ImageProblem(Reason.CLIP_FORMAT, "the clip is to be shown scaled, or turned by an angle that is not square")


def frames(file: io.RawIOBase, max_mpx: float, start: int, end: int) -> Iterator[tuple[NDArray[np.uint8], list[int]]]:
    """Every frame of a part as a player shows it, with its time as a fraction."""
    reformatter, colour, turn = VideoReformatter(), None, (False, False, False)
    for frame, time in _decoded(file, start, end):
        if colour is None:
            check_size(frame, max_mpx)
            colour, turn = ClipColour(frame), _turned(frame)
        pixels = colour.rgb(frame, reformatter)
        pixels = pixels.swapaxes(0, 1) if turn[0] else pixels
        yield pixels[:: -1 if turn[2] else 1, :: -1 if turn[1] else 1], [time.numerator, time.denominator]


def info(file: io.RawIOBase, max_mpx: float, minutes: float, most_rate: float, part: float) -> list[Any]:
    """What ClipInfo says of the file, by its packets and first frame; `part`: the seconds of its parts, 0 for one."""
    size = file.seek(0, os.SEEK_END)
    kind, container = _opened(file)
    with container:
        stream = _video(container)
        if stream.codec_context.width * stream.codec_context.height:
            check_size(stream.codec_context, max_mpx)
        if (stream.codec_context.codec_tag or "") in _DOLBY_VISION:
            raise ImageProblem(Reason.CLIP_FORMAT, "the clip is in Dolby Vision, whose colours cannot be converted")
        if any(entry.pos + entry.size > size for entry in stream.index_entries):
            raise ImageProblem(Reason.DAMAGED, "the clip is cut off: its index names more than there is in the file")
        count, rate, start, end, cuts = _measured(container, stream, minutes, most_rate, part)
        stripped = _stripped(container, stream)
        promised = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
        average, codec = stream.average_rate, stream.codec_context.name
        aspect, time_base = stream.sample_aspect_ratio or Fraction(1), stream.time_base
        interlaced = stream.codec_context.field_order not in ("progressive", "unknown", 0, 1)
        audible = bool(container.streams.audio)
    frame = next(_decoded(file), (None, None))[0]
    if frame is None:
        raise ImageProblem(Reason.NO_VIDEO, "the clip has no frame that can be decoded")
    check_size(frame, max_mpx)
    colour, (exchanged, *_) = ClipColour(frame), _turned(frame)
    notes = [*colour.notes]
    if interlaced or frame.interlaced_frame:
        notes.append(Note.DEINTERLACED)
    if promised > float(end) * 1.01 + 1:
        notes.append(Note.SHORTER)
    rate = max(rate, Fraction(1, 1000)).limit_denominator(1001)
    if average and abs(average / rate - 1) < 0.005:
        rate = average
    parts = [] if kind == "avi" else cuts  # an AVI does not say when frames are shown
    side = (frame.height, frame.width) if exchanged else (frame.width, frame.height)
    aspect = 1 / aspect if exchanged else aspect
    fractions = [[f.numerator, f.denominator] for f in (rate, time_base, aspect, start, end)]
    about = [colour.matrix, colour.primaries, colour.transfer]
    return [*side, count, *fractions, about, kind, codec, audible, sorted(stripped), notes, None, None, False, parts]


def _measured(
    container: Any, stream: Any, minutes: float, most_rate: float, part: float
) -> tuple[int, Fraction, Fraction, Fraction, list[list[int]]]:
    """Frames of a stream by its packets, how many a second, when the first begins and the last ends, and the cuts of
    its parts; raises ImageProblem."""
    count, start, last, end = 0, None, Fraction(0), Fraction(0)
    times, keys = array("q"), bytearray()
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise ImageProblem(Reason.DAMAGED, "the clip is cut off or damaged")
        if not packet.size or packet.is_discard:
            continue
        count += 1
        at = packet.pts if packet.pts is not None else packet.dts
        if part:
            times.append(NOWHERE if packet.pts is None else packet.pts)
            keys.append(packet.is_keyframe)
        if at is not None:
            time, length = at * stream.time_base, (packet.duration or 0) * stream.time_base
            start = time if start is None else min(start, time)
            last, end = max(last, time), max(end, time + length)
        check_length(count, 0.0 if start is None else float(end - start), minutes, most_rate)
    if not count:
        raise ImageProblem(Reason.NO_VIDEO, "the clip's video has no frame")
    start = start or Fraction(0)
    if end <= start:
        end = start + Fraction(1, 25)
    rate = (count - 1) / (last - start) if last > start else 1 / (end - start)
    check_rate(float(rate), most_rate)
    return count, rate, start, end, _cuts(np.array(times), np.array(keys, bool), float(part / stream.time_base))


def _cuts(times: NDArray[np.int64], keys: NDArray[np.bool_], least: float) -> list[list[int]]:
    """Where parts of `least` ticks or more begin, and the number of the frame: at key frames (n,) which are shown
    behind all that is decoded before and before all that is decoded behind."""
    if not len(times) or times.min() == NOWHERE:
        return []
    clean = keys & (times == np.minimum.accumulate(times[::-1])[::-1])
    clean[1:] &= times[1:] > np.maximum.accumulate(times)[:-1]
    found, last = [], int(times[0])
    for number in np.flatnonzero(clean).tolist():
        if times[number] - last >= least:
            last = int(times[number])
            found.append([last, number])
    return found


def _stripped(container: Any, video: Any) -> set[Stripped]:
    """The kinds of things beside the video that the file has; sound is the caller's to count."""
    kinds = {"video": Stripped.VIDEOS, "subtitle": Stripped.SUBTITLES, "attachment": Stripped.ATTACHMENTS}
    found = set()
    for stream in container.streams:
        if stream.disposition & Disposition.attached_pic:
            found.add(Stripped.COVER)
        elif stream is not video and stream.type != "audio":
            found.add(kinds.get(stream.type, Stripped.DATA))
    if container.chapters():
        found.add(Stripped.CHAPTERS)
    tags = [tag for holder in (container, *container.streams) for tag in holder.metadata.items()]
    if not all(re.fullmatch(_OF_EVERY_FILE.get(name, "(?!)"), value) for name, value in tags):
        found.add(Stripped.TAGS)
    return found


def sound(file: io.RawIOBase, minutes: float) -> Iterator[tuple[NDArray[np.uint8], list[int]]]:
    """The first sound from second 0 on, with silence where it has gaps: blocks of bytes (samples, 2 * channels)."""
    _, container = _opened(file)
    with container:
        stream = container.streams.audio[0]
        stream.codec_context.thread_count = 1
        graph, left = None, minutes * 60 * SOUND_RATE
        for packet in container.demux(stream):
            frames = packet.decode()
            if graph is None and frames:
                graph = _resampler(frames[0], stream.time_base)
            for frame in _through(graph, frames, packet.size == 0) if graph else ():
                channels = len(frame.layout.channels)
                samples = np.frombuffer(frame.planes[0], np.uint8)[: frame.samples * channels * 2]
                yield samples.reshape(frame.samples, channels * 2), [0, 1]
                left -= frame.samples
                if left < 0:
                    return


def _resampler(frame: Any, time_base: Fraction) -> Graph:
    graph = Graph()
    graph.threads = 1
    layout = "mono" if len(frame.layout.channels) == 1 else "stereo"
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate, format=frame.format.name, layout=frame.layout.name, time_base=time_base
    )
    form = f"sample_fmts=s16:channel_layouts={layout}:sample_rates={SOUND_RATE}"
    graph.link_nodes(
        source,
        graph.add("aresample", f"{SOUND_RATE}:async=1:first_pts=0"),
        graph.add("aformat", form),
        graph.add("asetnsamples", "n=4800:p=0"),
        graph.add("abuffersink"),
    )
    graph.configure()
    return graph
