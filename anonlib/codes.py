"""The closed lists of words that a manifest may hold beside numbers and digests.

A sentence about one photo may quote its name, its neighbour's or a piece of a file, so a manifest holds codes and a
workspace the sentences. Each code has one sentence here that is true of every photo which has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


class Reason(StrEnum):
    """Why an image is quarantined: a code and its `meaning`, a sentence that names nothing of any photo."""

    meaning: str

    def __new__(cls, code: str, meaning: str) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DUPLICATE_KEY = "duplicate-key", "another sample of the shard has the same key"
    NO_KEY = "no-key", "the sample has no key"
    UNSAFE_NAME = (
        "unsafe-name",
        "the name is absolute, has an empty part, leads out or has signs that cannot be printed",
    )
    INSIDE_A_FILE = "inside-a-file", "its folder has the name of a file, which a bucket can hold and no disk"
    NOT_A_FILE = "not-a-file", "the name leads to a link, a folder or a device, not to a file"
    LINK = "link", "the file is a link that leads out of the input or nowhere, and links are not followed"
    NO_IMAGE = "no-image", "the sample has no image"
    ONLY_A_PATH = "only-a-path", "the image is only a path to another file"
    STRAY_SIDECARS = (
        "stray-sidecars",
        "sidecars lie too far behind their images in the shard, or come twice, and are left out; sort it by name",
    )
    TRUNCATED = "truncated", "the shard is truncated or damaged here, and what follows is lost"
    AFTER_END = "after-end", "there is data after the end of the archive, which no reader sees"
    UNREADABLE = "unreadable", "the file, or this part of the shard, cannot be read"
    TOO_LARGE = "too-large", "the file is over the limit of bytes (limits.image_mib, at most 256; limits.clip_mib)"
    EMPTY = "empty", "the file is empty"
    NOT_AN_IMAGE = (
        "not-an-image",
        "the file is not an image in a known format (JPEG, PNG, WebP, TIFF, GIF, BMP, PPM, AVIF, JPEG 2000; no HEIC)",
    )
    DAMAGED = "damaged", "the image or clip is damaged"
    NO_PIXELS = "no-pixels", "the image has no pixels"
    TOO_MANY_PIXELS = (
        "too-many-pixels",
        "the image or frame is over the limit of megapixels (limits.image_mpx, limits.clip_mpx)",
    )
    ANIMATED = "animated", "the file has many pages, or is animated in a format that is no clip here"
    MEMORY = "memory", "decoding it needs more memory than it may take"
    TIME = "time", "decoding it took longer than it may take (limits.image_seconds)"
    CRASHED = "crashed", "decoding it ended the process that decodes it"
    NO_BOXES = "no-boxes", "it has no boxes (input.boxes_field), and the job has no detector"
    BAD_BOXES = "bad-boxes", "its boxes (input.boxes_field) cannot be read, or lie outside it"
    SCAN_FAILED = "scan-failed", "the scan of the image failed"
    TOO_MANY_REGIONS = "too-many-regions", "it has more than 4,000 faces and other regions to hide"
    NOT_SCANNED = "not-scanned", "the image was not there when the dataset was scanned"
    CHANGED = "changed", "the image is not the one that was scanned"
    REPLACE_FAILED = "replace-failed", "replacing a face failed"
    CHECK_FAILED = "check-failed", "checking the output failed"
    ENCODE_FAILED = "encode-failed", "encoding the output failed"
    SHARD_UNSCANNED = "shard-unscanned", "the shard could not be scanned (the workspace says why)"
    SHARD_FAILED = "shard-failed", "the shard failed as a whole"
    NOT_A_CLIP = (
        "not-a-clip",
        "the file is not a clip in a known container (MP4, MOV, MKV, WebM, AVI), or its video has no known codec",
    )
    NO_VIDEO = "no-video", "the clip has no video with a frame in it"
    CLIP_FORMAT = "clip-format", "the pixels of a clip are stored in a way that cannot be converted faithfully"
    TOO_LONG = "too-long", "the clip is over the limit of minutes or of frames a second (limits.clip_*)"
    WITHHELD = "withheld", "a reviewer withheld the image"


class Stripped(StrEnum):
    """What a file carried beside its picture, and the output does not."""

    EXIF = "exif"
    XMP = "xmp"
    IPTC = "iptc"
    COMMENT = "comment"
    C2PA = "c2pa"
    PICTURES = "further pictures"
    VIDEOS = "further videos"
    AUDIO = "audio"
    SUBTITLES = "subtitles"
    DATA = "data streams"
    CHAPTERS = "chapters"
    ATTACHMENTS = "attachments"
    COVER = "cover"
    TAGS = "tags"


class Note(StrEnum):
    """What the conversion of a picture changed."""

    EIGHT_BITS = "converted from 16 or 32 bits to 8 bits a channel, by the levels in use"
    CMYK = "converted from CMYK to RGB"
    YCBCR = "converted from YCbCr to RGB"
    LAB = "converted from LAB to RGB"
    HSV = "converted from HSV to RGB"
    TO_SRGB = "converted to sRGB, since its colour profile is not kept"
    NO_PROFILE = "a colour profile that cannot be used was left out"
    LENIENT = "slightly damaged, decoded as viewers do and encoded anew"
    TIFF_TO_PNG = "converted from TIFF to PNG"
    TO_PNG = "converted from GIF, BMP, PPM, AVIF or JPEG 2000 to PNG"
    CLIP_EIGHT_BITS = "converted to 8 bits a channel"
    SDR = "converted from HDR (PQ or HLG) to BT.709; what is brighter than reference white is clipped"
    DEINTERLACED = "converted from interlaced to progressive frames"
    SHORTER = "the clip ends before its header says"
    FIRST_DOT = "the name has several dots: by WebDataset's rule its key ends at the first, the rest is the extension"
    NO_END = "the archive ends without its closing blocks of zeros; this is the last whole sample in it"
    NOT_KEPT = "a field that the job keeps is an image, which is left out; image_field may name several"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a sample cannot be used: a code, and a sentence about this sample for the workspace alone."""

    reason: Reason
    details: str = ""

    def __str__(self) -> str:
        return self.details or self.reason.meaning


REASONS = {reason.value: reason for reason in Reason}
_STRIPPED, _NOTES = frozenset(map(str, Stripped)), frozenset(map(str, Note))


def meaning_of(code: str | None) -> str:
    """The sentence of a manifest's reason; releases of before there were codes hold a sentence, which stays."""
    if code is None:
        return "no reason given"
    return REASONS[code].meaning if code in REASONS else code


def foreign_words(row: Mapping[str, Any]) -> list[str]:
    """The columns of a MANIFEST row that hold another word than these lists have."""
    closed = {
        "reason": row["reason"] is None or row["reason"] in REASONS,
        "metadata_stripped": _STRIPPED.issuperset(row["metadata_stripped"] or ()),
        "notes": _NOTES.issuperset(row["notes"] or ()),
    }
    return [column for column, known in closed.items() if not known]
