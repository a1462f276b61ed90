"""The small fits that ship as NPZ files: shape model, readout of glasses, smiles, reliefs of skin, shading.

`python jobs/training/fits.py shape-model|glasses|expression|relief|shading FACES... --out FILE`, where FACES are faces
tables of scans (scan/KEY/faces/*.parquet of a workspace). Nothing is random: the same tables give the same file. Where
people are labelled, only every other person by name is fitted on, so that the rest can judge.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import simplejpeg
import typer
from numpy.typing import NDArray
from scipy.optimize import minimize

from anonlib.faces import topology
from anonlib.synthesis.canonical import ShapeModel, canonical_frame, pose_of, vertices_of
from anonlib.synthesis.describe import crop_and_mesh, happiness
from anonlib.synthesis.light import STEP, Shadings, brightness_of, hull_of, skin_region, to_log, tone_of
from anonlib.synthesis.occlusion import GLASSES_STEP, features
from anonlib.synthesis.skin import BYTES
from anonlib.synthesis.textures.average import Portrait, detail_of, mirrored, portrait
from anonlib.workspace.schemas import EXPRESSIONS, MESH_POINTS

_ROUNDS, _DIRECTIONS, _KEPT, _SHRINK = 3, 60, 40, 0.05
_RIDGE, _FLOOR, _WEARER_WEIGHT = 200.0, 0.02, 3.0
_FALSE_ALARMS = 0.15
"""Share of bare faces that may be taken for wearers: a donor lost costs less than a ghost on a class."""
_SMOOTH, _SMILE_SIDE = 2.0, 128
_HAIR, _CALM, _FAINTER, _QUALITY = 6.0, 0.7, 0.8, 80
_SHADINGS, _FILLS, _DEEPEST = 8, 15, 0.9
"""Directions that are kept, rounds of filling what hair hides, and how far off its light skin is at most, log units."""
_SHADED = (
    *((topology.LEFT_EYE, 1.15), (topology.RIGHT_EYE, 1.15), (topology.LEFT_BROW, 1.15), (topology.RIGHT_BROW, 1.15)),
    (topology.LIPS_OUTER, 1.1),
)
"""What of a face within 1.06 of its oval is not read, and how much larger."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
Tables = Annotated[list[Path], typer.Argument(help="Faces tables of scans.")]
Output = Annotated[Path, typer.Option("--out", help="The .npz file to write.")]


def fit_shape_model(meshes: NDArray[np.float32], people: Sequence[str]) -> ShapeModel:
    """The mean mesh, and what of a mesh varies within a person, from meshes (n, 468, 3) px and who each shows.

    Meshes are aligned by similarity (Procrustes). W is the covariance of a person's meshes about their mean, B that of
    the means, cleared of their own noise; the expression part of a shape is W (W + B)^-1 of its offset, in the leading
    principal directions, where both are well determined. People with one photo count for the mean alone.
    """
    mean = _upright(meshes[0].astype(np.float64))
    for _ in range(_ROUNDS):
        shapes = np.stack([pose_of(mesh, mean.astype(np.float32)).undo(mesh) for mesh in meshes]).astype(np.float64)
        mean = _upright(shapes.mean(axis=0))
    offsets = (shapes - mean).reshape(len(shapes), -1)
    directions = np.linalg.svd(offsets - offsets.mean(axis=0), full_matrices=False)[2][:_DIRECTIONS]
    codes = offsets @ directions.T
    _, person, photos = np.unique(people, return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(person, column) for column in codes.T], axis=1) / photos[:, None]
    several = photos > 1
    centred = (codes - means[person])[several[person]]
    within = centred.T @ centred / (photos[several] - 1).sum()
    values, vectors = np.linalg.eigh(np.cov(means[several].T) - within * (1 / photos[several]).mean())
    both = within + (vectors * np.maximum(values, 0)) @ vectors.T
    shrink = _SHRINK * np.trace(both) / _DIRECTIONS * np.eye(_DIRECTIONS)
    left, strength, right = np.linalg.svd(within @ np.linalg.inv(both + shrink))
    root = np.sqrt(strength[:_KEPT])
    expression = directions.T @ (left[:, :_KEPT] * root)
    read = (root[:, None] * right[:_KEPT]) @ directions
    return ShapeModel(*(part.astype(np.float32) for part in (mean, expression, read)))


