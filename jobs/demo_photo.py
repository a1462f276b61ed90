"""One photo of the demo, from the heads that the generator drew to what a camera would have kept.

`face-gan` draws 64 px heads, and a head alone is no photo: each is cut out, enlarged to 80-160 px of face, given a
neck, clothes and a place out of focus that colours the light on it, and developed: exposure, colour, grain. Out of
focus, a place is little more than its colours, so it is drawn too, on float images of 0..1, and no photo of a place or
licence for one is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from demo_people import CENTRE, FACE, PEOPLE, Floats, Person, f32
from numpy.typing import ArrayLike, NDArray

Pixels = NDArray[np.uint8]
Random = np.random.Generator
T = TypeVar("T")

SCENES = {
    "park": "in a park",
    "sea": "by the sea",
    "street": "in a street",
    "evening": "in the city at night",
    "office": "in an office",
    "wall": "in front of a wall",
}
SIZES = ((512, 384), (480, 384), (400, 400), (400, 460))  # px, width and height
GROUP_SIZE = (640, 420)
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

_FACE_Y = 34.0  # the row of every face's middle
_SCALE, _ABOVE, _BELOW = 4, 6, 20  # a cut-out head: its pixels per generator pixel; rows added above and below


@dataclass(frozen=True)
class Photo:
    """What is on one photo: indexes into PEOPLE from left to right, and a key of SCENES."""

    people: tuple[int, ...]
    scene: str

    def labels(self) -> dict[str, object]:
        """The sidecar's words on who this is."""
        names = [f"p{index:03d}" for index in self.people]
        if not names:
            return {}
        return {"person": names[0]} if len(names) == 1 else {"person": None, "people": names}


@dataclass(frozen=True)
class Pose:
    """Where a head goes: (x, y) px under the middle of the face, `unit` px a generator pixel, `angle` degrees."""

    x: float
    y: float
    unit: float
    angle: float

    def place(self, points: ArrayLike) -> Floats:
        """Points (N, 2), x from the face's middle and y from the crop's top in generator pixels -> photo pixels."""
        return f32((f32(points) - (0, _FACE_Y)) * self.unit + (self.x, self.y))

    def grid(self, shape: tuple[int, int]) -> tuple[Floats, Floats]:
        """The same x and y of every photo pixel, (H, W) each."""
        y, x = np.mgrid[: shape[0], : shape[1]]
        return f32((x - self.x) / self.unit), f32((y - self.y) / self.unit + _FACE_Y)


def compose(photo: Photo, faces: Sequence[Pixels], rng: Random) -> tuple[Pixels, str]:
    """A photo's pixels (H, W, 3) RGB and its caption. `faces` are the generator's, one for each of its people."""
    count = len(photo.people)
    width, height = GROUP_SIZE if count > 1 else one_of(SIZES, rng)
    image = draw_scene(width, height, photo.scene, rng)
    average = image.mean(axis=(0, 1))  # the place colours what light falls on the people
    ambient = f32(1 + 0.18 * (average / average.mean() - 1))
    worn = []
    for number, (index, face) in enumerate(zip(photo.people, faces, strict=True)):
        person, mirrored = PEOPLE[index], bool(rng.integers(2))
        unit = rng.uniform(1.9, 2.2) if count > 1 else rng.uniform(2.6, 3.2)
        x = width * ((number + 0.5) / count + rng.uniform(-1, 1) * (0.015 if count > 1 else 0.09))
        pose = Pose(x, height * rng.uniform(0.27, 0.33) + unit * 10, unit, rng.uniform(-6, 6))
        garment = str(rng.choice(list(GARMENTS), p=list(GARMENTS.values())))
        cloth = one_of(tuple(CLOTH), rng)
        draw_body(image, pose, face[:, ::-1] if mirrored else face, person.looks, garment, cloth, ambient, rng)
        head, matte = cut_out(person, face, mirrored)
        draw_head(image, pose, head * ambient, matte)
        worn.append(f"a {cloth} {garment}")
    who = {0: "Nobody", 1: f"A person in {worn[0]}" if worn else ""}.get(count, f"{count} people")
    return develop(image, rng), f"{who} {SCENES[photo.scene]}."


