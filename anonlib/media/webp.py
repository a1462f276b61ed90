"""WebP without decoding: a file's own bitstream under our own chunks (RFC 9649)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import suppress

from PIL import Image

from anonlib.errors import NotExact
from anonlib.media.jpeg import check_frame, exif

ICC, ALPHA, ANIMATED = 0x20, 0x10, 0x02
_EXIF, _XMP = 0x08, 0x04
_VP8X_BYTES = 18
_SPARE = 16
"""Bytes at the end of a bitstream without which it cannot be decoded, if they are part of the picture."""
_ALPHA_USED = 1 << 28
"""In the header of a lossless bitstream."""


def rewrite(file: bytes, orientation: int, profile: bytes) -> bytes:
    """The same bitstream under headers of ours: orientation (Exif's number, 1 for none), colour `profile` or none.

    Raises NotExact for animations, for lossy pictures with alpha, and where chunks are not as the standard has them.
    """
    name, stream = _read(file)
    body = chunk(name, stream)
    if profile or orientation != 1:
        head = _extended_of(body, ICC * bool(profile) | _EXIF * (orientation != 1))
        body = head + (chunk(b"ICCP", profile) if profile else b"") + body
        body += chunk(b"EXIF", exif(orientation)[6:]) if orientation != 1 else b""
    return _file(body)


def _extended_of(body: bytes, flags: int) -> bytes:
    """The chunk VP8X of a picture's chunk."""
    with Image.open(io.BytesIO(_file(body))) as image:
        return extended(image.size, flags | ALPHA * (image.mode == "RGBA"))


def extended(size: tuple[int, int], flags: int) -> bytes:
    """The chunk VP8X of a picture of this width and height, which says what else there is beside it."""
    return chunk(b"VP8X", struct.pack("<I", flags) + b"".join((side - 1).to_bytes(3, "little") for side in size))


def with_xmp(file: bytes, packet: bytes) -> bytes:
    """A file of ours with a packet of XMP behind all else."""
    body = file[12:] if file[12:16] == b"VP8X" else _extended_of(file[12:], 0) + file[12:]
    return _file(body[:8] + bytes([body[8] | _XMP]) + body[9:] + chunk(b"XMP ", packet))


def without_xmp(file: bytes, packet: bytes) -> bytes:
    """What `with_xmp` made this file of, if it did."""
    end = chunk(b"XMP ", packet)
    if file[12:16] != b"VP8X" or not file.endswith(end):
        return file
    body = file[12:].removesuffix(end)
    picture = body[_VP8X_BYTES:]
    length = int.from_bytes(picture[4:8], "little")
    alone = picture[:4] in (b"VP8 ", b"VP8L") and 8 + length + length % 2 == len(picture)
    return _file(picture if alone else body[:8] + bytes([body[8] & ~_XMP]) + body[9:])


def is_lossless(file: bytes) -> bool:
    """Whether the pixels of a WebP, or of the first frame of an animated one, are kept as they were."""
    with suppress(NotExact):
        for name, content in chunks(file[12:]):
            if name in (b"VP8 ", b"VP8L"):
                return name == b"VP8L"
            if name == b"ANMF":
                return is_lossless(content[4:])  # 16 bytes of its place and time come before its chunks
    return False


def check_data(file: bytes) -> None:
    """Raises NotExact if a WebP holds what no viewer shows: bytes behind its picture or its parts, an unused alpha.

    Bytes belong to the picture if it cannot be decoded without them.
    """
    name, stream = _read(file)
    if len(stream) < 10:
        raise NotExact("its bitstream has no header")
    shorter = [stream[:-_SPARE]]
    if name == b"VP8L":
        (head,) = struct.unpack_from("<I", stream, 1)
        opened = _opened(name, stream[:1] + struct.pack("<I", head | _ALPHA_USED) + stream[5:])
        if not head & _ALPHA_USED and (opened is None or opened.getextrema()[-1] != (255, 255)):
            raise NotExact("it has an alpha that is not shown")
    else:
        frame, (width, height) = int.from_bytes(stream[:3], "little"), struct.unpack_from("<HH", stream, 6)
        first = frame >> 5
        check_frame(height & 0x3FFF, width & 0x3FFF, 16, 16)
        if _partitions(stream[10 : 10 + first]) > 1:
            raise NotExact("its bitstream is in several parts")
        cut = (frame - (_SPARE << 5)).to_bytes(3, "little") if first > _SPARE else b""
        shorter += [cut + stream[3 : 10 + first - _SPARE] + stream[10 + first :]] if cut else []
    if any(_opened(name, part) is not None for part in shorter):
        raise NotExact("its bitstream has bytes behind the picture")


def _opened(name: bytes, stream: bytes) -> Image.Image | None:
    """The decoded picture, None where it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(_file(chunk(name, stream)))) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError):
        return None


def _partitions(first: bytes) -> int:
    """How many parts the coefficients of a VP8 frame have, by its header (RFC 6386, 7.3, 9.2-9.5)."""
    data, value, most, left = iter(first), 0, 255, 0

    def number(bits: int) -> int:
        nonlocal value, most, left
        read = 0
        for _ in range(bits):
            while left < 8:
                value, left = value << 8 | next(data, 0), left + 8
            split = 1 + ((most - 1) >> 1)
            bit = value >> (left - 8) >= split
            value, most = (value - (split << (left - 8)), most - split) if bit else (value, split)
            while most < 128:
                most, left = most << 1, left - 1
            read = read << 1 | bit
        return read

    def optional(count: int, bits: int) -> None:
        for _ in range(count):
            if number(1):
                number(bits)

    number(2)
    if number(1):
        by_px, values = number(1), number(1)
        if values:
            number(1)
            optional(4, 8)
            optional(4, 7)
        if by_px:
            optional(3, 8)
    number(10)
    if number(1) and number(1):
        optional(8, 7)
    return 1 << number(2)


def _read(file: bytes) -> tuple[bytes, bytes]:
    """The name and content of the one chunk that holds the picture."""
    if file[:4] != b"RIFF" or file[8:12] != b"WEBP":
        raise NotExact("it does not begin as a WebP")
    found = []
    for name, body in chunks(file[12 : 8 + int.from_bytes(file[4:8], "little")]):
        if name in (b"VP8 ", b"VP8L"):
            found.append((name, body))
        elif name in (b"ALPH", b"ANIM", b"ANMF"):
            raise NotExact("it is animated, or lossy with an alpha of its own")
    if len(found) != 1:
        raise NotExact("it has no picture, or more than one")
    return found[0]


def chunks(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The names and contents of chunks; raises NotExact where one is cut off."""
    position = 0
    while position + 8 <= len(body):
        name, length = struct.unpack_from("<4sI", body, position)
        content = body[position + 8 : position + 8 + length]
        if len(content) < length:
            raise NotExact("a chunk is cut off")
        yield name, content
        position += 8 + length + length % 2


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _file(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