def _upright(shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """A shape (468, 3) centred, symmetric about x = 0 as faces are on the mean, eyes level and one unit apart."""
    left, right = (shape[list(eye)].mean(axis=0) for eye in (topology.LEFT_EYE, topology.RIGHT_EYE))
    x = (right - left) / np.linalg.norm(right - left)
    down = shape[topology.CHIN] - shape[topology.FOREHEAD]
    y = down - (down @ x) * x
    y /= np.linalg.norm(y)
    axes = np.stack([x, y, np.cross(x, y)])
    return np.asarray((shape - shape.mean(axis=0)) @ axes.T / np.linalg.norm(right - left))


@app.command("shape-model")
def shape_model(faces: Tables, out: Output) -> None:
    """Fit the shape model on labelled photos."""
    rows = _rows(faces, "label", "mesh")
    chosen = _every_other(rows)
    rows = [row for row in rows if row["label"] in chosen]
    meshes = np.array([row["mesh"] for row in rows], np.float32).reshape(-1, MESH_POINTS, 3)
    model = fit_shape_model(meshes, [row["label"] for row in rows])
    half = {"expression": model.expression.astype(np.float16), "read": model.read.astype(np.float16)}
    np.savez_compressed(out, mean=model.mean, **half)  # type: ignore[arg-type]
    print(f"{len(rows)} photos of {len(chosen)} people -> {out}")


def fit_readout(vectors: NDArray[np.float32], wears: NDArray[np.bool_]) -> tuple[NDArray[np.float32], float]:
    """Logistic regression with a strong ridge, from feature vectors (n, d) and who wears glasses (n,)."""
    centre, spread = vectors.mean(axis=0), vectors.std(axis=0) + _FLOOR
    scaled = np.c_[(vectors - centre) / spread, np.ones(len(vectors))].astype(np.float64)
    target, weight = wears.astype(np.float64), np.where(wears, _WEARER_WEIGHT, 1.0)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logit = scaled @ parameters
        value = (weight * (np.logaddexp(0, logit) - target * logit)).sum() + _RIDGE * (parameters[:-1] ** 2).sum()
        gradient = scaled.T @ (weight * (1 / (1 + np.exp(-logit)) - target))
        gradient[:-1] += 2 * _RIDGE * parameters[:-1]
        return float(value), gradient

    found = minimize(loss, np.zeros(scaled.shape[1]), jac=True, method="L-BFGS-B").x
    direction = (found[:-1] / spread).astype(np.float32)
    return direction, -float(np.quantile(vectors[~wears] @ direction, 1 - _FALSE_ALARMS))


@app.command("glasses")
def glasses(
    faces: Tables, out: Output, labels: Annotated[Path, typer.Option(help="CSV: face_id,wears (0 or 1).")]
) -> None:
    """Fit the readout of glasses on faces that a person has labelled, each face and its mirror image."""
    with labels.open() as stream:
        wears = {row["face_id"]: row["wears"] == "1" for row in csv.DictReader(stream)}
    rows = [row for row in _rows(faces, "face_id", "mesh", "crop", "crop_from_image") if row["face_id"] in wears]
    vectors = []
    for crop, mesh in map(crop_and_mesh, rows):
        detail, _ = detail_of(crop, vertices_of(mesh), GLASSES_STEP)
        vectors += [features(detail), features(np.ascontiguousarray(detail[:, ::-1]))]
    matrix, answers = np.stack(vectors), np.array([wears[row["face_id"]] for row in rows]).repeat(2)
    weight, bias = fit_readout(matrix, answers)
    np.savez_compressed(out, weight=weight.astype(np.float16), bias=np.float32(bias))
    taken = matrix @ weight + bias > 0
    rates = f"{taken[answers].mean():.1%} caught, {taken[~answers].mean():.1%} false alarms"
    print(f"{len(rows)} faces, {answers.sum() // 2} with glasses: {rates}")


def fit_smile(
    portraits: Sequence[Portrait], happy: NDArray[np.float64], neutral: NDArray[np.float64]
) -> NDArray[np.float32]:
    """What the mean happy portrait has over the mean neutral one, (S, S, 3), from the probabilities of both (n,).

    It is made symmetric and smooth, since it is to say what happiness does and not who was happy.
    """
    detail = np.stack([portrait.detail for portrait in portraits])
    smile = np.tensordot(happy / happy.sum(), detail, 1) - np.tensordot(neutral / neutral.sum(), detail, 1)
    smile = np.asarray(cv2.GaussianBlur(smile.astype(np.float32), (0, 0), _SMOOTH), np.float32)
    return np.asarray((smile + mirrored(smile)) / 2, np.float32)


@app.command("expression")
def expression(faces: Tables, out: Output) -> None:
    """Fit what a smile does on portraits."""
    rows = _rows(faces, "mesh", "crop", "crop_from_image", "expression")
    moods = np.array([row["expression"] for row in rows])
    happy, neutral = (moods[:, EXPRESSIONS.index(name)] for name in ("happy", "neutral"))
    drawn = [portrait(*crop_and_mesh(row), happiness(row["expression"])) for row in rows]
    smile = fit_smile(drawn, happy, neutral)
    small = cv2.resize(smile, (_SMILE_SIDE, _SMILE_SIDE), interpolation=cv2.INTER_AREA)
    np.savez_compressed(out, smile=small.astype(np.float16))
    print(f"{len(rows)} portraits -> {out}")


def fit_relief(grey: NDArray[np.float32], depth: float) -> NDArray[np.uint8]:
    """The relief of skin (2 S, 2 S), 128 and BYTES steps a unit of spread, from a canonical face in log grey levels.

    What is smooth over `depth` px is taken out, and strong and faint places become more alike. Where no skin is or hair
    lies over it, noise that is as strong in each octave takes its place.
    """
    side = (len(grey), len(grey))
    fine = grey - cv2.GaussianBlur(grey, (0, 0), depth)
    skin = cv2.erode(skin_region().astype(np.uint8), np.ones((3, 3)))
    soft = cv2.GaussianBlur(cv2.resize(skin.astype(np.float32), side), (0, 0), 4)
    inner = soft > 0.9
    spread = 1.4826 * float(np.median(np.abs(fine[inner])))
    nearby = np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), 6))
    hair = cv2.GaussianBlur((nearby > _HAIR * spread).astype(np.float32), (0, 0), 4)
    soft = soft * (1 - np.clip(2 * hair, 0, 1))
    relief = np.clip(fine / (np.maximum(nearby, 0.7 * spread) ** 0.75 * spread**0.25), -3, 2.5)
    own, elsewhere = relief.astype(np.float32), np.zeros_like(grey)
    level = np.random.default_rng(0).standard_normal(grey.shape).astype(np.float32)
    for width in (0.7, 1.2, 2.0, 3.2):
        octaves = [values - cv2.GaussianBlur(values, (0, 0), width) for values in (own, level)]
        own, level = own - octaves[0], level - octaves[1]
        strong, has = (float(np.median(np.abs(octave[inner]))) for octave in octaves)
        elsewhere = elsewhere + octaves[1] * (_FAINTER * strong / has)
    features = canonical_frame().polygon(topology.OVAL, 0.9) & ~skin_region()
    calm = 1 - _CALM * cv2.GaussianBlur(cv2.resize(features.astype(np.float32), side), (0, 0), 5)
    calm *= cv2.resize(canonical_frame().inside.astype(np.float32), side)
    relief = relief * soft + elsewhere * calm * np.sqrt(1 - soft**2)
    return np.asarray(np.clip(np.rint(128 + BYTES * relief), 0, 255), np.uint8)


