"""Bytes to upright RGB pixels and back, keeping nothing of the file but its picture, orientation and colour space.

Files are encoded from pixels alone, so EXIF (with its thumbnail and GPS), XMP, IPTC, comments, C2PA, trailing
data, embedded previews and colour profiles have no way through: the orientation tag and the profile are written anew.
Pixels that a fully transparent alpha hides are blanked, since a face may hide there. Of a phone's multi-picture JPEG
(MPO: gain maps, previews) only the photograph itself is taken.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, ImageFile, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from anonlib.codes import Note, Reason, Stripped
from anonlib.errors import ImageProblem, NotExact, OutOfMemory
from anonlib.media import exact, jpeg, webp
from anonlib.media.colour import ColourSpace, from_cmyk, in_named_space, profile_of

ImageFormat = Literal["JPEG", "PNG", "WEBP"]
"""Formats that a release has; the others of _READ are released as PNG."""
_READ = (*get_args(ImageFormat), "TIFF", "GIF", "BMP", "PPM", "AVIF", "JPEG2000")
_ORIENTATION_TAG, _SUBFILE_TAG = 0x0112, 254
_MOST_PAGES = 8
_FEW = 0.01
"""Share of a JPEG's px that may have a channel at 0 or 255 without a look at what lies beyond."""
UNREADABLE = (
    *(OSError, ValueError, SyntaxError, EOFError, MemoryError, ArithmeticError, LookupError, TypeError),
    *(AttributeError, RuntimeError, struct.error, zlib.error),
)
_PILLOWS_MEMORY_ERRORS = ("decoder error -9", "out of memory")  # ImageFile.ERRORS
_TO_RGB = {"CMYK": Note.CMYK, "YCbCr": Note.YCBCR, "LAB": Note.LAB, "HSV": Note.HSV}

# The limit on pixels is checked by probe() before anything is decoded; Pillow's own would only warn.
Image.MAX_IMAGE_PIXELS = None
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the sandbox allows no other


