"""Fit a decoder: from a folder of consented faces to the file that turns identity vectors into faces.

Textures and shapes are reduced to their principal components, identity vectors are regressed onto them (ridge, its
strength by leave-one-out), and the best photographs become the bank. What is photographed is more than a face: the
light from one side is taken out, and what lies beyond the oval fades to the mean, since there it is hair and
background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.privacy.clustering import normalized
from anonlib.stages.people import SAME_PERSON
from anonlib.synthesis.base import DecoderNotes
from anonlib.synthesis.canonical import canonical_frame, shape_model
from anonlib.synthesis.textures.average import Portrait, member_texture, mirrored
from anonlib.synthesis.textures.face_space import SIDE, packed, region
from anonlib.synthesis.textures.linear import NEUTRAL, Decoder, read, to_bytes

LEAST_FACES = 60
"""Fewer would be drawn from memory."""
COMPONENTS, SHAPES = 260, 40

_SEEN, _SEEN_SIDE = 0.25, 64
_PRIOR = 0.02
_SIDE_LIGHT = 16.0
_ROUNDS, _SPARE, _BLOCK = 2, 20, 256
_RIDGES = tuple(float(3.0**power) for power in range(1, 10))
_LEAST_VARIANCE = 0.01
_CENTRED = 300
"""Faces of the bank that the mean shape is centred on."""
_BANK_SHARE = 0.5

# Both undo what regression shrinks. Measured on faces rendered into photos of strangers: a stretch of 1.2 or 2 costs a
# few points of rank-1; a contrast of 1 leaves 10 % of the faces with the other gender, 2 hardens women's and men's.
_STRETCH, _CONTRAST = 1.5, 1.5


@dataclass(frozen=True)
class TrainingFace:
    """One face to learn from: `detail` (p,) half precision, `seen` (64, 64) 0-255, `shape` (1404,), `vector` (d,).

    `female`, `happy`: 0-1; `age`: years.
    """

    detail: NDArray[np.float16]
    seen: NDArray[np.uint8]
    shape: NDArray[np.float32]
    vector: NDArray[np.float32]
    female: float
    age: float
    happy: float


def example(photo: Portrait, vector: NDArray[np.float32], female: float, age: float) -> TrainingFace:
    """What a decoder learns from a portrait and the face's unit vector (d,)."""
    texture = member_texture([photo])
    seen = np.clip(photo.weight / _SEEN, 0, 1)
    seen = cv2.resize(np.maximum(seen, mirrored(seen)), (_SEEN_SIDE, _SEEN_SIDE), interpolation=cv2.INTER_AREA)
    return TrainingFace(
        packed(_evenly_lit(texture.detail)).astype(np.float16),
        np.rint(255 * seen).astype(np.uint8),
        texture.shape.ravel(),
        vector,
        female,
        age,
        texture.happy,
    )


