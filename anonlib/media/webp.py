"""WebP without decoding: a file's own bitstream under our own chunks (RFC 9649)."""

from __future__ import annotations

import io
import struct

from PIL import Image

from anonlib.errors import NotExact
from anonlib.media.jpeg import exif

_ICC, _EXIF, _ALPHA = 0x20, 0x08, 0x10
_SPARE = 16
"""Bytes at the end of a bitstream without which it cannot be decoded, if they are part of the picture."""
_MOST_CHUNKS = 1000


def rewrite(file: bytes, orientation: int, profile: bytes) -> bytes:
    """The same bitstream under headers of ours: orientation (Exif's number, 1 for none), colour `profile` or none.

    Raises NotExact for animations, for lossy pictures with alpha, and where chunks are not as the standard has them.
    """
    name, stream = _read(file)
    body = _chunk(name, stream)
    if profile or orientation != 1:
        with Image.open(io.BytesIO(_file(body))) as image:
            (width, height), alpha = image.size, image.mode == "RGBA"
        flags = _ICC * bool(profile) | _EXIF * (orientation != 1) | _ALPHA * alpha
        extended = struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        body = _chunk(b"VP8X", extended) + (_chunk(b"ICCP", profile) if profile else b"") + body
        body += _chunk(b"EXIF", exif(orientation)[6:]) if orientation != 1 else b""
    return _file(body)


def is_lossless(file: bytes) -> bool:
    """Whether the pixels of a WebP are kept as they were."""
    return b"VP8L" in file[12:4096]


def check_data(file: bytes) -> None:
    """Raises NotExact if the picture can be decoded without the last bytes of its bitstream: then others follow it."""
    name, stream = _read(file)
    try:
        with Image.open(io.BytesIO(_file(_chunk(name, stream[:-_SPARE])))) as image:
            image.load()
    except (OSError, ValueError, SyntaxError):
        return
    raise NotExact("its bitstream has bytes behind the picture")


def _read(file: bytes) -> tuple[bytes, bytes]:
    """The name and content of the one chunk that holds the picture."""
    if file[:4] != b"RIFF" or file[8:12] != b"WEBP":
        raise NotExact("it does not begin as a WebP")
    position, found = 12, []
    end = min(len(file), 8 + int.from_bytes(file[4:8], "little"))
    for _ in range(_MOST_CHUNKS):
        if position + 8 > end:
            break
        name, length = struct.unpack_from("<4sI", file, position)
        if name in (b"VP8 ", b"VP8L"):
            found.append((name, file[position + 8 : position + 8 + length]))
        elif name in (b"ALPH", b"ANIM", b"ANMF"):
            raise NotExact("it is animated, or lossy with an alpha of its own")
        position += 8 + length + length % 2
    if len(found) != 1 or position > end + 1:
        raise NotExact("it has no picture, or more than one")
    return found[0]


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _file(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
