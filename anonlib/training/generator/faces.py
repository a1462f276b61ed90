"""The faces that a network learns from: prepared once from a dataset, kept in parts small enough to travel.

A part holds a few hundred faces: the canonical texture, what recognizers say of the photo, and the photo itself in one
aligned view from which every recognizer's crop can be cut. Faces that resemble anybody of the datasets that will judge
the network are left out. Personal data: parts lie where their owner put them and never in a release.
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

from anonlib.config import no_job
from anonlib.datasets import open_dataset
from anonlib.errors import ConfigError
from anonlib.faces import align
from anonlib.faces.embed import Recognizer
from anonlib.faces.mesh import five_points
from anonlib.models.card import CropSpec, InputSpec
from anonlib.models.fetch import model_bytes
from anonlib.models.requirements import scan_models
from anonlib.models.runtime import load_engine
from anonlib.stages.surrogates import happiness
from anonlib.storage.local import LocalStorage
from anonlib.synthesis.textures.average import portrait
from anonlib.training.decoder import TrainingFace, example
from anonlib.training.examples import Gatherer, Report
from anonlib.workspace.schemas import MESH_POINTS

VIEW = InputSpec((160, 160), CropSpec("points", 0.85, -0.03))
"""The aligned view: wide enough for the crop of each recognizer, and as fine as a face of 128 px."""
SECOND_RECOGNIZER = "mobileface"
"""Helps to train beside the pipeline's own, so that neither can be pleased alone; not a judge any more."""

APART = 0.94
"""dlib cosine from which a face may be somebody of the datasets to stay apart from; the bar of one person among
thousands (SAME_PERSON) would call six in ten faces somebody of 4,000 photos."""

_ALIKE = "resembles somebody of a dataset to stay apart from"
_NOTHING = "{} holds no prepared faces; run `python jobs/train_generator.py prepare` first"
_PART = 256
_BORDER = 96
_QUALITY = 95
_DONE = "done-{}.json"
_EVERYTHING = 1 << 40