def fit(examples: Sequence[TrainingFace], about: DecoderNotes) -> bytes:
    """The decoder's file, of at least LEAST_FACES examples; the same ones in the same order give the same bytes."""
    details = np.stack([one.detail for one in examples])
    detail_mean = _fill(details, np.stack([one.seen for one in examples]))
    details *= _zone()
    mean = (detail_mean * _zone()).astype(np.float32)
    count = min(COMPONENTS, len(examples) // 4)
    basis, codes = _principal(details, mean, count)
    shapes = np.stack([one.shape for one in examples])
    shape_basis, shape_codes = _principal(shapes, shapes.mean(axis=0), min(SHAPES, count))
    codes = np.concatenate([codes, shape_codes], axis=1)
    vectors = np.stack([one.vector for one in examples])
    female, age, happy = (
        np.array([getattr(one, name) for one in examples], np.float32) for name in ("female", "age", "happy")
    )
    centre = vectors.mean(axis=0)
    points = normalized(vectors - centre)
    rows = _bank_rows(vectors, codes[:, :count])
    arrays = {
        "detail_mean": detail_mean,
        "detail": basis,
        "shape_mean": shape_model().mean.ravel(),
        "shape": shape_basis,
        "centre": centre,
        "bank_vectors": points[rows],
        "bank_codes": codes[rows],
        "bank_female": female[rows],
        "bank_age": age[rows],
        "bank_happy": happy[rows],
        **_regress(points, np.stack([female, age, happy], axis=1), codes),
    }
    return to_bytes(about, arrays | {"shape_mean": _centred(to_bytes(about, arrays))})


def _centred(decoder: bytes) -> NDArray[np.float32]:
    """The mean shape (1404,) with which a decoder's faces have the shipped mean shape on average.

    The mean of the fitted shapes says how their photos were cut (in a tight crop the mesh puts the jaw elsewhere) and
    how much they smiled, and a face that is meant otherwise than the mesh sees it is a face with a shifted outline.
    """
    made = Decoder.from_bytes(decoder)
    bank = made.bank
    shapes = [
        made.decode(*one).shape
        for one in zip(bank.vectors[:_CENTRED], bank.female[:_CENTRED], bank.age[:_CENTRED], strict=True)
    ]
    return np.asarray(made.space.shape_mean + (shape_model().mean - np.mean(shapes, axis=0)).ravel(), np.float32)


def _evenly_lit(detail: NDArray[np.float32]) -> NDArray[np.float32]:
    """A detail (S, S, 3) without the smooth part of the difference of its halves: light from one side, no feature."""
    odd = (detail - mirrored(detail)) / 2
    return np.asarray(detail - cv2.GaussianBlur(odd, (0, 0), _SIDE_LIGHT), np.float32)


def _zone() -> NDArray[np.float16]:
    """Of each of the (p,) values, how much of a face's own it keeps: 1 inside the oval, none at the rings."""
    oval = canonical_frame().polygon(topology.OVAL, 0.96).astype(np.float32)
    return packed(np.repeat(cv2.GaussianBlur(oval, (0, 0), 8)[..., None], 3, axis=2)).astype(np.float16)


def _fill(details: NDArray[np.float16], seen: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Put the mean of those who show it (p,) where a photo shows nothing, in place; returns that mean."""
    count, width = details.shape
    total, weight = np.zeros((width // 3, 3)), np.zeros((width // 3, 1))
    for part in _blocks(count):
        share = _shares(seen[part])
        total += (details[part].astype(np.float32).reshape(len(share), -1, 3) * share).sum(axis=0)
        weight += share.sum(axis=0)
    # What hardly any photo shows is plain skin.
    mean = (total / (weight + _PRIOR * count)).astype(np.float32)
    for part in _blocks(count):
        share = _shares(seen[part])
        own = details[part].astype(np.float32).reshape(len(share), -1, 3)
        details[part] = (share * own + (1 - share) * mean).reshape(len(share), -1)
    return np.asarray(mean.ravel(), np.float32)


def _shares(seen: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 64, 64) 0-255 -> (n, p / 3, 1) 0-1."""
    full = [cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)[region()] for one in seen]
    return np.asarray(np.stack(full) / np.float32(255), np.float32)[..., None]


def _principal(
    rows: NDArray[np.floating], mean: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The `count` leading directions (count, p), one standard deviation long each, and the rows' codes (n, count).

    By subspace iteration (Halko, Martinsson and Tropp 2011), block by block, since the rows fill the memory.
    """
    wide = min(count + _SPARE, *rows.shape)
    basis = np.random.default_rng(0).standard_normal((rows.shape[1], wide)).astype(np.float32)
    for _ in range(_ROUNDS):
        onto = np.linalg.qr(_project(rows, mean, basis))[0]
        basis = np.zeros_like(basis)
        for part in _blocks(len(rows)):
            basis += (rows[part] - mean).astype(np.float32).T @ onto[part]
        basis = np.linalg.qr(basis)[0]
    values = _project(rows, mean, basis)
    turn = np.linalg.svd(values, full_matrices=False)[2][:count]
    values = values @ turn.T
    spread = np.maximum(np.sqrt((values**2).mean(axis=0)), 1e-6)
    directions = (turn @ basis.T) * spread[:, None]
    return directions.astype(np.float32), (values / spread).astype(np.float32)


def _project(rows: NDArray[np.floating], mean: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([(rows[part] - mean).astype(np.float32) @ basis for part in _blocks(len(rows))])


def _regress(
    points: NDArray[np.float32], looks: NDArray[np.float32], codes: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """`axes`, `offset`, `weights`, `intercept` and `stretch` of a Decoder.

    From points (n, d), `looks` (n, 3) female, age and happy, and codes (n, c). Decoded faces are NEUTRAL, so happy goes
    into the intercept.
    """
    axes = directions(points, looks)
    offset = axes @ points.mean(axis=0)
    own = read(points, axes, offset)
    spread = np.maximum(looks.std(axis=0), 1e-6)
    inputs = np.concatenate([own, looks / spread], axis=1).astype(np.float64)
    solved = _ridge(inputs - inputs.mean(axis=0), codes - codes.mean(axis=0))
    intercept = codes.mean(axis=0) - inputs.mean(axis=0) @ solved
    weights = solved / np.concatenate([np.ones(len(axes)), spread])[:, None]
    female, happy = weights[-3].copy(), weights[-1]
    weights[-3] = _CONTRAST * female
    intercept = intercept + 0.5 * (1 - _CONTRAST) * female + NEUTRAL * happy
    length = np.sqrt(((own @ weights[:-3]) ** 2).sum(axis=1).mean())
    found = {
        "axes": axes,
        "offset": offset,
        "weights": weights[:-1],
        "intercept": intercept,
        "stretch": np.array([_STRETCH * length]),
    }
    return {name: array.astype(np.float32) for name, array in found.items()}


def directions(points: NDArray[np.float32], looks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Directions (r, d) in which points (n, d) vary beyond what female and age tell, in their standard deviations."""
    offsets = (points - points.mean(axis=0)).astype(np.float64)
    told = np.linalg.lstsq(looks - looks.mean(axis=0), offsets, rcond=None)[0][:2]
    known = np.linalg.qr(told.T)[0]
    rest = offsets - offsets @ known @ known.T
    values, vectors = np.linalg.eigh(rest.T @ rest / len(rest))
    kept = values > _LEAST_VARIANCE * values[-1]
    return np.asarray((vectors[:, kept] / np.sqrt(values[kept])).T[::-1], np.float32)


def _ridge(inputs: NDArray[np.float64], answers: NDArray[np.floating]) -> NDArray[np.float64]:
    """Weights (i, c) from centred inputs (n, i) to centred answers (n, c), of the least leave-one-out error."""
    left, strength, right = np.linalg.svd(inputs, full_matrices=False)
    turned = left.T @ answers

    def mistake(ridge: float) -> float:
        kept = strength**2 / (strength**2 + ridge)
        leverage = (left**2 * kept).sum(axis=1) + 1 / len(inputs)
        return float((((answers - left @ (kept[:, None] * turned)) / (1 - leverage)[:, None]) ** 2).mean())

    ridge = min(_RIDGES, key=mistake)
    return np.asarray(right.T @ ((strength / (strength**2 + ridge))[:, None] * turned), np.float64)


def _bank_rows(vectors: NDArray[np.float32], codes: NDArray[np.float32]) -> NDArray[np.int64]:
    """The bank's faces: the most usual ones, since hands and shadows are unusual, and each person once."""
    length = (codes**2).sum(axis=1)
    kept: list[int] = []
    for row in np.argsort(length, kind="stable")[: int(np.ceil(_BANK_SHARE * len(codes)))]:
        if not kept or (vectors[kept] @ vectors[row]).max() < SAME_PERSON:
            kept.append(int(row))
    return np.array(sorted(kept), np.int64)


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]
