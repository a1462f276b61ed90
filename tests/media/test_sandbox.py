"""A photo may kill the process that decodes it: it costs that photo and nothing else, and changes no other."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anonlib.config import LimitsConfig
from anonlib.errors import ImageProblem, SandboxUnavailable
from anonlib.media.codec import Picture, decode
from anonlib.media.sandbox.process import Decoders, decode_apart
from tests.support import photos, poison

RNG = np.random.default_rng(3)
SMALL = RNG.integers(0, 255, (6, 5, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
GOOD = photos.jpeg(SMALL)
LIMITS = LimitsConfig(image_mpx=1, image_seconds=60)


def in_mode(mode: str, kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(SMALL).convert(mode).save(out, kind)
    return out.getvalue()


FILES = {
    "jpeg": photos.jpeg(SMALL, icc_profile=photos.srgb(), comment=b"hello"),
    "progressive": photos.jpeg(SMALL, progressive=True),
    "grey": in_mode("L", "JPEG"),
    "cmyk": in_mode("CMYK", "JPEG"),
    "turned": photos.jpeg(SMALL, exif=b"MM\0*\0\0\0\b\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"),
    "png": photos.encoded(SMALL, "PNG", icc_profile=photos.srgb() + b"a thumbnail"),
    "palette": in_mode("P", "PNG"),
    "bilevel": in_mode("1", "PNG"),
    "transparent": photos.encoded(np.dstack([SMALL, SMALL[:, :, :1]]), "PNG"),
    "transparent colour": photos.encoded(SMALL, "PNG", transparency=tuple(SMALL[0, 0].tolist())),
    "16 bits": photos.encoded(SMALL[:, :, 0].astype(np.uint16) * 257, "PNG"),
    "32 bits": photos.encoded(SMALL[:, :, 0].astype(np.int32) * 70_000, "TIFF"),
    "floats": photos.encoded(SMALL[:, :, 0].astype(np.float32) / 3, "TIFF"),
    "lab": in_mode("LAB", "TIFF"),
    "webp": photos.encoded(SMALL, "WEBP"),
    "gif": photos.encoded(SMALL, "GIF"),
    "large": photos.jpeg(photos.astronaut()),
    "empty": b"",
    "cut": photos.jpeg(photos.astronaut())[:9000],
    "a broken promise": photos.png_header(100, 100),
}
"""A file of every kind that decoding treats in its own way, good and bad."""


def said(read: Any, data: bytes, *limits: LimitsConfig, **options: Any) -> dict[str, Any] | str:
    """A Picture with its pixels as bytes, or the problem's sentence."""
    try:
        picture: Picture = read(data, *limits, **options)
    except ImageProblem as problem:
        return str(problem)
    arrays = {"rgb": picture.rgb, "alpha": picture.alpha}
    return asdict(picture) | {
        name: None if array is None else (array.dtype.str, array.shape, array.tobytes())
        for name, array in arrays.items()
    }


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    """Decoders that poison works on."""
    poisoned = Decoders(poison.PROGRAM)
    yield poisoned
    poisoned.close()


@pytest.mark.parametrize("name", FILES)
def test_a_photo_is_the_same_as_if_it_were_decoded_here(name: str) -> None:
    for least_side in (None, 100):
        here = said(decode, FILES[name], max_mpx=1, least_side=least_side)
        assert said(decode_apart, FILES[name], LIMITS, least_side=least_side) == here


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("segfault", "crashed the decoder (signal SIGSEGV)"),
        ("abort", "crashed the decoder (signal SIGABRT)"),
        ("kill", "crashed the decoder (signal SIGKILL)"),
        ("exit", "ended the decoder (exit code 1)"),
        ("half", "ended the decoder (exit code 0)"),
        ("hang up", "made the decoder hang up"),
        ("hoard", "needs more memory than a photo of limits.image_mpx may take"),
    ],
)
def test_poison_is_a_sentence_and_the_next_photo_is_decoded(decoders: Decoders, what: str, reason: str) -> None:
    assert said(decoders.decode, poison.poison(what), LIMITS) == f"decoding it {reason}"
    assert said(decoders.decode, GOOD, LIMITS) == said(decode, GOOD, max_mpx=1)


