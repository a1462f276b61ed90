"""The writer of an animated GIF, WebP or PNG: Pillow encodes the px of a frame, and the container is written here.

Pillow's own writers hold a whole animation and drop a frame that shows what the one before does, but the frames of a
release are those of its input. Of a frame only the rectangle is written that differs from the frame before.
"""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anonlib.media import png, webp
from anonlib.media.colour import profile_of
from anonlib.storage.local import as_sentence
from anonlib.storage.scratch import A_CLIP

if TYPE_CHECKING:
    from anonlib.media.clip import ClipInfo

_COLOURS = 255
"""Of a GIF's frame; the last of its palette is transparent."""
_LONGEST = 65_535
"""The greatest number of 16 bits, which times of GIF and PNG have."""

Pixels = NDArray[np.uint8]
Place = tuple[int, int]


class AnimationWriter:
    """Writes frames to `path`, of the format, size, colour space and loops of `info`; equal frames, equal bytes.

    `quality`: of a lossy WebP, 0 to 100. Raises StorageError where the disk fails.
    """

    def __init__(self, path: Path, info: ClipInfo, quality: int) -> None:
        self._info, self._quality = info, quality
        self._waiting: tuple[Pixels, Fraction] | None = None
        self._canvas: Pixels | None = None
        self._number = 0
        with as_sentence("write", A_CLIP):
            self._file = path.open("wb")
            self._file.write({"gif": _gif_head, "png": _png_head, "webp": _webp_head}[info.container](info))

    def write(self, rgb: Pixels, time: Fraction, alpha: Pixels | None = None) -> None:
        """The next frame (H, W, 3), shown from `time` on, and its alpha (H, W); times grow."""
        opaque = np.full(rgb.shape[:2], 255, np.uint8) if alpha is None else alpha
        shown = np.dstack([rgb, opaque])
        self._add(time, shown)
        self._waiting = shown, time

    def _add(self, until: Fraction, following: Pixels | None) -> None:
        """Write the frame that waits, now that its end is known."""
        if self._waiting is None:
            return
        shown, since = self._waiting
        # A px of a GIF can only become transparent where the whole frame before goes.
        clear = self._info.container == "gif" and any(
            (of[..., 3] < 128).any() for of in (shown, following) if of is not None
        )
        x0, y0, x1, y1 = _changed(None if clear else self._canvas, shown)
        part, seconds = shown[y0:y1, x0:x1], until - since
        if self._info.container == "gif":
            frame = _gif_frame(part, (x0, y0), seconds, clear)
        elif self._info.container == "png":
            frame = _png_frame(part if self._info.transparent else part[..., :3], (x0, y0), seconds, self._number)
        else:
            quality = None if self._info.codec == "vp8l" else self._quality
            frame = _webp_frame(part if self._info.transparent else part[..., :3], (x0, y0), seconds, quality)
        with as_sentence("write", A_CLIP):
            self._file.write(frame)
        self._canvas, self._number = None if clear else shown, self._number + 1

    def close(self) -> None:
        """Finish the file."""
        self._add(self._info.end, None)
        with as_sentence("write", A_CLIP):
            if self._info.container == "webp":
                size = self._file.tell() - 8
                self._file.seek(4)
                self._file.write(struct.pack("<I", size))
            else:
                self._file.write(b";" if self._info.container == "gif" else png.chunk(b"IEND", b""))
            self._file.close()

    def abort(self) -> None:
        """Let go of the file."""
        self._file.close()


