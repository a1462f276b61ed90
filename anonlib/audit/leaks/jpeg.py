"""A JPEG file segment by segment (ITU-T T.81, annex B): what it carries beside its picture.

Allowed is what the pipeline's own encoder writes: tables, one frame, a JFIF header without thumbnail, a colour profile.
"""

from __future__ import annotations

import re

from anonlib.audit.leaks.metadata_kinds import (
    C2PA,
    COMMENT,
    PART,
    PICTURE,
    THUMBNAIL,
    TRAILING,
    in_exif,
    in_photoshop,
    in_profile,
    in_xmp,
)
from anonlib.errors import MalformedMetadata

_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_TABLES = {0xC4, 0xDB, 0xDD, _SOS, *range(0xC0, 0xD0)} - {0xC8, 0xCC}
"""Frames, Huffman and quantization tables, restart intervals, scans."""
_JFIF_BYTES = 14
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_ICC = b"ICC_PROFILE\0"


def carried(data: bytes) -> set[str]:
    """The kinds that a JPEG carries; raises MalformedMetadata if it is none."""
    found: set[str] = set()
    profile: list[bytes] = []
    at = 2
    frames = 0
    while True:
        if data[at : at + 1] != b"\xff":
            raise MalformedMetadata("no marker where one must be")
        while data[at : at + 1] == b"\xff":
            at += 1
        if at >= len(data):
            raise MalformedMetadata("no end of the image")
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
            found |= _segment(marker, body)
        frames += 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        if marker == _SOS:
            end = _AFTER_SCAN.search(data, at)
            if end is None:
                raise MalformedMetadata("no end of the image")
            at = end.start()
    if profile:
        found |= in_profile(b"".join(profile))
    rest = data[at:]
    found |= ({TRAILING} if rest else set()) | ({PICTURE} if b"\xff\xd8\xff" in rest or frames > 1 else set())
    return found


def _segment(marker: int, body: bytes) -> set[str]:
    if marker in _TABLES:
        return set()
    if marker == _COM:
        return {COMMENT}
    if marker == 0xE0 and body.startswith(b"JFIF\0"):
        return set() if len(body) == _JFIF_BYTES else {THUMBNAIL}
    if marker == 0xE0 and body.startswith(b"JFXX\0"):
        return {THUMBNAIL}
    if marker == 0xE1 and body.startswith(b"Exif\0"):
        return in_exif(body)
    if marker == 0xE1 and body.startswith((b"http://ns.adobe.com/xap/", b"http://ns.adobe.com/xmp/")):
        return in_xmp(body)
    if marker == 0xE2 and body.startswith(b"MPF\0"):
        return {PICTURE}
    if marker == 0xEB and body.startswith(b"JP"):
        return {C2PA}
    if marker == 0xED and body.startswith((b"Photoshop", b"Adobe_Photoshop", b"Adobe_CM")):
        return in_photoshop(body)
    return {PART}