LIES = ["rubbish", "huge json", "a profile", "no json", "beyond", "larger", "negative", "format", "more", "escapes"]


@pytest.mark.parametrize("lie", LIES)
def test_what_the_process_says_is_believed_only_where_it_can_be(lie: str) -> None:
    decoders = Decoders(poison.PROGRAM)
    assert "answer with something that is no photo" in str(said(decoders.decode, poison.poison(lie), LIMITS))
    assert not decoders._idle


def test_a_photo_that_takes_too_long_is_given_up_once(decoders: Decoders) -> None:
    began = time.monotonic()
    assert "longer than 0.5 s (limits.image_seconds)" in str(
        said(decoders.decode, poison.poison("sleep"), LimitsConfig(image_mpx=1, image_seconds=0.5))
    )
    assert time.monotonic() - began < 30


def test_a_small_file_that_wants_gigabytes_gets_none() -> None:
    with pytest.raises(ImageProblem, match="more memory than a photo"):
        decode_apart(poison.thirsty_tiff(0.3), LIMITS)


def test_a_small_file_that_takes_minutes_gets_its_seconds() -> None:
    data = poison.endless_jpeg(3000)
    assert len(data) < 200_000
    with pytest.raises(ImageProblem, match=r"longer than 0\.5 s"):
        decode_apart(data, LimitsConfig(image_mpx=20, image_seconds=0.5))
    assert decode(poison.endless_jpeg(1), max_mpx=20).rgb.shape == (4096, 4096, 3)


def test_a_process_that_an_earlier_photo_broke_is_not_held_against_the_next(decoders: Decoders) -> None:
    with pytest.raises(ImageProblem, match="nothing happened"):
        decoders.decode(poison.poison("the next"), LIMITS)
    assert said(decoders.decode, GOOD, LIMITS) == said(decode, GOOD, max_mpx=1)


def test_a_process_lives_for_many_photos_and_has_nothing_to_steal(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret for the tests only")
    decoders.close()
    decoders.decode(GOOD, LIMITS)
    (process,) = decoders._idle
    told = json.loads(str(said(decoders.decode, poison.poison("tell"), LIMITS)))
    assert decoders._idle == [process]
    assert set(told["environment"]) <= {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LC_CTYPE", "LD_LIBRARY_PATH"}
    assert told["folder"] == "/"
    # The socket twice, /dev/null three times, the memory of the pixels; the list of paths may hold no more.
    assert told["files"] <= 6
    assert told["limits"][:3] == [0, 0, 0] and 0 < told["limits"][3] < 64 and 0 < told["limits"][4] < 2 << 30


def test_threads_have_a_process_each_and_get_their_own_photos() -> None:
    files = [photos.encoded(np.full((40 + n, 30, 3), n, np.uint8), "PNG") for n in range(40)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda data: decode_apart(data, LIMITS), files))
    for number, picture in enumerate(found):
        assert picture.rgb.shape == (40 + number, 30, 3) and (picture.rgb == number).all()


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (["/nowhere/python"], "No such file"),
        ([sys.executable, "-c", "raise ImportError('no such library')"], "ImportError: no such library"),
        ([sys.executable, "-c", ""], "it said nothing"),
    ],
)
def test_where_no_process_can_be_started_no_photo_is_blamed(program: list[str], reason: str) -> None:
    with pytest.raises(SandboxUnavailable, match=f"cannot be started: .*{reason}"):
        Decoders(program).decode(GOOD, LIMITS)


def test_it_ends_when_whoever_started_it_is_killed() -> None:
    code = (
        "import sys, time; from anonlib.config import LimitsConfig\n"
        "from anonlib.media.sandbox.process import Decoders; d = Decoders()\n"
        "try: d.decode(b'', LimitsConfig())\n"
        "except Exception: print(d._idle[0]._process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
