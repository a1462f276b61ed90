"""How the numbers of a clip's frames become RGB: by matrix and range, as players read them where a file does not say.

PQ and HLG are mapped to BT.709, which clips what is brighter than their white.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

from anonlib.codes import Note, Reason
from anonlib.errors import ImageProblem

ACCURATE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
"""Without the last three libswscale's way to RGB and back darkens a picture by a level."""
_BT709, _BT601 = 1, 5

_MATRICES = {0: _BT709, 1: 1, 4: 4, 5: _BT601, 6: _BT601, 7: 7, 9: 9, 10: 9}
_HDR, _UNKNOWN = {16: "PQ", 18: "HLG"}, 2
_WHITE = 203.0
"""Reference white in cd/m2."""
_SIGNAL = np.rint(np.linspace(0, 1, 1 << 16) ** (1 / 2.4) * 255).astype(np.uint8)
_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32).T


class ClipColour:
    """How a clip's numbers become RGB: the matrix, primaries and transfer of the output, and the notes."""

    def __init__(self, frame: Any) -> None:
        self.notes: list[Note] = []
        self.full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        space = int(frame.colorspace)
        if space not in _MATRICES and space != _UNKNOWN:
            raise ImageProblem(Reason.CLIP_FORMAT, "the clip's colours are coded in a way that is not known here")
        # As players do where a file does not say it.
        self.source = _MATRICES.get(space, _BT709 if frame.height >= 720 else _BT601)
        self.matrix, self.primaries, self.transfer = self.source, int(frame.color_primaries), int(frame.color_trc)
        self.hdr = _HDR.get(self.transfer, "")
        if self.hdr:
            self.matrix = self.primaries = self.transfer = _BT709
            self.notes.append(Note.SDR)
        components = frame.format.components
        if components and max(component.bits for component in components) > 8:
            self.notes.append(Note.CLIP_EIGHT_BITS)
        if any(component.is_alpha for component in components):
            raise ImageProblem(Reason.CLIP_FORMAT, "the clip's video is partly transparent")

    def rgb(self, frame: Any, reformatter: VideoReformatter) -> NDArray[np.uint8]:
        """A frame's pixels (H, W, 3)."""
        options: dict[str, Any] = {"format": "rgb48le" if self.hdr else "rgb24", "threads": 1}
        options["interpolation"] = ACCURATE
        if not frame.format.is_rgb:
            options |= {"src_color_range": ColorRange.JPEG if self.full else ColorRange.MPEG}
            options |= {"src_colorspace": self.source, "dst_colorspace": self.source}
        pixels = reformatter.reformat(frame, **options).to_ndarray()
        return _sdr(pixels, self.hdr) if self.hdr else np.asarray(pixels, np.uint8)


def _sdr(pixels: NDArray[Any], transfer: str) -> NDArray[np.uint8]:
    """PQ or HLG (H, W, 3) uint16 of BT.2020 as BT.709: the light of a display of 1,000 cd/m2 over that of reference
    white, 203 cd/m2, clipped to 1 (ITU-R BT.2100, tables 4 and 5; BT.2408, 2.1; BT.2087, 4; BT.1886)."""
    light = _light_of(transfer)[pixels]
    if transfer == "HLG":
        light *= np.maximum(light @ np.array([0.2627, 0.6780, 0.0593], np.float32), 1e-6)[..., None] ** np.float32(0.2)
        light *= np.float32(1000 / _WHITE)
    shown: NDArray[np.uint8] = _SIGNAL[(np.clip(light @ _TO_BT709, 0, 1) * 65_535).astype(np.uint16)]
    return shown


@cache
def _light_of(transfer: str) -> NDArray[np.float32]:
    """The light of each of 65,536 signals: of PQ over reference white, of HLG that of the scene."""
    signal = np.linspace(0, 1, 1 << 16)
    if transfer == "PQ":
        root = signal ** (32 / 2523)
        light = (
            (np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610) * 10_000 / _WHITE
        )
    else:
        a = 0.17883277
        b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return light.astype(np.float32)