def develop(image: Floats, rng: Random) -> Pixels:
    """Exposure, colour temperature, vignette and grain."""
    height, width = image.shape[:2]
    gamma = rng.uniform(0.76, 1.0)
    warm = rng.uniform(-0.05, 0.05)
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    tone = np.clip(image, 0, 1) ** np.float32(gamma) * f32((1 + warm, 1, 1 - warm))
    tone *= f32(1 - 0.10 * (x**2 + y**2))[..., None]
    grain = rng.standard_normal((height, width, 3), np.float32) * 0.006
    return u8(tone + grain + rng.standard_normal((height, width, 1), np.float32) * 0.012)


def cut_out(person: Person, face: Pixels, mirrored: bool) -> tuple[Floats, Floats]:
    """A face (FACE, FACE, 3) -> the head in colour (H, W, 3) and its matte (H, W), both 0..1, _SCALE pixels to a
    generator pixel, the face's first row _ABOVE rows down.

    The generator's images end at the crown and the chin. Upwards the crown is rounded off. Downwards long hair goes
    on as strands in its own colour and fades over the shoulders; a jaw without hair ends in its own curve.
    """
    tall = cv2.copyMakeBorder(face, _ABOVE, _BELOW, 0, 0, cv2.BORDER_REPLICATE)
    big = cv2.resize(tall, None, fx=_SCALE, fy=_SCALE, interpolation=cv2.INTER_CUBIC)
    smooth = f32(cv2.bilateralFilter(big, 9, 16, 5)) / 255  # the checkerboard of transposed convolutions goes
    head = np.clip(smooth * 1.7 - blur(smooth, 2.4) * 0.7, 0, 1)

    y, x = np.mgrid[: head.shape[0], : head.shape[1]] / _SCALE
    y, x = y - _ABOVE, x - CENTRE[0]
    jaw = ramp((1.03 - np.hypot(x / 25, (y - 36) / 27)) * 16)
    matte = _silhouette(person, (head.shape[0], head.shape[1]))
    matte *= ramp((1.06 - np.hypot(x / 30, (y - 32) / np.where(y < 32, 36, 99))) * 14)
    if person.hair == "long":
        matte *= ramp((77 - y) / 16) * np.maximum(jaw, ramp((np.abs(x) - 10) / 6) + (y < 52))
    else:
        matte *= np.maximum(jaw, ramp((50 - y) / 8))
    matte = blur(np.clip(matte * 1.5 - 0.5, 0, 1), 0.8 * _SCALE)  # a little inside: its rim is background

    # Background shines through the rim of the hair: colour for it is drawn from further inside.
    inside = ramp((matte - 0.8) * 5)
    drawn = blur(head * inside[..., None], 1.5 * _SCALE) / (blur(inside, 1.5 * _SCALE)[..., None] + 0.01)
    paint(head, (1 - inside) * 0.9 * (y < 50), drawn)
    hair = f32(np.median(face[3:9, 22:43].reshape(-1, 3), axis=0)) / 255
    light = head.mean(axis=2)
    strand = (light / (blur(light, 6) + 0.02))[..., None]
    paint(
        head, np.maximum(ramp((y - 48) / 10) * (1 - jaw) * 0.85, ramp((4 - y) / 4) * 0.7), hair * (0.35 + 0.55 * strand)
    )
    return (head[:, ::-1], matte[:, ::-1]) if mirrored else (head, matte)


def _silhouette(person: Person, shape: tuple[int, int]) -> Floats:
    """The outline filled in, its crown raised where the crop cut it flat, its last row drawn on to the bottom."""
    points = person.points()
    cut = np.clip((5 - points[:, 1]) / 4, 0, 1)
    points[:, 1] += _ABOVE - 3.5 * cut * np.clip(1 - ((points[:, 0] - CENTRE[0]) / 22) ** 2, 0, 1)
    matte = fill(shape, rounded(np.vstack([points, points[:1]]), 17) * _SCALE, 1.6)
    floor = (_ABOVE + FACE - 2) * _SCALE
    matte[floor:] = matte[floor]
    return matte


