"""Bytes to upright RGB pixels and back, keeping nothing of the file but its pixels and the name of its colour space.

The output is encoded afresh from pixels, so EXIF (with its thumbnail and GPS), XMP, IPTC, comments, C2PA, trailing
data, embedded previews and colour profiles have no way through (colour.py writes the profile anew). Pixels under an
alpha of zero are blanked, since a face may hide there. Of a phone's multi-picture JPEG (MPO) only the photograph itself
is taken.
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

ImageFormat = Literal["JPEG", "PNG", "WEBP"]
"""What a release is encoded in; TIFF, GIF, BMP and PPM are read, and released as PNG."""
_READ = (*get_args(ImageFormat), "TIFF", "GIF", "BMP", "PPM")
_ORIENTATION_TAG = 0x0112
_UNREADABLE = (
    *(OSError, ValueError, SyntaxError, EOFError, MemoryError, ArithmeticError, LookupError, TypeError),
    *(AttributeError, RuntimeError, struct.error, zlib.error),
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
            words = " ".join(str(error).split())[:160] or type(error).__name__
            raise ImageProblem(Reason.DAMAGED, f"the image is damaged: {words}") from None


def _decode(
    image: Image.Image, data: bytes, max_mpx: float, least_side: int | None, into: NDArray[np.uint8] | None
) -> Picture:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageProblem(Reason.NO_PIXELS)
    if width * height > max_mpx * 1e6:
        over = f"{width}x{height} px is over the limit of {max_mpx:g} megapixels (limits.image_mpx)"
        raise ImageProblem(Reason.TOO_MANY_PIXELS, over)
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        raise ImageProblem(Reason.ANIMATED, f"animated or many-paged ({frames} frames); only stills are anonymized")
    stripped = _metadata(image, data)
    if image.format in ("JPEG", "MPO"):
        if not _is_plain(image):
            return _converted(image, "JPEG", stripped, [])
        part = _part(max(width, height), least_side)
        rows, columns = -(-height // part), -(-width // part)
        rgb = np.asarray(
            simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=rows, min_width=columns, buffer=into, strict=True)
        )
        if rgb.shape[:2] != (rows, columns):
            raise ValueError("it has pixels of another size than its header says")
        rgb, space, notes = in_named_space(rgb, image.info.get("icc_profile"), grey=image.mode == "L")
        return Picture(rgb, None, "JPEG", space, stripped, tuple(notes), (height, width))
    for kept in get_args(ImageFormat):
        if image.format == kept:
            return _converted(image, kept, stripped, [])
    return _converted(image, "PNG", stripped, [Note.TIFF_TO_PNG if image.format == "TIFF" else Note.TO_PNG])


def _is_plain(image: Image.Image) -> bool:
    """Whether a JPEG is upright and has the colours that libjpeg gives."""
    return image.mode in ("RGB", "L") and image.getexif().get(_ORIENTATION_TAG, 1) in (0, 1)


def _converted(image: Image.Image, kind: ImageFormat, stripped: tuple[Stripped, ...], notes: list[Note]) -> Picture:
    """As Pillow decodes it, upright and in RGB."""
    mode, profile, space = image.mode, image.info.get("icc_profile"), None
    if mode.startswith("I") or mode == "F":
        image, notes = _to_eight_bits(image), [*notes, Note.EIGHT_BITS]
    elif mode in _TO_RGB:
        notes = [*notes, _TO_RGB[mode]]
    image.load()
    image = ImageOps.exif_transpose(image)
    grey = image.mode in ("1", "L", "LA")
    if mode == "CMYK":
        image, space, more = from_cmyk(image, profile)
        notes = notes + more
    alpha = None
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = np.array(image.convert("RGBA"))
        alpha, rgb = rgba[:, :, 3].copy(), rgba[:, :, :3].copy()
    else:
        rgb = np.array(image.convert("RGB"))
    if mode not in _TO_RGB:
        rgb, space, more = in_named_space(rgb, profile, grey=grey)
        notes = notes + more
    if alpha is not None:
        rgb[alpha == 0] = 0
        alpha = None if (alpha == 255).all() else alpha
    return Picture(rgb, alpha, kind, space, stripped, tuple(notes), (rgb.shape[0], rgb.shape[1]))


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
                plain = _is_plain(image)
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
    info = image.info.keys()
    found = {
        Stripped.EXIF: len(image.getexif()) > 0,
        Stripped.XMP: info & {"xmp", "XML:com.adobe.xmp"} or b"http://ns.adobe.com/xap" in data[:200_000],
        Stripped.IPTC: "photoshop" in info,
        Stripped.COMMENT: info & {"comment", "Comment", "parameters"},
        Stripped.C2PA: b"c2pa" in data[:200_000],
        Stripped.PICTURES: image.format == "MPO",
    }
    return tuple(sorted(kind for kind, there in found.items() if there))


def encode(rgb: NDArray[np.uint8], like: Picture, *, jpeg_quality: int) -> bytes:
    """Encode `rgb` (H, W, 3) in the format of `like`, with the profile of its space and its alpha; deterministic."""
    if like.format == "JPEG":
        jpeg: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(rgb), quality=jpeg_quality, colorspace="RGB", colorsubsampling="420"
        )
        return _with_profile(jpeg, profile_of(like.space)) if like.space else jpeg
    image = Image.fromarray(rgb if like.alpha is None else np.dstack([rgb, like.alpha]))
    options: dict[str, object] = {"icc_profile": profile_of(like.space)} if like.space else {}
    options |= {"quality": jpeg_quality, "method": 4} if like.format == "WEBP" else {"compress_level": 4}
    buffer = io.BytesIO()
    image.save(buffer, like.format, **options)
    return buffer.getvalue()


def _with_profile(jpeg: bytes, profile: bytes) -> bytes:
    """Insert an APP2 ICC_PROFILE segment, the first of one, behind the first marker segment (ICC.1:2022, annex B.4)."""
    position = 2
    if jpeg[2:4] == b"\xff\xe0":
        position = 4 + int.from_bytes(jpeg[4:6], "big")
    body = b"ICC_PROFILE\x00\x01\x01" + profile
    return jpeg[:position] + b"\xff\xe2" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[position:]