def _changed(before: Pixels | None, after: Pixels) -> tuple[int, int, int, int]:
    """The rectangle (x0, y0, x1, y1) that differs, a px where none does; it begins at even px, as WebP demands."""
    if before is None:
        return 0, 0, after.shape[1], after.shape[0]
    differ = (before != after).any(axis=2)
    if not differ.any():
        return 0, 0, 1, 1
    rows, columns = (np.flatnonzero(differ.any(axis=axis)) for axis in (1, 0))
    return int(columns[0]) // 2 * 2, int(rows[0]) // 2 * 2, int(columns[-1]) + 1, int(rows[-1]) + 1


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _gif_head(info: ClipInfo) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", info.width, info.height, 0x70, 0, 0)
    return head + (b"" if info.loop is None else b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", info.loop, 0))


def _gif_frame(shown: Pixels, place: Place, seconds: Fraction, clear: bool) -> bytes:
    """A GIF's control, image and palette of its own (GIF89a, 20 to 23); `clear`: what follows begins with nothing."""
    colours = Image.fromarray(shown[..., :3]).quantize(_COLOURS)
    palette = bytes(colours.getpalette() or ()).ljust(768, b"\0")
    numbers = np.where(shown[..., 3] < 128, np.uint8(_COLOURS), np.asarray(colours))
    plain = Image.fromarray(numbers)
    plain.putpalette(palette)
    # Behind 13 bytes of a header and the palette there are 10 of a descriptor, which is written anew.
    data = _saved(plain, "GIF", optimize=False, interlace=False)[13 + 768 + 10 : -1]
    delay = min(max(round(seconds * 100), 1), _LONGEST)
    control = b"!\xf9\x04" + struct.pack("<BHBB", (2 if clear else 1) << 2 | 1, delay, _COLOURS, 0)
    return control + b"," + struct.pack("<HHHHB", *place, *shown.shape[1::-1], 0x87) + palette + data


def _png_head(info: ClipInfo) -> bytes:
    header = struct.pack(">IIBB3x", info.width, info.height, 8, 6 if info.transparent else 2)
    space = png.profile_chunk(profile_of(info.space)) if info.space else b""
    return (
        png.SIGNATURE
        + png.chunk(b"IHDR", header)
        + space
        + png.chunk(b"acTL", struct.pack(">II", info.frames, info.loop or 0))
    )


def _png_frame(shown: Pixels, place: Place, seconds: Fraction, number: int) -> bytes:
    """The chunks fcTL and fdAT, of the first frame IDAT; what was there is overwritten (PNG, third edition, 11.3.6)."""
    data = b"".join(
        body for name, body in png.chunks(_saved(Image.fromarray(shown), "PNG", compress_level=4)) if name == b"IDAT"
    )
    time = seconds.limit_denominator(max(int(_LONGEST / max(float(seconds), 1.0)), 1))
    where = (*shown.shape[1::-1], *place, min(time.numerator, _LONGEST), time.denominator)
    control = png.chunk(b"fcTL", struct.pack(">IIIIIHHBB", max(2 * number - 1, 0), *where, 0, 0))
    return control + (png.chunk(b"fdAT", struct.pack(">I", 2 * number) + data) if number else png.chunk(b"IDAT", data))


def _webp_head(info: ClipInfo) -> bytes:
    profile = profile_of(info.space) if info.space else b""
    flags = webp.ANIMATED | webp.ALPHA * info.transparent | webp.ICC * bool(profile)
    loops = webp.chunk(b"ANIM", struct.pack("<IH", 0, info.loop or 0))
    space = webp.chunk(b"ICCP", profile) if profile else b""
    return b"RIFF\0\0\0\0WEBP" + webp.extended((info.width, info.height), flags) + space + loops


def _webp_frame(shown: Pixels, place: Place, seconds: Fraction, quality: int | None) -> bytes:
    """The chunk ANMF; what was there is overwritten (RFC 9649, 2.7.1.1). `quality`: None is without loss."""
    options: dict[str, object] = {"lossless": True} if quality is None else {"quality": quality, "method": 4}
    coded = _saved(Image.fromarray(shown), "WEBP", **options)
    parts = [webp.chunk(*part) for part in webp.chunks(coded[12:]) if part[0] in (b"ALPH", b"VP8 ", b"VP8L")]
    height, width = shown.shape[:2]
    numbers = (place[0] // 2, place[1] // 2, width - 1, height - 1, min(round(seconds * 1000), (1 << 24) - 1))
    head = b"".join(number.to_bytes(3, "little") for number in numbers) + b"\x02"
    return webp.chunk(b"ANMF", head + b"".join(parts))
