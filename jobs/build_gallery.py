"""Builds the gallery of faces that ships with anonlib from synthetic portraits.

`python jobs/build_gallery.py PORTRAITS.tar OUT.npz`. A face takes the skin, the eyes with brows, the nose and the mouth
with chin from four portraits and its shape from four more, all of one gender and of near age and skin tone. Textures
are joined in the gradient domain (Perez et al. 2003) of log detail, so that tones meet without seams; gradients where a
portrait shows hair, cloth or background are taken from its other half or set to zero. Light is made even: what is
smooth becomes symmetric. A face stays only if two recognizers tell it from every other face of the gallery and from
every portrait, all rendered on one plain head. The seed decides everything.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn, idctn

from anonlib.faces import topology
from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.embed import THRESHOLDS, AttributeReader, Recognizer
from anonlib.faces.mesh import FaceMesh, eye_opening, five_points
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from anonlib.privacy.strata import stratum_of
from anonlib.synthesis.base import DecoderNotes, Floats, Mask, Pixels
from anonlib.synthesis.canonical import SIZE, canonical_frame, pose_of, sampled, shape_model, with_rings
from anonlib.synthesis.describe import happiness
from anonlib.synthesis.light import STEP, fit_light, from_log, furthest, hair_zone, skin_region, to_log
from anonlib.synthesis.occlusion import GLASSES_STEP, glasses
from anonlib.synthesis.textures import gallery
from anonlib.synthesis.textures.average import facing_weight

SIDE = 512
APART = ({"dlib-resnet": 0.933, "faceres": 0.634}, {"dlib-resnet": 0.943, "faceres": 0.694})
"""Cosines at FAR 1e-3 and 1e-4 where both faces are rendered on the plain head, from 227 people of the LFW
distractors. The second serve where the first leave too few faces."""
FROM_PHOTOS = (THRESHOLDS, {"dlib-resnet": 0.939, "faceres": 0.641})
"""The same between a face on the plain head and a portrait's photo."""
RECOGNIZERS = tuple(APART[0])
_MOUSTACHE = (98, 327, 410, 186, 61, 291)
LEFT_OUT = ("female-30", "female-14", "female-37", "female-92", "male-0", "male-15")
"""Portraits with hard shadows across the face, or with a mark on it."""
_YAW, _GLASSES, _LEAST_SCALE, _LEAST_EYES = 16.0, 1.5, 0.75, 0.15
_REACH = ((22.0, 0.9), (60.0, 1.0), (20.0, 0.4))
"""How far eyes, nose and mouth may be from the skin in years and in log tone."""
_CHOICES = 4  # portraits of which the one whose part meets the skin best is taken
_STAINS, _CLEAR = 0.02, 0.6
"""Share of the rim that may stand out as hair, cloth or background does; least share of a portrait that shows skin."""
_FEATHER = 4 / 512
_SCREEN = 60 / 512
"""Distance, in sides, over which the tones of the parts are forgotten where gradients disagree."""
_SMOOTH = 24 / 512
_RIM = 44 / 512
_EVEN, _COLOUR = 0.35, 0.5
_SHINE = 0.22
_GRAIN, _CHEEK, _PATCH = 7 / 512, (262 / 512, 142 / 512), 56 / 512
_GAIN = 1.7
_HEAD = 256


