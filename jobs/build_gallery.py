"""Builds the gallery of faces that ships with anonlib from synthetic portraits.

`python jobs/build_gallery.py PORTRAITS.tar OUT.npz`. A face has the skin, brows and lips of one portrait, without its
light; its shape is mixed from that portrait's and those of three others of its gender. The portraits (SKINS) are chosen
by eye: uncovered, evenly lit, the mouth closed in most. Of several mixtures the one is taken that two recognizers
take least for a face of the gallery, on one plain head, or for a portrait. The seed decides everything.
"""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from PIL import Image
from scipy.ndimage import distance_transform_edt

from anonlib.faces import topology
from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.embed import THRESHOLDS, Recognizer, read_attributes
from anonlib.faces.mesh import FaceMesh, five_points
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from anonlib.privacy.classes import Stratum, stratum_of
from anonlib.synthesis.base import DecoderNotes, Floats, Mask, Pixels
from anonlib.synthesis.canonical import SIZE, canonical_frame, pose_of, sampled, shape_model, with_rings
from anonlib.synthesis.describe import happiness
from anonlib.synthesis.light import (
    SHADE,
    STEP,
    brightness_of,
    fit_light,
    from_log,
    furthest,
    hair_zone,
    skin_region,
    to_log,
)
from anonlib.synthesis.textures import gallery
from anonlib.synthesis.textures.average import facing_weight

SIDE = 2 * SIZE
SKINS = {
    "female": (
        *(2, 4, 11, 12, 13, 15, 19, 20, 21, 24, 25, 32, 36, 41, 44, 46, 48, 49, 51),
        *(52, 53, 55, 62, 67, 68, 71, 76, 77, 78, 81, 83, 86, 88, 90, 93, 94, 96, 97),
    ),
    "male": (
        *(3, 6, 7, 8, 10, 12, 13, 16, 17, 19, 21, 22, 27, 31, 35, 37, 39, 40),
        *(44, 47, 49, 53, 55, 56, 58, 61, 68, 76, 78, 85, 87, 88, 96, 97, 98, 99),
    ),
}
"""Numbers of the portraits whose skin is worn."""
LEAST = 6
"""Faces of a stratum below which its skins are worn once more, mirrored."""
APART = {"1e-3": {"dlib-resnet": 0.933, "faceres": 0.634}, "1e-4": {"dlib-resnet": 0.943, "faceres": 0.694}}
"""Cosines at two FAR where both faces are rendered on the plain head, from 227 people of the LFW distractors."""
FROM_PHOTOS = {"dlib-resnet": 0.939, "faceres": 0.641}
"""Those at FAR 1e-4 between a face on the plain head and a portrait's photo."""
RECOGNIZERS = tuple(FROM_PHOTOS)
_OTHERS, _GAIN = 3, 1.6
"""How many other portraits share a shape, and how much further from the mean shape than their mean it is."""
_HAIR, _CLOTH, _RIM = -0.45, 0.4, 44 / 512
"""What is darker than skin by the first, log units, or of so different a colour, is hair, cloth or background where it
reaches into so wide a rim of the face, a share of its side."""
_GROWN, _SOFT, _AROUND, _COVERED = 8 / 512, 6 / 512, 3 / 512, 0.25
_TURNED = (0.2, 0.45)  # how squarely a px must be seen: not at all up to the first, wholly from the second on
_BROWS = topology.LEFT_BROW, topology.RIGHT_BROW
_BLOTCH, _PALE = 6 / 512, 0.6
"""Width of blotches of colour, and the share of their colour that goes."""
_SMOOTH = 24 / 512
_EVEN, _COLOUR = 0.35, 0.5
_FAINT = 0.06  # log units, of what goes on where a portrait shows nothing
_SHINE, _DULLED = 0.22, 0.85
_MOUSTACHE = (98, 327, 410, 186, 61, 291)
_SHADE, _HAIRS = 0.85, 0.6  # of stubble, how much of its shade and of its hairs goes
_HEAD = 256


