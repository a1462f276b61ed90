"""An image file of any format, part by part: what it carries beside its picture.

Each format has a list of what the pipeline's own encoder writes; whatever else is found is a finding, known by name or
not. Nothing is decoded but the directory of the file, and of a PNG the stream of its pixels, since more may be in it
than the picture shows.
"""

from __future__ import annotations

import struct
import zlib

from anonlib.audit.leaks import jpeg
from anonlib.audit.leaks.metadata_kinds import (
    C2PA,
    COMMENT,
    EXIF,
    GPS,
    IPTC,
    PART,
    PICTURE,
    TRAILING,
    XMP,
    directories,
    in_exif,
    in_photoshop,
    in_profile,
    in_xmp,
    size_of,
    values,
)
from anonlib.errors import MalformedMetadata

_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))
_TIFF_PLAIN = {254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 282, 283, 284, 296, 317, 320, 338, 339}
_TIFF_KINDS = {700: XMP, 33723: IPTC, 34665: EXIF, 34853: GPS, 330: PICTURE}
_TIFF_ICC, _TIFF_PHOTOSHOP = 34675, 34377
_STRIPS, _STRIP_BYTES = 273, 279
_ALIGNMENT = 4


def carried(data: bytes) -> frozenset[str]:
    """The KINDS that an image file carries beside its picture; an unknown or broken file is an unknown part."""
    try:
        if data[:2] == b"\xff\xd8":
            return frozenset(jpeg.carried(data))
        if data[:8] == _PNG:
            return frozenset(_png(data))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return frozenset(_webp(data))
        if data[:4] == b"GIF8":
            return frozenset(_gif(data))
        if data[:2] == b"BM":
            return frozenset(_bmp(data))
        if data[:4] in (b"II*\0", b"MM\0*"):
            return frozenset(_tiff(data))
        if data[:2] in (b"P5", b"P6"):
            return frozenset(_ppm(data))
    except (MalformedMetadata, struct.error, IndexError, ValueError, zlib.error):
        pass
    return frozenset({PART})


def is_picture(data: bytes) -> bool:
    """Whether bytes begin as an image file of a format that is released."""
    return (
        data[:3] == b"\xff\xd8\xff"
        or data[:8] == _PNG
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or data[:6] in (b"GIF87a", b"GIF89a")
        or (data[:2] == b"BM" and data[6:10] == b"\0\0\0\0")
        or data[:4] in (b"II*\0", b"MM\0*")
        or (data[:2] in (b"P5", b"P6") and data[2:3].isspace())
    )


def _png(data: bytes) -> set[str]:
    found: set[str] = set()
    at, pixels, header = 8, [], b""
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        at += 12 + length
        if at > len(data):
            raise MalformedMetadata("a chunk beyond the end")
        if kind == b"IEND":
            break
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            pixels.append(body)
        else:
            found |= _png_chunk(kind, body)
    found |= {TRAILING} if data[at:] else set()
    stream = zlib.decompressobj()
    size = len(stream.decompress(b"".join(pixels)))
    return found | ({TRAILING} if stream.unused_data or size != _png_bytes(header) else set())


def _png_chunk(kind: bytes, body: bytes) -> set[str]:
    name = body.partition(b"\0")[0].lower()
    if kind in (b"PLTE", b"tRNS"):
        return set()
    if kind == b"iCCP":
        stream = zlib.decompressobj()
        profile = stream.decompress(body[len(name) + 2 :])
        return in_profile(profile) | ({TRAILING} if stream.unused_data else set())
    if kind == b"eXIf":
        return in_exif(body)
    if kind in (b"tEXt", b"zTXt", b"iTXt"):
        if b"xmp" in name:
            return in_xmp(body)
        kinds = {b"exif": EXIF, b"app1": EXIF, b"iptc": IPTC}
        return next(({one} for word, one in kinds.items() if word in name), {COMMENT})
    if kind == b"caBX":
        return {C2PA}
    return {PICTURE} if kind in (b"acTL", b"fcTL", b"fdAT") else {PART}


def _png_bytes(header: bytes) -> int:
    """How many bytes the unpacked rows of a PNG have (PNG 3rd edition, 7.2 and 8)."""
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    bits = depth * _CHANNELS[colour]
    passes = _ADAM7 if interlace else ((0, 1, 0, 1),)
    total = 0
    for x, dx, y, dy in passes:
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        total += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
    return total