@dataclass(frozen=True)
class PreparedFaces:
    """Columns of n faces.

    `detail` (n, p) log, packed as in FaceSpace, `seen` (n, 64, 64) 0-255, `shape` (n, 1404) neutral; `vector` (n, 128)
    and `second` (n, 256): unit vectors of the pipeline's recognizer and the second one; `female` 0-1, `age` years,
    `expression` (n, 7) probabilities, `mouth` and `eyes`: how open, `yaw` degrees (n,); `view` (n, V, V, 3): the photo
    as VIEW wants it, mirrored beyond its border, and `mesh` (n, 468, 3) in px of it; `stranger` (n,): cosine to whoever
    of the datasets to stay apart from it resembles most.
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
    shards = open_dataset(uri).shards()
    todo = [number for number in range(len(shards)) if not (folder / _DONE.format(number)).exists()]
    work = partial(_prepare_shard, uri, folder, strangers, report if workers == 1 else None)
    if workers == 1:
        for number in todo:
            work(number)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(work, todo))


def load(folder: Path) -> PreparedFaces:
    """The faces of a folder that are APART, in the order of its parts; raises ConfigError if it holds none."""
    columns: dict[str, list[NDArray[Any]]] = {field.name: [] for field in fields(PreparedFaces)}
    for path in sorted(folder.glob("part-*.npz")):
        with np.load(path, allow_pickle=False) as part:
            rows = np.flatnonzero(part["stranger"] < APART)
            for name, arrays in columns.items():
                arrays.append(_views(part, rows) if name == "view" else part[name][rows])
    if not any(len(rows) for rows in columns["view"]):
        raise ConfigError(_NOTHING.format(folder))
    return PreparedFaces(**{name: np.concatenate(arrays) for name, arrays in columns.items()})


def learned_vectors(folder: Path) -> NDArray[np.float32]:
    """The unit vectors (n, 128) of the faces that `load` gives; raises ConfigError if there are none."""
    vectors = []
    for path in sorted(folder.glob("part-*.npz")):
        with np.load(path, allow_pickle=False) as part:
            vectors.append(part["vector"][part["stranger"] < APART])
    if not any(len(rows) for rows in vectors):
        raise ConfigError(_NOTHING.format(folder))
    return np.concatenate(vectors)


def tally(folder: Path) -> tuple[int, Counter[str]]:
    """Photos of a prepared folder, and why photos gave no face (reason -> photos)."""
    photos, left_out = 0, Counter[str]()
    for path in sorted(folder.glob(_DONE.format("*"))):
        notes = json.loads(path.read_text())
        photos += notes["photos"]
        left_out.update(notes["left_out"])
    return photos, left_out


@dataclass
class _Learner:
    """Makes a row of a part of a photo and its FACES columns."""

    second: Recognizer
    strangers: NDArray[np.float32]

    def __call__(self, image: NDArray[np.uint8], row: dict[str, Any]) -> dict[str, Any]:
        mesh = row["mesh"].reshape(MESH_POINTS, 3)
        points = five_points(mesh)
        matrix = align.similarity(points, np.array(VIEW.landmarks(), np.float32))
        learnt = example(portrait(image, mesh, happiness(row["expression"])), row["embedding"], 0.0, 0.0)
        wide = cv2.copyMakeBorder(image, _BORDER, _BORDER, _BORDER, _BORDER, cv2.BORDER_REFLECT_101)
        shifted = matrix.copy()
        shifted[:, 2] -= matrix[:, :2] @ np.full(2, _BORDER, np.float32)
        view = align.crop(np.asarray(wide, np.uint8), shifted, VIEW.size[0] if VIEW.size else 0)
        depth = mesh[:, 2:] * np.sqrt(abs(np.linalg.det(matrix[:, :2])))
        return {
            "detail": learnt.detail,
            "seen": learnt.seen,
            "shape": learnt.shape,
            "vector": learnt.vector,
            "second": self.second.embed([image], [points])[0],
            "female": row["female"],
            "age": row["age"],
            "expression": row["expression"],
            "mouth": row["mouth_open"],
            "eyes": row["eyes_open"],
            "yaw": row["yaw"],
            "view": simplejpeg.encode_jpeg(view, quality=_QUALITY, colorsubsampling="444"),
            "mesh": np.concatenate([align.apply(matrix, mesh[:, :2]), depth], axis=1),
            "stranger": (self.strangers @ learnt.vector).max(initial=-1.0),
        }


def _prepare_shard(uri: str, folder: Path, strangers: NDArray[np.float32], report: Report | None, number: int) -> None:
    second = Recognizer(SECOND_RECOGNIZER, load_engine(model_bytes(SECOND_RECOGNIZER)))
    gatherer = Gatherer(no_job(), _models(), _Learner(second, strangers))
    dataset = open_dataset(uri)
    heard = {} if report is None else {"report": report}
    gathered = gatherer.gather(dataset, _EVERYTHING, shards=[dataset.shards()[number]], **heard)
    rows = gathered.examples
    gathered.left_out[_ALIKE] += int(sum(row["stranger"] >= APART for row in rows))
    storage = LocalStorage(folder)
    for start in range(0, len(rows), _PART):
        storage.publish(f"part-{number:05}-{start:06}.npz", _part(rows[start : start + _PART]))
    notes = {"photos": gathered.photos, "faces": len(rows), "left_out": dict(gathered.left_out)}
    storage.publish(_DONE.format(number), json.dumps(notes, sort_keys=True).encode())


def _part(rows: Sequence[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    columns: dict[str, Any] = {
        name: np.stack([np.asarray(row[name]) for row in rows])
        for name in (field.name for field in fields(PreparedFaces))
        if name != "view"
    }
    single = {name: array.astype(np.float32) for name, array in columns.items() if array.dtype == np.float64}
    views = [row["view"] for row in rows]
    ends = np.cumsum([len(view) for view in views])
    np.savez(buffer, **(columns | single), views=np.frombuffer(b"".join(views), np.uint8), view_ends=ends)
    return buffer.getvalue()


def _views(part: Any, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    data, ends = part["views"].tobytes(), np.concatenate([[0], part["view_ends"]])
    found = np.empty((len(rows), *(VIEW.size or ()), 3), np.uint8)
    for number, row in enumerate(rows):
        found[number] = simplejpeg.decode_jpeg(data[ends[row] : ends[row + 1]], colorspace="RGB")
    return found


def _strangers(uris: Sequence[str], folder: Path, report: Report) -> NDArray[np.float32]:
    """Vectors (n, 128) of every main face of the datasets to stay apart from, kept beside the parts."""
    path = folder / "apart.npy"
    if path.exists():
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    vectors: list[NDArray[np.float32]] = []
    for uri in uris:
        gatherer = Gatherer(no_job(), _models(), _vector, choosy=False)
        vectors += gatherer.gather(open_dataset(uri), _EVERYTHING, report).examples
    found = np.stack(vectors) if vectors else np.zeros((0, 128), np.float32)
    buffer = io.BytesIO()
    np.save(buffer, found)
    LocalStorage(folder).publish(path.name, buffer.getvalue())
    return found


def _vector(image: NDArray[np.uint8], row: dict[str, Any]) -> NDArray[np.float32]:
    return np.asarray(row["embedding"], np.float32)


def _models() -> dict[str, bytes]:
    return {name: model_bytes(name) for name in scan_models(no_job())}
