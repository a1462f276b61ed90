"""Bytes to upright RGB pixels and back, keeping nothing of the file but its pixels and colour profile.

The output is always encoded afresh from pixels, so EXIF (with its thumbnail and GPS), XMP, IPTC,
comments, C2PA, trailing data and embedded previews have no way through; orientation is applied
before it is dropped. Pixels that a fully transparent alpha hides are blanked, since a face may hide there.
Of a phone's multi-picture JPEG (MPO: gain maps, previews) only the photograph itself is taken.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

ImageFormat = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]
_FORMATS: tuple[ImageFormat, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
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
ICC_LIMIT = 1 << 20
_NO_MEMORY = "decoding it needs more memory than there is"
_PILLOWS_MEMORY_ERRORS = ("decoder error -9", "out of memory")  # ImageFile.ERRORS
_ICC_CHUNK = 65519  # 64 KiB less the marker's length field and the ICC_PROFILE header

# The limit on pixels is checked by probe() before anything is decoded; Pillow's own would only warn.
Image.MAX_IMAGE_PIXELS = None


class ImageProblem(Exception):
    """Why an image cannot be anonymized, as a sentence for the manifest."""


class OutOfMemory(ImageProblem):
    """There was no memory left to decode it."""


@dataclass(frozen=True)
class Picture:
    """`rgb` (H, W, 3) uint8, upright; `alpha` (H, W) uint8 or None; `notes` say what conversion changed.

    `size` (H, W) is the photo's own, which `rgb` has too unless it was decoded smaller.
    """

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None
    format: ImageFormat
    icc: bytes | None
    stripped: tuple[str, ...]
    notes: tuple[str, ...]
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
        raise ImageProblem("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is dropped anyway
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                return _decode(image, data, max_mpx, least_side, into)
        except UnidentifiedImageError:
            raise ImageProblem("not an image in a known format (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM)") from None
        except MemoryError:
            raise OutOfMemory(_NO_MEMORY) from None
        except _UNREADABLE as error:
            if str(error).startswith(_PILLOWS_MEMORY_ERRORS):
                raise OutOfMemory(_NO_MEMORY) from None
            raise ImageProblem(f"the image is damaged: {_one_line(error)}") from None


def _decode(
    image: Image.Image, data: bytes, max_mpx: float, least_side: int | None, into: NDArray[np.uint8] | None
) -> Picture:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageProblem("the image has no pixels")
    if width * height > max_mpx * 1e6:
        raise ImageProblem(f"{width}x{height} px is over the limit of {max_mpx:g} megapixels (limits.image_mpx)")
    several = image.format == "MPO"
    frames = 1 if several else getattr(image, "n_frames", 1)
    if frames > 1:
        raise ImageProblem(f"animated or many-paged ({frames} frames); only stills are anonymized")
    image_format = "JPEG" if several else next(name for name in _FORMATS if name == image.format)
    orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    stripped = _metadata(image, data)
    icc = _rgb_profile(image.info.get("icc_profile"))
    if image_format == "JPEG" and image.mode in ("RGB", "L") and orientation in (0, 1):
        part = _part(max(width, height), least_side)
        rows, columns = -(-height // part), -(-width // part)
        rgb = np.asarray(
            simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=rows, min_width=columns, buffer=into, strict=True)
        )
        if rgb.shape[:2] != (rows, columns):
            raise ValueError("it has pixels of another size than its header says")
        return Picture(rgb, None, image_format, icc, stripped, (), (height, width))
    notes: list[str] = []
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        image, notes = _to_eight_bits(image), ["converted from 16 or 32 bits to 8 bits a channel"]
    elif mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes, icc = [f"converted from {mode} to RGB"], None
    image.load()
    image = ImageOps.exif_transpose(image)
    alpha = None
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = np.array(image.convert("RGBA"))
        alpha = rgba[:, :, 3].copy()
        rgb = rgba[:, :, :3].copy()
        rgb[alpha == 0] = 0
        if (alpha == 255).all():
            alpha = None
    else:
        rgb = np.array(image.convert("RGB"))
    return Picture(rgb, alpha, image_format, icc, stripped, tuple(notes), (rgb.shape[0], rgb.shape[1]))


def decoded_bytes(data: bytes, *, least_side: int | None = None) -> int:
    """About how many bytes the pixels have that `decode` would give, by the header alone; 0 if it cannot be read.

    Raises OutOfMemory. A header may have millions of segments, so a stranger's is read in a decoder process.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return 4 * _webp_pixels(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=[name for name in _FORMATS if name != "WEBP"]) as image:
                width, height = image.size
                if image.format != "JPEG":
                    return 4 * width * height
                plain = image.mode in ("RGB", "L") and image.getexif().get(_ORIENTATION_TAG, 1) in (0, 1)
        except MemoryError:
            raise OutOfMemory(_NO_MEMORY) from None
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


