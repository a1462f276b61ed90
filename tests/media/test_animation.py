"""Animated images are clips: their frames, times and loops stay, and nothing else of their file."""

from __future__ import annotations

import io
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from anonlib.codes import Reason, Stripped
from anonlib.config import ClipConfig, JobConfig, LimitsConfig
from anonlib.datasets import Sample
from anonlib.errors import ImageProblem
from anonlib.media.clip import ClipInfo, clip_info
from anonlib.media.clip_writer import clip_writer
from anonlib.media.colour import profile_of
from anonlib.media.prefetch import read_or_open
from tests.support.clips import LIMITS, frame, frames_of

KINDS = ("gif", "png", "webp")
SECRET = "N3ver-Published"
TIMES = [Fraction(number, 100) for number in (0, 4, 12, 37, 40, 50)]
"""When the five frames of `made` begin, and when the last ends."""


def made(path: Path, *, alpha: bool = False, **options: Any) -> Path:
    """Five frames, the third and fourth of which show the same; `path` ends as its kind."""
    pictures = [frame(number) for number in (0, 1, 2, 2, 5)]
    if alpha:
        hole = [np.where(np.arange(64)[None] < 8 * number + 8, 0, 255).repeat(48, 0) for number in range(5)]
        pictures = [np.dstack([rgb, clear]).astype(np.uint8) for rgb, clear in zip(pictures, hole, strict=True)]
    # Pillow would make one of two equal frames: they differ in a px here, which `equal` undoes.
    images = [Image.fromarray(picture) for picture in pictures]
    images[3].putpixel((0, 0), (255, 0, 0, 255) if alpha else (255, 0, 0))
    lengths = [round(1000 * float(end - start)) for start, end in pairwise(TIMES)]
    more: dict[str, Any] = {"lossless": True} if path.suffix == ".webp" else {"disposal": 2} if alpha else {}
    save = {"save_all": True, "append_images": images[1:], "duration": lengths, "loop": 3, **more, **options}
    images[0].save(path, {"png": "PNG"}.get(path.suffix[1:], path.suffix[1:].upper()), **save)
    return path


def released(source: Path, to: Path) -> ClipInfo:
    """The animation with every frame as it is."""
    info = clip_info(source, LIMITS)
    with clip_writer(to, info, source, ClipConfig(), LIMITS) as writer:
        for each in frames_of(source):
            writer.write(each.rgb, each.time, each.alpha)
    return info


@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "transparent"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_animation_keeps_its_frames_times_loops_and_pixels(kind: str, alpha: bool, tmp_path: Path) -> None:
    source, out = made(tmp_path / f"a.{kind}", alpha=alpha), tmp_path / "out"
    info = released(source, out)
    assert (info.width, info.height, info.frames, info.container, info.loop) == (64, 48, 5, kind, 3)
    assert (info.end, info.rate, info.transparent, info.stripped) == (TIMES[-1], 10, alpha, ())
    assert clip_info(out, LIMITS)._replace(codec=info.codec) == info
    for old, new, time in zip(frames_of(source), frames_of(out), TIMES, strict=False):
        assert old.time == new.time == time
        assert np.abs(old.rgb.astype(int) - new.rgb).max() <= (0 if kind != "gif" else 6)
        assert (old.alpha is None) == (new.alpha is None)
        assert old.alpha is None or (old.alpha == new.alpha).all()


@pytest.mark.parametrize("kind", KINDS)
def test_frames_that_are_equal_stay_frames_and_equal_frames_give_equal_bytes(kind: str, tmp_path: Path) -> None:
    info = clip_info(made(tmp_path / f"a.{kind}"), LIMITS)
    for name in ("b", "c"):
        with clip_writer(tmp_path / name, info, None, ClipConfig(), LIMITS) as writer:
            for time in TIMES[:-1]:
                writer.write(frame(0), time)
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    assert [each.time for each in frames_of(tmp_path / "b")] == TIMES[:-1]
    with Image.open(tmp_path / "b") as image:
        assert image.n_frames == 5


