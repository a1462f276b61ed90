"""Clips as cameras, editors and accidents make them: each is released right, or is a problem with a sentence.

Every maker plants SECRET wherever its container has room for words; no released byte may hold it.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from anonlib.codes import Note, Reason, Stripped
from anonlib.config import ClipConfig, LimitsConfig
from anonlib.errors import ImageProblem
from anonlib.media.clip import ClipInfo, clip_info, read_frames
from anonlib.media.clip_writer import clip_writer
from anonlib.media.sandbox import clip_worker, containers
from tests.support.clips import frame, frames_of, make

SECRET = "N3ver-Published"
LIMITS = LimitsConfig(clip_minutes=0.5)
KEEP = ClipConfig(audio="keep")
TAGS = {
    "title": SECRET,
    "location": f"+48.8577+002.295/{SECRET}",
    "comment": SECRET,
    "com.apple.quicktime.make": SECRET,
}
EVEN = [Fraction(number, 25) for number in range(12)]


def pictures(count: int = 6, size: tuple[int, int] = (64, 48), pix_fmt: str = "yuv420p") -> list[Any]:
    found = []
    for number in range(count):
        picture = av.VideoFrame.from_ndarray(frame(number, size)).reformat(format=pix_fmt)
        picture.pts, picture.time_base = number, Fraction(1, 25)
        found.append(picture)
    return found


def muxed(path: Path, add: Callable[[Any], list[tuple[Any, bytes]]] = lambda out: [], **more: Any) -> Path:
    """A clip beside whose video `add` puts other streams, a packet of these bytes each."""
    with av.open(str(path), "w", **more) as out:
        out.metadata.update(TAGS)
        stream: Any = out.add_stream("libx264", rate=25)
        stream.width, stream.height = 64, 48
        others = add(out)
        for picture in pictures():
            out.mux(stream.encode(picture))
        for other, data in others:
            packet = av.Packet(data)
            packet.stream, packet.time_base = other, Fraction(1, 25)
            packet.pts = packet.dts = 0
            packet.duration = 5
            out.mux(packet)
        out.mux(stream.encode(None))
    return path


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def turned(folder: Path, *, degrees: int = 90) -> Path:
    def turn(out: Any) -> list[Any]:
        out.streams.video[0].set_display_rotation(degrees)
        return []

    return muxed(folder / "a.mp4", turn)


def mirrored(folder: Path) -> Path:
    def mirror(out: Any) -> list[Any]:
        out.streams.video[0].set_display_matrix((-(1 << 16), 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
        return []

    return muxed(folder / "a.mov", mirror)


def in_hdr(folder: Path, *, transfer: int = 16, level: int = 596) -> Path:
    """All of it at `level` of 1,023: 58 % is the reference white of PQ, 203 cd/m2 (ITU-R BT.2408)."""
    with av.open(str(folder / "a.mp4"), "w") as out:
        stream: Any = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 9, 9, transfer, 1
        for number in range(4):
            picture = av.VideoFrame(64, 48, "yuv420p10le")
            for plane, value in zip(picture.planes, (level, 512, 512), strict=True):
                plane.update(np.full(plane.buffer_size // 2, value, "<u2").tobytes())
            picture.pts, picture.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return folder / "a.mp4"


def two_videos(folder: Path) -> Path:
    with av.open(str(folder / "a.mkv"), "w") as out:
        streams: list[Any] = [out.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, size in zip(streams, ((64, 48), (32, 32)), strict=True):
            stream.width, stream.height = size
        for stream, size in zip(streams, ((64, 48), (32, 32)), strict=True):
            for picture in pictures(size=size):
                out.mux(stream.encode(picture))
            out.mux(stream.encode(None))
    return folder / "a.mkv"


def sound_alone(folder: Path) -> Path:
    with av.open(str(folder / "a.mp4"), "w") as out:
        voice: Any = out.add_stream("aac", rate=48_000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.int16), format="s16", layout="mono")
        samples.sample_rate = 48_000
        out.mux([*voice.encode(samples), *voice.encode(None)])
    return folder / "a.mp4"


def with_chapters(folder: Path) -> Path:
    def chapter(out: Any) -> list[Any]:
        span = {"id": 1, "start": 0, "end": 5, "time_base": Fraction(1, 25), "metadata": {"title": SECRET}}
        out.set_chapters([span])
        return []

    return muxed(folder / "a.mkv", chapter)


def with_an_attachment(folder: Path) -> Path:
    def attach(out: Any) -> list[Any]:
        out.add_attachment("a.txt", "text/plain", SECRET.encode())
        return []

    return muxed(folder / "a.mkv", attach)


def with_a_cover(folder: Path) -> Path:
    with av.open(str(folder / "a.mp4"), "w") as out:
        stream: Any = out.add_stream("libx264", rate=25)
        cover: Any = out.add_stream("png", rate=1)
        stream.width, stream.height = 64, 48
        cover.width, cover.height, cover.pix_fmt = 64, 48, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        out.mux(cover.encode(av.VideoFrame.from_ndarray(frame(0))))
        for picture in pictures():
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return folder / "a.mp4"


def with_a_box_behind(folder: Path) -> Path:
    path = make(folder / "a.mp4", tags=TAGS)
    body = b"\xbe\x7a\xcf\xcb\x97\xa9\x42\xe8\x9c\x71\x99\x94\x91\xe3\xaf\xac" + f"<x:xmpmeta>{SECRET}".encode()
    path.write_bytes(path.read_bytes() + struct.pack(">I4s", len(body) + 8, b"uuid") + body)
    return path


def with_words_in_its_stream(folder: Path) -> Path:
    """In an SEI unit in front of the first frame, as cameras put their settings there."""
    path = folder / "a.mkv"
    data = bytes(16) + SECRET.encode()
    unit = b"\x06\x05" + bytes([len(data)]) + data + b"\x80"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.options = 64, 48, {"bf": "0"}
        for number, picture in enumerate([*pictures(), None]):
            for packet in stream.encode(picture):
                added = av.Packet((b"\0\0\0\x01" + unit if number == 0 or packet.pts == 0 else b"") + bytes(packet))
                added.pts, added.dts, added.time_base = packet.pts, packet.dts, packet.time_base
                added.stream, added.is_keyframe = stream, packet.is_keyframe
                out.mux(added)
    assert SECRET.encode() in path.read_bytes()
    return path


def empty(folder: Path) -> Path:
    (folder / "a.mp4").write_bytes(b"")
    return folder / "a.mp4"


def of_another_container(folder: Path) -> Path:
    path = make(folder / "a.webm", codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}, tags=TAGS)
    return path.rename(folder / "a.mp4")


def text(folder: Path) -> Path:
    (folder / "a.mp4").write_text(f"dear diary, {SECRET}")
    return folder / "a.mp4"


def playlist(folder: Path) -> Path:
    """FFmpeg would open what such a file names."""
    (folder / "a.mp4").write_text(f"#EXTM3U\n#EXTINF:10,\nfile://{make(folder / 'other.mp4')}\n")
    return folder / "a.mp4"


def with_a_damaged_frame(folder: Path) -> Path:
    path = make(folder / "a.mp4", 20, container={"movflags": "+faststart"}, tags=TAGS)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[start : start + 400] = np.random.default_rng(3).bytes(400)
    path.write_bytes(data)
    return path


Maker = Callable[[Path], Path]


def made(name: str, count: int = 12, **options: Any) -> Maker:
    """A clip with tags, of an encoder with these options."""
    return lambda folder: make(folder / name, count, tags=TAGS, **options)


PROBLEMS: dict[str, tuple[Maker, Reason]] = {
    "cut_behind_its_index": (
        lambda folder: cut(make(folder / "a.mp4", 30, container={"movflags": "+faststart"}, tags=TAGS), 0.7),
        Reason.DAMAGED,
    ),
    "cut_before_its_index": (lambda folder: cut(make(folder / "a.mp4", 30, tags=TAGS), 0.7), Reason.DAMAGED),
    "turned_oddly": (lambda folder: turned(folder, degrees=30), Reason.CLIP_FORMAT),
    "sound_alone": (sound_alone, Reason.NO_VIDEO),
    "ten_thousand_a_second": (
        made("a.mp4", 12, times=[Fraction(number, 10_000) for number in range(12)]),
        Reason.TOO_LONG,
    ),
    "eight_k": (made("a.mp4", 1, size=(7680, 4320), codec="mpeg4"), Reason.TOO_MANY_PIXELS),
    "too_long": (made("a.mp4", 12, times=[Fraction(number * 10) for number in range(12)]), Reason.TOO_LONG),
    "empty": (empty, Reason.EMPTY),
    "text": (text, Reason.NOT_A_CLIP),
    "playlist": (playlist, Reason.NOT_A_CLIP),
    "with_a_damaged_frame": (with_a_damaged_frame, Reason.DAMAGED),
    "transparent": (made("a.mkv", codec="ffv1", pix_fmt="yuva420p"), Reason.CLIP_FORMAT),
    "transparent_webm": (made("a.webm", codec="libvpx-vp9", pix_fmt="yuva420p"), Reason.CLIP_FORMAT),
}
RELEASED: dict[str, tuple[Maker, set[Stripped | Note]]] = {
    "cut_matroska": (lambda folder: cut(make(folder / "a.mkv", 100, tags=TAGS), 0.5), {Note.SHORTER}),
    "uneven_times": (made("a.mp4", 12, times=[time * time + time for time in EVEN]), set()),
    "late_start": (made("a.mkv", 12, times=[time + 2 for time in EVEN]), set()),
    "turned": (turned, set()),
    "mirrored": (mirrored, set()),
    "ten_bits": (made("a.mp4", pix_fmt="yuv420p10le"), {Note.CLIP_EIGHT_BITS}),
    "in_hdr": (in_hdr, {Note.CLIP_EIGHT_BITS, Note.SDR}),
    "in_hlg": (lambda folder: in_hdr(folder, transfer=18, level=721), {Note.CLIP_EIGHT_BITS, Note.SDR}),
    "interlaced": (made("a.mkv", options={"x264-params": "tff=1", "crf": "10"}), {Note.DEINTERLACED}),
    "odd_size": (made("a.mkv", size=(63, 47), codec="ffv1", pix_fmt="yuv444p"), set()),
    "full_range": (made("a.avi", codec="mjpeg", pix_fmt="yuvj420p", options={"qmin": "1", "qmax": "2"}), set()),
    "wide_pixels": (made("a.mp4", context={"sample_aspect_ratio": Fraction(4, 3)}), set()),
    "two_videos": (two_videos, {Stripped.VIDEOS}),
    "subtitled": (
        lambda folder: muxed(folder / "a.mkv", lambda out: [(out.add_mux_stream("subrip"), SECRET.encode())]),
        {Stripped.SUBTITLES},
    ),
    "of_an_action_camera": (
        lambda folder: muxed(
            folder / "a.mp4", lambda out: [(out.add_data_stream("bin_data"), b"DEVC" + SECRET.encode())]
        ),
        {Stripped.DATA},
    ),
    "with_chapters": (with_chapters, {Stripped.CHAPTERS}),
    "with_an_attachment": (with_an_attachment, {Stripped.ATTACHMENTS}),
    "with_a_cover": (with_a_cover, {Stripped.COVER}),
    "with_a_box_behind": (with_a_box_behind, set()),
    "with_words_in_its_stream": (with_words_in_its_stream, set()),
    "of_another_container": (of_another_container, set()),
    "grey": (made("a.mkv", codec="ffv1", pix_fmt="gray"), set()),
    "of_rgb": (made("a.mov", codec="libx264rgb", pix_fmt="rgb24", options={"crf": "5"}), set()),
}
"""What is stripped of each beside its tags, and noted."""
TURNED: dict[str, Callable[[Any], Any]] = {
    "turned": lambda picture: np.rot90(picture),
    "mirrored": lambda picture: picture[:, ::-1],
}


def release(path: Path, to: Path) -> tuple[ClipInfo, list[Any]]:
    """Write a clip with every frame as it is; the info and the frames of the source."""
    info, frames = clip_info(path, LIMITS), []
    with clip_writer(to, info, path, ClipConfig(), LIMITS) as writer:
        for window in read_frames(path, LIMITS):
            for each in window:
                writer.write(each.rgb, each.time)
                frames.append(each)
    return info, frames


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_bad_clip_is_a_problem_with_a_sentence(tmp_path, name):
    maker, reason = PROBLEMS[name]
    with pytest.raises(ImageProblem) as problem:
        release(maker(tmp_path), tmp_path / "out")
    assert problem.value.reason is reason, str(problem.value)
    assert len(str(problem.value)) > 15 and SECRET not in str(problem.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", RELEASED)
def test_an_odd_clip_is_released_right(tmp_path, name):
    maker, told = RELEASED[name]
    info, frames = release(maker(tmp_path), tmp_path / "out")
    assert {*info.stripped, *info.notes} == told | {Stripped.TAGS}
    assert frames[0].rgb.shape == (info.height, info.width, 3)
    data = (tmp_path / "out").read_bytes()
    assert SECRET.encode() not in data and b"x264" not in data and not re.search(rb"Lav[cf]\d", data)
    again = clip_info(tmp_path / "out", LIMITS)
    assert (again.stripped, again.notes) == ((), ())
    for kept in ("width", "height", "container", "aspect"):
        assert getattr(again, kept) == getattr(info, kept)
    assert abs(again.duration - info.duration) <= 1 / info.rate
    found = frames_of(tmp_path / "out")
    assert [each.time for each in found] == [each.time for each in frames]
    for before, after in zip(frames, found, strict=True):
        assert np.abs(before.rgb.astype(int) - after.rgb).mean() < 3
    if name in ("in_hdr", "in_hlg"):
        assert abs(frames[0].rgb.astype(int) - 250).max() <= 6  # reference white is white
    elif name not in ("two_videos", "grey"):
        upright = TURNED.get(name, lambda picture: picture)(frame(0, (63, 47) if name == "odd_size" else (64, 48)))
        assert np.abs(frames[0].rgb.astype(int) - upright).mean() < 5


def test_the_sound_of_a_bad_clip_costs_the_clip(tmp_path):
    path = make(tmp_path / "a.mp4", 30, sound=True, container={"movflags": "+faststart"})
    info = clip_info(path, LIMITS)
    cut(path, 0.4)
    with pytest.raises(ImageProblem), clip_writer(tmp_path / "out", info, path, KEEP, LIMITS) as writer:
        for number in range(30):
            writer.write(frame(number), Fraction(number, 25))
    assert not (tmp_path / "out").exists()


def test_a_clip_with_flipped_bytes_is_read_or_is_a_problem_and_nothing_else(tmp_path):
    """In this process, where any other exception shows."""
    containers.load_what_comes_late()
    random, reasons = np.random.default_rng(5), set()
    sources = [
        make(tmp_path / "a.mp4", 6, tags=TAGS),
        make(tmp_path / "a.mkv", 6),
        make(tmp_path / "a.avi", 6, codec="mpeg4"),
    ]
    for number in range(90):
        data = bytearray(sources[number % 3].read_bytes())
        for at in random.integers(0, len(data), random.integers(1, 12)):
            data[at] = random.integers(0, 256)
        try:
            with clip_worker.as_problem(containers.UNREADABLE), io.FileIO(tmp_path / "damaged", "w+") as file:
                file.write(data)
                *_, cuts = containers.info(file, 9, 10, 100, 0.1)
                for start in (clip_worker.NOWHERE, *(at for at, _ in cuts)):
                    assert all(len(time) == 2 for _, time in containers.frames(file, 9, start, clip_worker.NOWHERE))
        except ImageProblem as problem:
            reasons.add(problem.reason)
    assert Reason.DAMAGED in reasons
