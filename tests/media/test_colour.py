"""Colours stay what they were, and no byte of a profile that a file brought along is ever written."""

from __future__ import annotations

import io
import struct
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageCms

from anonlib.audit.leaks.images import carried
from anonlib.codes import Note
from anonlib.config import LimitsConfig
from anonlib.media.codec import decode, encode
from anonlib.media.colour import SPACES, ColourSpace, is_ours, profile_of
from anonlib.media.sandbox.process import decode_apart
from tests.support import photos

KINDS = ("JPEG", "PNG", "WEBP")
BEST = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
CHROMATICITIES: dict[ColourSpace, tuple[tuple[float, float], ...]] = {
    "sRGB": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), (0.3127, 0.3290)),
    "Display P3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290)),
    "Adobe RGB (1998)": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), (0.3127, 0.3290)),
    "ProPhoto RGB": ((0.734699, 0.265301), (0.159597, 0.840403), (0.036598, 0.000105), (0.345704, 0.358540)),
}
"""Red, green, blue and white as the standards have them (x, y)."""
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def colours() -> photos.Pixels:
    """The whole cube, smooth enough for a JPEG."""
    red, green = np.meshgrid(np.linspace(0, 255, 128), np.linspace(0, 255, 128))
    return np.stack([red, green, 255 - (red + green) / 2], axis=-1).round().astype(np.uint8)


def shown(pixels: photos.Pixels, profile: bytes | None) -> photos.Pixels:
    """The same in sRGB, as a viewer that knows profiles shows it."""
    if profile is None:
        return pixels
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.createProfile("sRGB")
    how = {"renderingIntent": ImageCms.Intent.RELATIVE_COLORIMETRIC, "flags": ImageCms.Flags.BLACKPOINTCOMPENSATION}
    return np.asarray(ImageCms.profileToProfile(Image.fromarray(pixels), opened, target, outputMode="RGB", **how))


@cache
def of_a_stranger(space: ColourSpace) -> bytes:
    """A profile with a space's numbers, and within its length a thumbnail and the name of its owner."""
    profile = profile_of(space) + photos.jpeg(photos.astronaut()[:200, 150:350]) + b"Ada Quill's iMac serial C02XK"
    return len(profile).to_bytes(4, "big") + profile[4:]


def profile_with(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A display's profile of version 2 with these tags (ICC.1:2001-04)."""
    tags = {b"wtpt": xyz(0.9642, 1.0, 0.8249)} | tags
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    size = 132 + 12 * len(tags) + len(data)
    header = struct.pack(">I4xI4s4s4s12x4s", size, 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    return (header.ljust(68, b"\0") + xyz(0.9642, 1.0, 0.8249)[8:]).ljust(128, b"\0") + table + data


def xyz(*numbers: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(number * 65536) for number in numbers))


def matrix_profile(colorants: tuple[float, ...], curve: bytes) -> bytes:
    """A matrix, and one curve for all channels."""
    names = (b"rXYZ", b"gXYZ", b"bXYZ")
    tags = {name: xyz(*colorants[3 * number : 3 * number + 3]) for number, name in enumerate(names)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return profile_with(b"RGB ", tags | {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 6) + b"Quill\0" + bytes(78)})


@cache
def table_curve() -> bytes:
    """The sRGB curve in a table of 1,024 numbers, as camera makers write it."""
    x = np.linspace(0, 1, 1024)
    y = np.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)
    return b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *(y * 65535).round().astype(int).tolist())


P3 = (0.51512, 0.24120, -0.00105, 0.29198, 0.69225, 0.04189, 0.15710, 0.06657, 0.78407)
SRGB = (0.4361, 0.2225, 0.0139, 0.3851, 0.7169, 0.0971, 0.1431, 0.0606, 0.7139)
APPLE_RGB = (0.4755, 0.2552, 0.0184, 0.3397, 0.6726, 0.1133, 0.1490, 0.0722, 0.6932)
GAMMA_18 = b"curv\0\0\0\0" + struct.pack(">IH", 1, 461)


@pytest.mark.parametrize("space", SPACES)
def test_our_profiles_have_the_numbers_of_the_standards(space: ColourSpace) -> None:
    xy = np.array(CHROMATICITIES[space])
    xyz = np.column_stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(axis=1)) / xy[:, 1]])
    matrix = xyz[:3].T * np.linalg.solve(xyz[:3].T, xyz[3])
    d50 = np.array([0.9642, 1.0, 0.8249])
    adapted = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ d50) / (BRADFORD @ xyz[3])) @ BRADFORD @ matrix
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile_of(space))).profile
    found = [opened.red_colorant[0], opened.green_colorant[0], opened.blue_colorant[0]]
    assert np.abs(np.array(found).T - adapted).max() < 3e-4
    assert opened.profile_description == space and opened.version == 4.3
    assert opened.is_matrix_shaper and is_ours(profile_of(space))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", SPACES)
