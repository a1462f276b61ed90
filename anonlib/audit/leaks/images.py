"""An image of a release: what its file carries beside its picture, and its px beside the original's.

Each format has a table of the parts that the encoder writes and of those that are known by name; every other part is an
unknown part, and so is a file that is broken or of a format that no release is encoded in. Only the file's directory is
decoded, and of a PNG the stream of its pixels, since more may be in it than the picture shows.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.codes import Note, Stripped
from anonlib.config import LimitsConfig
from anonlib.errors import ImageProblem
from anonlib.faces.embed import Recognizer
from anonlib.faces.regions import Regions
from anonlib.media import exact, jpeg, mark, png, webp
from anonlib.media.clip import Frame, clip_info
from anonlib.media.codec import Picture, decode, encode
from anonlib.media.colour import is_ours
from anonlib.media.sandbox.process import changed_blocks_apart
from anonlib.storage.scratch import SpooledFile
from anonlib.synthesis.canonical import vertices_of
from anonlib.synthesis.redact import covered

EXIF, GPS, THUMBNAIL, XMP, IPTC = "EXIF", "GPS position", "thumbnail", "XMP", "IPTC"
COMMENT, C2PA, PICTURE, PROFILE = "comment", "C2PA manifest", "further picture", "foreign colour profile"
PART, TRAILING = "unknown part", "bytes after the end"
KINDS = (EXIF, GPS, THUMBNAIL, XMP, IPTC, COMMENT, C2PA, PICTURE, PROFILE, PART, TRAILING)

_PLAIN = ""
Rule = str | Callable[[bytes], set[str]]
"""How a part is judged: one of KINDS, _PLAIN for what the encoder writes, or a function that looks into it."""

_PICTURE_START = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF.{4}WEBP|GIF8[79]a|BM.{4}\0{4}|II\*\0|MM\0\*|P[56]\s", re.DOTALL
)


def carried(data: bytes) -> frozenset[str]:
    """The KINDS that an image file carries beside its picture; an unknown or broken file is an unknown part."""
    readers = {b"\xff\xd8": _jpeg, b"\x89P": _png, b"RI": _webp}
    reader = readers.get(data[:2]) if is_picture(data) else None
    try:
        return frozenset({PART} if reader is None else reader(data))
    except (struct.error, LookupError, ValueError, zlib.error):
        return frozenset({PART})


def carried_by_clip(data: bytes, limits: LimitsConfig, *, keep_audio: bool) -> frozenset[str]:
    """The same of a clip: a further picture, or an unknown part for anything else that a release would leave out."""
    file = SpooledFile(io.BytesIO(), data)
    try:
        stripped = clip_info(file.path, limits, keep_audio=keep_audio).stripped
    except ImageProblem:
        return frozenset({PART})
    pictures = {Stripped.COVER, Stripped.PICTURES, Stripped.VIDEOS}
    return frozenset(PICTURE if kind in pictures else PART for kind in stripped)


def is_picture(data: bytes) -> bool:
    """Whether bytes begin as an image file of a format that is read, released or not."""
    return _PICTURE_START.match(data) is not None


# ---- blocks that several formats have -------------------------------------------------------------------------


def _kinds(rule: Rule, body: bytes) -> set[str]:
    return {rule} - {_PLAIN} if isinstance(rule, str) else rule(body)


def _exif(block: bytes) -> set[str]:
    """The kinds in an EXIF block, a TIFF whose second directory is a thumbnail (EXIF 2.32, 4.5.8)."""
    tiff = block.removeprefix(b"Exif\0\0")
    if any(jpeg.exif(orientation)[6:] == tiff for orientation in range(2, 9)):
        return set()  # the one that anonlib writes
    order = {b"II*\0": "<", b"MM\0*": ">"}[tiff[:4]]
    (begin,) = struct.unpack_from(f"{order}I", tiff, 4)
    (length,) = struct.unpack_from(f"{order}H", tiff, begin)
    end = begin + 2 + 12 * length
    tags = {struct.unpack_from(f"{order}H", tiff, at)[0] for at in range(begin + 2, end, 12)}
    (further,) = struct.unpack_from(f"{order}I", tiff, end)
    return {EXIF} | ({GPS} if 0x8825 in tags else set()) | ({THUMBNAIL} if further else set())


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
    (0xE1, b"http://ns.adobe.com/xap/", lambda body: set() if body == mark.IN_JPEG else {XMP}),
    (0xE1, b"http://ns.adobe.com/xmp/", XMP),
    (0xE2, _ICC, _PLAIN),  # judged as a whole below
    (0xE2, b"MPF\0", PICTURE),
    (0xEB, b"JP", C2PA),
    *((0xED, name, IPTC) for name in (b"Photoshop", b"Adobe_Photoshop", b"Adobe_CM")),
    (0xEE, b"Adobe", lambda body: set() if body[:-1] == jpeg.ADOBE else {PART}),
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


def _png(data: bytes) -> set[str]:
    found: set[str] = set()
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        at += 12 + length
        if at > len(data):
            raise ValueError("a chunk beyond the end")
        found |= _kinds(_PNG_CHUNKS.get(kind, PART), body)
    return found | ({TRAILING} if data[at:] or not exact.holds(png.check_data, data) else set())


def _png_profile(body: bytes) -> set[str]:
    stream = zlib.decompressobj()
    profile = stream.decompress(body[body.index(b"\0") + 2 :])
    return _profile(profile) | ({TRAILING} if stream.unused_data else set())


def _png_text(body: bytes) -> set[str]:
    if body == mark.IN_PNG:
        return set()
    name = body.partition(b"\0")[0].lower()
    kinds = {b"xmp": XMP, b"exif": EXIF, b"app1": EXIF, b"iptc": IPTC}
    return {next((kind for word, kind in kinds.items() if word in name), COMMENT)}


_PNG_CHUNKS: dict[bytes, Rule] = dict.fromkeys((b"IHDR", b"PLTE", b"sRGB", b"gAMA", b"tRNS", b"IDAT", b"IEND"), _PLAIN)
_PNG_CHUNKS |= dict.fromkeys((b"acTL", b"fcTL", b"fdAT"), PICTURE)
_PNG_CHUNKS |= dict.fromkeys((b"tEXt", b"zTXt", b"iTXt"), _png_text)
_PNG_CHUNKS |= {b"iCCP": _png_profile, b"eXIf": _exif, b"caBX": C2PA}


# ---- WebP (RFC 9649) ------------------------------------------------------------------------------------------

_WEBP_CHUNKS: dict[bytes, Rule] = dict.fromkeys((b"VP8 ", b"VP8L", b"VP8X", b"ALPH"), _PLAIN)
_WEBP_CHUNKS |= {b"ANIM": PICTURE, b"ANMF": PICTURE, b"C2PA": C2PA, b"ICCP": _profile, b"EXIF": _exif}
_WEBP_CHUNKS[b"XMP "] = lambda body: set() if body == mark.PACKET else {XMP}


def _webp(data: bytes) -> set[str]:
    at, end = 12, 8 + int.from_bytes(data[4:8], "little")
    found, kinds = {TRAILING} if data[end:] else set(), set()
    while at < end:
        kind, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + length]
        if len(body) != length:
            raise ValueError("a chunk beyond the end")
        at += 8 + length + length % 2
        found |= _kinds(_WEBP_CHUNKS.get(kind, PART), body)
        kinds.add(kind)
    if b"ALPH" not in kinds and not exact.holds(webp.check_data, data):
        found.add(TRAILING)
    return found


# ---- px beside the original's ---------------------------------------------------------------------------------

_REACH = 0.25
"""How far past its rings, of their longer side, a face may be changed; the three releases needed .15."""
_BLOCK, _BLEED = 16, 2
_LOSSY = 3
"""Grey levels by which another build of libjpeg may decode and encode otherwise."""
_MEAN = 12.0

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def may_change(
    size: tuple[int, int],
    box: NDArray[Any],
    mesh: NDArray[np.float32] | None = None,
    *,
    whole: bool = False,
) -> Mask:
    """Px (H, W) that a method may change for one face: around a mesh (468, 3) px, else a redaction's ellipse.

    `whole`: the box of a region that is no face.
    """
    if mesh is None:
        return covered(box[None], size, whole)
    mask = np.zeros(size, bool)
    points = vertices_of(mesh)[:, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    margin = _REACH * float((high - low).max())
    x0, y0 = np.clip(np.floor(low - margin), 0, [size[1], size[0]]).astype(int)
    x1, y1 = np.clip(np.ceil(high + margin), 0, [size[1], size[0]]).astype(int)
    mask[y0:y1, x0:x1] = True
    return mask


def changed_outside(before: Picture, after: Picture, allowed: Mask, jpeg_quality: int) -> int:
    """How many px outside `allowed` (H, W) differ from what the original's px become in the output's format.

    The two pictures have one size. JPEG codes blocks of 16 px by themselves, so a block that no face reaches must come
    out as the original's px do when encoded afresh; WebP spreads changes, so there the mean colours of blocks count.
    """
    rgb, noise, outside = before.rgb, 0, ~allowed
    if before.format in ("JPEG", "WEBP"):
        rgb = decode(encode(rgb, before, jpeg_quality=jpeg_quality), max_mpx=np.inf).rgb
    if before.format == "WEBP":
        free = _blocks(outside) >= 1.0
        return int(((np.abs(_blocks(rgb) - _blocks(after.rgb)).max(axis=2) > _MEAN) & free).sum()) * _BLOCK**2
    if before.format == "JPEG":
        noise = _LOSSY
        height, width = allowed.shape
        touched = np.ceil(_blocks(np.pad(allowed, ((0, -height % _BLOCK), (0, -width % _BLOCK)))))
        reached = np.asarray(np.kron(touched, np.ones((_BLOCK, _BLOCK))), np.float32)[:height, :width]
        # Chroma is interpolated over the blocks' edges.
        outside = np.asarray(cv2.dilate(reached, np.ones((2 * _BLEED + 1, 2 * _BLEED + 1), np.uint8))) == 0
    return changed_px(replace(before, rgb=rgb), after, outside, noise)


def changed_in_exact(
    files: tuple[bytes, bytes], pictures: tuple[Picture, Picture], allowed: Mask, orientation: int, limits: LimitsConfig
) -> int:
    """How much changed away from `allowed` (H, W) in a photo that kept its own data, before and after.

    Blocks of coefficients of a JPEG, else px with their alpha; all where a JPEG's cannot be read.
    """
    before, after = pictures
    if before.format == "JPEG":
        try:
            return changed_blocks_apart(*files, exact.as_stored(allowed, orientation), limits)
        except ImageProblem:
            return allowed.size
    fewer_bits = Note.EIGHT_BITS in before.notes and Note.EIGHT_BITS not in after.notes
    same_size = before.rgb.shape == after.rgb.shape == (*allowed.shape, 3)
    return changed_px(before, after, ~allowed) if same_size and not fewer_bits else allowed.size


def changed_px(before: Picture, after: Picture, outside: Mask, noise: int = 0) -> int:
    """How many px of `outside` (H, W) differ, by more than `noise` or in alpha, of two pictures of one size."""
    differ = cv2.absdiff(before.rgb, after.rgb).max(axis=2) > noise
    whole = np.uint8(255)
    differ |= (whole if before.alpha is None else before.alpha) != (whole if after.alpha is None else after.alpha)
    return int((differ & outside).sum())


def _blocks(values: NDArray[np.uint8] | Mask) -> NDArray[np.float32]:
    """Means of the whole blocks of (H, W) or (H, W, c)."""
    rows, columns = (length // _BLOCK for length in values.shape[:2])
    cut = values[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK, *values.shape[2:])
    return np.asarray(cut.mean(axis=(1, 3), dtype=np.float32))


# ---- frames beside the original's -----------------------------------------------------------------------------

_MOST_FRAMES = 48
"""Frames of a track that are looked at, its first."""
_LEAST_CHANGES = 6
"""Changes that a track must have to be counted."""


class Flicker:
    """How much a released face of a clip changes from frame to frame, over how much the original does: more is flicker.

    Of each track two changes, of luminance (grey levels) and of the direction of `recognizer`'s vector.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self._last: dict[object, tuple[int, NDArray[np.float64]]] = {}
        self._changes: dict[object, list[NDArray[np.float64]]] = {}

    def add(self, track: object, old: Frame, new: Frame, place: Regions) -> None:
        """One more frame of a track, clear and released, with the region that was found there."""
        seen = self._changes.setdefault(track, [])
        if not place.scores[0] or len(seen) == _MOST_FRAMES:
            return
        (x0, y0), (x1, y1) = np.maximum(np.rint(place.boxes[0]).astype(int).reshape(2, 2), 0).tolist()
        vectors = self._recognizer.embed([old.rgb, new.rgb], [place.landmarks[0]] * 2)
        light = [frame.rgb[y0 : y1 + 1, x0 : x1 + 1].mean(keepdims=True).ravel() for frame in (old, new)]
        values = np.stack([np.concatenate([one, vector]) for one, vector in zip(light, vectors, strict=True)])
        before, values = self._last.get(track), np.asarray(values, np.float64)
        if before is not None and before[0] == old.index - 1:
            moved = np.abs(values - before[1])
            seen.append(np.stack([moved[:, 0], np.linalg.norm(moved[:, 1:], axis=1)]))
        self._last[track] = old.index, values

    def end_clip(self) -> None:
        """Forget the last frames, whose tracks have ended."""
        self._last.clear()

    def words(self) -> str:
        """The two changes over the original's: the median of the tracks, and the most."""
        changes = [np.mean(seen, axis=0) for seen in self._changes.values() if len(seen) >= _LEAST_CHANGES]
        if not changes:
            return ""
        ratios = np.array([change[:, 1] / np.maximum(change[:, 0], 1e-6) for change in changes])
        told = [f"{np.median(ratio):.2f} (at most {ratio.max():.2f})" for ratio in ratios.T]
        return (
            f"; from frame to frame the luminance of {len(changes):,} tracks changes {told[0]} times as much as "
            f"the original's, and the vector of {self._recognizer.name} {told[1]} times"
        )
