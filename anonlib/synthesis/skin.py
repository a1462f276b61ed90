"""Skin as sharp and as grainy as the photo shows skin: averaged and decoded faces have neither pores nor grain.

What is missing is added in two octaves (a Laplacian pyramid, Burt & Adelson 1983), from a relief of pores and wrinkles
of no real person (shipped/relief.md) and from noise; what is too much is taken out. How much is there comes from the
photo as two numbers, each the strength of an octave of skin, and one of each octave of its features, in steps of a
quarter octave.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from anonlib.synthesis.base import Floats, Mask, Pixels
from anonlib.synthesis.canonical import laid, shrunk

AGES = (35.0, 55.0)
"""Years at which the next of three bands of reliefs begins."""
BYTES = 32
"""Steps of a stored relief to its standard deviation."""
_BANDS = 3
_ENOUGH = 30  # px
_SURE = 0.9
_STRONGEST = (0.09, 0.045)  # of skin's brightness, by octave: more is highlights, folds or paint
_LIT = (0.3, 1.5)  # how much fainter relief is in the shade, and stronger in the light
_FAINTEST = 0.1  # grey levels: what a photo rounds away
_STEPS = 4  # to an octave
_MOST = 3.0  # times what skin beside the face has
_NOISE, _TILE = 0.3, 256
_SOLVED, _HALVINGS, _HIGHEST = 8192, 10, 2.0
_ROUNDED = 0.6  # strength of what rounding to whole grey levels adds
_COARSEST, _FEW = 5.0, 10
"""Px between the eyes of the octave from which on features are left as they are; px of them that say how strong."""
_STRONGER = 1.7  # how much stronger than they are features become at most


@dataclass(frozen=True)
class Grain:
    """Strengths in grey levels, see `strength`, of skin at the photo's size and at half of it; NaN where none shows.
    `features` (n,): how strong brows and lips are in each octave, from the finest: weak in a blurred photo."""

    fine: float
    coarse: float
    features: tuple[float, ...]

    @classmethod
    def of(cls, view: Pixels, face: Mask, beside: Mask, features: Mask, eye_distance: float) -> Grain:
        """That of a photo's skin under `face` (h, w), in steps, and at most _MOST times that of what is `beside` it: a
        painted face or a hand before it says nothing of skin; and of its `features` (h, w)."""
        grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY).astype(np.float32)
        found = []
        for level, step in ((grey, 1), (_halved(grey), 2)):
            laplacian = np.asarray(cv2.Laplacian(level, cv2.CV_32F), np.float32)
            own, near = (_strength(laplacian[where[::step, ::step]]) for where in (face, beside))
            found.append(float(np.fmin(_in_steps(own), _MOST * near)))
        octaves = max(1, int(np.log2(eye_distance / _COARSEST)))
        contrasts = _contrasts(_pyramid(grey, octaves - 1), features)
        return cls(found[0], found[1], tuple(_in_steps(contrasts).tolist()))


def _in_steps(strengths: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Strengths to the nearest part of an octave."""
    return np.asarray(2.0 ** (np.rint(_STEPS * np.log2(np.maximum(strengths, _FAINTEST))) / _STEPS))


def strength(grey: Floats, where: Mask) -> float:
    """How strong the Laplacian of grey levels (h, w) is under a mask (h, w), in grey levels; NaN if it is too small."""
    return _strength(_laplacian(grey, where))


def _laplacian(grey: Floats, where: Mask) -> Floats:
    """Of each px under a mask (h, w), (n,)."""
    return np.asarray(cv2.Laplacian(grey, cv2.CV_32F)[where], np.float32)


def _strength(laplacian: Floats) -> float:
    """Square roots are averaged, so that a fold or a strand of hair counts little."""
    return float(np.sqrt(np.abs(laplacian)).mean()) ** 2 if len(laplacian) >= _ENOUGH else float("nan")


def as_sharp(pixels: Floats, grain: Grain, skin: Floats, relief: Floats, seed: int) -> Floats:
    """A face (h, w, 3), 0-255, as sharp and grainy as `grain`, where `skin` (h, w), 0-1, says what of it is skin and
    `relief` (h, w) what to add."""
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.float32)
    shown = skin > _SURE
    bright = max(float(grey[shown].mean()), 1.0) if shown.any() else 255.0
    lit = np.clip(grey / bright, *_LIT)
    carrier = (relief + np.float32(_NOISE) * _noise(seed, *grey.shape)) * lit
    half, carried = _halved(grey), _halved(carrier)
    octave = half - _doubled(_halved(half), half)
    coarse = _doubled(_change(half, octave, carried, min(grain.coarse, _STRONGEST[1] * bright), skin[::2, ::2]), grey)
    fine = min(grain.fine, _STRONGEST[0] * bright)
    fine = np.sqrt(max(fine**2 - _ROUNDED**2, 0.0)) if fine == fine else fine
    octave, added = grey - _doubled(half, grey), carrier - _doubled(carried, grey)
    change = coarse + _change(grey + coarse, octave, added, float(fine), skin)
    return np.asarray(np.clip(pixels + change[..., None], 0, 255), np.float32)


