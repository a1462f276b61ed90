"""The mean of a class's members in the canonical frame (k-Same-M, Gross et al. 2006), every member weighing 1/|C|.

What is averaged is detail: a face's log texture less its light. A member's own photos are merged first, each px by how
squarely it faces the camera. Outside the oval, hair and background are not skin: there detail fades to none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import cv2
import numpy as np

from anonlib.synthesis.base import UNKNOWN_AGE, Floats, Pixels, texture_arrays, texture_bytes
from anonlib.synthesis.canonical import EYE_SPAN, SIZE, canonical_frame, pose_of, sampled, shape_model, with_rings
from anonlib.synthesis.light import STEP, Light, fit_light, hair_zone, skin_region, to_log

_RING_SPREADS = 2.5
_SEEN = 0.25
_BLACK = float(np.log(12.0))
_RIM = 7
_FROM_MEDIAN = 0.3
_FINER = 0.7  # of a texture's eye distance: what a photo must have to give one as fine


@dataclass(frozen=True)
class Portrait:
    """A member's photo: `detail` (S, S, 3) log, its `weight` (S, S), neutral `shape` (468, 3), how likely `happy`, and
    `age` in years."""

    detail: Floats
    weight: Floats
    shape: Floats
    happy: float
    age: float = UNKNOWN_AGE


@dataclass(frozen=True)
class Texture:
    """A face of no real person: `detail` (S, S, 3) in log space, `shape` (468, 3) without expression, how `happy`, and
    `age` in years."""

    detail: Floats
    shape: Floats
    happy: float
    age: float = UNKNOWN_AGE

    def dressed(self, happy: float, opening: float) -> Floats:
        """The detail (S, S, 3), log, with everybody's smile."""
        return smiling(self.detail, happy - self.happy)

    def to_bytes(self) -> bytes:
        """See FaceTexture."""
        happy, age = (np.array(value, np.float32) for value in (self.happy, self.age))
        return texture_bytes(shape=self.shape, detail=self.detail.astype(np.float16), happy=happy, age=age)

    @classmethod
    def from_bytes(cls, data: bytes) -> Texture:
        """See FaceTexture."""
        shape, detail, happy, age = texture_arrays(data, "shape", "detail", "happy", "age")
        return cls(detail, shape, float(happy), float(age))


def portrait(image: Pixels, mesh: Floats, happy: float, age: float = UNKNOWN_AGE, finer: int = 1) -> Portrait:
    """A photo (H, W, 3) and its mesh (468, 3) in the photo's px, as detail in the canonical frame, S `finer` times SIZE
    where the photo has as many px."""
    model = shape_model()
    pose = pose_of(mesh, model.mean)
    shape = pose.undo(mesh)
    vertices = pose.apply(with_rings(shape))
    detail, light = detail_of(image, vertices, 1)
    skin = np.exp(-0.5 * (np.abs(detail).max(axis=2) / (_RING_SPREADS * light.spread)) ** 2)
    skin = 1 - hair_zone() * (1 - cv2.GaussianBlur(skin.astype(np.float32), (0, 0), 3))
    # A photo shows nothing beyond its border and in what is as black as a border.
    black = (detail + light.field()).max(axis=2) < _BLACK
    hidden = ~detail.any(axis=2) | (black & (skin_region() | ~canonical_frame().hull))
    hidden = cv2.dilate(hidden.astype(np.uint8), np.ones((_RIM, _RIM), np.uint8))
    shown = np.asarray(1.0 - cv2.GaussianBlur(hidden.astype(np.float32), (0, 0), _RIM / 3), np.float32)
    if finer > 1 and pose.scale > _FINER * finer * SIZE * EYE_SPAN:
        raw, valid = canonical_frame().warp_in(image, vertices, finer=finer)
        detail = (to_log(raw) - to_side(light.field(), finer * SIZE)) * valid[..., None]
    plain = (detail * to_side(skin, len(detail))[..., None]).astype(np.float32)
    return Portrait(plain, facing_weight(vertices) * shown, shape - model.expression_of(shape), happy, age)