@dataclass(frozen=True)
class Portrait:
    """`detail` (S, S, 3) log of its skin in even light, if it is worn; `shape` (468, 3) neutral; `colour` (3,) log and
    `tone`, grey level, of its skin; `vectors` of each recognizer."""

    detail: Floats | None
    shape: Floats
    colour: Floats
    tone: float
    female: bool
    age: float
    happy: float
    vectors: list[Floats]

    def stratum(self) -> Stratum:
        """Gender, age band and tone."""
        return stratum_of(self.female, self.age, self.tone)


@dataclass(frozen=True)
class Face:
    """A face of the gallery: a `skin`, its `detail` (S, S, 3) as it is worn, a `shape` (468, 3), `vectors`."""

    skin: Portrait
    detail: Floats
    shape: Floats
    vectors: list[Floats]


@cache
def frame_points(side: int) -> Floats:
    """The frame's points (540, 2) at a side."""
    return np.asarray((canonical_frame().points + 0.5) * (side / SIZE) - 0.5, np.float32)


def area(points: Floats, side: int, grow: float = 0.0) -> Mask:
    """Px (S, S) inside a polygon, grown by a share of the side."""
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.rint(points * 16).astype(np.int32)], 1, shift=4)
    return _grown(mask, grow) > 0 if grow else mask > 0


def _grown(mask: Pixels, by: float) -> Pixels:
    size = 2 * round(by * len(mask)) + 1
    return np.asarray(cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))), np.uint8)


def hull(vertices: Sequence[int], side: int, grow: float = 0.0) -> Mask:
    """Px (S, S) inside the hull of vertices."""
    return area(cv2.convexHull(frame_points(side)[list(vertices)])[:, 0], side, grow)


@cache
def oval(side: int) -> Mask:
    """Px (S, S) inside the oval."""
    return area(frame_points(side)[list(topology.OVAL)], side)


def trusted(detail: Floats, facing: Floats) -> Floats:
    """Where a detail (S, S, 3) is face, 0-1: inside the oval, where it is seen squarely (`facing`, (S, S) 0-1), but not
    what reaches in from outside and is no skin."""
    side = len(detail)
    inside = oval(side).astype(np.uint8)
    zone = cv2.resize(hair_zone(), (side, side), interpolation=cv2.INTER_LINEAR) > 0.05
    zone |= cv2.distanceTransform(inside, cv2.DIST_L2, 5) < _RIM * side
    calm = cv2.GaussianBlur(detail, (0, 0), 3 * side / 512)
    grey = brightness_of(calm)
    off = (grey < _HAIR) | (furthest(calm - grey[..., None] * SHADE) > _CLOTH)
    bad = ((off & zone) | (inside == 0)).astype(np.uint8)
    parts = cv2.connectedComponents(bad)[1]
    outside = np.unique(parts[inside == 0])
    reach = np.isin(parts, outside[outside > 0])
    # A brow or an eye is none of it, unless hair covers much of it.
    for part in (*_BROWS, topology.LEFT_EYE, topology.RIGHT_EYE):
        own = hull(part, side, _AROUND)
        if reach[own].mean() < _COVERED:
            reach &= ~own
    grown = _grown(reach.astype(np.uint8), _GROWN).astype(np.float32)
    soft = cv2.GaussianBlur(1 - grown, (0, 0), _SOFT * side)
    return np.asarray(np.clip(2 * soft - 1, 0, 1) * np.clip((facing - _TURNED[0]) / (_TURNED[1] - _TURNED[0]), 0, 1))