@dataclass(frozen=True)
class Picture:
    """`rgb` (H, W, 3) uint8, upright; `alpha` (H, W) uint8 or None; `notes` say what conversion changed.

    `space` is what the numbers of `rgb` mean, None where the file does not say it (then most readers take sRGB).
    `size` (H, W) is the photo's own, upright, which `rgb` has too unless it was decoded smaller. `orientation` (Exif's
    number) is how the output keeps its pixels. `is_exact`: whether it may keep the file's own data (media/exact.py).
    `tables` and `sampling` are a JPEG's quantization and chroma sampling, in Pillow's terms, for encoding it anew.
    `lossless`: whether a WebP is.
    """

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None
    format: ImageFormat
    space: ColourSpace | None
    stripped: tuple[Stripped, ...]
    notes: tuple[Note, ...]
    size: tuple[int, int]
    orientation: int = 1
    is_exact: bool = False
    tables: tuple[tuple[int, ...], ...] = ()
    sampling: int = 2
    lossless: bool = True

    @property
    def stored(self) -> exact.Stored:
        """How the output keeps its picture."""
        return exact.Stored(self.format, self.orientation, self.space)

    def over(self, level: int) -> NDArray[np.uint8]:
        """The picture (H, W, 3) as a viewer shows it on a background of this grey `level`, 0 to 255."""
        if self.alpha is None:
            return self.rgb
        alpha = self.alpha[..., None].astype(np.uint16)
        return ((self.rgb * alpha + level * (255 - alpha) + 127) // 255).astype(np.uint8)

    @property
    def plain(self) -> Self:
        """The same picture, to be written upright and with no table of its own file."""
        return replace(self, orientation=1, is_exact=False, tables=(), lossless=False)


def decode(
    data: bytes, *, max_mpx: float, least_side: int | None = None, into: NDArray[np.uint8] | None = None
) -> Picture:
    """Decode one still image; raises ImageProblem for anything that is not one, before spending memory on it.

    With `least_side` a JPEG may come at 1/2, 1/4 or 1/8 of its size, its longer side no less than that: libjpeg
    then leaves out the higher DCT terms, which is faster than to decode all of it and shrink that. `rgb` may lie at the
    start of `into`, (n,) with room for it.
    """
    # Libraries that share the process may have told Pillow to fill up cut-off files.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    if not data:
        raise ImageProblem(Reason.EMPTY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is dropped anyway
        try:
            try:
                with Image.open(io.BytesIO(data), formats=_READ) as image:
                    return _decode(image, data, max_mpx, least_side, into)
            except UNREADABLE:
                bare = _without_metadata(data)
                if bare == data:
                    raise
                with Image.open(io.BytesIO(bare), formats=_READ) as image:
                    picture = _decode(image, bare, max_mpx, least_side, into)
                return replace(picture, notes=(*picture.notes, Note.LENIENT))
        except UnidentifiedImageError:
            raise ImageProblem(Reason.NOT_AN_IMAGE) from None
        except MemoryError:
            raise OutOfMemory from None
        except UNREADABLE as error:
            if str(error).startswith(_PILLOWS_MEMORY_ERRORS):
                raise OutOfMemory from None
            words = " ".join(str(error).split())[:160] or type(error).__name__
            raise ImageProblem(Reason.DAMAGED, f"the image is damaged: {words}") from None


def _without_metadata(data: bytes) -> bytes:
    """A file with its picture alone; the file itself where the picture cannot be told apart."""
    kind = {b"\xff": "JPEG", b"\x89": "PNG"}.get(data[:1], "WEBP")
    try:
        return exact.rewrite(data, exact.Stored(kind, 1, None))
    except NotExact:
        return data


def _decode(
    image: Image.Image, data: bytes, max_mpx: float, least_side: int | None, into: NDArray[np.uint8] | None
) -> Picture:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageProblem(Reason.NO_PIXELS)
    if width * height > max_mpx * 1e6:
        over = f"{width}x{height} px is over the limit of {max_mpx:g} megapixels (limits.image_mpx)"
        raise ImageProblem(Reason.TOO_MANY_PIXELS, over)
    known_as = image.format
    several = known_as == "MPO"
    frames = 1 if several else getattr(image, "n_frames", 1)
    if frames > 1 and not _has_thumbnail_pages(image, frames):
        raise ImageProblem(
            Reason.ANIMATED, f"{frames} pages or frames are no still image, and a clip only as GIF, PNG or WebP"
        )
    image_format: ImageFormat = next((name for name in get_args(ImageFormat) if name == known_as), "PNG")
    image_format = "JPEG" if several else image_format
    exif = _exif(image)
    orientation = orientation_of(image)
    stripped = _metadata(image, data, bool(exif))
    profile = image.info.get("icc_profile")
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.mode in ("RGB", "L"):
        return _jpeg(image, data, orientation, stripped, _part(max(width, height), least_side), into)
    notes = [] if several or known_as == image_format else [Note.TIFF_TO_PNG if known_as == "TIFF" else Note.TO_PNG]
    space = None
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        image, notes = _to_eight_bits(image), [*notes, Note.EIGHT_BITS]
    elif mode in _TO_RGB:
        notes = [*notes, _TO_RGB[mode]]
    image.load()
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
    if profile is not None:
        converted, space, more = in_named_space(rgb, profile, grey=grey)
        rgb, notes = np.array(converted), notes + more
    fit = known_as == image_format and {*notes} <= {Note.NO_PROFILE, Note.EIGHT_BITS}
    if alpha is not None:
        hidden = alpha == 0
        # Of 16 bits only 8 are looked at here, and the others may hide something.
        fit = fit and not (hidden.any() if Note.EIGHT_BITS in notes else rgb[hidden].any())
        rgb[hidden] = 0
        alpha = None if (alpha == 255).all() else as_shown(alpha, orientation)
    rgb = as_shown(rgb, orientation)
    kept = orientation if known_as in exact.FORMATS else 1
    size = rgb.shape[0], rgb.shape[1]
    fit = fit and exact.holds(exact.check, data, image_format)
    lossless = image_format != "WEBP" or webp.is_lossless(data)
    return Picture(rgb, alpha, image_format, space, stripped, tuple(notes), size, kept, fit, lossless=lossless)


def _jpeg(
    image: JpegImagePlugin.JpegImageFile, data: bytes, orientation: int, stripped: tuple[Stripped, ...], part: int,
    into: NDArray[np.uint8] | None,
) -> Picture:  # fmt: skip
    """A JPEG of colours or greys at 1/`part` of its size, by a strict decoder or, where that refuses, by Pillow."""
    width, height = image.size
    rows, columns = -(-height // part), -(-width // part)
    notes: list[Note] = []
    tables = tuple(tuple(table) for table in image.quantization.values())
    sampling = JpegImagePlugin.get_sampling(image)
    try:
        rgb = np.asarray(
            simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=rows, min_width=columns, buffer=into, strict=True)
        )
    except ValueError:
        notes.append(Note.LENIENT)
        image.draft(None, (columns, rows))
        rgb = np.asarray(image.convert("RGB"))
    if rgb.shape[:2] != (rows, columns):
        raise ValueError("it has pixels of another size than its header says")
    at_an_end = rgb[::4, ::4] - np.uint8(1) >= 254  # 0 and 255
    clipped = (at_an_end[..., 0] | at_an_end[..., 1] | at_an_end[..., 2]).mean() > _FEW
    rgb, space, changes = in_named_space(rgb, image.info.get("icc_profile"), grey=image.mode == "L")
    notes += changes
    fit = {*notes} <= {Note.NO_PROFILE} and exact.holds(exact.check, data, "JPEG")
    fit = fit and not (clipped and not exact.holds(jpeg.check_range, data))
    size = (width, height) if orientation >= 5 else (height, width)
    rgb = as_shown(rgb, orientation)
    return Picture(rgb, None, "JPEG", space, stripped, tuple(notes), size, orientation, fit, tables, sampling)


def as_shown(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Stored pixels upright; a copy unless they are so already."""
    return pixels if orientation == 1 else np.ascontiguousarray(exact.as_shown(pixels, orientation))


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
                plain = image.mode in ("RGB", "L")
        except MemoryError:
            raise OutOfMemory from None
        except UNREADABLE:
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
    """The greatest of 1, 2, 4, 8 by which `side` can be divided without becoming less than `least_side`."""
    return next((part for part in (8, 4, 2) if least_side is not None and side >= part * least_side), 1)


def _has_thumbnail_pages(image: Image.Image, frames: int) -> bool:
    """Whether all pages of a TIFF behind its first are reduced copies of it, by flag (TIFF 6.0) or by half its size."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or frames > _MOST_PAGES:
        return False
    (width, height), reduced = image.size, []
    for page in range(1, frames):
        image.seek(page)
        smaller = max(image.size[0] / width, image.size[1] / height) <= 0.5
        reduced.append(smaller or bool(int(image.tag_v2.get(_SUBFILE_TAG, 0)) & 1))
    image.seek(0)
    return all(reduced)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Levels as 0 to 255: those of as many bits as are used, or where they fill less than a quarter, those in use."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)
    few = values.size // 1000
    least, most = np.partition(values, (few, values.size - 1 - few), axis=None)[[few, -1 - few]]
    low, high = min(values.min(), 0.0), values.max()
    high = 1.0 if high <= 1.0 and image.mode == "F" else 2.0 ** max(np.ceil(np.log2(max(high, 1.0) + 1)), 8) - 1
    if most - least < (high - low) / 4 or low < 0:
        low, high = least, most
    return Image.fromarray(np.clip(np.rint((values - low) * (255.0 / max(high - low, 1e-9))), 0, 255).astype(np.uint8))


def orientation_of(image: Image.Image) -> int:
    """Exif's number of how its px are to be turned, 1 for not at all."""
    told = _exif(image).get(_ORIENTATION_TAG)
    return next((number for number in range(2, 9) if told == number), 1)


def _exif(image: Image.Image) -> dict[int, object]:
    """The tags of its first directory; none where they cannot be read."""
    try:
        return dict(image.getexif())
    except UNREADABLE:
        return {}


def _metadata(image: Image.Image, data: bytes, exif: bool) -> tuple[Stripped, ...]:
    """The kinds of metadata that the file carried and the output will not."""
    info = image.info.keys()
    found = {
        Stripped.EXIF: exif or "exif" in info,
        Stripped.XMP: info & {"xmp", "XML:com.adobe.xmp"} or b"http://ns.adobe.com/xap" in data[:200_000],
        Stripped.IPTC: "photoshop" in info,
        Stripped.COMMENT: info & {"comment", "Comment", "parameters"},
        Stripped.C2PA: b"c2pa" in data[:200_000],
        Stripped.PICTURES: image.format == "MPO",
    }
    return tuple(sorted(kind for kind, there in found.items() if there))


def encode(rgb: NDArray[np.uint8], like: Picture, *, jpeg_quality: int) -> bytes:
    """Encode upright `rgb` (H, W, 3) as a file that keeps its picture as `like` does, with its alpha; deterministic.

    A JPEG gets the tables and sampling of `like`, where there are any, else `jpeg_quality` and 4:2:0.
    """
    pixels = np.ascontiguousarray(exact.as_stored(rgb, like.orientation))
    if like.format == "JPEG":
        if not like.tables:
            file: bytes = simplejpeg.encode_jpeg(pixels, quality=jpeg_quality, colorspace="RGB", colorsubsampling="420")
            return exact.rewrite(file, like.stored)
        buffer = io.BytesIO()
        tables = [*map(list, like.tables[:2])]
        Image.fromarray(pixels).save(buffer, "JPEG", qtables=tables, subsampling=max(like.sampling, 0))
        return exact.rewrite(buffer.getvalue(), like.stored)
    if like.alpha is not None:
        pixels = np.dstack([pixels, exact.as_stored(like.alpha, like.orientation)])
    buffer = io.BytesIO()
    options: dict[str, object] = {"icc_profile": profile_of(like.space)} if like.space else {}
    if like.orientation != 1:
        options |= {"exif": jpeg.exif(like.orientation)}
    if like.format == "WEBP":
        options |= {"lossless": True} if like.lossless else {"quality": jpeg_quality, "method": 4}
    else:
        options |= {"compress_level": 4}
    Image.fromarray(pixels).save(buffer, like.format, **options)
    with suppress(NotExact):  # of a lossy WebP with an alpha
        return exact.rewrite(buffer.getvalue(), like.stored)
    return buffer.getvalue()