def detail_of(image: Pixels, vertices: Floats, step: int, light: Light | None = None) -> tuple[Floats, Light]:
    """A face's log texture less its `light`, fitted if none is given, at every step-th canonical px, zero where the
    photo ends; and that light.
    `image` (H, W, 3) with `vertices` (540, 3) in its px; `step` 1, 2 or STEP; detail (S/step, S/step, 3)."""
    raw, valid = canonical_frame().warp_in(image, vertices, step)
    log = to_log(raw)
    coarse = np.s_[:: STEP // step, :: STEP // step]
    light = light or fit_light(log[coarse], facing_weight(vertices, STEP) * valid[coarse])
    return (log - light.field(step)) * valid[..., None], light


def member_texture(photos: Sequence[Portrait]) -> Texture:
    """One member from photos of him or her: seen px weigh more, unseen ones come from the mirror."""
    side = max(len(photo.detail) for photo in photos)
    weight = np.stack([to_side(photo.weight, side) for photo in photos]) ** 2 + 1e-6
    stack = np.stack([to_side(photo.detail, side) for photo in photos])
    merged = (stack * weight[..., None]).sum(axis=0) / weight.sum(axis=0)[..., None]
    seen = np.clip(weight.max(axis=0) / _SEEN, 0, 1)
    seen_mirrored = mirrored(seen)
    trust = np.where(seen >= seen_mirrored, 1.0, seen / np.maximum(seen_mirrored, 1e-6)).astype(np.float32)
    trust = np.asarray(cv2.GaussianBlur(trust, (0, 0), 4 * side / SIZE), np.float32)[..., None]
    detail = merged * trust + mirrored(np.asarray(merged, np.float32)) * (1 - trust)
    return Texture(detail.astype(np.float32), *_means(photos))


def average(members: Sequence[Texture]) -> Texture:
    """The class's surrogate: the uniform mean, weights exactly 1/|C|, of details held near the class's median. What one
    member alone has, a hand, a microphone, a shadow, would stay visible as its 1/|C| ghost."""
    side = max(len(member.detail) for member in members)
    stack = np.stack([to_side(member.detail, side) for member in members])
    median = np.median(stack, axis=0)
    detail = (median + np.clip(stack - median, -_FROM_MEDIAN, _FROM_MEDIAN)).mean(axis=0)
    return Texture(detail.astype(np.float32), *_means(members))


def _means(faces: Sequence[Portrait | Texture]) -> tuple[Floats, float, float]:
    """Their mean shape (468, 3), and how happy and how old they are."""
    shape = np.stack([face.shape for face in faces]).mean(axis=0)
    happy, age = np.mean([(face.happy, face.age) for face in faces], axis=0).tolist()
    return shape.astype(np.float32), happy, age


@cache
def smile(side: int = SIZE) -> Floats:
    """What a smile does to a texture, (S, S, 3) log, the same for everyone: the shipped mean (expression.md) of many
    happy faces less that of neutral ones, which carries no identity; S: `side`."""
    with resources.files("anonlib.synthesis").joinpath("shipped/expression.npz").open("rb") as stream:
        small = np.load(stream)["smile"].astype(np.float32)
    return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


def smiling(detail: Floats, happy: float) -> Floats:
    """A class's detail (S, S, 3) made `happy` happier (-1 to 1) than it is."""
    return np.asarray(detail + np.float32(happy) * smile(len(detail)), np.float32)


def mirrored(texture: Floats) -> Floats:
    """A canonical texture (S, S, ...) with left and right exchanged."""
    side = len(texture)
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    # It is symmetric about the eyes' middle, px SIZE / 2 of the frame.
    return sampled(texture, np.stack([side + side // SIZE - 1 - columns, rows], axis=-1))


def to_side(values: Floats, side: int) -> Floats:
    """A canonical map (S, S, ...) with `side` px a side."""
    if len(values) == side:
        return values
    return np.asarray(cv2.resize(values, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)


def facing_weight(vertices: Floats, step: int = 1) -> Floats:
    """How squarely every step-th canonical px faces the camera in a photo with these vertices (540, 3), 0-1, smooth."""
    frame = canonical_frame()
    corners = vertices[frame.triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    cosine = normal[:, 2] / np.maximum(np.linalg.norm(normal, axis=1), 1e-9)
    values = np.clip(cosine * frame.orientation, 0, 1)[frame.triangle_index[::step, ::step]]
    smooth = cv2.GaussianBlur(values.astype(np.float32), (0, 0), 4 / step)
    return np.asarray(smooth * frame.inside[::step, ::step], np.float32)
