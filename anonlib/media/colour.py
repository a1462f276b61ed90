"""Which colours the numbers of a photo mean, by the name of a colour space and never by the file's own profile.

An ICC profile has room for anything: a thumbnail of the original, a serial number in the last digits of a curve. So no
byte of one is copied. A profile that means the same as a colour space in SPACES, to within a level of 255, becomes that
name, and the output gets the profile which is written here for it. Under any other profile pixels become sRGB.
"""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from anonlib.codes import Note

ColourSpace = Literal["sRGB", "Display P3", "Adobe RGB (1998)", "ProPhoto RGB"]
SPACES: tuple[ColourSpace, ...] = get_args(ColourSpace)

PROFILE_LIMIT = 4 << 20
"""Bytes of the largest profile that is looked at; those of printing presses have about two million."""
_NEAR = 1
"""How much a profile may differ, in levels of 255, from the space that it is named after."""

Pixels = NDArray[np.uint8]
Curve = tuple[float, ...]

# Red, green and blue as XYZ (x, y, z each) under D50, as the owners of the spaces publish them; ICC.1:2022, annex F.
_SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_NUMBERS: dict[ColourSpace, tuple[tuple[float, ...], Curve]] = {
    "sRGB": ((0.43607, 0.22249, 0.01392, 0.38515, 0.71687, 0.09708, 0.14307, 0.06061, 0.71410), _SRGB_CURVE),
    "Display P3": ((0.51512, 0.24120, -0.00105, 0.29198, 0.69225, 0.04189, 0.15710, 0.06657, 0.78407), _SRGB_CURVE),
    "Adobe RGB (1998)": (
        (0.60974, 0.31111, 0.01947, 0.20528, 0.62567, 0.06087, 0.14919, 0.06322, 0.74457),
        (563 / 256,),
    ),
    "ProPhoto RGB": ((0.79767, 0.28804, 0.0, 0.13519, 0.71188, 0.0, 0.03134, 0.00009, 0.82491), (461 / 256,)),
}
_D50 = (0.9642, 1.0, 0.8249)
_D65_TO_D50 = (1.04788, 0.02292, -0.05022, 0.02959, 0.99048, -0.01708, -0.00925, 0.01508, 0.75168)


@cache
def profile_of(space: ColourSpace) -> bytes:
    """The ICC profile (version 4.3) that a release has for a colour space, always the same bytes."""
    colorants, curve = _NUMBERS[space]
    tags = {
        b"desc": _text(space),
        b"cprt": _text("CC0"),
        b"wtpt": b"XYZ \0\0\0\0" + _numbers(_D50),
        b"rXYZ": b"XYZ \0\0\0\0" + _numbers(colorants[0:3]),
        b"gXYZ": b"XYZ \0\0\0\0" + _numbers(colorants[3:6]),
        b"bXYZ": b"XYZ \0\0\0\0" + _numbers(colorants[6:9]),
        b"rTRC": struct.pack(">4s4xHH", b"para", 3 if len(curve) == 5 else 0, 0) + _numbers(curve),
    }
    if space != "ProPhoto RGB":  # whose own white is D50
        tags[b"chad"] = b"sf32\0\0\0\0" + _numbers(_D65_TO_D50)
    places, data = {}, b""
    start = 128 + 4 + 12 * (len(tags) + 2)
    for name, content in tags.items():
        places[name] = (start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    places |= {b"gTRC": places[b"rTRC"], b"bTRC": places[b"rTRC"]}
    table = struct.pack(">I", len(places)) + b"".join(struct.pack(">4sII", name, *at) for name, at in places.items())
    size = start + len(data)
    header = struct.pack(">I4xI4s4s4s6H4s", size, 0x04300000, b"mntr", b"RGB ", b"XYZ ", 2000, 1, 1, 0, 0, 0, b"acsp")
    header = header.ljust(68, b"\0") + _numbers(_D50)
    return header.ljust(128, b"\0") + table + data


def _numbers(values: tuple[float, ...]) -> bytes:
    """s15Fixed16 numbers (ICC.1:2022, 4.6)."""
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _text(words: str) -> bytes:
    """A multiLocalizedUnicode tag (ICC.1:2022, 10.15) in one language."""
    body = words.encode("utf-16-be")
    return struct.pack(">4s4xII2s2sII", b"mluc", 1, 12, b"en", b"US", len(body), 28) + body


def is_ours(profile: bytes) -> bool:
    """Whether a profile is, byte for byte, that of a space in SPACES."""
    return any(profile == profile_of(space) for space in SPACES)


def in_named_space(rgb: Pixels, profile: Any, *, grey: bool = False) -> tuple[Pixels, ColourSpace | None, list[Note]]:
    """Pixels (H, W, 3) of a file with this profile, the space they are in then, and what was done to them.

    `grey`: the file has one channel, which all three repeat. Without a profile, or under one that cannot be used, the
    space is None and pixels stay as they are.
    """
    if profile is None:
        return rgb, None, []
    kind = _kind(profile)
    with suppress(ImageCms.PyCMSError, OSError, ValueError):
        if kind == "RGB" and (space := _named(profile)) is not None:
            return rgb, space, []
        if kind == "RGB" or (kind == "L" and grey):
            image = Image.fromarray(rgb if kind == "RGB" else rgb[:, :, 0])
            return np.array(_in_space(image, profile, "sRGB")), "sRGB", [Note.TO_SRGB]
    return rgb, None, [Note.NO_PROFILE]


def from_cmyk(image: Image.Image, profile: Any) -> tuple[Image.Image, ColourSpace | None, list[Note]]:
    """A CMYK picture as RGB, by its profile if that is one of CMYK; otherwise as in_named_space."""
    if profile is None:
        return image.convert("RGB"), None, []
    with suppress(ImageCms.PyCMSError, OSError, ValueError):
        if _kind(profile) == "CMYK":
            return _in_space(image, profile, "sRGB"), "sRGB", []
    return image.convert("RGB"), None, [Note.NO_PROFILE]


def _kind(profile: object) -> str | None:
    """Pillow's mode of the pixels that a profile is for, None if it is none (ICC.1:2022, 7.2)."""
    if not isinstance(profile, bytes) or not 128 < len(profile) <= PROFILE_LIMIT or profile[36:40] != b"acsp":
        return None
    return {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}.get(profile[16:20])


@lru_cache(maxsize=8)
def _named(profile: bytes) -> ColourSpace | None:
    """The space that a profile of RGB means, if any; photos of one camera share theirs, so answers are kept."""
    for space in SPACES:
        if profile == profile_of(space):
            return space
    # All greys, and 9 x 9 x 9 colours; none at the edge, where 1e-4 of light is several levels and cannot be seen.
    colours = np.stack(np.meshgrid(*[np.linspace(16, 240, 9)] * 3), axis=-1).reshape(-1, 3)
    levels = np.concatenate([np.arange(256).repeat(3).reshape(-1, 3), colours]).round().astype(np.uint8)[None]
    for space in SPACES:
        seen = np.asarray(_in_space(Image.fromarray(levels), profile, space), np.int16)
        if int(np.abs(seen - levels).max()) <= _NEAR:
            return space
    return None


def _in_space(image: Image.Image, profile: bytes, space: ColourSpace) -> Image.Image:
    source, target = (ImageCms.ImageCmsProfile(io.BytesIO(icc)) for icc in (profile, profile_of(space)))
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    found = ImageCms.applyTransform(image, ImageCms.buildTransform(source, target, image.mode, "RGB", intent, flags))
    if found is None:  # it is only for transforms in place
        raise ValueError("the transform gave no picture")
    return found
