"""Photographs for the tests: people who never lived, an astronaut, and files that are broken on purpose.

The people come from jobs/demo_data.py and the catalogue's `face-gan`, the astronaut (public domain) from
scikit-image's wheel: nothing here needs a network or a research dataset.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from anonlib.models.cache import model_bytes
from anonlib.synthesis.redact import redact
from tests.support.jobs import script

Pixels = NDArray[np.uint8]


def demo() -> Any:
    """jobs/demo_data.py."""
    return script("demo_data")


def people(count: int, photos: int = 2) -> list[tuple[str, Pixels]]:
    """(name, pixels) of `photos` photos each of the first `count` people of the demo; the names are made up."""
    made = _demo(people=count, photos_per_person=photos)
    return [(f"Ada-Quill-{sidecar['person']}", pixels) for pixels, sidecar in made]


@cache
def nobody() -> Pixels:
    """A photo of a place without a person."""
    return _demo(people=1, photos_per_person=0, empty=1)[0][0]


@cache
def _generator() -> Any:
    return demo().generator_from_onnx(model_bytes("face-gan"))


def _demo(**counts: int) -> list[tuple[Pixels, dict[str, Any]]]:
    few = {"groups": 0, "empty": 0, "astronaut": False} | counts
    with tempfile.TemporaryDirectory() as folder:
        (path,) = demo().make_dataset(_generator(), Path(folder), shards=1, **few)
        content = list(content_of(path).values())
    return [(decoded(image), json.loads(sidecar)) for image, sidecar in zip(content[::2], content[1::2], strict=True)]


def astronaut() -> Pixels:
    """Eileen Collins by NASA, from scikit-image's wheel: one large face at about (225, 115) of 512 x 512."""
    from skimage import data

    return np.asarray(data.astronaut(), np.uint8)


ASTRONAUT_FACE = np.array([170, 60, 280, 200], np.float32)
"""A box (4,) px around the face of the astronaut."""


def redacted_astronaut(how: str) -> Pixels:
    """The astronaut with the face redacted so."""
    image = astronaut().copy()
    redact(image, ASTRONAUT_FACE, how)
    return image


def jpeg(pixels: Pixels, **options: object) -> bytes:
    return encoded(pixels, "JPEG", quality=92, **options)


def encoded(pixels: Pixels, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def decoded(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A tar with these members in this order, whatever their names are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def fill(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A folder with these files, by their paths in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def content_of(path: Path) -> dict[str, bytes]:
    """Member name -> bytes of everything in a tar, in order."""
    found = {}
    with tarfile.open(path) as archive:
        for info in archive:
            file = archive.extractfile(info)
            assert file is not None, f"{info.name} is no file"
            found[info.name] = file.read()
    return found


def members(key: str, pixels: Pixels, sidecar: Mapping[str, object]) -> list[tuple[str, bytes]]:
    """One WebDataset sample: a JPEG and a JSON sidecar."""
    return [(f"{key}.jpg", jpeg(pixels)), (f"{key}.json", json.dumps(dict(sidecar)).encode())]


@cache
def srgb() -> bytes:
    """A real RGB colour profile (it holds the time when it was made, so there is one a session)."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def with_segments(data: bytes, *segments: bytes) -> bytes:
    """A JPEG with further segments right behind its SOI."""
    return data[:2] + b"".join(segments) + data[2:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises this many px and has few: what a decompression bomb looks like."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")
