"""An image file part by part: what it carries beside its picture.

Each format has a list of what the pipeline's encoder writes; every other part is a finding, known by name or not. Only
the file's directory is decoded, and of a PNG the stream of its pixels, since more may be in it than the picture shows.
A format that no release is encoded in is an unknown part as a whole.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from anonlib.errors import MalformedMetadata
from anonlib.media.colour import is_ours

EXIF, GPS, THUMBNAIL, XMP, IPTC = "EXIF", "GPS position", "thumbnail", "XMP", "IPTC"
COMMENT, C2PA, PICTURE, PROFILE = "comment", "C2PA manifest", "further picture", "foreign colour profile"
PART, TRAILING = "unknown part", "bytes after the end"
KINDS = (EXIF, GPS, THUMBNAIL, XMP, IPTC, COMMENT, C2PA, PICTURE, PROFILE, PART, TRAILING)

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*")


def carried(data: bytes) -> frozenset[str]:
    """The KINDS that an image file carries beside its picture; an unknown or broken file is an unknown part."""
    try:
        if data[:2] == b"\xff\xd8":
            return frozenset(_jpeg(data))
        if data[:8] == _PNG:
            return frozenset(_png(data))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return frozenset(_webp(data))
        if data[:4] in _TIFF:
            return frozenset(_tiff(data))
    except (MalformedMetadata, struct.error, LookupError, ValueError, zlib.error):
        pass
    return frozenset({PART})


def is_picture(data: bytes) -> bool:
    """Whether bytes begin as an image file of a format that is read, released or not."""
    return (
        data[:3] == b"\xff\xd8\xff"
        or data[:8] == _PNG
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or data[:6] in (b"GIF87a", b"GIF89a")
        or (data[:2] == b"BM" and data[6:10] == b"\0\0\0\0")
        or data[:4] in _TIFF
        or (data[:2] in (b"P5", b"P6") and data[2:3].isspace())
    )


# ---- blocks that several formats have -------------------------------------------------------------------------

_GPS_TAG = 0x8825
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes of a value of each TIFF type."""

Entry = tuple[int, int, int]
"""Of a TIFF directory: type, count, offset of the value."""


def _directories(data: bytes) -> Iterator[tuple[int, dict[int, Entry]]]:
    """Where each directory of a TIFF begins, and its entries by tag (TIFF 6.0, section 2); raises MalformedMetadata."""
    if data[:4] not in _TIFF:
        raise MalformedMetadata("no TIFF header")
    order = "<" if data[:2] == b"II" else ">"
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        seen: set[int] = set()
        while at:
            if at in seen:
                raise MalformedMetadata("a directory that leads to itself")
            seen.add(at)
            (length,) = struct.unpack_from(f"{order}H", data, at)
            entries = {}
            for start in range(at + 2, at + 2 + 12 * length, 12):
                tag, kind, count = struct.unpack_from(f"{order}HHI", data, start)
                inside = _TYPE_BYTES.get(kind, 1) * count <= 4
                offset = start + 8 if inside else struct.unpack_from(f"{order}I", data, start + 8)[0]
                entries[tag] = kind, count, offset
            yield at, entries
            (at,) = struct.unpack_from(f"{order}I", data, at + 2 + 12 * length)
    except struct.error:
        raise MalformedMetadata("a directory beyond the end") from None


def _exif(block: bytes) -> set[str]:
    """The kinds in an EXIF block; its second directory is a thumbnail (EXIF 2.32, 4.5.8)."""
    found = {EXIF}
    try:
        for number, (_, entries) in enumerate(_directories(block.removeprefix(b"Exif\0\0"))):
            found |= ({GPS} if _GPS_TAG in entries else set()) | ({THUMBNAIL} if number else set())
    except MalformedMetadata:
        found.add(PART)
    return found