def test_colours_stay_within_a_level_and_the_profile_is_ours(space: ColourSpace, kind: str) -> None:
    pixels, theirs = colours(), of_a_stranger(space)
    data = photos.encoded(pixels, kind, icc_profile=theirs, **BEST.get(kind, {}))
    picture = decode_apart(data, LimitsConfig())
    assert picture.space == space and picture.notes == ()
    before = shown(picture.rgb, theirs)
    written = encode(picture.rgb, picture, jpeg_quality=92)
    profile = Image.open(io.BytesIO(written)).info["icc_profile"]
    assert profile == profile_of(space)
    assert np.abs(shown(picture.rgb, profile).astype(int) - before).max() <= 1
    assert b"Quill" in data or kind == "PNG"
    assert b"Quill" not in written and theirs[-600:] not in written
    assert carried(written) == set() and carried(data) >= {"foreign colour profile"}


@pytest.mark.parametrize(
    ("colorants", "space"),
    [(P3, "Display P3"), (tuple(number + 1 / 65536 for number in P3), "Display P3"), (SRGB, "sRGB")],
)
def test_a_cameras_own_spelling_of_a_space_is_that_space(colorants: tuple[float, ...], space: ColourSpace) -> None:
    """Numbers that differ by less than anybody sees are the same colours, and the same bytes."""
    theirs = matrix_profile(colorants, table_curve())
    picture = decode(photos.encoded(colours(), "PNG", icc_profile=theirs), max_mpx=1)
    assert picture.space == space and np.array_equal(picture.rgb, colours())
    difference = np.abs(shown(colours(), theirs).astype(int) - shown(colours(), profile_of(space)))
    assert difference.max() <= 2 and (difference <= 1).mean() > 0.999


@pytest.mark.parametrize("kind", KINDS)
def test_any_other_profile_is_converted_to_srgb(kind: str) -> None:
    theirs = matrix_profile(APPLE_RGB, GAMMA_18)
    data = photos.encoded(colours(), kind, icc_profile=theirs, **BEST.get(kind, {}))
    picture = decode(data, max_mpx=1)
    assert picture.space == "sRGB" and picture.notes == (Note.TO_SRGB,)
    # What a decoder of its own gives differs by a level of JPEG; the conversion adds none.
    difference = np.abs(picture.rgb.astype(int) - shown(photos.decoded(data), theirs))
    assert difference.max() <= (3 if kind == "JPEG" else 1) and difference.mean() < 0.5
    written = encode(picture.rgb, picture, jpeg_quality=92)
    assert Image.open(io.BytesIO(written)).info["icc_profile"] == profile_of("sRGB")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_under_a_profile_is_converted_too(kind: str) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (16, 1))
    options = {"quality": 100} if kind == "JPEG" else {}
    linear = profile_with(b"GRAY", {b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, 256)})
    picture = decode(photos.encoded(ramp, kind, icc_profile=linear, **options), max_mpx=1)
    assert picture.space == "sRGB" and picture.notes == (Note.TO_SRGB,)
    # Linear light: a middle of 128 / 255 is level 188 of sRGB.
    assert abs(int(picture.rgb[8, 128, 0]) - 188) <= 2 and (np.ptp(picture.rgb, axis=2) <= 1).all()


def test_cmyk_without_a_profile_stays_as_it_was_converted() -> None:
    data = io.BytesIO()
    Image.fromarray(colours()).convert("CMYK").save(data, "JPEG")
    picture = decode(data.getvalue(), max_mpx=1)
    assert picture.space is None and picture.notes == (Note.CMYK,)


UNUSABLE = [photos.srgb()[:16] + kind + photos.srgb()[20:] for kind in (b"GRAY", b"CMYK")]


@pytest.mark.parametrize("icc", [b"not a profile" * 20, *UNUSABLE, photos.srgb()[:200]])
def test_a_profile_that_cannot_be_used_is_left_out_and_noted(icc: bytes) -> None:
    picture = decode(photos.encoded(colours(), "PNG", icc_profile=icc), max_mpx=1)
    assert (picture.space, picture.notes) == (None, (Note.NO_PROFILE,))
    assert "icc_profile" not in Image.open(io.BytesIO(encode(picture.rgb, picture, jpeg_quality=92))).info