def _rgb_profile(icc: object) -> bytes | None:
    """A colour profile that fits RGB pixels (ICC.1:2022, 7.2), without what follows its end; else None."""
    if not isinstance(icc, bytes) or not 128 < len(icc) <= ICC_LIMIT:
        return None
    size = int.from_bytes(icc[:4], "big")
    fits = icc[16:20] == b"RGB " and icc[36:40] == b"acsp" and 128 < size <= len(icc)
    return icc[:size] if fits else None


def _to_eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    low, high = (0.0, 65535.0) if values.min() >= 0 and values.max() > 255 else (values.min(), values.max())
    scaled = (values - low) * (255.0 / max(high - low, 1e-9)) if high > 255 or low < 0 else values
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def _metadata(image: Image.Image, data: bytes) -> tuple[str, ...]:
    """The kinds of metadata that the file carried and the output will not."""
    found = set()
    if len(image.getexif()):
        found.add("exif")
    for kind, keys in {
        "xmp": ("xmp", "XML:com.adobe.xmp"),
        "iptc": ("photoshop",),
        "comment": ("comment", "Comment", "parameters"),
    }.items():
        if any(key in image.info for key in keys):
            found.add(kind)
    if b"http://ns.adobe.com/xap" in data[:200_000]:
        found.add("xmp")
    if b"c2pa" in data[:200_000]:
        found.add("c2pa")
    if image.format == "MPO":
        found.add("further pictures")
    return tuple(sorted(found))


def encode(rgb: NDArray[np.uint8], like: Picture, *, jpeg_quality: int) -> bytes:
    """Encode `rgb` (H, W, 3) in the format of `like`, with its colour profile and alpha; deterministic."""
    if like.format == "JPEG":
        jpeg: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(rgb), quality=jpeg_quality, colorspace="RGB", colorsubsampling="420"
        )
        return _with_icc(jpeg, like.icc) if like.icc else jpeg
    pixels = rgb if like.alpha is None else np.dstack([rgb, like.alpha])
    image = Image.fromarray(pixels)
    if like.format in ("BMP", "PPM"):
        image = image.convert("RGB")
    buffer = io.BytesIO()
    options: dict[str, object] = {"icc_profile": like.icc} if like.icc else {}
    if like.format == "WEBP":
        options |= {"quality": jpeg_quality, "method": 4}
    elif like.format == "TIFF":
        options |= {"compression": "tiff_deflate"}
    elif like.format == "PNG":
        options |= {"compress_level": 4}
    image.save(buffer, like.format, **options)
    return buffer.getvalue()


def _with_icc(jpeg: bytes, icc: bytes) -> bytes:
    """Insert APP2 ICC_PROFILE segments behind the first marker segment (ICC.1:2022, annex B.4)."""
    position = 2
    if jpeg[2:4] == b"\xff\xe0":
        position = 4 + int.from_bytes(jpeg[4:6], "big")
    chunks = [icc[start : start + _ICC_CHUNK] for start in range(0, len(icc), _ICC_CHUNK)]
    segments = b""
    for number, chunk in enumerate(chunks, start=1):
        body = b"ICC_PROFILE\x00" + bytes([number, len(chunks)]) + chunk
        segments += b"\xff\xe2" + (len(body) + 2).to_bytes(2, "big") + body
    return jpeg[:position] + segments + jpeg[position:]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
