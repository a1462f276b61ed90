"""An image file part by part: what it carries beside its picture.

Each format has a table of the parts that the pipeline's encoder writes and of those that are known by name; every other
part is an unknown part, and so is a file that is broken or of a format that no release is encoded in. Only the file's
directory is decoded, and of a PNG the stream of its pixels, since more may be in it than the picture shows.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable

from anonlib.media.colour import is_ours

EXIF, GPS, THUMBNAIL, XMP, IPTC = "EXIF", "GPS position", "thumbnail", "XMP", "IPTC"
COMMENT, C2PA, PICTURE, PROFILE = "comment", "C2PA manifest", "further picture", "foreign colour profile"
PART, TRAILING = "unknown part", "bytes after the end"
KINDS = (EXIF, GPS, THUMBNAIL, XMP, IPTC, COMMENT, C2PA, PICTURE, PROFILE, PART, TRAILING)

_PLAIN = ""
Rule = str | Callable[[bytes], set[str]]
"""What a part is: one of KINDS, _PLAIN for what the encoder writes, or a function that looks into it."""

_PICTURE_START = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF.{4}WEBP|GIF8[79]a|BM.{4}\0{4}|II\*\0|MM\0\*|P[56]\s", re.DOTALL
)


def carried(data: bytes) -> frozenset[str]:
    """The KINDS that an image file carries beside its picture; an unknown or broken file is an unknown part."""
    readers = {b"\xff\xd8": _jpeg, b"\x89P": _png, b"RI": _webp, b"II": _tiff, b"MM": _tiff}
    reader = readers.get(data[:2]) if is_picture(data) else None
    try:
        return frozenset({PART} if reader is None else reader(data))
    except (struct.error, LookupError, ValueError, zlib.error):
        return frozenset({PART})


def is_picture(data: bytes) -> bool:
    """Whether bytes begin as an image file of a format that is read, released or not."""
    return _PICTURE_START.match(data) is not None


# ---- blocks that several formats have -------------------------------------------------------------------------

_TIFF_TYPES = dict(enumerate("BBHIQbBhiqfdI", 1))
"""Codes of `struct` that are as long as a value of each TIFF type."""


def _kinds(rule: Rule, body: bytes) -> set[str]:
    return {rule} - {_PLAIN} if isinstance(rule, str) else rule(body)


def _directory(data: bytes) -> tuple[dict[int, tuple[int, str]], tuple[int, int], int]:
    """Of a TIFF's first directory (TIFF 6.0, section 2) by tag where a value begins and its format for `struct`.

    Then where the directory itself begins and ends, and where the next one begins, 0 if there is none.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}[data[:4]]
    (begin,) = struct.unpack_from(f"{order}I", data, 4)
    (length,) = struct.unpack_from(f"{order}H", data, begin)
    end = begin + 2 + 12 * length
    entries = {}
    for at in range(begin + 2, end, 12):
        tag, kind, count = struct.unpack_from(f"{order}HHI", data, at)
        value = f"{order}{count}{_TIFF_TYPES[kind]}"
        inside = struct.calcsize(value) <= 4
        entries[tag] = at + 8 if inside else struct.unpack_from(f"{order}I", data, at + 8)[0], value
    return entries, (begin, end + 4), struct.unpack_from(f"{order}I", data, end)[0]


def _exif(block: bytes) -> set[str]:
    """The kinds in an EXIF block; its second directory is a thumbnail (EXIF 2.32, 4.5.8)."""
    entries, _, further = _directory(block.removeprefix(b"Exif\0\0"))
    return {EXIF} | ({GPS} if 0x8825 in entries else set()) | ({THUMBNAIL} if further else set())


def _profile(profile: bytes) -> set[str]:
    """A colour profile is byte for byte one that anonlib writes, or may hold anything."""
    return set() if is_ours(profile) else {PROFILE}


# ---- JPEG (ITU-T T.81, annex B) -------------------------------------------------------------------------------

_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_EOI, _SOS = 0xD9, 0xDA
_JFIF_BYTES = 14  # without a thumbnail
_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_ICC = b"ICC_PROFILE\0"
_SEGMENTS: tuple[tuple[int, bytes, Rule], ...] = (
    *((marker, b"", _PLAIN) for marker in (*sorted(_FRAMES), 0xC4, 0xDB, 0xDD, _SOS)),
    (0xE0, b"JFIF\0", lambda body: set() if len(body) == _JFIF_BYTES else {THUMBNAIL}),
    (0xE0, b"JFXX\0", THUMBNAIL),
    (0xE1, b"Exif\0", _exif),
    *((0xE1, b"http://ns.adobe.com/%s/" % name, XMP) for name in (b"xap", b"xmp")),
    (0xE2, _ICC, _PLAIN),  # judged as a whole below
    (0xE2, b"MPF\0", PICTURE),
    (0xEB, b"JP", C2PA),
    *((0xED, name, IPTC) for name in (b"Photoshop", b"Adobe_Photoshop", b"Adobe_CM")),
    (0xFE, b"", COMMENT),
)