@dataclass(frozen=True)
class Source:
    """A portrait: `detail` (S, S, 3) log, `trust` (S, S) 0-1 where it shows the face, `shape` (468, 3) neutral,
    `colour` (3,) log of its skin; `vectors` of each recognizer."""

    name: str
    detail: NDArray[np.float16]
    trust: NDArray[np.float16]
    shape: Floats
    colour: Floats
    female: bool
    age: float
    happy: float
    vectors: list[Floats] = field(default_factory=list)
    smaller: dict[int, Any] = field(default_factory=dict)

    @property
    def tone(self) -> float:
        """Grey level of its skin."""
        return float(np.exp(self.colour).mean())

    @property
    def clear(self) -> float:
        """Share of its oval that shows skin."""
        return float(self.at(64)[1][oval(64)].mean())

    def at(self, side: int) -> tuple[Floats, Floats]:
        """Detail and trust at a side."""
        if side == SIDE:
            return self.detail.astype(np.float32), self.trust.astype(np.float32)
        if side not in self.smaller:
            whole = self.at(SIDE)
            self.smaller[side] = tuple(cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA) for part in whole)
        return self.smaller[side]

    def flipped(self) -> Source:
        """The portrait in a mirror."""
        detail, trust = (np.ascontiguousarray(part[:, ::-1]) for part in (self.detail, self.trust))
        smaller = {side: tuple(np.ascontiguousarray(part[:, ::-1]) for part in self.at(side)) for side in (SIZE,)}
        return replace(self, detail=detail, trust=trust, smaller=smaller)


@cache
def frame_points(side: int) -> Floats:
    """The frame's points (540, 2) at a side."""
    return np.asarray((canonical_frame().points + 0.5) * (side / SIZE) - 0.5, np.float32)


def area(points: Floats, side: int, grow: float = 0.0) -> Mask:
    """Px (S, S) inside a polygon, grown by px of a side of 512."""
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.rint(points * 16).astype(np.int32)], 1, shift=4)
    if grow:
        size = 2 * round(grow * side / 512) + 1
        mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    return mask > 0


@cache
def oval(side: int) -> Mask:
    """Px (S, S) inside the oval."""
    return area(frame_points(side)[list(topology.OVAL)], side)


@cache
def label(side: int) -> NDArray[np.int64]:
    """What each px (S, S) belongs to: 0 skin, 1 eyes and brows, 2 nose, 3 mouth and chin."""
    points = frame_points(side)

    def around(vertices: Sequence[int], grow: float) -> Mask:
        return area(cv2.convexHull(points[list(vertices)])[:, 0], side, grow)

    centre, base = points[2]  # below the nose
    jaw, cheek = points[[132, 361]], points[[58, 288]]
    low = side * 1.0
    below = [(centre, base + 2), (points[327, 0], base), (points[426, 0], base + 4 * side / 512)]
    right = [((jaw[1, 0] + points[426, 0]) / 2, jaw[1, 1] + 8 * side / 512), (cheek[1, 0] + 4, cheek[1, 1])]
    half = np.array([*below, *right, (side, cheek[1, 1]), (side, low), (centre, low)], np.float32)
    other = half.copy()
    other[:, 0] = 2 * centre - half[:, 0]
    out = np.zeros((side, side), np.int64)
    out[area(half, side) | area(other, side)] = 3
    eyes = around(topology.LEFT_EYE + topology.LEFT_BROW, 16) | around(topology.RIGHT_EYE + topology.RIGHT_BROW, 16)
    out[eyes | around((55, 285, 133, 362, 8, 9), 4)] = 1
    out[around((6, 195, 4, 98, 327, 129, 358, 64, 294, 2, 48, 278, 49, 279, 198, 420, 236, 456), 9)] = 2
    return out


@cache
def shares(side: int, feather: float = _FEATHER) -> Floats:
    """How much of each px (4, S, S) each part gives; sums to one."""
    parts = [cv2.GaussianBlur((label(side) == part).astype(np.float32), (0, 0), feather * side) for part in range(4)]
    stack = np.stack(parts)
    return np.asarray(stack / stack.sum(axis=0), np.float32)


@cache
def vertex_shares() -> Floats:
    """How much of each vertex (4, 468) each part gives."""
    points = frame_points(SIDE)[:468][None]
    soft = [sampled(part, points)[0] for part in shares(SIDE, 16 / 512)]
    return np.asarray(np.stack(soft) / np.stack(soft).sum(axis=0), np.float32)


def smooth(values: Floats, sigma: float, inside: Mask) -> Floats:
    """Values (S, S, 3) blurred within a region."""
    weight = inside.astype(np.float32)
    total = np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma), 0.02)
    return np.asarray(cv2.GaussianBlur(values * weight[..., None], (0, 0), sigma) / total[..., None], np.float32)