def draw_head(image: Floats, pose: Pose, head: Floats, matte: Floats) -> None:
    """Lay a cut-out head into the photo, in place."""
    size, middle = (image.shape[1], image.shape[0]), (CENTRE[0] * _SCALE, (_ABOVE + _FACE_Y) * _SCALE)
    move = cv2.getRotationMatrix2D(middle, pose.angle, pose.unit / _SCALE)
    move[:, 2] += np.array((pose.x - middle[0], pose.y - middle[1]))
    colour = f32(cv2.warpAffine(head, move, size, borderMode=cv2.BORDER_REPLICATE))
    paint(image, f32(cv2.warpAffine(matte, move, size)), colour)


def draw_body(
    image: Floats, pose: Pose, face: Pixels, looks: str, garment: str, cloth: str, ambient: Floats, rng: Random
) -> None:
    """Neck, shoulders and clothes under the head, lit from the side that lights the face, in place."""
    shape = (image.shape[0], image.shape[1])
    x, y = pose.grid(shape)
    wide, neck = (0.80, 10.5) if looks == "w" else (0.93, 13.0)
    left, right = face[28:46, 18:25].mean() + 12, face[28:46, 40:47].mean() + 12
    light = 1 - np.clip(x / 60, -1, 1) * np.float32(np.clip(np.log(left / right), -0.5, 0.5) * 0.6)
    skin = f32(np.median(face[36:50, 22:43].reshape(-1, 3), axis=0)) / 255 * ambient * f32((1.02, 0.97, 0.94))

    trunk = ((neck, 62), (neck + 3, 68), (24 * wide, 72.5), (38 * wide, 76), (48 * wide, 81), (55 * wide, 91))
    torso = fill(shape, pose.place(both(*trunk, (59 * wide, 108), (62 * wide, 140), (63 * wide, 260))), 0.4 * pose.unit)
    shade = light * (1 - 0.42 * np.abs(x / (62 * wide)).clip(0, 1.2) ** 2.5) * (1.08 - 0.0028 * (y - 70).clip(0, 90))
    shade += 0.16 * _folds(shape, pose, rng)
    for side in (-wide, wide):
        shade *= 1 - 0.5 * _line(shape, pose, ((42 * side, 104), (44 * side, 125), (45 * side, 200)), 1.6)
    colour = f32(CLOTH[cloth]) * ambient * np.ones((*shape, 1), np.float32)
    other = f32(CLOTH["navy" if cloth in ("white", "cream") else "white"]) * ambient
    if garment == "striped T-shirt":
        paint(colour, ramp(np.sin(y * 0.8 + np.cos(x / 30) * 2) * 3 - 1), other)
    lit = colour * shade[..., None]
    paint(image, torso, lit * (1 + 0.035 * rng.standard_normal((*shape, 1), np.float32)))

    low = {"sweater": 76.0, "shirt": 84.0, "jacket": 92.0}.get(garment, 78.0)  # where the opening ends
    opening = [(neck, 40.0), (neck, 62.0), (neck + 2.5, 69.0)]
    opening += [(neck - 1, 38.5 + low * 0.45), (neck * 0.5, low - 2.2), (0, low)]
    hole = fill(shape, pose.place(both(*opening)), 0.35 * pose.unit)
    if garment == "jacket":  # what is worn under it shows
        paint(image, hole, f32(other * 0.85 * light[..., None]))
        opening = [(neck, 40), (neck, 62), (neck + 1, 69), (neck - 3, 74), (0, 77)]
        hole = fill(shape, pose.place(both(*opening)), 0.35 * pose.unit)
    throat = 0.55 + 0.30 * ramp((y - 62) / 13) - 0.22 * np.abs(x / neck).clip(0, 1.2) ** 3
    paint(image, hole, f32(skin * (throat * light)[..., None]))
    if garment in ("shirt", "jacket"):
        _collar(image, pose, neck, low, garment, lit * 1.12, torso)
    else:
        rim = np.clip(blur(hole, 1.5 * pose.unit) - hole, 0, 1) * (y > 62)
        paint(image, rim * torso * 0.9, lit * 0.5)


