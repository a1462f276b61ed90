"""Fit the shape model: the mean mesh and what of a mesh varies within a person.

Meshes are aligned by similarity (Procrustes, 3 rounds). W is the covariance of a person's meshes about their
mean, B that of the means; the expression part of a shape is W (W + B)^-1 of its offset, computed in the
leading principal directions, where both are well determined. Same photographs in, same file out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.synthesis.canonical import ShapeModel, pose_of
from anonlib.workspace.schemas import MESH_POINTS

_ROUNDS = 3
_DIRECTIONS = 60
_KEPT = 40
_SHRINK = 0.05


def fit_shape_model(meshes: NDArray[np.float32], people: Sequence[str]) -> ShapeModel:
    """From meshes (n, 468, 3) px and who each shows; people with one photo count for the mean alone."""
    mean = _upright(meshes[0].astype(np.float64))
    shapes = np.empty(meshes.shape, np.float64)
    for _ in range(_ROUNDS):
        for row, mesh in enumerate(meshes):
            shapes[row] = pose_of(mesh, mean.astype(np.float32)).undo(mesh)
        mean = _upright(shapes.mean(axis=0))
    offsets = (shapes - mean).reshape(len(shapes), -1)
    directions = np.linalg.svd(offsets - offsets.mean(axis=0), full_matrices=False)[2][:_DIRECTIONS]
    codes = offsets @ directions.T
    within, between = _scatter(codes, people)
    shrink = _SHRINK * np.trace(within + between) / _DIRECTIONS * np.eye(_DIRECTIONS)
    gain = within @ np.linalg.inv(within + between + shrink)
    left, strength, right = np.linalg.svd(gain)
    root = np.sqrt(strength[:_KEPT])
    expression = directions.T @ (left[:, :_KEPT] * root)
    read = (root[:, None] * right[:_KEPT]) @ directions
    return ShapeModel(*(part.astype(np.float32) for part in (mean, expression, read)))


def _scatter(codes: NDArray[np.float64], people: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Within- and between-person covariance (r, r); the between part is cleared of the means' own noise."""
    groups: dict[str, list[int]] = {}
    for row, person in enumerate(people):
        groups.setdefault(person, []).append(row)
    chosen = [rows for rows in groups.values() if len(rows) > 1]
    size = codes.shape[1]
    within, means, noise, freedom = np.zeros((size, size)), [], 0.0, 0
    for rows in chosen:
        centred = codes[rows] - codes[rows].mean(axis=0)
        within += centred.T @ centred
        freedom += len(rows) - 1
        noise += 1 / len(rows)
        means.append(codes[rows].mean(axis=0))
    within /= freedom
    between = np.cov(np.array(means).T) - within * noise / len(chosen)
    values, vectors = np.linalg.eigh(between)
    return within, (vectors * np.maximum(values, 0)) @ vectors.T


def _upright(shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred, symmetric about x = 0 as faces are on the mean, eyes level and one unit apart."""
    left = shape[list(topology.LEFT_EYE)].mean(axis=0)
    right = shape[list(topology.RIGHT_EYE)].mean(axis=0)
    x = (right - left) / np.linalg.norm(right - left)
    down = shape[topology.CHIN] - shape[topology.FOREHEAD]
    y = down - (down @ x) * x
    y /= np.linalg.norm(y)
    axes = np.stack([x, y, np.cross(x, y)])
    return np.asarray((shape - shape.mean(axis=0)) @ axes.T / np.linalg.norm(right - left))


def main() -> None:
    """From the faces tables of a scan of labelled photos: every other person by name, so that the rest can judge."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("faces", type=Path, nargs="+", help="scan/KEY/faces/*.parquet of a workspace")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = [row for path in arguments.faces for row in pq.read_table(path, columns=["label", "mesh"]).to_pylist()]
    chosen = set(sorted({row["label"] for row in rows if row["label"] is not None})[::2])
    rows = [row for row in rows if row["label"] in chosen]
    meshes = np.array([row["mesh"] for row in rows], np.float32).reshape(-1, MESH_POINTS, 3)
    model = fit_shape_model(meshes, [row["label"] for row in rows])
    np.savez_compressed(
        arguments.out,
        mean=model.mean,
        expression=model.expression.astype(np.float16),
        read=model.read.astype(np.float16),
    )
    print(f"{len(rows)} photos of {len(chosen)} people -> {arguments.out}")


if __name__ == "__main__":
    main()