def test_a_lossy_webp_stays_lossy(tmp_path: Path) -> None:
    source = made(tmp_path / "a.webp", lossless=False, quality=90)
    assert released(source, tmp_path / "out").codec == "webp"
    assert b"VP8 " in (tmp_path / "out").read_bytes() and b"VP8L" not in (tmp_path / "out").read_bytes()
    for old, new in zip(frames_of(source), frames_of(tmp_path / "out"), strict=True):
        assert np.abs(old.rgb.astype(int) - new.rgb).mean() < 3


def with_words(path: Path) -> set[Stripped]:
    """Plants SECRET wherever the format has room for words; what of it is to be named."""
    exif = Image.Exif()
    exif[0x010E] = SECRET
    if path.suffix == ".png":
        words = PngImagePlugin.PngInfo()
        words.add_text("Comment", SECRET)
        words.add_itxt("XML:com.adobe.xmp", SECRET)
        made(path, pnginfo=words, exif=exif, icc_profile=profile_of("Display P3"))
        found = {Stripped.EXIF, Stripped.XMP, Stripped.COMMENT}
    elif path.suffix == ".webp":
        made(path, exif=exif.tobytes(), xmp=SECRET.encode(), icc_profile=profile_of("Display P3"))
        found = {Stripped.EXIF, Stripped.XMP}
    else:
        made(path, comment=SECRET.encode())
        found = {Stripped.COMMENT}
    path.write_bytes(path.read_bytes() + SECRET.encode())
    return found | {Stripped.TAGS}


@pytest.mark.parametrize("kind", KINDS)
def test_no_word_of_a_file_leaves_and_each_kind_is_named(kind: str, tmp_path: Path) -> None:
    source, out = tmp_path / f"a.{kind}", tmp_path / "out"
    found = with_words(source)
    info = released(source, out)
    assert {*info.stripped} == found and info.space == (None if kind == "gif" else "Display P3")
    assert SECRET.encode() not in out.read_bytes()
    again = clip_info(out, LIMITS)
    assert (again.stripped, again.space) == ((), info.space)


def test_a_picture_that_only_old_viewers_show_is_left_out(tmp_path: Path) -> None:
    source = made(tmp_path / "a.png", default_image=True)
    info = released(source, tmp_path / "out")
    assert (info.frames, info.stripped) == (4, (Stripped.PICTURES,))
    assert clip_info(tmp_path / "out", LIMITS).stripped == ()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cut_off_too_long_or_too_large_is_a_problem_with_a_sentence(kind: str, tmp_path: Path) -> None:
    source = made(tmp_path / f"a.{kind}")
    for limits, reason in (
        (LimitsConfig(clip_minutes=0.001), Reason.TOO_LONG),
        (LimitsConfig(clip_fps=5), Reason.TOO_LONG),
        (LimitsConfig(clip_mpx=0.001), Reason.TOO_MANY_PIXELS),
    ):
        with pytest.raises(ImageProblem, match="limit") as problem:
            clip_info(source, limits)
        assert problem.value.reason is reason
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ImageProblem) as problem:
        clip_info(source, LIMITS)
    assert problem.value.reason is Reason.DAMAGED


@pytest.mark.parametrize("kind", KINDS)
def test_an_animated_image_becomes_a_clip_and_a_still_does_not(kind: str, tmp_path: Path) -> None:
    job = JobConfig.model_validate({"input": {"uri": "in"}, "output": {"uri": "out"}, "workspace": {"uri": "work"}})
    sample = Sample("a", made(tmp_path / f"a.{kind}").read_bytes(), kind)
    assert isinstance(read_or_open(sample, job), ClipInfo)
    assert sample.image is None and sample.clip is not None
    out = io.BytesIO()
    Image.fromarray(frame(0)).save(out, kind)
    still = Sample("b", out.getvalue(), kind)
    assert not isinstance(read_or_open(still, job), ClipInfo) and still.clip is None
