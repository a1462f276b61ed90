"""PNG without decoding: a file's own image data under our own chunks (W3C PNG, third edition)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from anonlib.errors import NotExact
from anonlib.media.jpeg import exif

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_KEPT = {b"sRGB": 1, b"gAMA": 4, b"tRNS": 256}
"""Chunks that change how pixels look, and their greatest sizes."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of each pass of an interlaced file: its first column and row, and its steps."""
_MOST_CHUNKS = 100_000


def rewrite(file: bytes, orientation: int, profile: bytes) -> bytes:
    """The same image data under headers of ours: orientation (Exif's number, 1 for none), colour `profile` or none.

    Raises NotExact where the file's chunks are not as the standard has them.
    """
    header, palette, kept, data = _read(file)
    parts = [_SIGNATURE, _chunk(b"IHDR", header)]
    if profile:
        parts.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile, 0)))
    parts += [_chunk(name, kept[name]) for name in (b"sRGB", b"gAMA") if name in kept and not profile]
    if orientation != 1:
        parts.append(_chunk(b"eXIf", exif(orientation)[6:]))
    if palette:
        parts.append(_chunk(b"PLTE", palette))
    parts += [_chunk(b"tRNS", kept[b"tRNS"])] if b"tRNS" in kept else []
    return b"".join([*parts, _chunk(b"IDAT", data), _chunk(b"IEND", b"")])


def check_data(file: bytes) -> None:
    """Raises NotExact unless the image data holds the rows of the image and nothing behind them."""
    header, _, _, data = _read(file)
    width, height, depth, colour, interlaced = struct.unpack(">IIBBxxB", header)
    if colour not in _CHANNELS or interlaced > 1:
        raise NotExact("its header is not valid")
    expected = 0
    for left, top, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        expected += rows * (1 + (columns * depth * _CHANNELS[colour] + 7) // 8) if columns > 0 and rows > 0 else 0
    inflate = zlib.decompressobj()
    try:
        size = len(inflate.decompress(data, expected + 1))
    except zlib.error as error:
        raise NotExact(f"its image data is damaged ({error})") from None
    if size != expected or not inflate.eof or inflate.unused_data:
        raise NotExact("its image data is not as long as the image")


def _read(file: bytes) -> tuple[bytes, bytes, dict[bytes, bytes], bytes]:
    """IHDR, PLTE or nothing, the chunks of _KEPT, and all image data."""
    chunks: dict[bytes, bytes] = {}
    data: list[bytes] = []
    for name, body in _chunks(file):
        if name == b"IDAT":
            data.append(body)
        elif name in (b"acTL", b"CgBI"):
            raise NotExact("it is no plain PNG")
        elif name in (b"IHDR", b"PLTE", *_KEPT):
            if name in chunks or len(body) > _KEPT.get(name, 768):
                raise NotExact("a chunk comes twice or is too long")
            chunks[name] = body
    if len(chunks.get(b"IHDR", b"")) != 13 or not data:
        raise NotExact("it has no image")
    return chunks.pop(b"IHDR"), chunks.pop(b"PLTE", b""), chunks, b"".join(data)


def _chunks(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not file.startswith(_SIGNATURE):
        raise NotExact("it does not begin as a PNG")
    position = len(_SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        if position + 12 > len(file):
            raise NotExact("it ends within a chunk")
        length, name = struct.unpack_from(">I4s", file, position)
        if name == b"IEND":
            return
        yield name, file[position + 8 : position + 8 + length]
        position += 12 + length
    raise NotExact("it has too many chunks")


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
