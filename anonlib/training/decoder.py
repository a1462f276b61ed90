"""`anonlib fit-decoder`: from the place of consented photos to the file that turns identity vectors into faces.

Textures and shapes are reduced to their principal components, identity vectors are regressed onto them (ridge, its
strength by leave-one-out), and the best photographs become the bank. What lies beyond the oval fades to the mean, since
photos show hair and background there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.datasets import open_dataset
from anonlib.errors import ConfigError
from anonlib.execution.base import UnitResult
from anonlib.faces import topology
from anonlib.faces.embed import SAME_PERSON
from anonlib.privacy.clustering import normalized
from anonlib.storage.local import LocalStorage
from anonlib.synthesis.base import DecoderNotes
from anonlib.synthesis.canonical import canonical_frame, shape_model
from anonlib.synthesis.textures.face_space import SIDE, packed, region
from anonlib.synthesis.textures.linear import NEUTRAL, Decoder, read, to_bytes
from anonlib.training.examples import Gatherer, Report, TrainingFace, example_of

LEAST_FACES = 60
"""A decoder of fewer faces would draw them from memory."""
COMPONENTS, SHAPES = 260, 40

_PRIOR = 0.02
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
class FittedDecoder:
    """A decoder in its file, of how many photos, and why photos gave no face (reason -> photos)."""

    output: Path
    decoder: Decoder
    photos: int
    left_out: Counter[str]

    def rows(self) -> list[tuple[str, str]]:
        """What the terminal shows: name and value."""
        about = self.decoder.about
        return [
            ("photos", f"{self.photos:,}"),
            ("faces", f"{about.faces:,} used, {len(self.decoder.bank):,} of them in the bank"),
            *(("", f"{count:,} left out: {reason}") for reason, count in self.left_out.most_common()),
            ("terms", about.terms if about.commercial else f"{about.terms} (not for commercial use)"),
            ("decoder", f"{self.output} (personal data: it can draw the people it was fitted on)"),
            ("sha256", self.decoder.digest),
        ]


def fit_decoder(
    uri: str,
    output: Path,
    *,
    terms: str,
    about: str | None = None,
    commercial: bool = True,
    faces: int = 8000,
    report: Report = lambda stage, outcome, units: None,
) -> FittedDecoder:
    """Fit a decoder on the faces at `uri`, at most `faces` of them, and publish it at `output`.

    Raises ConfigError where the terms are empty or the faces too few, and what reading and models raise.
    """
    if not terms.strip():
        raise ConfigError("a decoder says under which terms its photos may be used; give them by --terms")
    if faces < LEAST_FACES:
        raise ConfigError(f"a decoder needs at least {LEAST_FACES} faces; --faces is {faces}")
    gathered = Gatherer(example_of).gather(open_dataset(uri), most=faces, report=report)
    used = len(gathered.examples)
    if used < LEAST_FACES:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in gathered.left_out.most_common())
        raise ConfigError(
            f"{used} of {gathered.photos} photos have a face to learn from and a decoder needs {LEAST_FACES}"
            + (f" ({reasons})" if reasons else "")
        )
    began = time.monotonic()
    fitted_on = about or f"photos in {uri.rstrip('/').rpartition('/')[2]}"
    data = fit(gathered.examples, DecoderNotes(fitted_on, terms, used, commercial))
    LocalStorage(output.parent).publish(output.name, data)
    report("fit", UnitResult(output.name, faces=used, seconds=time.monotonic() - began), 1)
    return FittedDecoder(output, Decoder.from_bytes(data), gathered.photos, gathered.left_out)


def fit(examples: Sequence[TrainingFace], about: DecoderNotes) -> bytes:
    """The decoder's file, of at least LEAST_FACES examples; the same ones in the same order give the same bytes."""
    details = np.stack([face.detail for face in examples])
    detail_mean = _fill(details, np.stack([face.seen for face in examples]))
    details *= _zone()
    mean = (detail_mean * _zone()).astype(np.float32)
    count = min(COMPONENTS, len(examples) // 4)
    basis, codes = _principal(details, mean, count)
    shapes = np.stack([face.shape for face in examples])
    shape_basis, shape_codes = _principal(shapes, shapes.mean(axis=0), min(SHAPES, count))
    codes = np.concatenate([codes, shape_codes], axis=1)
    vectors = np.stack([face.vector for face in examples])
    female, age, happy = (
        np.array([getattr(face, name) for face in examples], np.float32) for name in ("female", "age", "happy")
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
    fitted = Decoder.from_bytes(decoder)
    bank = fitted.bank
    faces = zip(bank.vectors[:_CENTRED], bank.female[:_CENTRED], bank.age[:_CENTRED], strict=True)
    shapes = [fitted.decode(*face).shape for face in faces]
    return np.asarray(fitted.space.shape_mean + (shape_model().mean - np.mean(shapes, axis=0)).ravel(), np.float32)


def _zone() -> NDArray[np.float16]:
    """Of each of the (p,) values, how much of a photo's own detail is kept: 1 inside the oval, none at the rings."""
    oval = canonical_frame().polygon(topology.OVAL, 0.96).astype(np.float32)
    return packed(np.repeat(cv2.GaussianBlur(oval, (0, 0), 8)[..., None], 3, axis=2)).astype(np.float16)


def _fill(details: NDArray[np.float16], seen: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Put the mean (p,) of the photos that show a place where a photo does not, in place; return that mean."""
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
        detail = details[part].astype(np.float32).reshape(len(share), -1, 3)
        details[part] = (share * detail + (1 - share) * mean).reshape(len(share), -1)
    return np.asarray(mean.ravel(), np.float32)


def _shares(seen: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 64, 64) 0-255 -> (n, p / 3, 1) 0-1."""
    full = [cv2.resize(weight, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)[region()] for weight in seen]
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
    identity = read(points, axes, offset)
    spread = np.maximum(looks.std(axis=0), 1e-6)
    inputs = np.concatenate([identity, looks / spread], axis=1).astype(np.float64)
    solved = _ridge(inputs - inputs.mean(axis=0), codes - codes.mean(axis=0))
    intercept = codes.mean(axis=0) - inputs.mean(axis=0) @ solved
    weights = solved / np.concatenate([np.ones(len(axes)), spread])[:, None]
    female, happy = weights[-3].copy(), weights[-1]
    weights[-3] = _CONTRAST * female
    intercept = intercept + 0.5 * (1 - _CONTRAST) * female + NEUTRAL * happy
    length = np.sqrt(((identity @ weights[:-3]) ** 2).sum(axis=1).mean())
    parts = {
        "axes": axes,
        "offset": offset,
        "weights": weights[:-1],
        "intercept": intercept,
        "stretch": np.array([_STRETCH * length]),
    }
    return {name: array.astype(np.float32) for name, array in parts.items()}


def directions(points: NDArray[np.float32], looks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Directions (r, d) in which points (n, d) vary beyond female and age, in their standard deviations."""
    offsets = (points - points.mean(axis=0)).astype(np.float64)
    along = np.linalg.lstsq(looks - looks.mean(axis=0), offsets, rcond=None)[0][:2]
    known = np.linalg.qr(along.T)[0]
    rest = offsets - offsets @ known @ known.T
    values, vectors = np.linalg.eigh(rest.T @ rest / len(rest))
    kept = values > _LEAST_VARIANCE * values[-1]
    return np.asarray((vectors[:, kept] / np.sqrt(values[kept])).T[::-1], np.float32)


def _ridge(inputs: NDArray[np.float64], answers: NDArray[np.floating]) -> NDArray[np.float64]:
    """Weights (i, c) from centred inputs (n, i) to centred answers (n, c), of the least leave-one-out error."""
    left, strength, right = np.linalg.svd(inputs, full_matrices=False)
    turned = left.T @ answers

    def error(ridge: float) -> float:
        kept = strength**2 / (strength**2 + ridge)
        leverage = (left**2 * kept).sum(axis=1) + 1 / len(inputs)
        return float((((answers - left @ (kept[:, None] * turned)) / (1 - leverage)[:, None]) ** 2).mean())

    ridge = min(_RIDGES, key=error)
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
