"""Files made to carry an original past `exact` or to look other to viewers than to detectors; what fuzzing found."""

from __future__ import annotations

import io
import json
import re
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

from anonlib.datasets import Sample, label
from anonlib.datasets.webdataset import read_tar
from anonlib.errors import NotExact
from anonlib.media import exact, jpeg, webp
from anonlib.media.codec import decode
from tests.fuzz.fuzz import bounded, tried
from tests.fuzz.properties import CHECKS, MARKER, check_tar, has_planted
from tests.fuzz.seeds import KINDS, seeds, smooth
from tests.support.photos import encoded, jpeg_segment, png_chunk

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
PIXELS = smooth(64, 96, 3)
GREY = PIXELS[:, :, 0]
ADOBE_RGB = jpeg_segment(0xEE, jpeg.ADOBE + b"\0")


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_finds_stay_mended(path: Path) -> None:
    CHECKS[path.suffix[1:]](path.read_bytes(), Random(1))


def test_a_few_hundred_changed_files_of_every_kind() -> None:
    files = seeds()
    with bounded():
        found = [tried(1, number, list(KINDS), files)[:2] for number in range(400)]
    assert not [(kind, answer) for kind, answer in found if answer.startswith("!")]


# ---- JPEG -----------------------------------------------------------------------------------------------------


def photo(**options: object) -> bytes:
    return encoded(PIXELS, "JPEG", **({"quality": 85} | options))


def in_scan(change: Callable[[bytes], bytes], **options: object) -> bytes:
    file = photo(**options)
    data = jpeg.parse(file).scans[0].data
    return file[: data.start] + change(file[data]) + file[data.stop :]


def without_jfif(file: bytes) -> bytes:
    return file[:2] + file[20:]


def narrow(file: bytes) -> bytes:
    """A picture of 16 columns that says it has one."""
    at = file.index(b"\xff\xc0")
    return file[: at + 7] + b"\0\1" + file[at + 9 :]


def unseen_coefficients(file: bytes) -> bytes:
    at = file.index(b"\xff\xdb")
    return file[: at + 6] + bytes(63) + file[at + 69 :]


def brighter_than_white(file: bytes) -> bytes:
    def raise_luma(number: int, top: int, held: np.ndarray) -> None:
        held[..., 0] = 600 if number == 0 else held[..., 0]

    return jpeg._transformed(file, jpeg._COPY_NONE, raise_luma)


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(in_scan(lambda data: data + b"\xff\xd1\xff\xd5\xff\xd3" * 40), id="restarts behind the last MCU"),
        pytest.param(
            in_scan(lambda data: re.sub(b"\xff\xd1", b"\xff\xd4", data), restart_marker_blocks=4), id="other restarts"
        ),
        pytest.param(in_scan(lambda data: data.replace(b"\xff\0", b"\xff\xff\xff\0")), id="fill bytes"),
        pytest.param(in_scan(lambda data: data + b"hidden!hidden!"), id="bytes behind a scan"),
        pytest.param(
            in_scan(lambda data: data.replace(b"\xff\xd0", b"hid\xff\xd0"), restart_marker_blocks=2),
            id="bytes before a restart",
        ),
        pytest.param(unseen_coefficients(photo()), id="quantization by zero"),
        pytest.param(brighter_than_white(photo()), id="coefficients brighter than white"),
        pytest.param(narrow(encoded(smooth(640, 16, 3), "JPEG", quality=85)), id="columns beyond the edge"),
        pytest.param(photo(progressive=True)[: jpeg.parse(photo(progressive=True)).scans[-2].data.stop] + b"\xff\xd9",
                     id="a progressive scan is missing"),
    ],
)  # fmt: skip
def test_a_jpeg_that_hides_something_is_not_exact(file: bytes) -> None:
    assert decode(photo(restart_marker_blocks=2), max_mpx=1).is_exact
    assert not decode(file, max_mpx=1).is_exact


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(without_jfif(photo())[:2] + jpeg_segment(0xE0, b"JFIF\0") + ADOBE_RGB + without_jfif(photo())[2:],
                     id="a JFIF segment that is too short to count"),
        pytest.param(without_jfif(photo())[:-2] + ADOBE_RGB + b"\xff\xd9", id="Adobe's segment behind the scan"),
    ],
)  # fmt: skip
def test_a_jpegs_colours_stay_what_libjpeg_takes_them_for(file: bytes) -> None:
    picture = decode(file, max_mpx=1)
    again = decode(exact.rewrite(file, picture.stored), max_mpx=1)
    assert picture.is_exact
    assert np.array_equal(picture.rgb, again.rgb)


# ---- PNG ------------------------------------------------------------------------------------------------------


def png(depth: int, colour: int, rows: np.ndarray, *before: bytes, width: int = 96, data: bytes | None = None) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, 64, depth, colour, 0, 0, 0))
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)) if data is None else data
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