@app.command("relief")
def relief(
    faces: Tables, out: Output, labels: Annotated[Path, typer.Option(help="CSV: face_id,depth, in the order kept.")]
) -> None:
    """Cut reliefs of skin from faces that a person has chosen: sharp, frontal, without beard, hair off the skin."""
    rows = {row["face_id"]: row for row in _rows(faces, "face_id", "mesh", "crop", "crop_from_image")}
    with labels.open() as stream:
        chosen = [(crop_and_mesh(rows[row["face_id"]]), float(row["depth"])) for row in csv.DictReader(stream)]
    coded: dict[str, NDArray[np.uint8]] = {}
    for number, ((crop, mesh), depth) in enumerate(chosen):
        face, _ = canonical_frame().warp_in(crop, vertices_of(mesh), finer=2)
        grey = np.asarray(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), np.float32)
        square = fit_relief(to_log(grey), depth)[..., None]
        data = simplejpeg.encode_jpeg(square, quality=_QUALITY, colorspace="GRAY", colorsubsampling="gray")
        coded[str(number)] = np.frombuffer(data, np.uint8)
    np.savez(out, **coded)  # type: ignore[arg-type]
    print(f"{len(chosen)} reliefs -> {out}")


def fit_shadings(residuals: Sequence[tuple[NDArray[np.float32], float]]) -> Shadings:
    """What light does to the brightness of faces, from what of each is not smooth light (s, s, 3), and the spread of
    its skin: principal directions of these and of their mirror images. What hair hides is filled from the rest."""
    frame = canonical_frame()
    region = frame.polygon(topology.OVAL, 1.06)
    for part, grow in _SHADED:
        region &= ~hull_of(frame.points[list(part)], grow)
    region = region[::STEP, ::STEP]
    shades, seen = [], []
    for residual, spread in residuals:
        grey = brightness_of(residual)
        own = grey - brightness_of(tone_of(residual, spread))
        known = (np.abs(grey) < _DEEPEST) & (own > -1) & residual.any(axis=2)
        shades += [own[region], own[:, ::-1][region]]
        seen += [known[region], known[:, ::-1][region]]
    values, known = np.array(shades), np.array(seen)
    filled = np.where(known, values, (values * known).sum(axis=0) / known.sum(axis=0))
    for _ in range(_FILLS):
        mean = filled.mean(axis=0)
        left, strength, right = np.linalg.svd(filled - mean, full_matrices=False)
        least = mean + (left[:, :_SHADINGS] * strength[:_SHADINGS]) @ right[:_SHADINGS]
        filled = np.where(known, values, least)
    noise = float(np.sqrt(((values - least)[known] ** 2).mean()))
    directions = np.stack([_beyond(direction, region) for direction in right[:_SHADINGS]])
    return Shadings(_beyond(mean, region), directions, strength[:_SHADINGS] / np.sqrt(len(filled)), region, noise)


