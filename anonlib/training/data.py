"""The faces that the networks learn from: prepared once from a dataset, kept in parts small enough to travel.

A part holds a few hundred faces: the canonical texture, what recognizers say of the photo, and the photo itself in one
aligned view from which every recognizer's crop can be cut. Faces that resemble a person of the datasets that will judge
the network are left out. Personal data: parts stay where their owner put them and are never part of a release.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from anonlib.datasets import open_dataset
from anonlib.errors import ConfigError
from anonlib.faces import align
from anonlib.faces.embed import Recognizer
from anonlib.faces.mesh import five_points
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import PIPELINE_RECOGNIZER, InputSpec
from anonlib.models.runtime import load_engine
from anonlib.storage.local import LocalStorage
from anonlib.synthesis.describe import happiness
from anonlib.training.examples import Gatherer, Report, TrainingFace, example_of
from anonlib.workspace.schemas import MESH_POINTS

VIEW_SIDE = 160
VIEW = InputSpec((VIEW_SIDE, VIEW_SIDE), "points", 0.85, -0.03)
"""The aligned view: wide enough for the crop of each recognizer, and as fine as a face of 128 px."""
TRAINING_RECOGNIZER = "mobileface"
"""Helps to train beside the pipeline's own, so that neither can be pleased alone; it does not judge any more."""
RECOGNIZERS = (PIPELINE_RECOGNIZER, TRAINING_RECOGNIZER)

APART = 0.94
"""dlib cosine from which a face may be a person of the datasets to stay apart from; the bar of one person among
thousands (SAME_PERSON) would find six in ten faces among the people of 4,000 photos."""

_ALIKE = "resembles a person of a dataset to stay apart from"
_PART = 256
_BORDER = 96
_QUALITY = 95
_DONE = "done-{}.json"


@dataclass(frozen=True)
class PreparedFaces:
    """Columns of n faces.

    `detail` (n, p) log, packed as in FaceSpace, `seen` (n, 64, 64) 0-255, `shape` (n, 1404) neutral; `vector` (n, 128)
    and `second` (n, 256): unit vectors of RECOGNIZERS; `female` 0-1, `age` years, `expression` (n, 7) probabilities,
    `mouth` and `eyes`: how open, `yaw` degrees (n,); `view` (n, V, V, 3): the photo as VIEW wants it, mirrored beyond
    its border, and `mesh` (n, 468, 3) in px of it; `stranger` (n,): the highest cosine to the datasets to stay apart
    from.
    """

    detail: NDArray[np.float16]
    seen: NDArray[np.uint8]
    shape: NDArray[np.float32]
    vector: NDArray[np.float32]
    second: NDArray[np.float32]
    female: NDArray[np.float32]
    age: NDArray[np.float32]
    expression: NDArray[np.float32]
    mouth: NDArray[np.float32]
    eyes: NDArray[np.float32]
    yaw: NDArray[np.float32]
    view: NDArray[np.uint8]
    mesh: NDArray[np.float32]
    stranger: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.vector)

    def examples(self) -> list[TrainingFace]:
        """What the linear decoder is fitted on."""
        return [
            TrainingFace(self.detail[i], self.seen[i], self.shape[i], self.vector[i], float(f), float(a), happiness(e))
            for i, (f, a, e) in enumerate(zip(self.female, self.age, self.expression, strict=True))
        ]


