"""Photos with every metadata there is, released with their own data: nothing of it passes, or passes unseen."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from anonlib.audit.leaks.scan import scan_leaks
from anonlib.job import Job
from anonlib.media import exact
from tests.support import photos
from tests.support.runs import Run, every_byte, manifest, run_job

SECRET = b"SECRET-4711"
PHOTOS = 32


def camera_exif() -> bytes:
    """EXIF with a maker, a GPS directory and a thumbnail."""
    tags = Image.Exif()
    tags[0x10F] = SECRET.decode()
    tags.get_ifd(0x8825)[1] = "N"
    first = tags.tobytes()
    small = photos.jpeg(np.zeros((16, 16, 3), np.uint8))
    order = "<" if first[6:8] == b"II" else ">"
    (begin,) = struct.unpack_from(f"{order}I", first, 10)
    (count,) = struct.unpack_from(f"{order}H", first, 6 + begin)
    link, second = 6 + begin + 2 + 12 * count, len(first) - 6
    directory = struct.pack(f"{order}HHHIIHHIII", 2, 0x201, 4, 1, second + 30, 0x202, 4, 1, len(small), 0)
    return first[:link] + struct.pack(f"{order}I", second) + first[link + 4 :] + directory + small


def segment(marker: int, body: bytes) -> bytes:
    return photos.jpeg_segment(marker, body)


JPEG_PARTS = {
    "GPS position": segment(0xE1, camera_exif()),
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + SECRET),
    "IPTC": segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x0b" + SECRET),
    "comment": segment(0xFE, SECRET),
    "C2PA manifest": segment(0xEB, b"JP\0\0c2pa" + SECRET),
    "unknown part": segment(0xE9, SECRET),
    "thumbnail": segment(0xE0, b"JFXX\0\x10" + SECRET),
    "further picture": segment(0xE2, b"MPF\0" + SECRET),
    "foreign colour profile": segment(0xE2, b"ICC_PROFILE\0\1\1" + SECRET.ljust(200, b"!")),
}
"""What a segment of a JPEG is found as."""


def planted(count: int, seed: int = 1) -> Iterator[tuple[str, bytes]]:
    """Names and files of small places: JPEG, PNG and WebP, each with some of what a file may carry."""
    rng = np.random.default_rng(seed)
    place = photos.astronaut()[300:380, 300:380]
    for number in range(count):
        pixels = np.roll(place, rng.integers(0, 80, 2), axis=(0, 1))
        kind = ("jpg", "jpg", "png", "webp")[number % 4]
        if kind == "jpg":
            options = {"quality": int(rng.integers(60, 96)), "progressive": bool(number % 3 == 0)}
            chosen = [body for body in JPEG_PARTS.values() if rng.random() < 0.5]
            file = photos.with_segments(photos.encoded(pixels, "JPEG", **options), *chosen)
            tail = (b"", SECRET, b"\0\0\0\x18ftypmp42" + SECRET, photos.jpeg(pixels))[int(rng.integers(4))]
            yield f"{number:05d}.jpg", file + tail
        elif kind == "png":
            text = PngImagePlugin.PngInfo()
            text.add_text("parameters", SECRET.decode(), zip=bool(number % 3))
            text.add_itxt("XML:com.adobe.xmp", SECRET.decode())
            text.add(b"prVt", SECRET)
            yield f"{number:05d}.png", photos.encoded(pixels, "PNG", pnginfo=text, exif=camera_exif()) + SECRET
        else:
            options = {"lossless": True} if number % 8 == 3 else {"quality": 80}
            yield f"{number:05d}.webp", photos.encoded(pixels, "WEBP", xmp=SECRET, exif=camera_exif(), **options)


def written(folder: Path, count: int) -> Path:
    folder.mkdir()
    for name, file in planted(count):
        (folder / name).write_bytes(file)
    return folder


def released(source: Path, root: Path) -> Run:
    return run_job(source, root, input={"uri": str(source)}, method={"name": "solid"}, keep_fields=[])


def leaks(run: Run) -> dict[str, int]:
    return {check.name: check.found for check in scan_leaks(Job(run.config)) if check.found}


def test_nothing_that_is_planted_leaves(tmp_path: Path) -> None:
    run = released(written(tmp_path / "in", PHOTOS), tmp_path)
    assert run.summary.no_face == PHOTOS
    assert SECRET not in every_byte(run.output)
    stripped = {kind for row in manifest(run.output) for kind in row["metadata_stripped"] or ()}
    assert stripped >= {"exif", "xmp", "iptc", "comment", "c2pa"}
    assert leaks(run) == {}


def test_each_kind_is_found_where_nothing_is_stripped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "rewrite", lambda file, stored: file)
    run = released(written(tmp_path / "in", PHOTOS), tmp_path)
    monkeypatch.undo()
    found = leaks(run)
    assert {*JPEG_PARTS, "EXIF", "bytes after the end", "odd thing in a file"} <= found.keys()
