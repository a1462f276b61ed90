"""Fit the readout that finds glasses, from faces that a person has labelled.

Logistic regression with a strong ridge, each face and its mirror; the bias is set so that 15 % of bare faces are
taken for wearers, since a donor lost costs less than a ghost on a class.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.optimize import minimize

from anonlib.stages.surrogates import crop_and_mesh
from anonlib.synthesis.canonical import vertices_of
from anonlib.synthesis.glasses import STEP, Readout, features
from anonlib.synthesis.textures.average import detail_of

_RIDGE = 200.0
_FLOOR = 0.02
_WEARER_WEIGHT = 3.0
_FALSE_ALARMS = 0.15


def fit_readout(vectors: NDArray[np.float32], wears: NDArray[np.bool_]) -> Readout:
    """From feature vectors (n, d) and who wears glasses (n,)."""
    centre, spread = vectors.mean(axis=0), vectors.std(axis=0) + _FLOOR
    scaled = np.c_[(vectors - centre) / spread, np.ones(len(vectors))].astype(np.float64)
    target = wears.astype(np.float64)
    weight = np.where(wears, _WEARER_WEIGHT, 1.0)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logit = scaled @ parameters
        value = (weight * (np.logaddexp(0, logit) - target * logit)).sum() + _RIDGE * (parameters[:-1] ** 2).sum()
        gradient = scaled.T @ (weight * (1 / (1 + np.exp(-logit)) - target))
        gradient[:-1] += 2 * _RIDGE * parameters[:-1]
        return float(value), gradient

    found = minimize(loss, np.zeros(scaled.shape[1]), jac=True, method="L-BFGS-B").x
    direction = (found[:-1] / spread).astype(np.float32)
    bias = -float(np.quantile(vectors[~wears] @ direction, 1 - _FALSE_ALARMS))
    return Readout(direction, bias)


def labelled_vectors(
    rows: Sequence[dict[str, object]], wears: dict[str, bool]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Features of the labelled FACES rows, each face followed by its mirror image, and who wears glasses."""
    vectors, answers = [], []
    for row in rows:
        if row["face_id"] in wears:
            crop, mesh = crop_and_mesh(row)
            detail, _ = detail_of(crop, vertices_of(mesh), STEP)
            vectors += [features(side) for side in (detail, np.ascontiguousarray(detail[:, ::-1]))]
            answers += [wears[str(row["face_id"])]] * 2
    return np.stack(vectors), np.array(answers, bool)


def main() -> None:
    """From faces tables of a scan and a CSV of labels: face_id,wears (0 or 1)."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("faces", type=Path, nargs="+", help="scan/KEY/faces/*.parquet of a workspace")
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with arguments.labels.open() as stream:
        wears = {row["face_id"]: row["wears"] == "1" for row in csv.DictReader(stream)}
    columns = ["face_id", "mesh", "crop", "crop_from_image"]
    rows = [row for path in arguments.faces for row in pq.read_table(path, columns=columns).to_pylist()]
    vectors, answers = labelled_vectors(rows, wears)
    model = fit_readout(vectors, answers)
    np.savez_compressed(arguments.out, weight=model.weight.astype(np.float16), bias=np.float32(model.bias))
    logits = vectors @ model.weight + model.bias
    caught, alarms = (logits[answers] > 0).mean(), (logits[~answers] > 0).mean()
    print(
        f"{len(answers) // 2} faces, {answers.sum() // 2} with glasses: {caught:.1%} caught, {alarms:.1%} false alarms"
    )


if __name__ == "__main__":
    main()