def evened(detail: Floats, trust: Floats, female: bool) -> Floats:
    """A detail (S, S, 3) in even light, zero outside the oval: what is smooth in it becomes symmetric, weak and of
    little colour; what is fine comes from the other half where the portrait does not show it."""
    side, inside = len(detail), oval(len(detail))
    skin = cv2.resize(skin_region().astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR) > 0.5
    detail = detail - np.median(detail[skin & (trust > 0.5)], axis=0)
    weight = (trust * (inside & skin)).astype(np.float32)
    total = cv2.GaussianBlur(weight, (0, 0), _SMOOTH * side)[..., None]
    sums = cv2.GaussianBlur(detail * weight[..., None], (0, 0), _SMOOTH * side)
    fine = detail - sums / np.maximum(total, 0.02)
    even = (sums + sums[:, ::-1]) / np.maximum(total + total[:, ::-1], 0.04)
    grey = even.mean(axis=2, keepdims=True)
    even = _EVEN * np.tanh((grey + _COLOUR * (even - grey)) / _EVEN)
    # Past the last px that either half shows, pores and lines go on as in a mirror there.
    shown = trust > 0.5
    nearest = distance_transform_edt(~shown, return_distances=False, return_indices=True)
    y, x = (np.clip(2 * near - at, 0, side - 1) for near, at in zip(nearest, np.indices(shown.shape), strict=True))
    beyond = np.clip(fine[y, x], -_FAINT, _FAINT) * (shown & skin)[y, x, None]
    other = beyond + trust[:, ::-1, None] * (fine[:, ::-1] - beyond)
    fine = other + trust[..., None] * (fine - other)
    distance = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 5) / (60 * side / 512)
    out = (even + fine) * np.clip(1 - distance, 0, 1)[..., None]
    out = pale(matt(out)) if female else shaven(pale(matt(out)))
    return np.asarray(out - np.median(out[skin], axis=0), np.float32)


def matt(detail: Floats) -> Floats:
    """A detail (S, S, 3) whose shine, of lids and cheeks, is weak."""
    shine = cv2.GaussianBlur(detail, (0, 0), 6 * len(detail) / 512).mean(axis=2) - _SHINE
    soft = cv2.GaussianBlur(np.maximum(shine, 0), (0, 0), 3 * len(detail) / 512)
    return np.asarray(detail - np.float32(_DULLED) * soft[..., None], np.float32)


def pale(detail: Floats) -> Floats:
    """A detail (S, S, 3) whose skin has weak blotches of colour."""
    side = len(detail)
    skin = cv2.resize(skin_region().astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)[..., None]
    colour = (detail - brightness_of(detail)[..., None] * SHADE) * skin
    weight = np.maximum(cv2.GaussianBlur(skin, (0, 0), _BLOTCH * side), 0.02)[..., None]
    return np.asarray(detail - _PALE * skin * cv2.GaussianBlur(colour, (0, 0), _BLOTCH * side) / weight, np.float32)


def shaven(detail: Floats) -> Floats:
    """A detail (S, S, 3) with faint stubble: on other heads its shade is a smudge around the mouth."""
    side, points = len(detail), frame_points(len(detail))
    jaw = (np.arange(side)[:, None] > points[2, 1]) & oval(side)
    beard = (jaw | hull(_MOUSTACHE, side, 6 / 512)) & ~hull(topology.LIPS_OUTER, side, 3 / 512)
    weight = beard.astype(np.float32)[..., None]
    tone = cv2.GaussianBlur(detail * weight, (0, 0), side / 40)
    tone /= np.maximum(cv2.GaussianBlur(weight, (0, 0), side / 40), 0.02)[..., None]
    soft = cv2.GaussianBlur(weight, (0, 0), side / 90)[..., None]
    shade, hairs = np.minimum(tone, 0), np.minimum(detail - tone, 0)
    return np.asarray(detail - soft * (np.float32(_SHADE) * shade + np.float32(_HAIRS) * hairs), np.float32)


def mixed(shapes: Sequence[Floats]) -> Floats:
    """A neutral shape (468, 3) of those (n, 468, 3) of portraits, nearly as far from the mean shape as one of them."""
    mean = shape_model().mean
    return np.asarray(mean + _GAIN * (np.mean(shapes, axis=0) - mean), np.float32)