def as_strong(pixels: Floats, grain: Grain, features: Floats) -> Floats:
    """A face (h, w, 3), 0-255, with `features` (h, w), 0-1, about as strong in each octave as the photo's. What they
    lose the rest of the face loses too, all of it in the finest octave and less in coarser ones, as in a blurred photo.
    """
    octaves = len(grain.features)
    levels = _pyramid(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.float32), octaves)
    gains = np.array(grain.features) / np.maximum(_contrasts(levels[:-1], features > _SURE), _FAINTEST)
    gains = np.nan_to_num(np.minimum(gains, _STRONGER), nan=1.0)
    losses = np.minimum(gains / min(gains[-1], 1.0) ** np.linspace(0, 1, octaves), 1.0)
    own = rest = np.zeros_like(levels[-1])
    for level in range(octaves - 1, -1, -1):
        octave = levels[level] - _doubled(levels[level + 1], levels[level])
        own = _doubled(own, octave) + np.float32(gains[level] - 1) * octave
        rest = _doubled(rest, octave) + np.float32(losses[level] - 1) * octave
    change = features * own + (1 - features) * rest
    return np.asarray(np.clip(pixels + change[..., None], 0, 255), np.float32)


def _pyramid(grey: Floats, octaves: int) -> list[Floats]:
    """Grey levels (h, w), at every half of the size too."""
    levels = [grey]
    for _ in range(octaves):
        levels.append(_halved(levels[-1]))
    return levels


def _contrasts(levels: list[Floats], where: Mask) -> NDArray[np.float64]:
    """The mean Laplacian of each level under a mask (h, w) of the first, in grey levels; NaN where it is too small."""
    own = [_laplacian(grey, where[:: 2**level, :: 2**level]) for level, grey in enumerate(levels)]
    return np.array([np.abs(values).mean() if len(values) >= _FEW else float("nan") for values in own])


def _halved(grey: Floats) -> Floats:
    return np.asarray(cv2.pyrDown(grey), np.float32)


def _doubled(grey: Floats, like: Floats) -> Floats:
    return np.asarray(cv2.pyrUp(grey, dstsize=like.shape[::-1]), np.float32)


def _change(grey: Floats, detail: Floats, carrier: Floats, wanted: float, skin: Floats) -> Floats:
    """What to add to an octave `detail` of `grey` so that its skin has the strength `wanted`; all (h, w)."""
    where = skin > _SURE
    old = _laplacian(grey, where)
    own = _strength(old)
    if not (own == own and wanted == wanted):
        return np.zeros_like(grey)
    less = own > wanted
    added = -detail if less else carrier
    new = _laplacian(added, where)
    thin = np.s_[:: max(1, len(old) // _SOLVED)]
    old, new, low, high = old[thin], new[thin], 0.0, 1.0 if less else _HIGHEST * wanted / max(_strength(new), 1e-6)
    # The Laplacian is linear, so how much to add is found on its values alone.
    for _ in range(_HALVINGS):
        gain = (low + high) / 2
        low, high = (low, gain) if (_strength(old + np.float32(gain) * new) > wanted) != less else (gain, high)
    return np.asarray(np.float32(low) * added, np.float32)


def relief_at(grid: Floats, eye_distance: float, shape: Floats, age: float) -> Floats:
    """The relief (h, w), of about unit spread, at canonical places `grid` (h, w, 2), as a face of a neutral `shape`
    (468, 3) and of this age always wears it."""
    band = int(np.searchsorted(AGES, age, side="right"))
    chosen = reliefs()[band::_BANDS]
    seed = seed_of(shape)
    relief = chosen[seed // 2 % len(chosen)][:, :: 1 if seed % 2 else -1]
    return laid(shrunk(np.ascontiguousarray(relief), eye_distance), grid)


def seed_of(shape: Floats) -> int:
    """A number that goes with a surrogate of this neutral shape (468, 3)."""
    return zlib.crc32(np.ascontiguousarray(shape, np.float32).tobytes())


@cache
def reliefs() -> list[Floats]:
    """The shipped reliefs (2 SIZE, 2 SIZE): one of each band of age, then another of each."""
    with resources.files("anonlib.synthesis").joinpath("shipped/relief.npz").open("rb") as stream:
        coded = np.load(stream)
        squares = [simplejpeg.decode_jpeg(coded[name].tobytes(), colorspace="GRAY") for name in sorted(coded)]
    return [(square[..., 0].astype(np.float32) - 128) / BYTES for square in squares]


@cache
def _tile() -> Floats:
    return np.random.default_rng(0).standard_normal((_TILE, _TILE)).astype(np.float32)


def _noise(seed: int, height: int, width: int) -> Floats:
    """White noise (height, width), the same of the same seed."""
    rolled = np.roll(_tile(), (seed % _TILE, seed // _TILE % _TILE), (0, 1))
    return np.tile(rolled, (height // _TILE + 1, width // _TILE + 1))[:height, :width]