def prepare(
    uri: str,
    folder: Path,
    *,
    apart_from: Sequence[str] = (),
    workers: int = 1,
    report: Report = lambda stage, outcome, units: None,
) -> None:
    """Write the parts of the dataset at `uri` into `folder`, shard by shard; a second call does what is missing.

    `apart_from`: datasets whose people must not occur. Raises what reading and models raise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    strangers = _strangers(apart_from, folder, report)
    shards = range(len(open_dataset(uri).shards()))
    missing = [number for number in shards if not (folder / _DONE.format(number)).exists()]
    if workers == 1:
        for number in missing:
            _prepare_shard(uri, folder, strangers, number, report)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(_prepare_shard, uri, folder, strangers), missing))


def load(folder: Path) -> PreparedFaces:
    """The faces of a folder that are APART, in the order of its parts; raises ConfigError if it holds none."""
    return PreparedFaces(**_columns(folder, [field.name for field in fields(PreparedFaces)]))


def learned_vectors(folder: Path) -> NDArray[np.float32]:
    """The unit vectors (n, 128) of the faces that `load` gives; raises ConfigError if there are none."""
    return np.asarray(_columns(folder, ["vector"])["vector"], np.float32)


def tally(folder: Path) -> tuple[int, Counter[str]]:
    """Photos of a prepared folder, and why photos gave no face (reason -> photos)."""
    photos, left_out = 0, Counter[str]()
    for path in sorted(folder.glob(_DONE.format("*"))):
        notes = json.loads(path.read_text())
        photos += notes["photos"]
        left_out.update(notes["left_out"])
    return photos, left_out


def _columns(folder: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for path in sorted(folder.glob("part-*.npz")):
        with np.load(path, allow_pickle=False) as part:
            rows = np.flatnonzero(part["stranger"] < APART)
            for name, arrays in columns.items():
                arrays.append(_views(part, rows) if name == "view" else part[name][rows])
    if not any(len(array) for array in columns[names[0]]):
        raise ConfigError(f"{folder} holds no prepared faces; run `python jobs/train_generator.py prepare` first")
    return {name: np.concatenate(arrays) for name, arrays in columns.items()}


def _row(
    second: Recognizer, strangers: NDArray[np.float32], image: NDArray[np.uint8], face: dict[str, Any]
) -> dict[str, Any]:
    """A row of a part, of a photo (H, W, 3) and its face's FACES columns; its view is a JPEG."""
    example = example_of(image, face)
    mesh = face["mesh"].reshape(MESH_POINTS, 3)
    points = five_points(mesh)
    matrix = align.similarity(points, np.array(VIEW.landmarks(), np.float32))
    wide = cv2.copyMakeBorder(image, _BORDER, _BORDER, _BORDER, _BORDER, cv2.BORDER_REFLECT_101)
    shifted = matrix.copy()
    shifted[:, 2] -= matrix[:, :2] @ np.full(2, _BORDER, np.float32)
    view = align.crop(np.asarray(wide, np.uint8), shifted, VIEW_SIDE)
    depth = mesh[:, 2:] * np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    return {
        "detail": example.detail,
        "seen": example.seen,
        "shape": example.shape,
        "vector": example.vector,
        "second": second.embed([image], [points])[0],
        "female": face["female"],
        "age": face["age"],
        "expression": face["expression"],
        "mouth": face["mouth_open"],
        "eyes": face["eyes_open"],
        "yaw": face["yaw"],
        "view": simplejpeg.encode_jpeg(view, quality=_QUALITY, colorsubsampling="444"),
        "mesh": np.concatenate([align.apply(matrix, mesh[:, :2]), depth], axis=1),
        "stranger": (strangers @ example.vector).max(initial=-1.0),
    }


def _prepare_shard(
    uri: str,
    folder: Path,
    strangers: NDArray[np.float32],
    number: int,
    report: Report = lambda stage, outcome, units: None,
) -> None:
    second = Recognizer(TRAINING_RECOGNIZER, load_engine(model_bytes(TRAINING_RECOGNIZER)))
    dataset = open_dataset(uri)
    gatherer = Gatherer(partial(_row, second, strangers))
    gathered = gatherer.gather(dataset, report=report, shards=[dataset.shards()[number]])
    rows = gathered.examples
    gathered.left_out[_ALIKE] += int(sum(row["stranger"] >= APART for row in rows))
    storage = LocalStorage(folder)
    for start in range(0, len(rows), _PART):
        storage.publish(f"part-{number:05}-{start:06}.npz", _part(rows[start : start + _PART]))
    notes = {"photos": gathered.photos, "faces": len(rows), "left_out": dict(gathered.left_out)}
    storage.publish(_DONE.format(number), json.dumps(notes, sort_keys=True).encode())


def _part(rows: Sequence[dict[str, Any]]) -> bytes:
    views = [row["view"] for row in rows]
    names = [field.name for field in fields(PreparedFaces) if field.name != "view"]
    columns: dict[str, Any] = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in names}
    single = {name: array.astype(np.float32) for name, array in columns.items() if array.dtype == np.float64}
    ends = np.cumsum([len(view) for view in views])
    buffer = io.BytesIO()
    np.savez(buffer, **(columns | single), views=np.frombuffer(b"".join(views), np.uint8), view_ends=ends)
    return buffer.getvalue()


def _views(part: Any, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    data, ends = part["views"].tobytes(), np.concatenate([[0], part["view_ends"]])
    views = np.empty((len(rows), VIEW_SIDE, VIEW_SIDE, 3), np.uint8)
    for number, row in enumerate(rows):
        views[number] = simplejpeg.decode_jpeg(data[ends[row] : ends[row + 1]], colorspace="RGB")
    return views


def _strangers(uris: Sequence[str], folder: Path, report: Report) -> NDArray[np.float32]:
    """Vectors (n, 128) of every main face of the datasets to stay apart from, kept beside the parts."""
    path = folder / "apart.npy"
    if path.exists():
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    vectors: list[NDArray[np.float32]] = []
    for uri in uris:
        gatherer = Gatherer(lambda image, face: np.asarray(face["embedding"], np.float32), choosy=False)
        vectors += gatherer.gather(open_dataset(uri), report=report).examples
    strangers = np.stack(vectors) if vectors else np.zeros((0, 128), np.float32)
    buffer = io.BytesIO()
    np.save(buffer, strangers)
    LocalStorage(folder).publish(path.name, buffer.getvalue())
    return strangers