@cache
def features(side: int) -> Mask:
    """Px (S, S) of brows and eyes, which no hair is taken for."""
    parts = topology.LEFT_EYE, topology.RIGHT_EYE, topology.LEFT_BROW, topology.RIGHT_BROW
    hulls = [cv2.convexHull(frame_points(side)[list(part)])[:, 0] for part in parts]
    return np.logical_or.reduce([area(hull, side, 3) for hull in hulls])


def trusted(detail: Floats, spread: float) -> Floats:
    """Where a detail (S, S, 3) is face, 0-1: inside the oval, but not what reaches in from outside and is no skin."""
    side = len(detail)
    zone = cv2.resize(hair_zone(), (side, side), interpolation=cv2.INTER_LINEAR) > 0.05
    # Hair also hangs over the sides of a face, down to the mouth, where beards begin.
    rim = cv2.distanceTransform(oval(side).astype(np.uint8), cv2.DIST_L2, 5) < _RIM * side
    zone |= rim & (np.arange(side)[:, None] < frame_points(side)[topology.MOUTH_LEFT, 1])
    off = cv2.GaussianBlur(furthest(detail), (0, 0), 3 * side / 512) > max(0.35, 2.5 * spread)
    bad = ((off & zone) | ~oval(side)).astype(np.uint8)
    parts = cv2.connectedComponents(bad)[1]
    outside = np.unique(parts[~oval(side) & (bad > 0)])
    reach = np.isin(parts, outside[outside > 0]).astype(np.uint8)
    size = 2 * round(10 * side / 512) + 1
    reach = cv2.dilate(reach, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    soft = cv2.GaussianBlur(1.0 - reach.astype(np.float32), (0, 0), 3 * side / 512)
    return np.asarray(np.maximum(np.clip(2 * soft - 1, 0, 1), features(side)), np.float32)


def gradients(detail: Floats) -> tuple[Floats, Floats]:
    """Differences (S, S, 3) to the px on the right and to the one below."""
    across, down = np.zeros_like(detail), np.zeros_like(detail)
    across[:, :-1], down[:-1] = np.diff(detail, axis=1), np.diff(detail, axis=0)
    return across, down


def composed(parts: Sequence[Source], side: int) -> Floats:
    """The detail (S, S, 3) of a face of skin, eyes, nose and mouth of these portraits."""
    across, down, known = (np.zeros((side, side, 3), np.float32) for _ in range(3))
    seen = np.zeros((side, side), np.float32)
    for weight, source in zip(shares(side), parts, strict=True):
        detail, trust = source.at(side)
        for picture, share in ((detail, trust), (detail[:, ::-1], (1 - trust) * trust[:, ::-1])):
            own = (weight * share)[..., None]
            seen += own[..., 0]
            x, y = gradients(picture)
            across, down, known = across + own * x, down + own * y, known + own * picture
    # Screened Poisson: the picture whose gradients are these, held loosely to the parts' own tones.
    screen = 1 / (_SCREEN * side) ** 2
    target = across + down - screen * known
    target[:, 1:] -= across[:, :-1]
    target[1:] -= down[:-1]
    waves = 2 * np.cos(np.pi * np.arange(side) / side) - 2
    divisor = (waves[:, None] + waves[None] - screen)[..., None]
    out = idctn(dctn(target.astype(np.float64), axes=(0, 1)) / divisor, axes=(0, 1)).astype(np.float32)
    out = evened(out)
    out = shaven(out) if parts[0].female < 0.5 else out
    return grained(out, seen > 0.5) if side == SIDE else out


def grained(detail: Floats, seen: Mask) -> Floats:
    """A detail (S, S, 3) with pores where no portrait shows skin: noise with the spectrum of the cheek (random phases,
    Galerne et al. 2011)."""
    side = len(detail)
    fine = detail - cv2.GaussianBlur(detail, (0, 0), _GRAIN * side)
    y, x = (round(place * side) for place in _CHEEK)
    size = round(_PATCH * side)
    patch = fine[y : y + size, x : x + size]
    patch = patch - patch.mean(axis=(0, 1))
    window = np.hanning(size)[:, None, None] * np.hanning(size)[None, :, None]
    canvas = np.zeros_like(detail)
    canvas[:size, :size] = patch * window * np.sqrt(size**2 / (window**2).sum())
    phases = np.angle(np.fft.fft2(np.random.default_rng(0).standard_normal((side, side))))[..., None]
    noise = np.fft.ifft2(np.fft.fft2(canvas, axes=(0, 1)) * np.exp(1j * phases), axes=(0, 1)).real * (side / size)
    soft = cv2.GaussianBlur((~seen).astype(np.float32), (0, 0), 4 * side / 512)[..., None]
    return np.asarray(detail + soft * noise, np.float32)


def evened(detail: Floats) -> Floats:
    """A detail (S, S, 3) whose smooth part is symmetric, of little colour and not strong; zero outside the oval."""
    side = len(detail)
    inside = oval(side)
    skin = cv2.resize(skin_region().astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR) > 0.5
    detail = detail - np.median(detail[skin], axis=0)
    low = smooth(detail, _SMOOTH * side, inside & skin)
    even = (low + low[:, ::-1]) / 2
    grey = even.mean(axis=2, keepdims=True)
    even = _EVEN * np.tanh((grey + _COLOUR * (even - grey)) / _EVEN)
    distance = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 5) / (60 * side / 512)
    out = (detail - low + even) * np.clip(1 - distance, 0, 1)[..., None]
    out = matt(out)
    return np.asarray(out - np.median(out[skin], axis=0), np.float32)


