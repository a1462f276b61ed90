"""An animated GIF, WebP or PNG, read by Pillow in the process of clip_worker.py.

Of a file it passes on the px of every frame as a viewer shows it, with its alpha if it is not opaque, and their times.
A frame of at most 10 ms is shown for 100 ms, as browsers do.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import GifImagePlugin, Image, ImageCms, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from anonlib.codes import Note, Reason, Stripped
from anonlib.datasets.names import animation_kind
from anonlib.errors import ImageProblem, NotExact
from anonlib.media import codec, png, webp
from anonlib.media.codec import as_shown, orientation_of
from anonlib.media.colour import ColourSpace, in_named_space, is_ours, profile_of
from anonlib.media.sandbox.clip_worker import check_length, check_rate, check_size

UNREADABLE = (*codec.UNREADABLE, NotExact)
_AT_ONCE, _SHOWN = Fraction(1, 100), Fraction(1, 10)
_MOST_TICKS = 65_535
"""A second: the finest times that an animated PNG has."""
_NEEDED = (GifImagePlugin, ImageCms, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)
"""Pillow imports these when a file first needs them."""
_PLAIN = {b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"acTL", b"fcTL", b"IDAT", b"fdAT"}  # PNG
_PLAIN |= {b"VP8X", b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"}  # WebP
_PLAIN |= {b"image", b"control", b"loop"}  # GIF, as _gif_parts has them
_KINDS = {
    **dict.fromkeys((b"eXIf", b"EXIF"), Stripped.EXIF),
    **dict.fromkeys((b"caBX", b"C2PA"), Stripped.C2PA),
    **dict.fromkeys((b"tEXt", b"zTXt", b"comment"), Stripped.COMMENT),
    **dict.fromkeys((b"iTXt", b"XMP "), Stripped.XMP),
}
"""What parts of a file are, beside those that make the animation; all others are tags."""


class _Animation:
    """A file's frames (H, W, 3 or 4) in order, of one size, as they are shown, and for how many seconds each is.

    `space` and `notes` are known with the first.
    """

    def __init__(self, file: io.RawIOBase | io.BytesIO, max_mpx: float) -> None:
        file.seek(0)
        self.data = file.read() or b""
        self.kind = animation_kind(self.data[:64])
        if self.kind is None:
            raise ImageProblem(Reason.NOT_A_CLIP)
        self.image: Any = Image.open(io.BytesIO(self.data), formats=[self.kind])
        self.size, self._max_mpx = self.image.size, max_mpx
        check_size(self.image, max_mpx)
        # A PNG may have a picture that is no part of its animation, for viewers that show none.
        self.first = int(getattr(self.image, "default_image", False))
        if getattr(self.image, "n_frames", 1) - self.first < 1 + (self.first == 0):
            raise ImageProblem(Reason.NO_VIDEO, "the image is not animated")
        self.loop, self.profile = self.image.info.get("loop"), self.image.info.get("icc_profile")
        self._orientation = orientation_of(self.image)
        self.space: ColourSpace | None = None
        self.notes: list[Note] = []

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], Fraction]]:
        for number in range(self.first, self.image.n_frames):
            self.image.seek(number)
            check_size(self.image, self._max_mpx)
            rgba = np.array(self.image.convert("RGBA"))
            if self.image.size != self.size:
                raise ImageProblem(Reason.CLIP_FORMAT, "a frame of the animation is larger than the animation")
            seconds = Fraction(self.image.info.get("duration", 0) / 1000).limit_denominator(_MOST_TICKS)
            rgb, alpha = rgba[..., :3], rgba[..., 3:]
            rgb, self.space, self.notes = in_named_space(rgb, self.profile)
            if (alpha < 255).any():
                rgb = np.dstack([np.where(alpha == 0, np.uint8(0), rgb), alpha])
            yield as_shown(rgb, self._orientation), seconds if seconds > _AT_ONCE else _SHOWN


def load_what_comes_late() -> None:
    """Write and read an animation of each kind."""
    stills = [Image.new("RGB", (1, 1), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        file = io.BytesIO()
        stills[0].save(file, kind, save_all=True, append_images=stills[1:], icc_profile=profile_of("Display P3"))
        list(_Animation(file, 1))


def frames(file: io.RawIOBase, max_mpx: float, start: int, end: int) -> Iterator[tuple[NDArray[np.uint8], list[int]]]:
    """Every frame as a viewer shows it, with its time as a fraction; an animation has no parts."""
    time = Fraction(0)
    for pixels, seconds in _Animation(file, max_mpx):
        yield pixels, [time.numerator, time.denominator]
        time = _later(time, seconds)


def info(file: io.RawIOBase, max_mpx: float, minutes: float, most_rate: float, part: float) -> list[Any]:
    """What ClipInfo says of the file, by all its frames; an animation has no parts."""
    animation, count, end, transparent = _Animation(file, max_mpx), 0, Fraction(0), False
    height = width = 0
    for pixels, seconds in animation:
        count, end = count + 1, _later(end, seconds)
        height, width, channels = pixels.shape
        transparent |= channels == 4
        check_length(count, float(end), minutes, most_rate)
    check_rate(count / float(end), most_rate)
    rate = (count / end).limit_denominator(1001)
    rest = [[f.numerator, f.denominator] for f in (rate, Fraction(1, 1000), Fraction(1), Fraction(0), end)]
    codec = "vp8l" if webp.is_lossless(animation.data) else str(animation.kind)
    known = [width, height, count, *rest, [1, 1, 13], animation.kind, codec, False, sorted(_stripped(animation))]
    return [*known, animation.notes, animation.loop, animation.space, transparent]


def _later(time: Fraction, seconds: Fraction) -> Fraction:
    """A sum whose denominator stays small, whatever times a PNG has."""
    return (time + seconds).limit_denominator(1_000_000)


def _stripped(animation: _Animation) -> set[Stripped]:
    """The kinds of things beside its frames that the file has."""
    parts = {"gif": _gif_parts, "png": _png_parts, "webp": _webp_parts}[str(animation.kind)](animation.data)
    found = {_KINDS.get(part, Stripped.TAGS) for part in set(parts) - _PLAIN}
    if animation.profile is not None and not is_ours(animation.profile):
        found.add(Stripped.TAGS)
    return found | ({Stripped.PICTURES} if animation.first else set())


def _gif_parts(data: bytes) -> Iterator[bytes]:
    """The names of a GIF's blocks (GIF89a, 17 to 27), and one for what is behind their end."""
    at = 13 + _palette(data[10])
    while data[at : at + 1] in (b",", b"!"):
        label, image = data[at + 1], data[at : at + 1] == b","
        at += 11 + _palette(data[at + 9]) if image else 2
        start, body = at, b""
        while data[at]:
            body += b"" if image else data[at + 1 : at + 1 + data[at]]
            at += 1 + data[at]
        at += 1
        if image:
            yield b"image"
        elif label == 0xFF:
            loop = body[:11] == b"NETSCAPE2.0" and at - start == _LOOP_BYTES
            yield b"loop" if loop else b"XMP " if body[:11] == b"XMP DataXMP" else b"application"
        else:
            yield {0xF9: b"control", 0xFE: b"comment"}.get(label, b"text")
    if data[at:] not in (b";", b""):
        yield b"behind"


_LOOP_BYTES = 17
"""Of the application's name, the number of loops, and the lengths of both."""


def _palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _png_parts(data: bytes) -> Iterator[bytes]:
    end = 8
    for name, body in png.chunks(data):
        yield b"tEXt" if name == b"iTXt" and not body.startswith(b"XML:com.adobe.xmp") else name
        end += 12 + len(body)
    if len(data) > end + 12:
        yield b"behind"


def _webp_parts(data: bytes) -> Iterator[bytes]:
    (size,) = struct.unpack_from("<I", data, 4)
    for name, body in webp.chunks(data[12 : 8 + size]):
        yield name
        if name == b"ANMF":
            yield from (part for part, _ in webp.chunks(body[16:]))
    if len(data) > 8 + size:
        yield b"behind"
