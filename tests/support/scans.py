"""A finished scan without photos: faces of people who never lived, with everything that a plan reads of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from anonlib.privacy.clustering import normalized
from anonlib.workspace.layout import json_bytes
from anonlib.workspace.schemas import FACES, SECOND_DIM

SCAN = "0123456789abcdef" * 4


@dataclass(frozen=True)
class DrawnScan:
    """The workspace at `root`, its shards, and of each face who it really is, by face id."""

    root: Path
    shards: tuple[str, ...]
    person: dict[str, int]


def drawn_scan(root: Path, people: int, photos: int, shards: int, labelled: Sequence[int] = ()) -> DrawnScan:
    """`photos` of each person, dealt to shards at random; of the people `labelled` every other photo has a label.

    As dlib's, strangers have a cosine of .8, photos of one person .97. Three of four faces may be averaged.
    """
    rng = np.random.default_rng(1)
    owner = rng.permutation(np.repeat(np.arange(people), photos))
    axis = np.zeros(128)
    axis[0] = 0.8**0.5
    centres = rng.normal(size=(people, 128)) * (0.17 / 128) ** 0.5
    embeddings = normalized(
        (axis + centres[owner] + rng.normal(size=(len(owner), 128)) * (0.03 / 128) ** 0.5).astype("f4")
    )
    seconds = normalized(np.random.default_rng(2).normal(size=(people, SECOND_DIM)).astype("f4"))
    good = rng.random(len(owner)) < 0.75
    seen = np.array([np.count_nonzero(owner[:row] == one) for row, one in enumerate(owner)])
    name = [
        f"Ada-{one}" if one in labelled and times % 2 == 0 else None for one, times in zip(owner, seen, strict=True)
    ]
    person: dict[str, int] = {}
    names = tuple(f"drawn-{shard:02d}" for shard in range(shards))
    for shard, rows in zip(names, np.array_split(np.arange(len(owner)), shards), strict=True):
        ids = [f"{shard}/photo-{row:05d}#0" for row in rows]
        person |= dict(zip(ids, owner[rows].tolist(), strict=True))
        columns = {
            "face_id": pa.array(ids),
            "key": pa.array([f"photo-{row:05d}" for row in rows]),
            "label": pa.array([name[row] for row in rows], pa.string()),
            "embedding": fixed(embeddings[rows]),
            "second": fixed(seconds[owner[rows]]),
            "female": pa.array((owner[rows] % 2).astype("f4")),
            "age": pa.array(20.0 + owner[rows] % 3 * 20, pa.float32()),
            "glasses": pa.array(np.where(good[rows], -1.0, 1.0).astype("f4")),
            "landmarks": fixed(np.tile(np.array([0, 0, 60, 0, 30, 30, 10, 50, 50, 50], "f4"), (len(rows), 1))),
            "mesh": fixed(np.tile(rng.random(468 * 3).astype("f4"), (len(rows), 1))),
            "expression": fixed(np.zeros((len(rows), 7), "f4")),
            "box": fixed(np.zeros((len(rows), 4), "f4")),
            "crop_from_image": fixed(np.zeros((len(rows), 6), "f4")),
            "crop": pa.array([b"a crop"] * len(rows)),
        }
        fixed_at = {"index": 0, "height": 500, "width": 500, "presence": 1.0, "clarity": 1.0, "sharpness": 30.0}
        arrays = [
            columns.get(field.name, pa.array([fixed_at.get(field.name, 0)] * len(rows))).cast(field.type)
            for field in FACES
        ]
        put(root / f"workspace/scan/{SCAN[:16]}/faces/{shard}.parquet", pa.table(arrays, schema=FACES))
        marker = root / f"workspace/scan/{SCAN[:16]}/commits/{shard}.json"
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_bytes(json_bytes({"shard": shard, "faces": len(rows), "images": len(rows)}))
    return DrawnScan(root, names, person)


def fixed(rows: NDArray[np.float32]) -> pa.Array:
    """(n, d) as lists of a fixed size."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def put(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