def _webp(data: bytes) -> set[str]:
    found: set[str] = set()
    end = 8 + int.from_bytes(data[4:8], "little")
    found |= {TRAILING} if data[end:] else set()
    at = 12
    while at < end:
        kind, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + length]
        if len(body) != length:
            raise MalformedMetadata("a chunk beyond the end")
        at += 8 + length + length % 2
        if kind == b"ICCP":
            found |= in_profile(body)
        elif kind == b"EXIF":
            found |= in_exif(body)
        elif kind == b"XMP ":
            found |= in_xmp(body)
        elif kind not in (b"VP8 ", b"VP8L", b"VP8X", b"ALPH"):
            found.add({b"ANIM": PICTURE, b"ANMF": PICTURE, b"C2PA": C2PA}.get(kind, PART))
    return found


def _gif(data: bytes) -> set[str]:
    found: set[str] = set()
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    pictures = 0
    while data[at] != 0x3B:
        if data[at] == 0x21:
            if data[at + 1] == 0xFE:
                found.add(COMMENT)
            elif data[at + 1] != 0xF9:
                found.add(XMP if data[at + 3 : at + 11] == b"XMP Data" else PART)
            at += 2
        elif data[at] == 0x2C:
            pictures += 1
            packed = data[at + 9]
            at += 11 + (3 << (packed & 7) + 1 if packed & 0x80 else 0)
        else:
            raise MalformedMetadata("no block where one must be")
        while data[at]:
            at += 1 + data[at]
        at += 1
    return found | ({PICTURE} if pictures > 1 else set()) | ({TRAILING} if data[at + 1 :] else set())


def _bmp(data: bytes) -> set[str]:
    start, header, width, height, _, bits, packed = struct.unpack_from("<IIiiHHI", data, 10)
    rows = abs(height) * ((width * bits + 31) // 32 * 4)
    plain = header == 40 and packed == 0 and bits in (24, 32) and start == 54
    return (set() if plain else {PART}) | ({TRAILING} if plain and len(data) != start + rows else set())


def _tiff(data: bytes) -> set[str]:
    found: set[str] = set()
    parts = [(0, 8)]
    for number, (begin, directory) in enumerate(directories(data)):
        found |= {PICTURE} if number else set()
        for tag, entry in directory.items():
            block = data[entry[2] : entry[2] + size_of(entry)]
            parts.append((entry[2], entry[2] + len(block)))
            if tag == _TIFF_ICC:
                found |= in_profile(block)
            elif tag == _TIFF_PHOTOSHOP:
                found |= in_photoshop(block)
            elif tag not in _TIFF_PLAIN:
                found.add(_TIFF_KINDS.get(tag, PART))
        starts, lengths = (values(data, directory[tag]) for tag in (_STRIPS, _STRIP_BYTES))
        parts += [(start, start + length) for start, length in zip(starts, lengths, strict=True)]
        parts.append((begin, begin + 6 + 12 * len(directory)))
    return found | ({TRAILING} if _between(data, parts) else set())


def _between(data: bytes, parts: list[tuple[int, int]]) -> bool:
    """Whether something lies between the parts of a file, beside zeros that align them; raises MalformedMetadata."""
    reached = 0
    for start, end in sorted(parts):
        if end > len(data):
            raise MalformedMetadata("a part beyond the end")
        gap = data[reached : max(start, reached)]
        if len(gap) >= _ALIGNMENT or any(gap):
            return True
        reached = max(reached, end)
    return len(data) - reached >= _ALIGNMENT or any(data[reached:])


def _ppm(data: bytes) -> set[str]:
    found: set[str] = set()
    at = 2
    numbers: list[int] = []
    while len(numbers) < 3:
        while data[at : at + 1].isspace():
            at += 1
        if data[at : at + 1] == b"#":
            found.add(COMMENT)
            at = data.index(b"\n", at)
            continue
        end = at
        while not data[end : end + 1].isspace():
            end += 1
        numbers.append(int(data[at:end]))
        at = end
    size = numbers[0] * numbers[1] * (3 if data[:2] == b"P6" else 1)
    return found | ({TRAILING} if len(data) != at + 1 + size else set())