def head(detail: Floats, shape: Floats, colour: Floats) -> tuple[Pixels, Floats]:
    """A face on the plain head (H, H, 3), seen from in front, and its five points (5, 2)."""
    vertices = with_rings(shape) * np.float32(0.26 * _HEAD)
    vertices = vertices + np.array([_HEAD / 2, _HEAD * 0.52, 0], np.float32)
    grid, covered = canonical_frame().map_out(vertices, _HEAD, _HEAD)
    small = np.asarray(cv2.resize(detail, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.float32)
    face = from_log(sampled(small, grid) + colour)
    alpha = cv2.GaussianBlur(covered.astype(np.float32), (0, 0), 4)[..., None]
    return np.rint(alpha * face + (1 - alpha) * 128).astype(np.uint8), five_points(vertices[:468])


class Judges:
    """The recognizers."""

    def __init__(self) -> None:
        self.recognizers = [Recognizer(name, load_engine(model_bytes(name))) for name in RECOGNIZERS]

    def see(self, image: Pixels, points: Floats) -> list[Floats]:
        """The vectors of a face, one of each recognizer."""
        return [recognizer.embed([image], [points])[0] for recognizer in self.recognizers]


def likeness(vectors: Sequence[Floats], others: Sequence[Sequence[Floats]], limits: dict[str, float]) -> Floats:
    """How far (n,) each of others is beyond the limits to all recognizers, the least of them: above 0 is one person."""
    beyond = [
        np.stack(group) @ own - limits[name]
        for own, group, name in zip(vectors, zip(*others, strict=True), RECOGNIZERS, strict=True)
    ]
    return np.asarray(np.min(beyond, axis=0), np.float32)


def read_portraits(path: Path, judges: Judges) -> list[Portrait]:
    """The portraits of a tar in which a face is found."""
    detector = CenterFaceDetector(load_engine(model_bytes("centerface")), side=640, score=0.4)
    fitter = FaceMesh(load_engine(model_bytes("facemesh")))
    reader = partial(read_attributes, *(load_engine(model_bytes(name)) for name in ("age-gender", "expression")))
    portraits = []
    with tarfile.open(path) as archive:
        for name in sorted(name for name in archive.getnames() if name.endswith(".jpg")):
            file = archive.extractfile(name)
            assert file is not None
            image = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))
            found = fitter.fit([image], detector.detect([image]))[0]
            sizes = np.ptp(found.points[..., 0], axis=1) * (found.presence > 0)
            if len(sizes) and sizes.max() > 0:
                gender, _, number = name.removesuffix(".jpg").partition("-")
                worn = int(number) in SKINS[gender]
                portraits.append(portrait_of(image, found.points[int(sizes.argmax())], reader, judges, worn))
    return portraits


