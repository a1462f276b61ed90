"""Average the insides of mouths and the folds of smiles over many people.

Mouths are averaged at three openings; a smile is what the mean happy portrait has over the mean neutral one,
made symmetric and smooth, since one is interested in what happiness does and not in who was happy.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from anonlib.faces import topology
from anonlib.stages.surrogates import crop_and_mesh, happiness
from anonlib.synthesis.canonical import canonical_frame
from anonlib.synthesis.expression import OPENINGS, ExpressionModel
from anonlib.synthesis.textures.average import Portrait, mirrored, portrait
from anonlib.workspace.schemas import EXPRESSIONS

_WIDTH = 0.10
_LEAST = 12
_SMOOTH = 2.0
_WIDE, _PHOTOS_A_PERSON = 0.33, 2
_SMILE_SIZE = 128


def fit_appearance(
    portraits: Sequence[Portrait],
    openings: NDArray[np.float64],
    happy: NDArray[np.float64],
    neutral: NDArray[np.float64],
) -> ExpressionModel:
    """From portraits, each with its mouth's opening and its probabilities of happy and neutral, all (n,)."""
    detail = np.stack([portrait.detail for portrait in portraits])
    mouths = []
    for opening in OPENINGS:
        weight = np.exp(-0.5 * ((openings - opening) / (_WIDTH * (0.4 + opening))) ** 2) * (openings > 0.04)
        if weight.sum() < _LEAST:
            raise ValueError(f"only {weight.sum():.0f} of {_LEAST} portraits have their mouth open by about {opening}")
        mouths.append(np.tensordot(weight / weight.sum(), detail, 1).astype(np.float32))
    smiling = np.tensordot(happy / happy.sum(), detail, 1) - np.tensordot(neutral / neutral.sum(), detail, 1)
    smiling = np.asarray(cv2.GaussianBlur(smiling.astype(np.float32), (0, 0), _SMOOTH), np.float32)
    smiling = (smiling + mirrored(smiling)) / 2
    inside = canonical_frame().polygon(topology.LIPS_INNER, 1.3)[..., None]
    halves = [inside * (one + mirrored(one)) / 2 for one in mouths]
    return ExpressionModel(np.stack(halves).astype(np.float32), smiling.astype(np.float32))


def main() -> None:
    """From the faces tables of scans: the first for everything, `--wide` for mouths that the first hardly opens."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("faces", type=Path, nargs="+", help="scan/KEY/faces/*.parquet of a workspace")
    parser.add_argument("--wide", type=Path, nargs="*", default=[], help="faces tables for openings above 0.33")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    columns = ["label", "mesh", "crop", "crop_from_image", "expression", "mouth_open", "presence"]
    rows = [row for path in arguments.faces for row in pq.read_table(path, columns=columns).to_pylist()]
    wide = [row for path in arguments.wide for row in pq.read_table(path, columns=columns).to_pylist()]
    # Every other person by name, as in the shape model, so that the rest can judge.
    chosen = set(sorted({row["label"] for row in wide if row["label"] is not None})[::2])
    used: Counter[str] = Counter()
    expressive = len(rows)
    for row in wide:
        if row["label"] in chosen and row["mouth_open"] > _WIDE and used[row["label"]] < _PHOTOS_A_PERSON:
            used[row["label"]] += 1
            rows.append(row)
    portraits = [portrait(*crop_and_mesh(row), happiness(row["expression"])) for row in rows]
    known = np.arange(len(rows)) < expressive
    happy = np.array([row["expression"][EXPRESSIONS.index("happy")] for row in rows]) * known
    neutral = np.array([row["expression"][EXPRESSIONS.index("neutral")] for row in rows]) * known
    model = fit_appearance(portraits, np.array([row["mouth_open"] for row in rows]), happy, neutral)
    smile = cv2.resize(model.smile, (_SMILE_SIZE, _SMILE_SIZE), interpolation=cv2.INTER_AREA)
    np.savez_compressed(arguments.out, mouths=model.mouths.astype(np.float16), smile=smile.astype(np.float16))
    print(f"{expressive} portraits and {len(rows) - expressive} wide mouths -> {arguments.out}")


if __name__ == "__main__":
    main()
