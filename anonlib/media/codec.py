"""Bytes to upright RGB pixels and back, keeping nothing of the file but its pixels and the name of its colour space.

The output is always encoded afresh from pixels, so EXIF (with its thumbnail and GPS), XMP, IPTC,
comments, C2PA, trailing data, embedded previews and colour profiles have no way through (colour.py writes
the profile anew); orientation is applied before it is dropped. Pixels that a fully transparent alpha hides
are blanked, since a face may hide there. Of a phone's multi-picture JPEG (MPO: gain maps, previews) only the
photograph itself is taken.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from anonlib.codes import Note, Reason, Stripped
from anonlib.errors import ImageProblem, OutOfMemory
from anonlib.media.colour import ColourSpace, from_cmyk, in_named_space, profile_of

ImageFormat = Literal["JPEG", "PNG", "WEBP", "TIFF"]
"""What a release is encoded in; GIF, BMP and PPM are read, and released as PNG."""
_READ = (*get_args(ImageFormat), "GIF", "BMP", "PPM")
_ORIENTATION_TAG = 0x0112
_UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    MemoryError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_PILLOWS_MEMORY_ERRORS = ("decoder error -9", "out of memory")  # ImageFile.ERRORS
_TO_RGB = {"CMYK": Note.CMYK, "YCbCr": Note.YCBCR, "LAB": Note.LAB, "HSV": Note.HSV}

# The limit on pixels is checked by probe() before anything is decoded; Pillow's own would only warn.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Picture:
    """`rgb` (H, W, 3) uint8, upright; `alpha` (H, W) uint8 or None; `notes` say what conversion changed.

    `space` is what the numbers of `rgb` mean, None where the file does not say it (then most readers take sRGB).
    `size` (H, W) is the photo's own, which `rgb` has too unless it was decoded smaller.
    """

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None
    format: ImageFormat
    space: ColourSpace | None
    stripped: tuple[Stripped, ...]
    notes: tuple[Note, ...]
    size: tuple[int, int]


def decode(
    data: bytes, *, max_mpx: float, least_side: int | None = None, into: NDArray[np.uint8] | None = None
) -> Picture:
    """Decode one still image; raises ImageProblem for anything that is not one, before spending memory on it.

    With `least_side` a JPEG may come at 1/2, 1/4 or 1/8 of its size, its longer side no less than that: libjpeg
    then leaves out the higher DCT terms, which is faster than to decode all of it and shrink that. `rgb` may lie at the
    start of `into`, (n,) with room for it.
    """
    # Libraries that share the process may have told Pillow to fill up what is cut off.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    if not data:
        raise ImageProblem(Reason.EMPTY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is dropped anyway
        try:
            with Image.open(io.BytesIO(data), formats=_READ) as image:
                return _decode(image, data, max_mpx, least_side, into)
        except UnidentifiedImageError:
            raise ImageProblem(Reason.NOT_AN_IMAGE) from None
        except MemoryError:
            raise OutOfMemory from None
        except _UNREADABLE as error:
            if str(error).startswith(_PILLOWS_MEMORY_ERRORS):
                raise OutOfMemory from None
            raise ImageProblem(Reason.DAMAGED, f"the image is damaged: {_one_line(error)}") from None


def _decode(
    image: Image.Image, data: bytes, max_mpx: float, least_side: int | None, into: NDArray[np.uint8] | None
) -> Picture:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageProblem(Reason.NO_PIXELS)
    if width * height > max_mpx * 1e6:
        over = f"{width}x{height} px is over the limit of {max_mpx:g} megapixels (limits.image_mpx)"
        raise ImageProblem(Reason.TOO_MANY_PIXELS, over)
    several = image.format == "MPO"
    frames = 1 if several else getattr(image, "n_frames", 1)
    if frames > 1:
        raise ImageProblem(Reason.ANIMATED, f"animated or many-paged ({frames} frames); only stills are anonymized")
    image_format: ImageFormat = next((name for name in get_args(ImageFormat) if name == image.format), "PNG")
    image_format = "JPEG" if several else image_format
    orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    stripped = _metadata(image, data)
    profile = image.info.get("icc_profile")
    if image_format == "JPEG" and image.mode in ("RGB", "L") and orientation in (0, 1):
        part = _part(max(width, height), least_side)
        rows, columns = -(-height // part), -(-width // part)
        rgb = np.asarray(
            simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=rows, min_width=columns, buffer=into, strict=True)
        )
        if rgb.shape[:2] != (rows, columns):
            raise ValueError("it has pixels of another size than its header says")
        converted, space, notes = in_named_space(rgb, profile, grey=image.mode == "L")
        return Picture(converted, None, image_format, space, stripped, tuple(notes), (height, width))
    notes = [] if several or image.format == image_format else [Note.TO_PNG]
    space = None
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        image, notes = _to_eight_bits(image), [*notes, Note.EIGHT_BITS]
    elif mode in _TO_RGB:
        notes.append(_TO_RGB[mode])
    image.load()
    image = ImageOps.exif_transpose(image)
    grey = image.mode in ("1", "L", "LA")
    if mode == "CMYK":
        image, space, more = from_cmyk(image, profile)
        notes, profile = notes + more, None
    elif mode in _TO_RGB:
        profile = None
    alpha = None
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = np.array(image.convert("RGBA"))
        alpha = rgba[:, :, 3].copy()
        rgb = rgba[:, :, :3].copy()
    else:
        rgb = np.array(image.convert("RGB"))
    if profile is not None:
        converted, space, more = in_named_space(rgb, profile, grey=grey)
        rgb, notes = np.array(converted), notes + more
    if alpha is not None:
        rgb[alpha == 0] = 0
        alpha = None if (alpha == 255).all() else alpha
    return Picture(rgb, alpha, image_format, space, stripped, tuple(notes), (rgb.shape[0], rgb.shape[1]))


def decoded_bytes(data: bytes, *, least_side: int | None = None) -> int:
    """About how many bytes the pixels have that `decode` would give, by the header alone; 0 if it cannot be read.

    Raises OutOfMemory. A header may have millions of segments, so it is read in a decoder process.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return 4 * _webp_pixels(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=[name for name in _READ if name != "WEBP"]) as image:
                width, height = image.size
                if image.format != "JPEG":
                    return 4 * width * height
                plain = image.mode in ("RGB", "L") and image.getexif().get(_ORIENTATION_TAG, 1) in (0, 1)
        except MemoryError:
            raise OutOfMemory from None
        except _UNREADABLE:
            return 0
    part = _part(max(width, height), least_side) if plain else 1
    return 3 * -(-width // part) * -(-height // part)


def _webp_pixels(data: bytes) -> int:
    """Width times height of a WebP (RFC 9649); Pillow would begin to decode it to know them."""
    kind = data[12:16]
    if kind == b"VP8X":
        return (1 + int.from_bytes(data[24:27], "little")) * (1 + int.from_bytes(data[27:30], "little"))
    if kind == b"VP8L":
        both = int.from_bytes(data[21:25], "little")
        return (1 + (both & 0x3FFF)) * (1 + (both >> 14 & 0x3FFF))
    return (int.from_bytes(data[26:28], "little") & 0x3FFF) * (int.from_bytes(data[28:30], "little") & 0x3FFF)


def _part(side: int, least_side: int | None) -> int:
    """The greatest of 1, 2, 4, 8 that `side` can be divided by and stay at least `least_side`."""
    return next((part for part in (8, 4, 2) if least_side is not None and side >= part * least_side), 1)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    low, high = (0.0, 65535.0) if values.min() >= 0 and values.max() > 255 else (values.min(), values.max())
    scaled = (values - low) * (255.0 / max(high - low, 1e-9)) if high > 255 or low < 0 else values
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def _metadata(image: Image.Image, data: bytes) -> tuple[Stripped, ...]:
    """The kinds of metadata that the file carried and the output will not."""
    found = set()
    if len(image.getexif()):
        found.add(Stripped.EXIF)
    for kind, keys in {
        Stripped.XMP: ("xmp", "XML:com.adobe.xmp"),
        Stripped.IPTC: ("photoshop",),
        Stripped.COMMENT: ("comment", "Comment", "parameters"),
    }.items():
        if any(key in image.info for key in keys):
            found.add(kind)
    if b"http://ns.adobe.com/xap" in data[:200_000]:
        found.add(Stripped.XMP)
    if b"c2pa" in data[:200_000]:
        found.add(Stripped.C2PA)
    if image.format == "MPO":
        found.add(Stripped.PICTURES)
    return tuple(sorted(found))


def encode(rgb: NDArray[np.uint8], like: Picture, *, jpeg_quality: int) -> bytes:
    """Encode `rgb` (H, W, 3) in the format of `like`, with the profile of its space and its alpha; deterministic."""
    if like.format == "JPEG":
        jpeg: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(rgb), quality=jpeg_quality, colorspace="RGB", colorsubsampling="420"
        )
        return _with_profile(jpeg, profile_of(like.space)) if like.space else jpeg
    pixels = rgb if like.alpha is None else np.dstack([rgb, like.alpha])
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    options: dict[str, object] = {"icc_profile": profile_of(like.space)} if like.space else {}
    if like.format == "WEBP":
        options |= {"quality": jpeg_quality, "method": 4}
    elif like.format == "TIFF":
        options |= {"compression": "tiff_deflate"}
    elif like.format == "PNG":
        options |= {"compress_level": 4}
    image.save(buffer, like.format, **options)
    return buffer.getvalue()


def _with_profile(jpeg: bytes, profile: bytes) -> bytes:
    """Insert an APP2 ICC_PROFILE segment, the first of one, behind the first marker segment (ICC.1:2022, annex B.4)."""
    position = 2
    if jpeg[2:4] == b"\xff\xe0":
        position = 4 + int.from_bytes(jpeg[4:6], "big")
    body = b"ICC_PROFILE\x00\x01\x01" + profile
    return jpeg[:position] + b"\xff\xe2" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[position:]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
