"""PNG without decoding: a file's own image data under our own chunks (W3C PNG, third edition)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from anonlib.errors import NotExact
from anonlib.media.jpeg import exif

HEADER_END = 33
"""Where a PNG's first chunk, IHDR, ends."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_GREY, _COLOURS, _PALETTE = 0, 2, 3
_BEFORE_DATA = (b"IHDR", b"sRGB", b"PLTE", b"tRNS")
"""The chunks that make a picture, as they come. A gamma (gAMA) is left out: browsers obey it, and detectors do not."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of each pass of an interlaced file: its first column and row, and its steps."""
_MOST_CHUNKS = 100_000
_MOST_BYTES = 1 << 32
_SPARE = 512
"""Bytes by which image data may be larger than zlib's fastest makes it; what is larger is encoded anew."""


def rewrite(file: bytes, orientation: int, profile: bytes) -> bytes:
    """The same image data under headers of ours: orientation (Exif's number, 1 for none), colour `profile` or none.

    Raises NotExact where the file's chunks are not as the standard has them.
    """
    header, palette, kept, data = _read(file)
    parts = [SIGNATURE, chunk(b"IHDR", header)]
    if profile:
        parts.append(profile_chunk(profile))
    parts += [chunk(b"sRGB", kept[b"sRGB"])] if b"sRGB" in kept and not profile else []
    if orientation != 1:
        parts.append(chunk(b"eXIf", exif(orientation)[6:]))
    if palette:
        parts.append(chunk(b"PLTE", palette))
    parts += [chunk(b"tRNS", kept[b"tRNS"])] if b"tRNS" in kept else []
    return b"".join([*parts, chunk(b"IDAT", data), chunk(b"IEND", b"")])


def check_data(file: bytes) -> None:
    """Raises NotExact unless the image data is the rows of the image and nothing else: every bit of it is shown.

    A refused file is encoded anew without a loss, so this may be strict.
    """
    header, palette, kept, data = _read(file)
    width, height, depth, colour, interlaced = struct.unpack(">IIBBxxB", header)
    expected, spare = 0, 0
    for left, top, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            bits = columns * depth * _CHANNELS[colour]
            expected, spare = expected + rows * (1 + (bits + 7) // 8), spare | bits % 8
    if spare or expected > _MOST_BYTES or (depth == 16 and (colour > _PALETTE or b"tRNS" in kept)):
        raise NotExact("its rows have bits that are not shown")
    inflate = zlib.decompressobj()
    try:
        image = inflate.decompress(data, expected + 1)
    except zlib.error as error:
        raise NotExact(f"its image data is damaged ({error})") from None
    if len(image) != expected or not inflate.eof or inflate.unused_data:
        raise NotExact("its image data is not as long as the image")
    filtered = zlib.compressobj(4, memLevel=9, strategy=zlib.Z_FILTERED)  # Pillow's
    if len(data) > max(len(zlib.compress(image, 1)), len(filtered.compress(image) + filtered.flush())) + _SPARE:
        raise NotExact("its image data has room for more than the image")
    if palette:
        _check_palette(file, palette)


def _check_palette(file: bytes, palette: bytes) -> None:
    """Raises NotExact if a colour that no px has is not black."""
    try:
        with Image.open(io.BytesIO(file), formats=["PNG"]) as image:
            used = {number: count for number, count in enumerate(image.histogram()) if count}
    except (OSError, ValueError, SyntaxError) as error:
        raise NotExact(f"its palette cannot be checked ({error})") from None
    if any(any(palette[3 * number : 3 * number + 3]) for number in range(len(palette) // 3) if number not in used):
        raise NotExact("its palette has colours that are not shown")


def _read(file: bytes) -> tuple[bytes, bytes, dict[bytes, bytes], bytes]:
    """IHDR, PLTE or nothing, sRGB and tRNS, and all image data. Raises NotExact unless they come as they should."""
    found: dict[bytes, bytes] = {}
    data: list[bytes] = []
    last = b""
    for name, body in chunks(file):
        if name == b"IDAT":
            if data and last != name:
                raise NotExact("its image data is in several places")
            data.append(body)
        elif name in (b"acTL", b"CgBI"):
            raise NotExact("it is no plain PNG")
        elif name in _BEFORE_DATA:
            if data or name in found or (name == b"PLTE" and b"tRNS" in found):
                raise NotExact("a chunk comes twice or too late")
            found[name] = body
        last = name
    header, palette = found.pop(b"IHDR", b""), found.pop(b"PLTE", b"")
    if len(header) != 13 or not data or header[9] not in _CHANNELS or header[10] or header[11] or header[12] > 1:
        raise NotExact("it has no valid header or no image")
    depth, colour = header[8], header[9]
    palette = palette if colour == _PALETTE else b""  # of others it only says which colours to prefer
    most = 3 << depth if depth <= 8 else 0
    if len(palette) % 3 or len(palette) > most or (colour == _PALETTE) != bool(palette):
        raise NotExact("its palette is not valid")
    shades = len(found.get(b"tRNS", b""))
    if b"tRNS" in found and not ((colour, shades) in ((_GREY, 2), (_COLOURS, 6)) or 0 < shades <= len(palette) // 3):
        raise NotExact("its transparency is not valid")
    return header, palette, found, b"".join(data)


def chunks(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The names and contents of a PNG's chunks before its end; raises NotExact."""
    if not file.startswith(SIGNATURE):
        raise NotExact("it does not begin as a PNG")
    position = len(SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        if position + 12 > len(file):
            raise NotExact("it ends within a chunk")
        length, name = struct.unpack_from(">I4s", file, position)
        if name == b"IEND":
            return
        yield name, file[position + 8 : position + 8 + length]
        position += 12 + length
    raise NotExact("it has too many chunks")


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def profile_chunk(profile: bytes) -> bytes:
    """The chunk of a colour profile."""
    return chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile, 0))