def _collar(image: Floats, pose: Pose, neck: float, low: float, garment: str, cloth: Floats, torso: Floats) -> None:
    """The two flaps of a shirt, or the two lapels of a jacket, each with the shadow that it throws."""
    shape, dark = (image.shape[0], image.shape[1]), np.zeros(3, np.float32)
    flap: list[tuple[float, float]]
    if garment == "shirt":
        paint(image, _line(shape, pose, ((0, low), (0, 260)), 0.4) * torso * 0.4, dark)
        flap = [(neck + 0.5, 63), (neck + 4, 69), (10.5, 88), (1.0, low), (neck * 0.62, 75)]
    else:
        flap = [(neck + 1, 64), (neck + 5, 70), (20, 84), (15.5, 87), (18, 92), (3, 122), (0.5, low + 18), (neck, 74)]
    for side in (-1, 1):
        points = pose.place(f32(flap) * (side, 1))
        paint(image, fill(shape, points + f32((0, 1.5 * pose.unit)), 1.2 * pose.unit) * torso * 0.45, dark)
        paint(image, fill(shape, points, 0.25 * pose.unit), cloth)


def _folds(shape: tuple[int, int], pose: Pose, rng: Random) -> Floats:
    """Creases of cloth, about -1..1: noise drawn out along the pull of the shoulders."""
    cells = rng.standard_normal((shape[0] // 8 + 2, shape[1] // 8 + 2), np.float32)
    drawn = f32(cv2.GaussianBlur(cells, (0, 0), sigmaX=1.0, sigmaY=3.2))
    folds = cv2.resize(drawn / drawn.std(), (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[: shape[0], : shape[1]]
    slanted = f32(y + 0.35 * np.abs(x - pose.x))
    moved = f32(cv2.remap(folds, f32(x), slanted, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))
    return f32(moved.clip(-2, 2) / 2)


def _line(shape: tuple[int, int], pose: Pose, points: ArrayLike, soft: float) -> Floats:
    """A crease or a seam; `soft` is in generator pixels, as the points are."""
    mask = np.zeros(shape, np.float32)
    path = np.round(pose.place(points) * 16).astype(np.int32)
    cv2.polylines(mask, [path], False, 1.0, max(1, round(1.2 * pose.unit)), cv2.LINE_AA, 4)
    return blur(mask, soft * pose.unit)


# ---- places ---------------------------------------------------------------------------------------------------


def draw_scene(width: int, height: int, scene: str, rng: Random) -> Floats:
    """A place out of focus (height, width, 3), 0..1. Raises ValueError for a scene that SCENES does not name."""
    if scene not in SCENES:
        raise ValueError(f"No scene is called {scene!r}; there are {', '.join(SCENES)}.")
    draw = {"park": _park, "sea": _sea, "street": _street, "evening": _evening, "office": _office, "wall": _wall}[scene]
    small = draw(height // 4, width // 4, rng) * f32(rng.uniform(0.92, 1.08, 3))  # small: all of it gets blurred
    soft = blur(np.clip(small, 0, 1), 1.7)
    image = blur(f32(cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC)), 2.5)
    if scene == "evening":
        _lights(image, 30, ((1.0, 0.72, 0.38), (1.0, 0.88, 0.66), (0.95, 0.35, 0.28), (0.55, 0.72, 1.0)), 0.75, rng)
    elif scene in ("park", "street"):
        _lights(image, 22 if scene == "park" else 6, ((0.95, 1.0, 0.7), (1.0, 0.9, 0.75)), 0.22, rng)
    return image


def _park(h: int, w: int, rng: Random) -> Floats:
    y, x = axes(h, w)
    horizon = rng.uniform(0.5, 0.7)
    leaves = mix((0.50, 0.58, 0.40), (0.20, 0.30, 0.14), y / horizon) * (1 + 0.32 * clouds(h, w, 7, rng))
    grass = mix((0.42, 0.50, 0.25), (0.34, 0.38, 0.20), (y - horizon) * 2)
    sky = np.clip(clouds(h, w, 12, rng) - 0.9, 0, 1) * (y < 0.5) * f32((0.5, 0.5, 0.42))
    park = np.where(y < horizon, leaves, grass) + sky
    for _ in range(int(rng.integers(1, 4))):
        park = np.where(np.abs(x - rng.uniform()) < rng.uniform(0.01, 0.03), f32((0.22, 0.18, 0.14)), park)
    return f32(park)


def _sea(h: int, w: int, rng: Random) -> Floats:
    y, x = axes(h, w)
    horizon = rng.uniform(0.42, 0.58)
    sky = mix((0.50, 0.64, 0.80), (0.84, 0.86, 0.86), y / horizon) + 0.03 * clouds(h, w, 14, rng)
    water = mix((0.33, 0.46, 0.54), (0.42, 0.55, 0.58), (y - horizon) * 3) * (1 + 0.03 * clouds(h, w, 3, rng))
    sand = f32((0.70, 0.63, 0.51)) * (1 + 0.04 * clouds(h, w, 5, rng))
    return np.where(y < horizon, sky, np.where(y < horizon + 0.25 + 0.06 * x, water, sand))


def _street(h: int, w: int, rng: Random) -> Floats:
    street = mix((0.72, 0.74, 0.77), (0.45, 0.44, 0.43), axes(h, w)[0]).repeat(w, axis=1)
    left = -int(rng.integers(0, 20))
    while left < w:
        right = left + int(rng.integers(14, 34))
        wall = rng.uniform(0.35, 0.66) * np.array((1, 0.94, 0.86)) * rng.uniform(0.94, 1.06, 3)
        roof = max(int(rng.uniform(-0.1, 0.25) * h), 0)
        street[roof : int(0.82 * h), max(left, 0) : right] = wall
        for row in range(roof + 4, int(0.72 * h), 9):
            for column in range(max(left, 0) + 2, right - 3, 6):
                street[row : row + 5, column : column + 3] = wall * rng.choice((0.5, 0.65, 1.25))
        left = right + int(rng.integers(0, 6))
    return street


def _evening(h: int, w: int, rng: Random) -> Floats:
    return mix((0.08, 0.10, 0.18), (0.17, 0.13, 0.12), axes(h, w)[0]) * (1 + 0.25 * clouds(h, w, 10, rng))


def _office(h: int, w: int, rng: Random) -> Floats:
    office = mix((0.75, 0.73, 0.69), (0.61, 0.59, 0.56), axes(h, w)[0]).repeat(w, axis=1)
    window, shelf = int(rng.uniform(-0.1, 0.5) * w), int(rng.uniform(0.55, 0.8) * w)
    for pane in range(window, window + 42, 14):
        office[int(0.04 * h) : int(0.6 * h), max(pane, 0) : max(pane + 12, 0)] = (0.88, 0.92, 0.95)
    for row in range(4):
        bottom = int((0.2 + 0.17 * row) * h)
        office[bottom : bottom + 2, shelf:] = (0.40, 0.31, 0.24)
        for book in range(shelf, w - 2, 3):
            top = bottom - int(rng.integers(7, 12))
            office[top:bottom, book : book + 3] = mix(rng.uniform(0.2, 0.6, 3), (0.4, 0.36, 0.3), 0.6)
    return office


def _wall(h: int, w: int, rng: Random) -> Floats:
    y, x = axes(h, w)
    paint = f32(one_of(((0.50, 0.54, 0.58), (0.58, 0.52, 0.46), (0.44, 0.50, 0.47)), rng))
    spot = (x - np.float32(rng.uniform(0.3, 0.7))) ** 2 + (y - np.float32(0.4)) ** 2
    return f32(paint * (1.2 - 0.9 * spot) * (1 + 0.04 * clouds(h, w, 12, rng)))


def _lights(image: Floats, many: int, hues: Sequence[tuple[float, ...]], strength: float, rng: Random) -> None:
    """Points of light out of focus, in place: discs as wide as the lens is open."""
    height, width = image.shape[:2]
    widest = rng.uniform(0.018, 0.034) * width
    for _ in range(many):
        radius = int(widest * rng.uniform(0.6, 1.1))
        x, y = int(rng.uniform(0, width)), int(rng.uniform(0, 0.75) * height)
        spot = np.zeros((2 * radius + 9, 2 * radius + 9), np.float32)
        cv2.circle(spot, (radius + 4, radius + 4), radius, 1.0, -1, cv2.LINE_AA)
        top, left = y - radius - 4, x - radius - 4
        part = image[max(top, 0) : max(top, 0) + spot.shape[0], max(left, 0) : max(left, 0) + spot.shape[1]]
        glow = blur(spot, 1.3)[max(-top, 0) :, max(-left, 0) :][: part.shape[0], : part.shape[1]]
        part = part[: glow.shape[0], : glow.shape[1]]
        part += (1 - part) * glow[..., None] * f32(one_of(hues, rng)) * np.float32(strength * rng.uniform(0.3, 1))


# ---- marks ---------------------------------------------------------------------------------------------------


def u8(values: NDArray[Any]) -> Pixels:
    """0..1 -> 0..255."""
    return np.asarray(np.clip(values, 0, 1) * 255 + 0.5, np.uint8)


def one_of(choices: Sequence[T], rng: Random) -> T:
    return choices[int(rng.integers(len(choices)))]


def axes(h: int, w: int) -> tuple[Floats, Floats]:
    """y (h, 1, 1) and x (1, w, 1) from 0 to 1."""
    return f32(np.linspace(0, 1, h))[:, None, None], f32(np.linspace(0, 1, w))[None, :, None]


def blur(image: NDArray[Any], sigma: float) -> Floats:
    return f32(cv2.GaussianBlur(f32(image), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)).reshape(image.shape)


def ramp(t: NDArray[Any]) -> Floats:
    t = np.clip(t, 0, 1)
    return f32(t * t * (3 - 2 * t))


def mix(a: ArrayLike, b: ArrayLike, t: NDArray[Any] | float) -> Floats:
    share = np.clip(t, 0, 1)
    return f32(f32(a) * (1 - share) + f32(b) * share)


def clouds(h: int, w: int, cell: int, rng: Random) -> Floats:
    """Smooth noise (h, w, 1) of unit variance, its features about `cell` pixels wide."""
    field = blur(rng.standard_normal((h, w), np.float32), cell / 3)
    return f32(field / field.std())[..., None]


def rounded(points: NDArray[Any], width: int) -> Floats:
    """A path (N, 2), closed if its ends meet, with its corners rounded over `width` eighths of a step."""
    at = np.linspace(0, len(points) - 1, len(points) * 8)
    fine = np.stack([np.interp(at, np.arange(len(points)), points[:, k]) for k in (0, 1)], 1)
    closed = bool(np.allclose(points[0], points[-1]))
    padded = np.pad(fine, ((width // 2, width // 2), (0, 0)), mode="wrap" if closed else "edge")
    kernel = np.hanning(width + 2)[1:-1] / np.hanning(width + 2).sum()
    return f32(np.stack([np.convolve(padded[:, k], kernel, "valid") for k in (0, 1)], 1))


def both(*right: tuple[float, float]) -> Floats:
    """The right half of a symmetric shape, top to bottom -> the rounded whole."""
    half = rounded(np.array(right), 11)
    return np.vstack([half, half[::-1] * f32((-1, 1))])


def fill(shape: tuple[int, int], points: Floats, soft: float) -> Floats:
    mask = np.zeros(shape, np.float32)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    return blur(mask, soft)


def paint(image: Floats, mask: Floats, colour: Floats) -> None:
    image += mask[..., None] * (colour - image)