def matt(detail: Floats) -> Floats:
    """A detail (S, S, 3) whose shine, of lids and cheeks, is weak."""
    shine = cv2.GaussianBlur(detail, (0, 0), 6 * len(detail) / 512).mean(axis=2) - _SHINE
    soft = cv2.GaussianBlur(np.maximum(shine, 0), (0, 0), 3 * len(detail) / 512)
    return np.asarray(detail - np.float32(0.85) * soft[..., None], np.float32)


def shaven(detail: Floats) -> Floats:
    """A detail (S, S, 3) with faint stubble: on other heads its shade is a smudge around the mouth."""
    side, points = len(detail), frame_points(len(detail))
    upper, lips = (cv2.convexHull(points[list(of)])[:, 0] for of in (_MOUSTACHE, topology.LIPS_OUTER))
    beard = ((label(side) == 3) | area(upper, side, 6)) & ~area(lips, side, 3)
    tone = smooth(detail, side / 40, beard)
    soft = cv2.GaussianBlur(beard.astype(np.float32), (0, 0), side / 90)[..., None]
    shade, hairs = np.minimum(tone, 0), np.minimum(detail - tone, 0)
    return np.asarray(detail - soft * (np.float32(0.8) * shade + np.float32(0.4) * hairs), np.float32)


def shape_of(parts: Sequence[Source], others: Sequence[Source]) -> Floats:
    """A neutral shape (468, 3): of each part half the portrait that gave it and half another."""
    mean = shape_model().mean
    offsets = [
        np.float32(_GAIN / 1.42) * (part.shape + other.shape - 2 * mean)
        for part, other in zip(parts, others, strict=True)
    ]
    return np.asarray(mean + np.einsum("pv,pvc->vc", vertex_shares(), np.stack(offsets)), np.float32)


