"""What an image file may carry beside its pixels, and how blocks of metadata tell what is in them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from anonlib.errors import MalformedMetadata
from anonlib.media.colour import is_ours

EXIF, GPS, THUMBNAIL, XMP, IPTC = "EXIF", "GPS position", "thumbnail", "XMP", "IPTC"
COMMENT, C2PA, PICTURE, PROFILE = "comment", "C2PA manifest", "further picture", "foreign colour profile"
PART, TRAILING = "unknown part", "bytes after the end"
KINDS = (EXIF, GPS, THUMBNAIL, XMP, IPTC, COMMENT, C2PA, PICTURE, PROFILE, PART, TRAILING)

_GPS_TAG = 0x8825
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes of a value of each TIFF type."""


def directories(data: bytes) -> Iterator[tuple[int, dict[int, tuple[int, int, int]]]]:
    """The directories of a TIFF and where they begin (TIFF 6.0, section 2): tag -> (type, count, offset of the value).

    Raises MalformedMetadata.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        raise MalformedMetadata("no TIFF header")
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        seen: set[int] = set()
        while at:
            if at in seen:
                raise MalformedMetadata("a directory that leads to itself")
            seen.add(at)
            (count,) = struct.unpack_from(f"{order}H", data, at)
            found = {}
            for number in range(count):
                entry = at + 2 + 12 * number
                tag, kind, many = struct.unpack_from(f"{order}HHI", data, entry)
                inside = _SIZES.get(kind, 1) * many <= 4
                found[tag] = kind, many, entry + 8 if inside else struct.unpack_from(f"{order}I", data, entry + 8)[0]
            yield at, found
            (at,) = struct.unpack_from(f"{order}I", data, at + 2 + 12 * count)
    except struct.error:
        raise MalformedMetadata("a directory beyond the end") from None


def values(data: bytes, entry: tuple[int, int, int]) -> list[int]:
    """The whole numbers of a directory's entry (types 1, 3 and 4); raises MalformedMetadata."""
    kind, count, offset = entry
    code = {1: "B", 3: "H", 4: "I"}.get(kind)
    if code is None or offset + _SIZES[kind] * count > len(data):
        raise MalformedMetadata("a value that is no number or beyond the end")
    return list(struct.unpack_from(f"{'<' if data[:2] == b'II' else '>'}{count}{code}", data, offset))


def size_of(entry: tuple[int, int, int]) -> int:
    """How many bytes an entry's values take."""
    return _SIZES.get(entry[0], 1) * entry[1]


def in_exif(block: bytes) -> set[str]:
    """The kinds in an EXIF block; its second directory is a thumbnail (EXIF 2.32, 4.5.8)."""
    found = {EXIF}
    try:
        for number, (_, directory) in enumerate(directories(block.removeprefix(b"Exif\0\0"))):
            found |= ({GPS} if _GPS_TAG in directory else set()) | ({THUMBNAIL} if number else set())
    except MalformedMetadata:
        found.add(PART)
    return found


def in_xmp(packet: bytes) -> set[str]:
    """The kinds in an XMP packet, which may repeat what EXIF says."""
    return {XMP} | ({GPS} if b"GPSL" in packet else set()) | ({THUMBNAIL} if b"xmpGImg" in packet else set())


def in_photoshop(block: bytes) -> set[str]:
    """The kinds in Photoshop's resources, where 1033 and 1036 are thumbnails."""
    thumbnails = (b"8BIM\x04\x09", b"8BIM\x04\x0c")
    return {IPTC} | ({THUMBNAIL} if any(one in block for one in thumbnails) else set())


def in_profile(profile: bytes) -> set[str]:
    """A colour profile is one that anonlib writes, byte for byte, or may hold anything."""
    return set() if is_ours(profile) else {PROFILE}