def _beyond(values: NDArray[np.float32], region: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Values (n,) of a region (s, s) as a map (s, s) that goes on a little beyond it and is smooth at its borders."""
    inside = region.astype(np.float32)
    placed = np.zeros_like(inside)
    placed[region] = values
    share = cv2.GaussianBlur(inside, (0, 0), 1.0)
    smooth = cv2.GaussianBlur(placed, (0, 0), 1.0) / np.maximum(share, 0.15)
    return np.where(region, (placed + smooth) / 2, smooth * np.clip(2 * share, 0, 1)).astype(np.float32)


@app.command("shading")
def shading(faces: Tables, out: Output) -> None:
    """Fit how light shades faces, on portraits whose skin is seen."""
    rows = _rows(faces, "mesh", "crop", "crop_from_image")
    looked = (detail_of(crop, vertices_of(mesh), STEP) for crop, mesh in map(crop_and_mesh, rows))
    made = fit_shadings([(residual, light.spread) for residual, light in looked])
    halves = {name: getattr(made, name).astype(np.float16) for name in ("mean", "directions", "deviations")}
    np.savez_compressed(out, **halves, region=made.region, noise=np.float32(made.noise))
    print(f"{len(rows)} portraits, noise {made.noise:.3f} -> {out}")


def _rows(paths: Sequence[Path], *columns: str) -> list[dict[str, Any]]:
    return [row for path in paths for row in pq.read_table(path, columns=list(columns)).to_pylist()]


def _every_other(rows: Sequence[dict[str, Any]]) -> set[str]:
    return set(sorted({row["label"] for row in rows if row["label"] is not None})[::2])


if __name__ == "__main__":
    app()