OPAQUE = np.dstack([PIXELS, np.full((64, 96), 255, np.uint8)])
LEVELS = GREY // 16
DEEP = (OPAQUE.astype(">u2") << 8) * (np.indices((64, 96, 4))[1] > 40).astype(">u2") + 7
HIDDEN = np.array([7, 0, 0, 0], np.uint8)
LATE = png_chunk(b"tRNS", PIXELS[0, 0].astype(">u2").tobytes())
STREAM = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PIXELS))


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(png(8, 0, GREY, png_chunk(b"tRNS", b"\0\1" + MARKER)), id="long transparency"),
        pytest.param(png(8, 6, OPAQUE, png_chunk(b"tRNS", b"\0\1" + MARKER)), id="transparency beside an alpha"),
        pytest.param(png(8, 3, LEVELS, png_chunk(b"PLTE", bytes(48) + MARKER[:45])), id="colours of no px"),
        pytest.param(png(8, 3, LEVELS, png_chunk(b"PLTE", bytes(48)), png_chunk(b"tRNS", bytes(16) + MARKER)),
                     id="transparency of no px"),
        pytest.param(png(1, 0, LEVELS[:, :1], width=1), id="bits beyond the last column"),
        pytest.param(png(16, 6, DEEP.astype(">u2")), id="low bytes under transparency"),
        pytest.param(png(8, 2, PIXELS, data=STREAM[:2] + b"\0\0\0\xff\xff" * 500 + STREAM[2:]), id="empty blocks"),
        pytest.param(png(8, 2, PIXELS, data=STREAM + b"hidden"), id="bytes behind the stream"),
        pytest.param(png(8, 2, np.concatenate([PIXELS, PIXELS[:9]])), id="rows below the image"),
        pytest.param(png(8, 6, OPAQUE * (np.indices((64, 96, 4))[1] > 40) + HIDDEN), id="a colour under transparency"),
        pytest.param(png(8, 2, PIXELS)[:-12] + LATE + png(8, 2, PIXELS)[-12:], id="transparency behind the data"),
    ],
)  # fmt: skip
def test_a_png_that_hides_something_is_not_exact(file: bytes) -> None:
    assert decode(png(8, 6, OPAQUE), max_mpx=1).is_exact
    assert decode(png(8, 3, LEVELS, png_chunk(b"PLTE", bytes(range(48)))), max_mpx=1).is_exact
    assert not decode(file, max_mpx=1).is_exact


def test_a_png_leaves_without_a_gamma_and_a_palette_that_only_browsers_look_at() -> None:
    file = png(8, 2, PIXELS, png_chunk(b"gAMA", struct.pack(">I", 1000)), png_chunk(b"PLTE", MARKER[:45]))
    picture = decode(file, max_mpx=1)
    clean = exact.rewrite(file, picture.stored)
    assert picture.is_exact
    assert not has_planted(clean)
    assert b"gAMA" not in clean


# ---- WebP -----------------------------------------------------------------------------------------------------


def riff(name: bytes, stream: bytes) -> bytes:
    return webp._file(webp.chunk(name, stream))


def test_a_webp_with_an_alpha_that_no_viewer_shows_is_not_exact() -> None:
    name, stream = webp._read(encoded(np.dstack([PIXELS, GREY]), "WEBP", lossless=True, exact=True))
    (head,) = struct.unpack_from("<I", stream, 1)
    hidden = riff(name, stream[:1] + struct.pack("<I", head & ~(1 << 28)) + stream[5:])
    assert decode(hidden, max_mpx=1).alpha is None
    assert not decode(hidden, max_mpx=1).is_exact
    assert decode(encoded(PIXELS, "WEBP", lossless=True), max_mpx=1).is_exact


@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_with_bytes_behind_its_picture_is_not_exact(lossless: bool) -> None:
    name, stream = webp._read(encoded(PIXELS, "WEBP", quality=80, lossless=lossless))
    assert not decode(riff(name, stream + MARKER * 2), max_mpx=1).is_exact


def test_a_webp_with_room_behind_its_first_part_is_not_exact() -> None:
    name, stream = webp._read(encoded(PIXELS, "WEBP", quality=80))
    head = int.from_bytes(stream[:3], "little")
    end = 10 + (head >> 5)
    longer = (head + (len(MARKER) << 5)).to_bytes(3, "little") + stream[3:end] + MARKER + stream[end:]
    assert np.array_equal(decode(riff(name, longer), max_mpx=1).rgb, decode(riff(name, stream), max_mpx=1).rgb)
    assert not decode(riff(name, longer), max_mpx=1).is_exact
    assert decode(riff(name, stream), max_mpx=1).is_exact


@pytest.mark.parametrize("stream", [b"", b"\x2f", bytes(9)])
def test_a_webp_without_a_header_is_refused(stream: bytes) -> None:
    with pytest.raises(NotExact):
        webp.check_data(riff(b"VP8 ", stream))


# ---- datasets -------------------------------------------------------------------------------------------------


def test_a_header_with_a_number_of_five_thousand_digits_damages_its_archive_and_no_more() -> None:
    body = b"9" * 5000 + b" path=a\n"
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, len(body)
    file = header.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512 + 1024)
    assert [sample.key for sample in read_tar(io.BytesIO(file), "s")] == ["s#truncated"]
    assert check_tar(file, Random(1)) == "refused"


def test_a_label_with_half_a_sign_can_be_written() -> None:
    sample = Sample("a", b"", "jpg", {"json": json.dumps({"person": "ada \ud800"}).encode()})
    assert label(sample, "person") == "ada \\ud800"