def portrait_of(image: Pixels, mesh: Floats, reader: Callable[..., Any], judges: Judges, worn: bool) -> Portrait:
    """What a photo (H, W, 3) with this mesh (468, 3) gives; its skin if that is `worn`."""
    frame, model, points = canonical_frame(), shape_model(), five_points(mesh)
    pose = pose_of(mesh, model.mean)
    shape = pose.undo(mesh)
    vertices = pose.apply(with_rings(shape))
    coarse, shown = frame.warp_in(image, vertices, STEP)
    light = fit_light(to_log(coarse), facing_weight(vertices, STEP) * shown)
    ages, females, expressions = reader([image], [points])
    female, detail = bool(females[0] >= 0.5), None
    if worn:
        raw = to_log(frame.warp_in(image, vertices, finer=SIDE // SIZE)[0])
        field, facing = (
            np.asarray(cv2.resize(of, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR), np.float32)
            for of in (light.field(), facing_weight(vertices))
        )
        detail = evened(raw - field, trusted(raw - field, facing), female)
    return Portrait(
        detail,
        np.asarray(shape - model.expression_of(shape), np.float32),
        np.asarray(light.field()[skin_region()].mean(axis=0), np.float32),
        light.tone,
        female,
        float(ages[0]),
        happiness(expressions[0].tolist()),
        judges.see(image, points),
    )


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def build(
    portraits: Annotated[Path, typer.Argument(help="A tar of portraits.")],
    out: Annotated[Path, typer.Argument(help="The .npz file to write.")],
    tries: Annotated[int, typer.Option(help="Mixtures of shapes that are tried for a face.")] = 2,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Build the gallery."""
    cv2.setNumThreads(1)
    judges, generator = Judges(), np.random.default_rng(seed)
    everyone = read_portraits(portraits, judges)
    served = Counter(own.stratum() for own in everyone if own.detail is not None)
    faces: list[Face] = []
    for skin in everyone:
        if skin.detail is not None:
            others = [other for other in everyone if other.female == skin.female and other is not skin]
            for detail in (skin.detail, skin.detail[:, ::-1])[: 1 + (served[skin.stratum()] < LEAST)]:
                faces.append(apart(skin, detail, others, faces, judges, generator, tries))
    write(faces, out)
    report(faces, everyone)


def apart(
    skin: Portrait,
    detail: Floats,
    others: Sequence[Portrait],
    faces: Sequence[Face],
    judges: Judges,
    generator: np.random.Generator,
    tries: int,
) -> Face:
    """A face of this skin, of the shape tried that is least like a portrait or one of the faces."""
    best, least = None, np.inf
    for _ in range(tries):
        chosen = generator.choice(len(others), _OTHERS, replace=False)
        shape = mixed([skin.shape, *(others[row].shape for row in chosen)])
        vectors = judges.see(*head(detail, shape, skin.colour))
        like = likeness(vectors, [other.vectors for other in (skin, *others)], FROM_PHOTOS).max()
        if faces:
            like = max(like, likeness(vectors, [face.vectors for face in faces], APART["1e-4"]).max())
        if best is None or like < least:
            best, least = Face(skin, detail, shape, vectors), like
    assert best is not None
    return best


def write(faces: Sequence[Face], out: Path) -> None:
    """The gallery's file."""
    neutral = to_log(np.array(gallery.NEUTRAL, np.float32))
    pictures = [gallery.encoded(np.rint(from_log(face.detail + neutral)).astype(np.uint8)) for face in faces]
    vectors = np.stack([face.vectors[0] for face in faces])
    about = DecoderNotes("skins and mixed shapes of synthetic portraits of no real person", "CC0 1.0", len(faces), True)
    arrays: dict[str, Any] = {
        "centre": vectors.mean(axis=0),
        "vectors": vectors - vectors.mean(axis=0),
        "shapes": np.stack([face.shape for face in faces]),
        "female": np.array([face.skin.female for face in faces], np.float32),
        "age": np.array([face.skin.age for face in faces]),
        "tone": np.array([face.skin.tone for face in faces]),
        "happy": np.array([face.skin.happy for face in faces]),
    }
    out.write_bytes(gallery.to_bytes(about, pictures, **arrays))


def report(faces: Sequence[Face], portraits: Sequence[Portrait]) -> None:
    """What the card says of the gallery."""
    own = [face.vectors for face in faces]
    for rate, limits in APART.items():
        alike = np.stack([likeness(vectors, own, limits) > 0 for vectors in own])
        kept: list[int] = []
        for row in np.argsort(alike.sum(axis=1), kind="stable").tolist():
            kept += [row] if not alike[row, kept].any() else []
        pairs = alike[np.triu_indices(len(own), 1)]
        print(f"FAR {rate}: {pairs.sum()} of {len(pairs)} pairs are one person to both; {len(kept)} faces stay apart")
    for name, limits in (("1e-3", THRESHOLDS), ("1e-4", FROM_PHOTOS)):
        like = [(likeness(v, [p.vectors for p in portraits], dict(limits)) > 0).any() for v in own]
        print(f"{sum(like)} of {len(faces)} faces are a portrait in its photo to both at FAR {name}")


if __name__ == "__main__":
    app()
