"""A small labelled dataset of people who never lived, for the demo and the tests.

A demo of anonymization needs faces that nobody minds seeing. `face-gan` (MIT, trained on rendered faces) draws 64 px
heads of nobody; a latent is an identity, and a little noise on the latent is another photo of it (cosine .9 in a
face recognizer at sigma .1). A 64 px head alone is not a photo, so each one is cut out, enlarged to 90-140 px of
face, given a neck, clothes and an out-of-focus place, and developed like a photo: exposure, colour, grain, JPEG.

The people are curated, and say so: PEOPLE lists 48 seeds that were chosen by looking at the best-detected of 40,000
samples, half of them men and half women as a gender model and we saw them, none too like another. Each has the
outline of its head, traced once by a segmentation model. Do not read a face rate off this dataset: it was picked.

The sidecars also carry what a release must not: a device serial, and EXIF with a position. Same latents, same
generator output -> same bytes.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Random = np.random.Generator
Generator = Callable[[Floats], Pixels]  # latents (N, LATENT, 1, 1) -> RGB faces (N, FACE, FACE, 3)

FACE = 64  # px, a side of the generator's image
LATENT = 100
TRUNCATION = 0.85  # of the latent's length: nearer the mean, fewer broken faces
NOISE = 0.15  # sigma between two photos of one person
SHARDS = 4
GROUPS = 12  # photos of two or three people
EMPTY = 6  # photos of nobody
JPEG_QUALITY = 92
SIZES = ((512, 384), (480, 384), (400, 400), (400, 460))  # px, width and height
SCENES = {
    "park": "in a park",
    "sea": "by the sea",
    "street": "in a street",
    "evening": "in the city at night",
    "office": "in an office",
    "wall": "in front of a wall",
}
CLOTH = {
    "red": (0.46, 0.15, 0.14),
    "navy": (0.11, 0.14, 0.22),
    "cream": (0.70, 0.66, 0.59),
    "green": (0.19, 0.28, 0.22),
    "black": (0.08, 0.08, 0.09),
    "brown": (0.34, 0.25, 0.18),
    "pale blue": (0.47, 0.54, 0.62),
    "grey": (0.36, 0.37, 0.39),
    "plum": (0.28, 0.16, 0.24),
    "white": (0.78, 0.78, 0.77),
}
GARMENTS = {"T-shirt": 0.2, "striped T-shirt": 0.1, "sweater": 0.2, "shirt": 0.25, "jacket": 0.25}  # and how often

_CODE = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"
_CENTRE = (32.0, 34.0)  # of every outline, in generator pixels
_FACE_Y = 34.0  # the row of every face's middle
_SCALE, _ABOVE, _BELOW = 4, 6, 20  # a cut-out head: pixels per generator pixel; rows added above and below


@dataclass(frozen=True)
class Person:
    """One identity: its latent's seed, "w" or "m" (as seen), "long" or "short" hair, and the head's radius at 40
    angles, clockwise from the top, one character each in steps of .75 generator pixels."""

    seed: int
    looks: str
    hair: str
    outline: str


# Women and men alternate, so the first n people are balanced whatever n is.
PEOPLE = (
    Person(29992, "w", "long", "jklmmjfcaZZZbfls--------vlfYYYXXWXYZbfji"),
    Person(13522, "m", "short", "ihjjmlhbZZYYYWXZbi------xdcbaYYZcegjmlji"),
    Person(34970, "w", "long", "jjkjihfcbabcdfilz--------ugffeeffgllkklj"),
    Person(14116, "m", "short", "ihhieYUQPNOOPRTVYh-------dbZZabddglpqmki"),
    Person(27003, "w", "short", "jjllllkebabcccdhp------gdaYXWVWWYZbcefgh"),
    Person(35602, "m", "long", "jjkmljhfedeegjnr--------gccegeffhjmookjj"),
    Person(6485, "w", "long", "jjkigdbZXXXYZbeZacp-----ymfigfdfegimmmlj"),
    Person(19582, "m", "short", "fghhgedbaYZabacfn------bWVUUXZaZZYYZbcfg"),
    Person(29727, "w", "short", "iilmkifdcaZYYYYbdl-------pcYcZYYYZbfijki"),
    Person(1119, "m", "short", "hijkkihfdbbcehkt-------rfUSQPNNMNNQUXadf"),
    Person(39100, "w", "long", "iklmmigedddehjow---------uniaZZcbbcgijih"),
    Person(10186, "m", "long", "jjlmmkigebYXWYZoy------qdbcddddeegikmmkj"),
    Person(13231, "w", "long", "jjklkgcaZYZadgkr--------mebbeeebeiklmmlj"),
    Person(11443, "m", "short", "fhiihgfedaccbabfv-------cYWVUTTSTWYacdef"),
    Person(37256, "w", "long", "jjloosmjgfeffffccer-----rmgcZYYWVWYacgii"),
    Person(5128, "m", "long", "fhjlkhedccefgjmv--------wmiihfdccdeegggg"),
    Person(39852, "w", "long", "jklmrrokgdeeefeh-------omffifeedeghjllkj"),
    Person(28877, "m", "short", "jkloqroieZWVVWYadz------vbaZXWXXZgimlllk"),
    Person(15117, "w", "long", "jkigfdbYWVVWXZbadm-------wpjhfefggilmmlk"),
    Person(3960, "m", "short", "eeddddccbbbbdcbelz------faWUSSRQSVYacdde"),
    Person(11332, "w", "long", "jjlnplkieedefhju---------wpkfbbbZaegilkj"),
    Person(11991, "m", "short", "jjkmlfbYWWVVUVWad--------bYWYdZZcdimqnlj"),
    Person(10765, "w", "short", "iiloppnjecdcbZat-------iXVUVVVVUVXYadgji"),
    Person(22288, "m", "short", "ffjopnjecddcdabfo------jeaXVUTSTUWYbbdef"),
    Person(24294, "w", "long", "iihggfcbZXZacecey------snknjhggggdZZabeg"),
    Person(39012, "m", "short", "jklkgdbYWTRRRSVYceu----whegfdbbbdfghijkk"),
    Person(1469, "w", "short", "jijnpmljfbcedacu-------xjbTRQQQRSTZkllkj"),
    Person(7598, "m", "short", "jigcYWWVUUUVVWXZbet----shcXUTTTUWbfjlmlj"),
    Person(23343, "w", "short", "ijjgbYWURPPOPQSVXan-----vjffffefghigiiji"),
    Person(1929, "m", "long", "jklmmkigffffhjmu--------vldZXXXYacegjllk"),
    Person(38997, "w", "short", "jjlmoopiedefeddu-------tXUTRQQQPRTXbfiij"),
    Person(3140, "m", "short", "jjklligecaacbbcdiv-------rkYXXYZcfjlkkkj"),
    Person(11653, "w", "long", "jihgeddddddegiku-------xkfdedcbcegjlmmkj"),
    Person(39698, "m", "short", "hgffedccbZabbbcikz----icXUSRQQQQSVYbdhih"),
    Person(20092, "w", "long", "hijjjigdaZYYYYZbfp------rihfeeeffgijmmkh"),
    Person(27715, "m", "short", "hjlonlifbZcbaZat--------bYVSRQRSTVXZbceg"),
    Person(23554, "w", "long", "jjlkhebZXXXYadipz--------wpkhfddefhkmolk"),
    Person(8258, "m", "short", "jjjlmkhddccbabcgw-------pgZVTTTVWXYcdfjj"),
    Person(4234, "w", "long", "jikmrtnjhecbckpw--------zpiecaZZadilkkkj"),
    Person(2448, "m", "short", "jiijopjdZWUTTTVXq-------caYWVWXZcimmonkj"),
    Person(5992, "w", "long", "jijmljfdcbcegjnu---------eaXVYcegikmoolj"),
    Person(31166, "m", "short", "jjkmpmiecbZYXYZadq------xngWVVWYadhlookj"),
    Person(11741, "w", "long", "jiigffeddddfhkpw---------unjgfeefghihiji"),
    Person(26872, "m", "long", "jiihfdaYXUTUVYacjx-------rkgdbZZZabcfgii"),
    Person(6966, "w", "long", "jjjmjdZXUUUXZddXw--------wpkhedeccfhjkkj"),
    Person(12897, "m", "short", "ijjklkjhfffeeZblz------cYWTSSTTUUWZdfhii"),
    Person(20681, "w", "long", "ijihiihhhgfggimpv--------wojgfffghjlnmlj"),
    Person(27136, "m", "short", "hiihhgecbaYZaabdz------jdcbYVTTUVXZbeghh"),
)


@dataclass(frozen=True)
class Photo:
    """What is on one photo: people as indexes into PEOPLE from left to right, and where."""

    people: tuple[int, ...]
    scene: str


@dataclass(frozen=True)
class Pose:
    """Where a head goes: (x, y) is the photo's pixel under the middle of the face, unit is pixels per generator
    pixel, angle is degrees."""

    x: float
    y: float
    unit: float
    angle: float

    def place(self, points: Sequence[tuple[float, float]]) -> Floats:
        """Generator-pixel points (x from the middle, y from the crop's top) -> photo pixels (N, 2), upright."""
        flat = np.array(points, np.float32) - np.array([0, _FACE_Y], np.float32)
        return (flat * self.unit + np.array([self.x, self.y])).astype(np.float32)


def generator_from_onnx(model: bytes) -> Generator:
    """The catalogued `face-gan`, or any ONNX file from latents (N, LATENT, 1, 1) to images (N, 3, H, W) in -1..1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def generate(latents: Floats) -> Pixels:
        batch = latents.reshape(-1, LATENT, 1, 1).astype(np.float32)
        images = np.concatenate([session.run(None, {name: part})[0] for part in _parts(batch, 32)])
        return np.clip(images.transpose(0, 2, 3, 1) * 127.5 + 128, 0, 255).astype(np.uint8)

    return generate


def _parts(batch: Floats, size: int) -> list[Floats]:
    return [batch[i : i + size] for i in range(0, len(batch), size)]


def latent(person: Person) -> Floats:
    """The person's identity (LATENT,), a draw of a standard normal."""
    return np.random.default_rng(person.seed).standard_normal(LATENT).astype(np.float32)


def outline_points(person: Person) -> Floats:
    """The head's outline as generator-pixel points (40, 2)."""
    radius = np.array([_CODE.index(letter) for letter in person.outline]) * 0.75
    turn = 2 * np.pi * np.arange(len(radius)) / len(radius)
    points = np.stack([np.sin(turn), -np.cos(turn)], 1) * radius[:, None] + np.array(_CENTRE)
    return points.astype(np.float32)


# ---- the head -------------------------------------------------------------------------------------------------


def cut_out(person: Person, face: Pixels, mirrored: bool) -> tuple[Floats, Floats]:
    """A face (FACE, FACE, 3) -> the head in colour (H, W, 3) and its matte (H, W), 0..1, in steps of 1/SCALE of a
    generator pixel, the face's first row _ABOVE rows down.

    The generator's images end at the crown and the chin. Upwards the crown is rounded off. Downwards long hair goes
    on as strands in its own colour and fades over the shoulders; a jaw without hair beside it ends in its own curve.
    """
    tall = cv2.copyMakeBorder(face, _ABOVE, _BELOW, 0, 0, cv2.BORDER_REPLICATE)
    big = cv2.resize(tall, None, fx=_SCALE, fy=_SCALE, interpolation=cv2.INTER_CUBIC)
    big = cv2.bilateralFilter(big, 9, 16, 5)  # the checkerboard of transposed convolutions
    head = np.clip(_float(big) * 1.7 - _blur(_float(big), 2.4) * 0.7, 0, 1)

    y, x = np.mgrid[: head.shape[0], : head.shape[1]].astype(np.float32) / _SCALE
    y, x = y - _ABOVE, x - _CENTRE[0]
    points = outline_points(person)
    crown = np.clip(1 - ((points[:, 0] - 32) / 22) ** 2, 0, 1) * np.clip((5 - points[:, 1]) / 4, 0, 1)
    points[:, 1] += _ABOVE - 3.5 * crown
    matte = _polygon(head.shape[:2], _smooth(points) * _SCALE, 1.6)
    floor = (_ABOVE + FACE - 2) * _SCALE
    matte[floor:] = matte[floor]
    matte *= _ramp((1.06 - np.hypot(x / 30, (y - 32) / np.where(y < 32, 36, 99))) * 14)

    jaw = _ramp((1.03 - np.hypot(x / 25, (y - 36) / 27)) * 16)
    if person.hair == "long":
        matte *= _ramp((77 - y) / 16) * np.maximum(jaw, _ramp((np.abs(x) - 10) / 6) + (y < 52))
    else:
        matte *= np.maximum(jaw, _ramp((50 - y) / 8))
    matte = _blur(np.clip(matte * 1.5 - 0.5, 0, 1), 0.8 * _SCALE)  # a little inside: its rim is background

    # Background shines through the rim of the hair: there, colour is drawn from further inside.
    inside = _ramp((matte - 0.8) * 5)
    drawn = _blur(head * inside[..., None], 1.5 * _SCALE) / (_blur(inside, 1.5 * _SCALE)[..., None] + 0.01)
    _paint(head, (1 - inside) * 0.9 * (y < 50), drawn)
    hair = np.median(_float(face)[3:9, 22:43].reshape(-1, 3), axis=0)
    grain = (head.mean(axis=2) / (_blur(head.mean(axis=2), 6) + 0.02))[..., None]
    strands = _ramp((y - 48) / 10) * (1 - jaw) * 0.85
    _paint(head, np.maximum(strands, _ramp((4 - y) / 4) * 0.7), hair * (0.35 + 0.55 * grain))
    return (head[:, ::-1], matte[:, ::-1]) if mirrored else (head, matte)


def draw_head(photo: Floats, pose: Pose, head: Floats, matte: Floats) -> None:
    """Lay a cut-out head into the photo, in place."""
    size, middle = photo.shape[1::-1], (_CENTRE[0] * _SCALE, (_ABOVE + _FACE_Y) * _SCALE)
    move = cv2.getRotationMatrix2D(middle, pose.angle, pose.unit / _SCALE)
    move[:, 2] += (pose.x - middle[0], pose.y - middle[1])
    _paint(photo, cv2.warpAffine(matte, move, size), cv2.warpAffine(head, move, size, borderMode=cv2.BORDER_REPLICATE))


# ---- the body -------------------------------------------------------------------------------------------------


def draw_body(
    photo: Floats, pose: Pose, face: Pixels, woman: bool, outfit: tuple[str, str], ambient: Floats, rng: Random
) -> None:
    """Neck, shoulders and clothes under the head, lit from the side that lights the face, in place."""
    garment, cloth = outfit
    shape = photo.shape[:2]
    skin = np.median(_float(face)[36:50, 22:43].reshape(-1, 3), axis=0)
    left, right = _float(face)[28:46, 18:25].mean(), _float(face)[28:46, 40:47].mean()
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    x, y = (x - pose.x) / pose.unit, (y - pose.y) / pose.unit + _FACE_Y
    side = np.clip(x / 60, -1, 1)
    light = 1 - side * float(np.clip(np.log((left + 0.05) / (right + 0.05)), -0.5, 0.5)) * 0.6
    wide, neck = (0.80, 10.5) if woman else (0.93, 13.0)

    trunk = _half([(neck, 62), (neck + 3, 68), (24 * wide, 72.5), (38 * wide, 76), (48 * wide, 81), (55 * wide, 91),
                   (59 * wide, 108), (62 * wide, 140), (63 * wide, 260)])  # fmt: skip
    torso = _polygon(shape, pose.place(trunk), 0.4 * pose.unit)
    shade = light * (1 - 0.42 * np.abs(x / (62 * wide)).clip(0, 1.2) ** 2.5) * (1.08 - 0.0028 * (y - 70).clip(0, 90))
    shade += _folds(rng, shape, pose) * 0.16
    arm = _strokes(shape, pose, [[(s * 42 * wide, 104), (s * 44 * wide, 125), (s * 45 * wide, 200)] for s in (-1, 1)])
    shade *= 1 - 0.5 * _blur(arm, 1.6 * pose.unit)
    weave = 1 + 0.035 * rng.standard_normal((*shape, 1)).astype(np.float32)
    colour = np.array(CLOTH[cloth], np.float32) * ambient
    if garment == "striped T-shirt":
        stripe = _ramp(np.sin(y * 0.8 + np.cos(x / 30) * 2) * 3 - 1)[..., None]
        colour = (
            colour * (1 - stripe)
            + np.array(CLOTH["navy" if cloth in ("white", "cream") else "white"]) * ambient * stripe
        )
    _paint(photo, torso, colour * shade[..., None] * weave)

    low = {"T-shirt": 78.0, "striped T-shirt": 78.0, "sweater": 76.0, "shirt": 84.0, "jacket": 92.0}[garment]
    opening = _half([(neck, 40), (neck, 62), (neck + 2.5, 69), (neck - 1, 70 + (low - 70) * 0.45), (neck * 0.5, low - 2.2),
                     (0, low)])  # fmt: skip
    hole = _polygon(shape, pose.place(opening), 0.35 * pose.unit)
    under = np.array(CLOTH["white" if cloth != "white" else "navy"], np.float32)
    if garment == "jacket":  # a T-shirt shows under it
        _paint(photo, hole, under * ambient * 0.85 * light[..., None] * (1 - 0.12 * np.abs(side))[..., None])
        hole = _polygon(shape, pose.place(_half([(neck, 40), (neck, 62), (neck + 1, 69), (neck - 3, 74), (0, 77)])),
                        0.35 * pose.unit)  # fmt: skip
    throat = 0.55 + 0.30 * _ramp((y - 62) / 13) - 0.22 * np.abs(x / neck).clip(0, 1.2) ** 3
    _paint(photo, hole, skin * ambient * np.array((1.02, 0.97, 0.94)) * (throat * light)[..., None])
    if garment in ("T-shirt", "striped T-shirt", "sweater"):
        rim = np.clip(_blur(hole, 1.5 * pose.unit) - hole, 0, 1) * torso * (y > 62)
        _paint(photo, rim * 0.9, colour * 0.5 * shade[..., None])
    else:
        if garment == "shirt":
            front = _strokes(shape, pose, [[(0, low), (0, 260)]]) * torso * 0.4
            _paint(photo, _blur(front, 0.4 * pose.unit), np.zeros(3))
        _collar(photo, pose, neck, low, garment, colour * 1.12 * shade[..., None], torso)


def _collar(photo: Floats, pose: Pose, neck: float, low: float, garment: str, cloth: Floats, torso: Floats) -> None:
    """The two flaps of a shirt, or the two lapels of a jacket, each with the shadow that it throws."""
    for s in (-1, 1):
        if garment == "shirt":
            flap = [(neck + 0.5, 63), (neck + 4, 69), (10.5, 88), (1.0, low), (neck * 0.62, 75)]
        else:
            flap = [
                (neck + 1, 64),
                (neck + 5, 70),
                (20, 84),
                (15.5, 87),
                (18, 92),
                (3, 122),
                (0.5, low + 18),
                (neck, 74),
            ]
        points = pose.place([(s * px, py) for px, py in flap])
        shape = photo.shape[:2]
        mask = _polygon(shape, points, 0.25 * pose.unit)
        shadow = _polygon(shape, points + np.array([0, 1.5 * pose.unit], np.float32), 1.2 * pose.unit)
        _paint(photo, shadow * torso * 0.45, np.zeros(3))
        _paint(photo, mask, cloth)


def _folds(rng: Random, shape: tuple[int, ...], pose: Pose) -> Floats:
    """Creases of cloth about -1..1: noise drawn out along the pull of the shoulders."""
    height, width = shape
    cells = rng.standard_normal((height // 8 + 2, width // 8 + 2)).astype(np.float32)
    coarse = cv2.GaussianBlur(cells, (0, 0), sigmaX=1.0, sigmaY=3.2)
    folds = cv2.resize(coarse / (coarse.std() + 1e-6), (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    slanted = y + np.float32(0.35) * np.abs(x - np.float32(pose.x))
    return cv2.remap(folds, x, slanted, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101).clip(-2, 2) / 2


# ---- the place ------------------------------------------------------------------------------------------------


def draw_scene(width: int, height: int, scene: str, rng: Random) -> Floats:
    """A place out of focus (height, width, 3), 0..1."""
    w, h = width // 4, height // 4  # drawn small: everything in it is blurred anyway
    y = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    x = np.linspace(0, 1, w, dtype=np.float32)[None, :, None]
    tint = rng.uniform(0.92, 1.08, 3)
    if scene == "park":
        horizon = rng.uniform(0.5, 0.7)
        leaves = _mix((0.50, 0.58, 0.40), (0.20, 0.30, 0.14), y / horizon) * (1 + 0.32 * _clouds(rng, h, w, 7))
        place = np.where(y < horizon, leaves, _mix((0.42, 0.50, 0.25), (0.34, 0.38, 0.20), (y - horizon) * 2))
        place = place + np.clip(_clouds(rng, h, w, 12) - 0.9, 0, 1) * (y < 0.5) * np.array((0.5, 0.5, 0.42))
        for _ in range(int(rng.integers(1, 4))):
            place = np.where(np.abs(x - rng.uniform()) < rng.uniform(0.01, 0.03), np.array((0.22, 0.18, 0.14)), place)
    elif scene == "sea":
        horizon = rng.uniform(0.42, 0.58)
        sky = _mix((0.50, 0.64, 0.80), (0.84, 0.86, 0.86), y / horizon) + 0.03 * _clouds(rng, h, w, 14)
        water = _mix((0.33, 0.46, 0.54), (0.42, 0.55, 0.58), (y - horizon) * 3) * (1 + 0.03 * _clouds(rng, h, w, 3))
        sand = np.array((0.70, 0.63, 0.51)) * (1 + 0.04 * _clouds(rng, h, w, 5))
        place = np.where(y < horizon, sky, np.where(y < horizon + 0.25 + 0.06 * x, water, sand))
    elif scene == "street":
        place = np.repeat(_mix((0.72, 0.74, 0.77), (0.45, 0.44, 0.43), y), w, axis=1)
        left = -int(rng.integers(0, 20))
        while left < w:
            right = left + int(rng.integers(14, 34))
            wall = rng.uniform(0.35, 0.66) * np.array((1, 0.94, 0.86)) * rng.uniform(0.94, 1.06, 3)
            roof = int(rng.uniform(-0.1, 0.25) * h)
            place[max(roof, 0) : int(0.82 * h), max(left, 0) : max(right, 0)] = wall
            for row in range(max(roof, 0) + 4, int(0.72 * h), 9):
                for column in range(max(left, 0) + 2, right - 3, 6):
                    place[row : row + 5, column : column + 3] = wall * rng.choice((0.5, 0.65, 1.25))
            left = right + int(rng.integers(0, 6))
    elif scene == "evening":
        place = _mix((0.08, 0.10, 0.18), (0.17, 0.13, 0.12), y) * (1 + 0.25 * _clouds(rng, h, w, 10))
    elif scene == "office":
        place = np.repeat(np.array((0.72, 0.70, 0.66)) * (1.05 - 0.2 * y), w, axis=1)
        glass = int(rng.uniform(-0.1, 0.5) * w)
        for pane in range(3):
            start = max(glass + pane * 14, 0)
            place[int(0.04 * h) : int(0.6 * h), start : max(start, glass + pane * 14 + 12)] = (0.88, 0.92, 0.95)
        shelf = int(rng.uniform(0.55, 0.8) * w)
        for row in range(4):
            bottom = int((0.2 + 0.17 * row) * h)
            place[bottom : bottom + 2, shelf:] = (0.40, 0.31, 0.24)
            for book in range(shelf, w - 2, 3):
                tall = int(rng.integers(7, 12))
                place[bottom - tall : bottom, book : book + 3] = _mix(rng.uniform(0.2, 0.6, 3), (0.4, 0.36, 0.3), 0.6)
    elif scene == "wall":
        paint = np.array(((0.50, 0.54, 0.58), (0.58, 0.52, 0.46), (0.44, 0.50, 0.47))[int(rng.integers(3))])
        spot = (x - rng.uniform(0.3, 0.7)) ** 2 + (y - 0.4) ** 2
        place = paint * (1.2 - 0.9 * spot) * (1 + 0.04 * _clouds(rng, h, w, 12))
    else:
        raise ValueError(f"No scene is called {scene!r}; there are {', '.join(SCENES)}.")
    small = _blur(np.clip(place * tint, 0, 1).astype(np.float32), 1.7)
    large = _blur(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), 2.5)
    return _lights(large, scene, rng)


def _lights(place: Floats, scene: str, rng: Random) -> Floats:
    """Points of light out of focus: discs as wide as the lens is open, as bright as they are far apart."""
    many, hues, strength = {
        "park": (22, ((0.95, 1.0, 0.7),), 0.22),
        "street": (6, ((1.0, 0.9, 0.75),), 0.2),
        "evening": (30, ((1.0, 0.72, 0.38), (1.0, 0.88, 0.66), (0.95, 0.35, 0.28), (0.55, 0.72, 1.0)), 0.75),
    }.get(scene, (0, ((0.0, 0.0, 0.0),), 0.0))
    height, width = place.shape[:2]
    radius = rng.uniform(0.018, 0.034) * width
    for _ in range(many):
        spot = np.zeros((height, width), np.float32)
        at = (int(rng.uniform(0, width)), int(rng.uniform(0, 0.75) * height))
        cv2.circle(spot, at, int(radius * rng.uniform(0.6, 1.1)), 1.0, -1, cv2.LINE_AA)
        hue = np.array(hues[int(rng.integers(len(hues)))], np.float32)
        glow = _blur(spot, 1.3)[..., None] * hue * np.float32(strength * rng.uniform(0.3, 1))
        place = 1 - (1 - place) * (1 - glow)
    return place


# ---- the photo ------------------------------------------------------------------------------------------------


def compose(photo: Photo, faces: Sequence[Pixels], rng: Random) -> tuple[Pixels, str]:
    """A photo's pixels (H, W, 3) RGB, and its caption. `faces` are the generator's, one for each of its people."""
    count = len(photo.people)
    width, height = (640, 420) if count > 1 else SIZES[int(rng.integers(len(SIZES)))]
    scene = draw_scene(width, height, photo.scene, rng)
    average = scene.mean(axis=(0, 1))
    ambient = (0.9 if photo.scene == "evening" else 1.0) * (1 + 0.18 * (average / average.mean() - 1))
    worn = []
    steps = (np.arange(count) + 0.5) / max(count, 1)
    for place, index, face in sorted(zip(steps, photo.people, faces, strict=True), key=lambda p: abs(p[0] - 0.5))[::-1]:
        person = PEOPLE[index]
        unit = rng.uniform(1.9, 2.2) if count > 1 else rng.uniform(2.6, 3.2)
        spread = 0.015 if count > 1 else 0.09
        at = width * (0.5 + (place - 0.5) * (0.92 if count > 1 else 1) + rng.uniform(-spread, spread))
        pose = Pose(float(at), height * rng.uniform(0.27, 0.33) + unit * 10, unit, rng.uniform(-6, 6))
        mirrored = bool(rng.integers(2))
        outfit = (str(rng.choice(list(GARMENTS), p=list(GARMENTS.values()))), str(rng.choice(list(CLOTH))))
        seen = face[:, ::-1] if mirrored else face
        draw_body(scene, pose, seen, person.looks == "w", outfit, ambient, rng)
        head, matte = cut_out(person, face, mirrored)
        draw_head(scene, pose, head * ambient, matte)
        worn.append(f"a {outfit[1]} {outfit[0]}")
    return develop(scene, photo.scene, rng), _caption(photo, worn)


def _caption(photo: Photo, worn: Sequence[str]) -> str:
    where = SCENES[photo.scene]
    if not photo.people:
        return f"Nobody {where}."
    return f"A person in {worn[0]} {where}." if len(worn) == 1 else f"{len(worn)} people {where}."


def develop(scene: Floats, name: str, rng: Random) -> Pixels:
    """Exposure, colour temperature, vignette and grain; 0..1 -> uint8."""
    height, width = scene.shape[:2]
    gamma = rng.uniform(0.82, 1.12) + (0.08 if name == "evening" else 0)
    warm = rng.uniform(-0.05, 0.05)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    tone = np.clip(scene, 0, 1) ** gamma * np.array((1 + warm, 1, 1 - warm)) * (1 - 0.10 * (x**2 + y**2))[..., None]
    grain = rng.standard_normal((height, width, 1)) * 0.012 + rng.standard_normal((height, width, 3)) * 0.006
    return (np.clip(tone + grain, 0, 1) * 255 + 0.5).astype(np.uint8)


# ---- strokes --------------------------------------------------------------------------------------------------


def _float(pixels: Pixels) -> Floats:
    return pixels.astype(np.float32) / 255


def _blur(image: Floats, sigma: float) -> Floats:
    blurred = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return blurred.reshape(image.shape)


def _ramp(t: Floats) -> Floats:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _mix(a: object, b: object, t: Floats | float) -> Floats:
    share = np.clip(t, 0, 1)
    return np.asarray(a, np.float32) * (1 - share) + np.asarray(b, np.float32) * share


def _clouds(rng: Random, height: int, width: int, cell: int) -> Floats:
    """Smooth noise (height, width, 1), unit variance, features of about `cell` pixels."""
    field = _blur(rng.standard_normal((height, width)).astype(np.float32), cell / 3)
    return (field / (field.std() + 1e-6))[..., None]


def _smooth(points: Floats) -> Floats:
    """A closed outline with its corners rounded, 8 points for each one given."""
    closed = np.vstack([points, points[:1]])
    at = np.arange(0, len(points), 1 / 8)
    fine = np.stack([np.interp(at, np.arange(len(closed)), closed[:, k]) for k in (0, 1)], 1)
    kernel = np.hanning(19)[1:-1] / np.hanning(19).sum()
    padded = np.vstack([fine[-8:], fine, fine[:8]])
    return np.stack([np.convolve(padded[:, k], kernel, "valid") for k in (0, 1)], 1).astype(np.float32)


def _half(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The right half of a symmetric outline, top to bottom -> the rounded whole of it."""
    given = np.array(points, np.float32)
    at = np.linspace(0, len(given) - 1, len(given) * 10)
    fine = np.stack([np.interp(at, np.arange(len(given)), given[:, k]) for k in (0, 1)], 1)
    padded = np.vstack([fine[:1].repeat(4, 0), fine, fine[-1:].repeat(4, 0)])
    soft = np.stack([np.convolve(padded[:, k], np.ones(9) / 9, "valid") for k in (0, 1)], 1)
    return [(float(x), float(y)) for x, y in soft] + [(-float(x), float(y)) for x, y in soft[::-1]]


def _polygon(shape: tuple[int, ...], points: Floats, soft: float) -> Floats:
    mask = np.zeros(shape, np.float32)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    return _blur(mask, soft)


def _strokes(shape: tuple[int, ...], pose: Pose, lines: Sequence[Sequence[tuple[float, float]]]) -> Floats:
    mask = np.zeros(shape, np.float32)
    for line in lines:
        points = np.round(pose.place(line) * 16).astype(np.int32)
        cv2.polylines(mask, [points], False, 1.0, max(1, round(1.2 * pose.unit)), cv2.LINE_AA, 4)
    return mask


def _paint(image: Floats, mask: Floats, colour: NDArray[np.floating]) -> None:
    image += mask[..., None] * (colour - image)


# ---- the dataset ----------------------------------------------------------------------------------------------


def make_dataset(
    generator: Generator,
    out: Path,
    *,
    people: int = len(PEOPLE),
    photos_per_person: int = 5,
    scenes: Sequence[str] = tuple(SCENES),
    groups: int = GROUPS,
    empty: int = EMPTY,
    astronaut: bool = True,
    shards: int = SHARDS,
    seed: int = 0,
) -> list[Path]:
    """Write demo-000.tar, ... to `out`, WebDataset shards of KEY.jpg and KEY.json; returns their paths.

    A sidecar holds `person` ("p007"; null on a group photo, whose `people` names them from left to right; absent
    where nobody is), `caption`, and `device`, a serial number that no release should pass on.
    Raises ValueError where more people are asked for than PEOPLE has.
    """
    if not 1 <= people <= len(PEOPLE):
        raise ValueError(f"The demo has {len(PEOPLE)} people; {people} were asked for. Ask for 1 to {len(PEOPLE)}.")
    if groups and people < 3:
        raise ValueError(f"A group photo needs 3 people to choose from; there are {people}. Ask for groups=0.")
    rng = np.random.default_rng(seed)
    photos = [
        Photo((i,), scenes[int(rng.integers(len(scenes)))]) for i in range(people) for _ in range(photos_per_person)
    ]
    for group in range(groups):
        together = rng.choice(people, size=2 + group % 2, replace=False)
        photos.append(Photo(tuple(int(i) for i in together), scenes[group % len(scenes)]))
    photos += [Photo((), scenes[i % len(scenes)]) for i in range(empty)]
    faces = _faces(generator, photos, rng)
    samples = []
    for number, (photo, seen) in enumerate(zip(photos, faces, strict=True)):
        pixels, caption = compose(photo, seen, np.random.default_rng((seed, number)))
        samples.append((_encode(pixels), {**_labels(photo), "caption": caption, "device": f"CAM-{number % 7:04d}"}))
    if astronaut:
        samples.append(_astronaut())
    order = rng.permutation(len(samples))
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for shard, part in enumerate(np.array_split(order, shards)):
        paths.append(out / f"demo-{shard:03d}.tar")
        _write_shard(paths[-1], [(f"{shard:03d}{n:05d}", *samples[int(i)]) for n, i in enumerate(part)])
    return paths


def _faces(generator: Generator, photos: Sequence[Photo], rng: Random) -> list[list[Pixels]]:
    """For each photo the faces of its people, each a fresh one of that person."""
    owners = [index for photo in photos for index in photo.people]
    identity = np.stack([latent(PEOPLE[index]) for index in owners])
    latents = TRUNCATION * identity + NOISE * rng.standard_normal(identity.shape).astype(np.float32)
    images = iter(generator(latents.astype(np.float32).reshape(-1, LATENT, 1, 1)))
    return [[next(images) for _ in photo.people] for photo in photos]


def _labels(photo: Photo) -> dict[str, object]:
    names = [f"p{index:03d}" for index in photo.people]
    if not names:
        return {}
    return {"person": names[0]} if len(names) == 1 else {"person": None, "people": names}


def _astronaut() -> tuple[bytes, dict[str, object]]:
    """One real face: NASA's portrait of an astronaut, in the public domain, as scikit-image ships it."""
    from skimage.data import astronaut

    return _encode(astronaut()), {"person": "astronaut", "caption": "A portrait of an astronaut.", "device": "CAM-0000"}


def _encode(pixels: Pixels) -> bytes:
    """JPEG with what cameras add: a maker, a model and a position, at sea where no one lives."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "anonlib", "demo camera"
    position = exif.get_ifd(0x8825)
    position[1], position[2], position[3], position[4] = "N", (0.0, 0.0, 0.0), "W", (0.0, 0.0, 0.0)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY, exif=exif)
    return stream.getvalue()


def _write_shard(path: Path, samples: Sequence[tuple[str, bytes, dict[str, object]]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, jpeg, fields in samples:
            for name, data in ((f"{key}.jpg", jpeg), (f"{key}.json", json.dumps(fields).encode())):
                member = tarfile.TarInfo(name)  # its defaults: mtime 0, owner 0, mode 644
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def main() -> None:
    """`python jobs/demo_data.py OUT`"""
    parser = argparse.ArgumentParser(description="Write the demo dataset: photos of people who never lived.")
    parser.add_argument("out", type=Path, help="folder for demo-000.tar, ...")
    parser.add_argument("--people", type=int, default=len(PEOPLE))
    parser.add_argument("--photos-per-person", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from anonlib.models.fetch import model_bytes

    generator = generator_from_onnx(model_bytes("face-gan"))
    for path in make_dataset(
        generator, options.out, people=options.people, photos_per_person=options.photos_per_person, seed=options.seed
    ):
        print(path)


if __name__ == "__main__":
    main()