def _xmp(packet: bytes) -> set[str]:
    """The kinds in an XMP packet, which may repeat what EXIF says."""
    return {XMP} | ({GPS} if b"GPSL" in packet else set()) | ({THUMBNAIL} if b"xmpGImg" in packet else set())


def _photoshop(block: bytes) -> set[str]:
    """The kinds in Photoshop's resources, where 1033 and 1036 are thumbnails."""
    return {IPTC} | ({THUMBNAIL} if b"8BIM\x04\x09" in block or b"8BIM\x04\x0c" in block else set())


def _profile(profile: bytes) -> set[str]:
    """A colour profile is byte for byte one that anonlib writes, or may hold anything."""
    return set() if is_ours(profile) else {PROFILE}


# ---- JPEG (ITU-T T.81, annex B) -------------------------------------------------------------------------------

_EOI, _SOS, _COM = 0xD9, 0xDA, 0xFE
_TABLES = {0xC4, 0xDB, 0xDD, _SOS, *range(0xC0, 0xD0)} - {0xC8, 0xCC}
"""Frames, Huffman and quantization tables, restart intervals, scans."""
_JFIF_BYTES = 14
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_ICC = b"ICC_PROFILE\0"


def _jpeg(data: bytes) -> set[str]:
    """Allowed are tables, one frame, a JFIF header without thumbnail, and a colour profile."""
    found: set[str] = set()
    profile: list[bytes] = []
    at, frames = 2, 0
    while True:
        if data[at : at + 1] != b"\xff":
            raise MalformedMetadata("no marker where one must be")
        while data[at : at + 1] == b"\xff":
            at += 1
        marker = data[at]
        at += 1
        if marker == _EOI:
            break
        length = int.from_bytes(data[at : at + 2], "big")
        body = data[at + 2 : at + length]
        if length < 2 or len(body) != length - 2:
            raise MalformedMetadata("a segment beyond the end")
        at += length
        if marker == 0xE2 and body.startswith(_ICC):
            profile.append(body[len(_ICC) + 2 :])
        else:
            found |= _jpeg_segment(marker, body)
        frames += 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        if marker == _SOS:
            end = _AFTER_SCAN.search(data, at)
            if end is None:
                raise MalformedMetadata("no end of the image")
            at = end.start()
    if profile:
        found |= _profile(b"".join(profile))
    rest = data[at:]
    return found | ({TRAILING} if rest else set()) | ({PICTURE} if b"\xff\xd8\xff" in rest or frames > 1 else set())


def _jpeg_segment(marker: int, body: bytes) -> set[str]:
    if marker in _TABLES:
        return set()
    if marker == _COM:
        return {COMMENT}
    if marker == 0xE0 and body.startswith(b"JFIF\0"):
        return set() if len(body) == _JFIF_BYTES else {THUMBNAIL}
    if marker == 0xE0 and body.startswith(b"JFXX\0"):
        return {THUMBNAIL}
    if marker == 0xE1 and body.startswith(b"Exif\0"):
        return _exif(body)
    if marker == 0xE1 and body.startswith((b"http://ns.adobe.com/xap/", b"http://ns.adobe.com/xmp/")):
        return _xmp(body)
    if marker == 0xE2 and body.startswith(b"MPF\0"):
        return {PICTURE}
    if marker == 0xEB and body.startswith(b"JP"):
        return {C2PA}
    if marker == 0xED and body.startswith((b"Photoshop", b"Adobe_Photoshop", b"Adobe_CM")):
        return _photoshop(body)
    return {PART}


# ---- PNG (3rd edition) ----------------------------------------------------------------------------------------

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


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
    stream = zlib.decompressobj()
    size = len(stream.decompress(b"".join(pixels)))
    return found | ({TRAILING} if data[at:] or stream.unused_data or size != _png_bytes(header) else set())


