"""Photos that are released with their own compressed data, in the formats that allow it.

A file is *exact* if everything but its picture can be told apart and left out: then it is released under headers of
ours, without a second loss. A decoder process decides that (`check`); afterwards only headers are read here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from anonlib.errors import NotExact
from anonlib.media import jpeg, png, webp
from anonlib.media.colour import ColourSpace, profile_of

_Value = TypeVar("_Value", np.uint8, np.bool_)
_FORMATS: dict[str, tuple[Callable[[bytes], None], Callable[[bytes, int, bytes], bytes]]] = {
    "JPEG": (jpeg.check_data, jpeg.rewrite),
    "PNG": (png.check_data, png.rewrite),
    "WEBP": (webp.check_data, webp.rewrite),
}
"""How a file of each format is checked, and written under headers of ours."""
FORMATS = frozenset(_FORMATS)


class Stored(NamedTuple):
    """How a file keeps its picture: Exif's orientation (1 to 8) and the colour space that it names."""

    format: str
    orientation: int
    space: ColourSpace | None


def check(file: bytes, image_format: str) -> None:
    """Raises NotExact if a file that a strict decoder has read may hold more than its picture."""
    if image_format not in _FORMATS:
        raise NotExact(f"{image_format} is always encoded anew")
    _FORMATS[image_format][0](file)


def holds(check: Callable[..., None], *of: object) -> bool:
    """Whether a check that raises NotExact finds nothing."""
    try:
        check(*of)
    except NotExact:
        return False
    return True


def rewrite(file: bytes, stored: Stored) -> bytes:
    """The picture of an exact file, bit for bit, under headers of ours; raises NotExact."""
    profile = profile_of(stored.space) if stored.space else b""
    if stored.format not in _FORMATS:
        raise NotExact(f"{stored.format} is always encoded anew")
    return _FORMATS[stored.format][1](file, stored.orientation, profile)


def replace(file: bytes, changed: NDArray[np.bool_], pixels: NDArray[np.uint8], stored: Stored) -> bytes:
    """An exact JPEG with new pixels (n, rows, columns, 3) in its `changed` MCUs (down, across); raises NotExact."""
    return rewrite(jpeg.replace_mcus(jpeg.parse(file), changed, pixels), stored)


def as_stored(upright: NDArray[_Value], orientation: int) -> NDArray[_Value]:
    """Pixels (H, W, ...) as the file with this orientation keeps them; `as_shown` undoes it (JEITA CP-3451, 4.6.4)."""
    turned = upright.swapaxes(0, 1) if orientation >= 5 else upright
    return turned[_FLIPS[orientation]]


def as_shown(stored: NDArray[_Value], orientation: int) -> NDArray[_Value]:
    """Pixels (H, W, ...) of a file with this orientation, upright."""
    flipped = stored[_FLIPS[orientation]]
    return flipped.swapaxes(0, 1) if orientation >= 5 else flipped


_BACK, _ALL = slice(None, None, -1), slice(None)
_FLIPS = {
    1: (_ALL, _ALL), 2: (_ALL, _BACK), 3: (_BACK, _BACK), 4: (_BACK, _ALL),
    5: (_ALL, _ALL), 6: (_BACK, _ALL), 7: (_BACK, _BACK), 8: (_ALL, _BACK),
}  # fmt: skip


def changed_blocks(before: bytes, after: bytes, allowed: NDArray[np.bool_]) -> int:
    """How many coefficient blocks of a JPEG changed outside the MCUs that `allowed` (H, W, as stored) reaches.

    Another size, sampling or quantization changes all of them. Raises NotExact where either cannot be read.
    """
    old, new = jpeg.parse(before), jpeg.parse(after)
    if old.size != new.size or old.components != new.components or old.quantization != new.quantization:
        return sum(len(blocks) for blocks in jpeg.coefficients(old))
    if not allowed.any() and [old.file[scan.data] for scan in old.scans] == [new.file[scan.data] for scan in new.scans]:
        return 0
    reached = jpeg.reached_mcus(old, allowed)
    changed = 0
    for part, first, second in zip(old.components, jpeg.coefficients(old), jpeg.coefficients(new), strict=True):
        blocks = reached.repeat(part.down, axis=0).repeat(part.across, axis=1)[: first.shape[0], : first.shape[1]]
        changed += int((first != second).any(axis=2)[~blocks].sum())
    return changed