def head(detail: Floats, shape: Floats, colour: Floats) -> tuple[Pixels, Floats]:
    """A face on the plain head (H, H, 3), seen from in front, and its five points (5, 2)."""
    vertices = with_rings(shape) * np.float32(0.26 * _HEAD)
    vertices = vertices + np.array([_HEAD / 2, _HEAD * 0.52, 0], np.float32)
    grid, covered = canonical_frame().map_out(vertices, _HEAD, _HEAD)
    if len(detail) > SIZE:
        detail = np.asarray(cv2.resize(detail, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.float32)
    face = from_log(sampled(detail, grid) + colour)
    alpha = cv2.GaussianBlur(covered.astype(np.float32), (0, 0), 4)[..., None]
    return np.rint(alpha * face + (1 - alpha) * 128).astype(np.uint8), five_points(vertices[:468])


class Judges:
    """The recognizers, and the vectors of what stays."""

    def __init__(self) -> None:
        self.recognizers = [Recognizer(name, load_engine(model_bytes(name))) for name in RECOGNIZERS]

    def see(self, image: Pixels, points: Floats) -> list[Floats]:
        """The vectors of a face, one of each recognizer."""
        return [recognizer.embed([image], [points])[0] for recognizer in self.recognizers]


def is_someone(vectors: Sequence[Floats], others: Sequence[Sequence[Floats]], limits: Mapping[str, float]) -> bool:
    """Whether all recognizers together take a face for any of others."""
    alike = [
        np.stack(group) @ own > limits[name]
        for own, group, name in zip(vectors, zip(*others, strict=True), RECOGNIZERS, strict=False)
    ]
    return bool(others) and bool(np.logical_and.reduce(alike).any())


def stains(detail: Floats) -> float:
    """Share of the rim of a detail (S, S, 3) that is as dark or bright as no skin is, and of its skin as colourful."""
    side = len(detail)
    calm = cv2.GaussianBlur(detail, (0, 0), 4 * side / 512)
    distance = cv2.distanceTransform(oval(side).astype(np.uint8), cv2.DIST_L2, 5)
    rim = (distance > 0) & (distance < _RIM * side)
    upper = np.arange(side)[:, None] < frame_points(side)[topology.MOUTH_LEFT, 1]
    grey, colour = calm.mean(axis=2), np.ptp(calm, axis=2)
    odd = (grey > 0.45) | ((grey < -0.5) & upper)
    skin = cv2.resize(skin_region().astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR) > 0.5
    return float(odd[rim].mean() + (colour > 0.33)[rim | skin].mean())


def read_portraits(path: Path, judges: Judges) -> list[Source]:
    """The portraits that can give parts."""
    detector = CenterFaceDetector(load_engine(model_bytes("centerface")), side=640, score=0.4)
    fitter = FaceMesh(load_engine(model_bytes("facemesh")))
    reader = AttributeReader(load_engine(model_bytes("age-gender")), load_engine(model_bytes("expression")))
    sources: list[Source] = []
    with tarfile.open(path) as archive:
        names = sorted(name for name in archive.getnames() if name.endswith(".jpg"))
        for name in names:
            file = archive.extractfile(name)
            assert file is not None
            image = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))
            meshes, presence = fitter.fit([image], detector.detect([image]))[0]
            sizes = [float(np.ptp(mesh[:, 0])) * float(seen > 0) for mesh, seen in zip(meshes, presence, strict=True)]
            if not sizes or max(sizes) == 0:
                continue
            source = source_of(name.removesuffix(".jpg"), image, meshes[int(np.argmax(sizes))], reader, judges)
            sources += [source] if source is not None else []
    return sources