def _jpeg(data: bytes) -> set[str]:
    found: set[str] = set()
    profile, frames, at = b"", 0, 2
    while True:
        start = _MARKER.match(data, at)
        if start is None:
            raise ValueError("no marker where one must be")
        marker, at = start[1][0], start.end()
        if marker == _EOI:
            break
        length = int.from_bytes(data[at : at + 2], "big")
        body = data[at + 2 : at + length]
        if len(body) != length - 2:
            raise ValueError("a segment beyond the end")
        at += length
        rules = (rule for number, name, rule in _SEGMENTS if number == marker and body.startswith(name))
        found |= _kinds(next(rules, PART), body)
        frames += marker in _FRAMES
        if marker == 0xE2 and body.startswith(_ICC):
            profile += body[len(_ICC) + 2 :]
        if marker == _SOS:
            scan_end = _AFTER_SCAN.search(data, at)
            if scan_end is None:
                raise ValueError("no end of the image")
            at = scan_end.start()
    found |= _profile(profile) if profile else set()
    rest = data[at:]
    return found | ({TRAILING} if rest else set()) | ({PICTURE} if b"\xff\xd8\xff" in rest or frames > 1 else set())


# ---- PNG (3rd edition) ----------------------------------------------------------------------------------------

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def _png(data: bytes) -> set[str]:
    found: set[str] = set()
    at, kind, header = 8, b"", b""
    pixels: list[bytes] = []
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        at += 12 + length
        if at > len(data):
            raise ValueError("a chunk beyond the end")
        found |= _kinds(_PNG_CHUNKS.get(kind, PART), body)
        header = body if kind == b"IHDR" else header
        pixels += [body] if kind == b"IDAT" else []
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    if interlace:
        raise ValueError("interlaced rows, which no encoder here writes")
    stream = zlib.decompressobj()
    size = len(stream.decompress(b"".join(pixels)))
    whole = size == height * (1 + -(-width * depth * _CHANNELS[colour] // 8))
    return found | ({TRAILING} if data[at:] or stream.unused_data or not whole else set())


def _png_profile(body: bytes) -> set[str]:
    stream = zlib.decompressobj()
    profile = stream.decompress(body[body.index(b"\0") + 2 :])
    return _profile(profile) | ({TRAILING} if stream.unused_data else set())


def _png_text(body: bytes) -> set[str]:
    name = body.partition(b"\0")[0].lower()
    kinds = {b"xmp": XMP, b"exif": EXIF, b"app1": EXIF, b"iptc": IPTC}
    return {next((kind for word, kind in kinds.items() if word in name), COMMENT)}


_PNG_CHUNKS: dict[bytes, Rule] = dict.fromkeys((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"), _PLAIN)
_PNG_CHUNKS |= dict.fromkeys((b"acTL", b"fcTL", b"fdAT"), PICTURE)
_PNG_CHUNKS |= dict.fromkeys((b"tEXt", b"zTXt", b"iTXt"), _png_text)
_PNG_CHUNKS |= {b"iCCP": _png_profile, b"eXIf": _exif, b"caBX": C2PA}


# ---- WebP (RFC 9649) ------------------------------------------------------------------------------------------

_WEBP_CHUNKS: dict[bytes, Rule] = dict.fromkeys((b"VP8 ", b"VP8L", b"VP8X", b"ALPH"), _PLAIN)
_WEBP_CHUNKS |= {b"ANIM": PICTURE, b"ANMF": PICTURE, b"C2PA": C2PA, b"XMP ": XMP, b"ICCP": _profile, b"EXIF": _exif}


def _webp(data: bytes) -> set[str]:
    at, end = 12, 8 + int.from_bytes(data[4:8], "little")
    found = {TRAILING} if data[end:] else set()
    while at < end:
        kind, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + length]
        if len(body) != length:
            raise ValueError("a chunk beyond the end")
        at += 8 + length + length % 2
        found |= _kinds(_WEBP_CHUNKS.get(kind, PART), body)
    return found


# ---- TIFF (6.0) -----------------------------------------------------------------------------------------------

_STRIPS, _STRIP_BYTES = 273, 279
_TIFF_PLAIN = (254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 282, 283, 284, 296, 317, 320, 338, 339)
_TIFF_TAGS: dict[int, Rule] = dict.fromkeys(_TIFF_PLAIN, _PLAIN)
_TIFF_TAGS |= {330: PICTURE, 700: XMP, 33723: IPTC, 34377: IPTC, 34665: EXIF, 34853: GPS, 34675: _profile}
_ALIGNMENT = 4


def _tiff(data: bytes) -> set[str]:
    entries, directory, further = _directory(data)
    found = {PICTURE} if further else set()
    parts = [(0, 8), directory]
    for tag, (start, value) in entries.items():
        parts.append((start, start + struct.calcsize(value)))
        found |= _kinds(_TIFF_TAGS.get(tag, PART), data[slice(*parts[-1])])
    starts, lengths = (struct.unpack_from(value, data, at) for at, value in (entries[_STRIPS], entries[_STRIP_BYTES]))
    parts += [(start, start + length) for start, length in zip(starts, lengths, strict=True)]
    # Between the parts of a file lie at most zeros that align them.
    reached = 0
    for start, end in [*sorted(parts), (len(data), len(data))]:
        if end > len(data):
            raise ValueError("a part beyond the end")
        gap = data[reached:start]
        found |= {TRAILING} if len(gap) >= _ALIGNMENT or any(gap) else set()
        reached = max(reached, end)
    return found
