"""`anonlib fit-decoder`: from the place of consented photos to the file that turns identity vectors into faces.

Textures and shapes are reduced to principal components, identity vectors are regressed onto them (ridge by
leave-one-out), and the best photographs become the bank. Beyond the oval, where there is hair, all fades to the mean.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from anonlib.training.data import Floats, Pixels, Report, Rows, example_of, gather

LEAST_FACES = 60  # a decoder of fewer faces would draw them from memory
COMPONENTS, SHAPES = 260, 40

_ROUNDS, _SPARE, _BLOCK = 2, 20, 256
_RIDGES = tuple(float(3.0**power) for power in range(1, 10))
_CENTRED = 300  # faces of the bank that the mean shape is centred on
_BANK_SHARE, _PRIOR, _LEAST_VARIANCE = 0.5, 0.02, 0.01

# Both undo what regression shrinks. Measured on faces rendered into photos of strangers: a stretch of 1.2 or 2 costs a
# few points of rank-1; a contrast of 1 leaves 10 % of the faces with the other gender, 2 hardens women's and men's.
_STRETCH, _CONTRAST = 1.5, 1.5


def fit_decoder(
    uri: str,
    output: Path,
    *,
    terms: str,
    about: str | None = None,
    commercial: bool = True,
    faces: int = 8000,
    report: Report = lambda stage, outcome, units: None,
) -> list[tuple[str, str]]:
    """Fit a decoder on the faces at `uri`, at most `faces` of them, and publish it at `output`.

    Returns what the terminal shows: name and value. Raises ConfigError without terms or with too few faces.
    """
    if not terms.strip():
        raise ConfigError("a decoder says under which terms its photos may be used; give them by --terms")
    examples, photos, left_out = gather(open_dataset(uri), example_of, most=faces, report=report)
    if len(examples) < LEAST_FACES:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in left_out.most_common())
        raise ConfigError(
            f"{len(examples)} of {photos} photos have a face to learn from and a decoder needs {LEAST_FACES}"
            + (f" ({reasons})" if reasons else "")
        )
    began = time.monotonic()
    fitted_on = about or f"photos in {uri.rstrip('/').rpartition('/')[2]}"
    columns = {name: np.stack([np.asarray(face[name]) for face in examples]) for name in examples[0]}
    data = fit(columns, DecoderNotes(fitted_on, terms, len(examples), commercial))
    LocalStorage(output.parent).publish(output.name, data)
    report("fit", UnitResult(output.name, faces=len(examples), seconds=time.monotonic() - began), 1)
    decoder = Decoder.from_bytes(data)
    return [
        ("photos", f"{photos:,}"),
        ("faces", f"{len(examples):,} used, {len(decoder.bank):,} of them in the bank"),
        *(("", f"{count:,} left out: {reason}") for reason, count in left_out.most_common()),
        ("terms", terms if commercial else f"{terms} (not for commercial use)"),
        ("decoder", f"{output} (personal data: it can draw the people it was fitted on)"),
        ("sha256", decoder.digest),
    ]


def fit(columns: Mapping[str, NDArray[Any]], about: DecoderNotes) -> bytes:
    """The decoder's file, of columns of what `example_of` gives of LEAST_FACES faces or more; the bytes repeat."""
    details, shapes, vectors = columns["detail"].copy(), columns["shape"], columns["vector"]
    female, age, happy = (columns[name].astype(np.float32) for name in ("female", "age", "happy"))
    detail_mean = _fill(details, columns["seen"])
    # How much of a photo's own detail is kept of each of the (p,) values: 1 inside the oval, none at the rings.
    oval = cv2.GaussianBlur(canonical_frame().polygon(topology.OVAL, 0.96).astype(np.float32), (0, 0), 8)
    zone = packed(np.repeat(oval[..., None], 3, axis=2)).astype(np.float16)
    details *= zone
    count = min(COMPONENTS, len(details) // 4)
    basis, codes = _principal(details, (detail_mean * zone).astype(np.float32), count)
    shape_basis, shape_codes = _principal(shapes, shapes.mean(axis=0), min(SHAPES, count))
    rows = _bank_rows(vectors, codes)
    codes = np.concatenate([codes, shape_codes], axis=1)
    centre = vectors.mean(axis=0)
    points = normalized(vectors - centre)
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
    # The mean of the fitted shapes says how their photos were cut (in a tight crop the mesh puts the jaw elsewhere) and
    # how much they smiled. So it is moved until decoded faces have the shipped mean shape on average.
    fitted = Decoder.from_bytes(to_bytes(about, arrays))
    bank = zip(fitted.bank.vectors[:_CENTRED], fitted.bank.female[:_CENTRED], fitted.bank.age[:_CENTRED], strict=True)
    off = shape_model().mean - np.mean([fitted.decode(*face).shape for face in bank], axis=0)
    return to_bytes(about, arrays | {"shape_mean": (fitted.space.shape_mean + off.ravel()).astype(np.float32)})


def _fill(details: NDArray[np.float16], seen: Pixels) -> Floats:
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


def _shares(seen: Pixels) -> Floats:
    """(n, 64, 64) 0-255 -> (n, p / 3, 1) 0-1."""
    full = [cv2.resize(weight, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)[region()] for weight in seen]
    return np.asarray(np.stack(full) / np.float32(255), np.float32)[..., None]


def _principal(rows: NDArray[np.floating], mean: Floats, count: int) -> tuple[Floats, Floats]:
    """The `count` leading directions (count, p), one standard deviation long each, and the rows' codes (n, count).

    By subspace iteration (Halko, Martinsson and Tropp 2011), block by block, since the rows fill the memory.
    """

    def projected(basis: Floats) -> Floats:
        return np.concatenate([(rows[part] - mean).astype(np.float32) @ basis for part in _blocks(len(rows))])

    wide = min(count + _SPARE, *rows.shape)
    basis = np.random.default_rng(0).standard_normal((rows.shape[1], wide)).astype(np.float32)
    for _ in range(_ROUNDS):
        onto = np.linalg.qr(projected(basis))[0]
        basis = np.zeros_like(basis)
        for part in _blocks(len(rows)):
            basis += (rows[part] - mean).astype(np.float32).T @ onto[part]
        basis = np.linalg.qr(basis)[0]
    values = projected(basis)
    turn = np.linalg.svd(values, full_matrices=False)[2][:count]
    values = values @ turn.T
    spread = np.maximum(np.sqrt((values**2).mean(axis=0)), 1e-6)
    return ((turn @ basis.T) * spread[:, None]).astype(np.float32), (values / spread).astype(np.float32)


def _regress(points: Floats, looks: Floats, codes: Floats) -> dict[str, Floats]:
    """`axes`, `offset`, `weights`, `intercept`, `stretch` of a Decoder, of points (n, d), `looks` (n, 3), codes (n, c).

    `looks` are female, age and happy. Decoded faces are NEUTRAL, so happy goes into the intercept.
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
    stretch = np.array([_STRETCH * np.sqrt(((identity @ weights[:-3]) ** 2).sum(axis=1).mean())])
    parts = {"axes": axes, "offset": offset, "weights": weights[:-1], "intercept": intercept, "stretch": stretch}
    return {name: array.astype(np.float32) for name, array in parts.items()}


def directions(points: Floats, looks: Floats) -> Floats:
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


def _bank_rows(vectors: Floats, codes: Floats) -> Rows:
    """The bank's faces: the most usual ones, since hands and shadows are unusual, and each person once."""
    length = (codes**2).sum(axis=1)
    kept: list[int] = []
    for row in np.argsort(length, kind="stable")[: int(np.ceil(_BANK_SHARE * len(codes)))]:
        if not kept or (vectors[kept] @ vectors[row]).max() < SAME_PERSON:
            kept.append(int(row))
    return np.array(sorted(kept), np.int64)


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]