def source_of(name: str, image: Pixels, mesh: Floats, reader: AttributeReader, judges: Judges) -> Source | None:
    """A portrait (H, W, 3) as a source, None where it is turned, small, blinks, wears glasses or has hard shadows."""
    frame, model = canonical_frame(), shape_model()
    pose = pose_of(mesh, model.mean)
    shape = pose.undo(mesh)
    vertices = pose.apply(with_rings(shape))
    scale = float(np.ptp(mesh[:, 0])) / float(np.ptp(frame_points(SIDE)[:468, 0]))
    if name in LEFT_OUT or abs(pose.angles()[0]) > _YAW or scale < _LEAST_SCALE or eye_opening(mesh) < _LEAST_EYES:
        return None
    coarse = frame.warp_in(image, vertices, GLASSES_STEP)
    log = to_log(coarse[0])
    every = STEP // GLASSES_STEP
    light = fit_light(log[::every, ::every], facing_weight(vertices, STEP) * coarse[1][::every, ::every])
    if glasses((log - light.field(GLASSES_STEP)) * coarse[1][..., None]) > _GLASSES:
        return None
    points = five_points(mesh)
    vectors = judges.see(image, points)
    ages, females, expressions = reader.read([image], [points])
    rows, columns = ((axis + 0.5) * (SIZE / SIDE) - 0.5 for axis in np.mgrid[0:SIDE, 0:SIDE].astype(np.float32))
    fine = np.stack([columns, rows], axis=-1)
    grid = sampled(frame.grid_in(vertices), fine)
    if scale > 1.0:  # cv2.remap does not average what it skips
        image = np.asarray(cv2.resize(image, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA), np.uint8)
        grid = (grid + 0.5) / np.float32(scale) - 0.5
    raw = cv2.remap(image, grid[..., 0], grid[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    detail = to_log(raw.astype(np.float32)) - sampled(light.field(), fine)
    colour = light.field()[skin_region()].mean(axis=0)
    return Source(
        name,
        detail.astype(np.float16),
        trusted(detail, light.spread).astype(np.float16),
        np.asarray(shape - model.expression_of(shape), np.float32),
        np.asarray(colour, np.float32),
        bool(females[0] >= 0.5),
        float(ages[0]),
        happiness(expressions[0].tolist()),
        vectors,
    )


@dataclass(frozen=True)
class Face:
    """A face of the gallery: four `parts`, four `others` that share the shape, its `vectors` on the plain head."""

    parts: Sequence[Source]
    others: Sequence[Source]
    vectors: list[Floats]

    @property
    def female(self) -> bool:
        """Whether its parts are of women."""
        return self.parts[0].female


def age_of(parts: Sequence[Source]) -> float:
    """The age of a face, which its skin and its eyes show."""
    return (2 * parts[0].age + parts[1].age) / 3


def mismatch(skin: Source, other: Source, part: int) -> float:
    """How much the smooth tones of a part and of the skin differ along its seam, log units."""
    (ours, seen), (theirs, also) = skin.at(64), other.at(64)
    share = shares(64, 8 / 512)[part]
    seam = share * (1 - share) * seen * also
    return float((np.abs(ours - theirs).mean(axis=2) * seam).sum() / seam.sum())


def drawn(
    skin: Source, sources: Sequence[Source], generator: np.random.Generator
) -> tuple[list[Source], list[Source]] | None:
    """Four parts, the first `skin`, and four portraits for the shape, all of one gender; None where too few are near
    in age and tone."""
    same = [source for source in sources if source.female == skin.female]
    parts, names = [skin], {skin.name}
    for part, (years, tone) in enumerate(_REACH, 1):
        near = [
            source
            for source in same
            if source.name not in names
            and abs(source.age - skin.age) <= years
            and abs(np.log(source.tone / skin.tone)) <= tone
        ]
        tried = [near[row] for row in generator.permutation(len(near))[:_CHOICES]]
        if not tried:
            return None
        parts.append(min(tried, key=lambda source: mismatch(skin, source, part)))
        names.add(parts[-1].name)
    turned = [part.flipped() if flip else part for part, flip in zip(parts, generator.random(4) < 0.5, strict=True)]
    return turned, [same[row] for row in generator.permutation(len(same))[:4]]


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def build(
    portraits: Annotated[Path, typer.Argument(help="A tar of portraits.")],
    out: Annotated[Path, typer.Argument(help="The .npz file to write.")],
    each: Annotated[int, typer.Option(help="Faces wanted of each gender and age band.")] = 22,
    tries: Annotated[int, typer.Option(help="Faces tried for them.")] = 240,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Build the gallery."""
    cv2.setNumThreads(1)
    judges = Judges()
    sources = read_portraits(portraits, judges)
    print(f"{len(sources)} portraits give parts", flush=True)
    mugs = [judges.see(*head(evened(source.at(SIZE)[0]), source.shape, source.colour)) for source in sources]
    kept: list[Face] = []
    for female in (True, False):
        same = [source for source in sources if source.female == female]
        own = found(same, judges, [], each, tries, np.random.default_rng(seed), 0)
        for face in found(same, judges, own, each, tries, np.random.default_rng(seed + 1), 1):
            if not is_someone(face.vectors, [other.vectors for other in kept if other.female != female], APART[0]):
                kept.append(face)
    shown = [source.vectors for source in sources]
    write(kept, out)
    report(kept, mugs, shown)


def found(
    sources: Sequence[Source],
    judges: Judges,
    before: Sequence[Face],
    each: int,
    tries: int,
    generator: np.random.Generator,
    bar: int,
) -> list[Face]:
    """Faces of one gender that are apart from each other and from the portraits, `each` of an age band, with those of
    `before`; `bar`: which of APART."""
    kept = list(before)
    shown = [source.vectors for source in sources]
    for stratum in sorted({stratum_of(source.female, source.age) for source in sources}):
        own = [source for source in sources if stratum_of(source.female, source.age) == stratum]
        own = sorted((source for source in own if source.clear >= _CLEAR), key=lambda source: source.tone)
        done, count = 0, sum(stratum_of(face.female, age_of(face.parts)) == stratum for face in before)
        # From the darkest and the lightest skin inwards, over and over.
        skins = [own[-(turn // 2) - 1 if turn % 2 else turn // 2] for turn in range(len(own))]
        while count < each and done < tries:
            skin = skins[done % len(skins)]
            done += 1
            chosen = drawn(skin, sources, generator)
            if chosen is None or stratum_of(skin.female, age_of(chosen[0])) != stratum:
                continue
            detail, shape = composed(chosen[0], SIZE), shape_of(*chosen)
            if stains(detail) > _STAINS:
                continue
            face = Face(*chosen, judges.see(*head(detail, shape, skin.colour)))
            if is_someone(face.vectors, shown, FROM_PHOTOS[bar]):
                continue
            if not is_someone(face.vectors, [other.vectors for other in kept], APART[bar]):
                kept.append(face)
                count += 1
        print(f"{stratum}: {count} of {done} tried, {len(skins)} skins", flush=True)
    return kept


def write(kept: Sequence[Face], out: Path) -> None:
    """The gallery's file."""
    pictures, neutral = [], to_log(np.array(gallery.NEUTRAL, np.float32))
    for face in kept:
        picture = np.rint(from_log(composed(face.parts, SIDE) + neutral)).astype(np.uint8)
        pictures.append(gallery.encoded(picture))
    vectors = np.stack([face.vectors[0] for face in kept])
    about = DecoderNotes("composites of parts of synthetic portraits of no real person", "CC0 1.0", len(kept), True)
    arrays: dict[str, Any] = {
        "centre": vectors.mean(axis=0),
        "vectors": vectors - vectors.mean(axis=0),
        "shapes": np.stack([shape_of(face.parts, face.others) for face in kept]),
        "female": np.array([face.parts[0].female for face in kept], np.float32),
        "age": np.array([age_of(face.parts) for face in kept]),
        "tone": np.array([face.parts[0].tone for face in kept]),
        "happy": np.array([face.parts[3].happy for face in kept]),
    }
    out.write_bytes(gallery.to_bytes(about, pictures, **arrays))


def report(kept: Sequence[Face], mugs: Sequence[list[Floats]], shown: Sequence[list[Floats]]) -> None:
    """What the card says of the gallery."""
    for number, name in enumerate(RECOGNIZERS):
        own = np.stack([face.vectors[number] for face in kept])
        pairs = (own @ own.T)[np.triu_indices(len(own), 1)]
        to_mugs, to_shown = (own @ np.stack([vectors[number] for vectors in group]).T for group in (mugs, shown))
        print(
            f"{name}: {(pairs > APART[0][name]).mean():.2%} of the pairs are alike to it alone (mean cosine "
            f"{pairs.mean():.3f}); {(to_mugs.max(axis=1) > APART[0][name]).mean():.1%} of them are like a portrait "
            f"on the plain head, {(to_shown.max(axis=1) > THRESHOLDS[name]).mean():.1%} like one in its photo"
        )
    print(f"{len(kept)} faces, {len({part.name for face in kept for part in face.parts})} portraits gave parts")


if __name__ == "__main__":
    app()