def _png_chunk(kind: bytes, body: bytes) -> set[str]:
    name = body.partition(b"\0")[0].lower()
    if kind in (b"PLTE", b"tRNS"):
        return set()
    if kind == b"iCCP":
        stream = zlib.decompressobj()
        profile = stream.decompress(body[len(name) + 2 :])
        return _profile(profile) | ({TRAILING} if stream.unused_data else set())
    if kind == b"eXIf":
        return _exif(body)
    if kind in (b"tEXt", b"zTXt", b"iTXt"):
        if b"xmp" in name:
            return _xmp(body)
        kinds = {b"exif": EXIF, b"app1": EXIF, b"iptc": IPTC}
        return next(({found} for word, found in kinds.items() if word in name), {COMMENT})
    if kind == b"caBX":
        return {C2PA}
    return {PICTURE} if kind in (b"acTL", b"fcTL", b"fdAT") else {PART}


def _png_bytes(header: bytes) -> int:
    """How many bytes the unpacked rows of a PNG have (7.2); raises MalformedMetadata."""
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    if interlace:
        raise MalformedMetadata("interlaced rows, which no encoder here writes")
    return int(height * (1 + -(-width * depth * _CHANNELS[colour] // 8)))


# ---- WebP (RFC 9649) ------------------------------------------------------------------------------------------


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
            found |= _profile(body)
        elif kind == b"EXIF":
            found |= _exif(body)
        elif kind == b"XMP ":
            found |= _xmp(body)
        elif kind not in (b"VP8 ", b"VP8L", b"VP8X", b"ALPH"):
            found.add({b"ANIM": PICTURE, b"ANMF": PICTURE, b"C2PA": C2PA}.get(kind, PART))
    return found


# ---- TIFF (6.0) -----------------------------------------------------------------------------------------------

_TIFF_PLAIN = {254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 282, 283, 284, 296, 317, 320, 338, 339}
_TIFF_KINDS = {700: XMP, 33723: IPTC, 34665: EXIF, 34853: GPS, 330: PICTURE}
_TIFF_ICC, _TIFF_PHOTOSHOP = 34675, 34377
_STRIPS, _STRIP_BYTES = 273, 279
_ALIGNMENT = 4


def _tiff(data: bytes) -> set[str]:
    found: set[str] = set()
    parts = [(0, 8)]
    for number, (begin, entries) in enumerate(_directories(data)):
        found |= {PICTURE} if number else set()
        for tag, (kind, count, offset) in entries.items():
            block = data[offset : offset + _TYPE_BYTES.get(kind, 1) * count]
            parts.append((offset, offset + len(block)))
            if tag == _TIFF_ICC:
                found |= _profile(block)
            elif tag == _TIFF_PHOTOSHOP:
                found |= _photoshop(block)
            elif tag not in _TIFF_PLAIN:
                found.add(_TIFF_KINDS.get(tag, PART))
        starts, lengths = (_whole_numbers(data, entries[tag]) for tag in (_STRIPS, _STRIP_BYTES))
        parts += [(start, start + length) for start, length in zip(starts, lengths, strict=True)]
        parts.append((begin, begin + 6 + 12 * len(entries)))
    return found | ({TRAILING} if _has_gap(data, parts) else set())


def _whole_numbers(data: bytes, entry: Entry) -> list[int]:
    """The values of an entry of type 1, 3 or 4; raises LookupError, struct.error."""
    kind, count, offset = entry
    code = {1: "B", 3: "H", 4: "I"}[kind]
    return list(struct.unpack_from(f"{'<' if data[:2] == b'II' else '>'}{count}{code}", data, offset))


def _has_gap(data: bytes, parts: list[tuple[int, int]]) -> bool:
    """Whether bytes lie between the parts of a file, beside zeros that align them; raises MalformedMetadata."""
    reached = 0
    for start, end in sorted(parts):
        if end > len(data):
            raise MalformedMetadata("a part beyond the end")
        gap = data[reached : max(start, reached)]
        if len(gap) >= _ALIGNMENT or any(gap):
            return True
        reached = max(reached, end)
    return len(data) - reached >= _ALIGNMENT or any(data[reached:])
