"""The faces that networks learn from, out of a dataset of consented photos, as a scan sees them.

Of each photo the large and central face is taken, since nobody asked the people behind it. It must be as good as the
portraits that classes are averaged from. Faces are prepared once and kept in parts: the canonical texture, what
recognizers say, and an aligned view with every recognizer's crop in it. Parts are personal data and never part of a
release.
"""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from anonlib.config import no_job
from anonlib.datasets import Dataset, Shard, open_dataset
from anonlib.errors import ConfigError, ImageProblem
from anonlib.execution.base import UnitResult, in_chunks
from anonlib.faces import align
from anonlib.faces.detect import open_detector
from anonlib.faces.embed import Recognizer
from anonlib.faces.mesh import five_points
from anonlib.faces.regions import main_face
from anonlib.media.prefetch import read_image
from anonlib.methods import models_of
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import PIPELINE_RECOGNIZER, InputSpec
from anonlib.models.runtime import load_engine
from anonlib.privacy.clustering import normalized
from anonlib.stages.people import donor_faces_of
from anonlib.storage.local import LocalStorage
from anonlib.synthesis.describe import Describer, happiness
from anonlib.synthesis.textures.average import member_texture, mirrored, portrait
from anonlib.workspace.schemas import EMBEDDING_DIM, FACES, MESH_POINTS
from anonlib.workspace.tables import of_rows

VIEW_SIDE = 160
VIEW = InputSpec((VIEW_SIDE, VIEW_SIDE), "points", 0.85, -0.03)
"""The aligned view: wide enough for the crop of each recognizer, and as fine as a face of 128 px."""
TRAINING_RECOGNIZER = "mobileface"
"""Helps to train beside the pipeline's own, so that neither can be pleased alone; it does not judge any more."""
RECOGNIZERS = (PIPELINE_RECOGNIZER, TRAINING_RECOGNIZER)

DETAIL_SIDE = 160
"""Side in px of the canonical textures that are kept."""

APART = 0.94
"""dlib cosine from which a face may be a person of the datasets to stay apart from; the bar of one person among
thousands (SAME_PERSON) would find six in ten faces among the people of 4,000 photos."""

_ALIKE = "resembles a person of a dataset to stay apart from"
_PART, _BORDER, _QUALITY, _DONE = 256, 96, 95, "done-{}.json"
_CHUNK, _SEEN, _SIDE_LIGHT = 32, 0.25, 16.0
BANK = "bank.npz"
_KEPT = 2000
_POOR = "turned, covered, blurred, small, or with glasses"

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Report = Callable[[str, UnitResult, int], None]
Example = TypeVar("Example")


def gather(
    dataset: Dataset,
    learn: Callable[[Pixels, dict[str, Any]], Example],
    *,
    choosy: bool = True,
    report: Report = lambda stage, outcome, units: None,
    shards: Sequence[Shard] | None = None,
) -> tuple[list[Example], int, Counter[str]]:
    """What `learn` makes of each photo (H, W, 3) and its main face's FACES columns, in order.

    Also how many photos were read, and why photos gave none (reason -> photos). If it is not `choosy`, faces that are
    turned, covered or blurred count too. `report` hears of every shard; without `shards` all are read.
    """
    cv2.setNumThreads(1)
    job = no_job()
    detector = open_detector(job.detector)
    describer = Describer(job, {name: model_bytes(name) for name in models_of(job)[0]})
    examples: list[Example] = []
    photos, left_out = 0, Counter[str]()

    def pictures(shard: Shard) -> Iterator[tuple[Pixels]]:
        nonlocal photos
        for sample in dataset.read(shard):
            photos += 1
            try:
                yield (read_image(sample, job).rgb,)
            except ImageProblem:
                left_out["cannot be read"] += 1

    shards = dataset.shards() if shards is None else shards
    for shard in shards:
        began, photos_before, faces_before = time.monotonic(), photos, len(examples)
        for chunk in in_chunks(pictures(shard), _CHUNK):
            images = [pixels for (pixels,) in chunk]
            found = detector.detect(images)
            main = [main_face(faces, image.shape) for faces, image in zip(found, images, strict=True)]
            for image, faces, rows in zip(images, main, describer.describe(images, main), strict=True):
                row = rows[0] | {"landmarks": faces.landmarks[0].ravel()} if rows else None
                if row is None:
                    left_out["no face was found"] += 1
                elif choosy and len(donor_faces_of(of_rows([row], FACES))) == 0:
                    left_out[_POOR] += 1
                else:
                    examples.append(learn(image, row))
        done = photos - photos_before, len(examples) - faces_before
        report("faces", UnitResult(shard.shard_id, *done, seconds=time.monotonic() - began), len(shards))
    return examples, photos, left_out


@dataclass(frozen=True)
class PreparedFaces:
    """Columns of n faces.

    `detail` (n, D, D, 3), log, and `seen` (n, D, D) 0-255: how well the photo or its mirror image shows each place;
    `shape` (n, 1404); `vector` (n, 128) and `second` (n, 256): unit vectors of RECOGNIZERS; `female` 0-1, `age` years,
    `mouth` and `eyes`: how open, `yaw` degrees (n,); `expression` (n, 7) probabilities; `view` (n, V, V, 3): the photo
    as VIEW wants it, mirrored beyond its border, and `mesh` (n, 468, 3) in px of it; `stranger` (n,): the highest
    cosine to the datasets to stay apart from.
    """

    detail: NDArray[np.float16]
    seen: Pixels
    shape: Floats
    vector: Floats
    second: Floats
    female: Floats
    age: Floats
    expression: Floats
    mouth: Floats
    eyes: Floats
    yaw: Floats
    view: Pixels
    mesh: Floats
    stranger: Floats

    def __len__(self) -> int:
        return len(self.vector)


def prepare(
    uri: str,
    folder: Path,
    *,
    apart_from: Sequence[str] = (),
    workers: int = 1,
    report: Report = lambda stage, outcome, units: None,
) -> tuple[int, Counter[str]]:
    """Write the parts of the dataset at `uri` into `folder`, shard by shard; a second call does what is missing.

    `apart_from`: datasets whose people must not occur. Returns how many photos the folder is of, and why photos gave no
    face (reason -> photos). Raises what reading and models raise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    strangers = _strangers(apart_from, folder, report)
    shards = range(len(open_dataset(uri).shards()))
    missing = [number for number in shards if not (folder / _DONE.format(number)).exists()]
    if workers == 1:
        for number in missing:
            _prepare_shard(uri, folder, strangers, number, report)
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            list(pool.map(partial(_prepare_shard, uri, folder, strangers), missing))
    notes = [json.loads(path.read_text()) for path in folder.glob(_DONE.format("*"))]
    return sum(note["photos"] for note in notes), sum((Counter(note["left_out"]) for note in notes), Counter[str]())


def load(folder: Path) -> PreparedFaces:
    """The faces of a folder that are APART, in the order of its parts; raises ConfigError if it holds none."""
    columns: dict[str, list[NDArray[Any]]] = {field.name: [] for field in fields(PreparedFaces)}
    for path in sorted(folder.glob("part-*.npz")):
        with np.load(path, allow_pickle=False) as part:
            rows = np.flatnonzero(part["stranger"] < APART)
            for name, arrays in columns.items() if len(rows) else ():
                array = part[name][rows]
                decoded = (simplejpeg.decode_jpeg(bytes(jpeg), colorspace="RGB") for jpeg in array)
                arrays.append(np.stack([*decoded]) if name == "view" else array)
    if not columns["view"]:
        raise ConfigError(f"{folder} holds no prepared faces; run `python jobs/train_generator.py prepare` first")
    return PreparedFaces(**{name: np.concatenate(arrays) for name, arrays in columns.items()})


def keep_identities(faces: PreparedFaces, folder: Path) -> None:
    """Write into a run's folder what the donors of its network are to be like: `centre` (d,) of the identity space, and
    of _KEPT faces at most, spread evenly over the data, `vectors` (b, d) about it, `female` and `age` (b,)."""
    rows = np.unique(np.linspace(0, len(faces) - 1, _KEPT).astype(int))
    centre = faces.vector.mean(axis=0)
    points = normalized(faces.vector[rows] - centre)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / BANK, centre=centre, vectors=points, female=faces.female[rows], age=faces.age[rows])


def _row(second: Recognizer, strangers: Floats, image: Pixels, face: dict[str, Any]) -> dict[str, Any]:
    """A row of a part, of a photo (H, W, 3) and its face's FACES columns; its view is a JPEG."""
    mesh = face["mesh"].reshape(MESH_POINTS, 3)
    points = five_points(mesh)
    matrix = align.similarity(points, np.array(VIEW.landmarks(), np.float32))
    wide = cv2.copyMakeBorder(image, _BORDER, _BORDER, _BORDER, _BORDER, cv2.BORDER_REFLECT_101)
    shifted = matrix.copy()
    shifted[:, 2] -= matrix[:, :2] @ np.full(2, _BORDER, np.float32)
    view = align.crop(np.asarray(wide, np.uint8), shifted, VIEW_SIDE)
    depth = mesh[:, 2:] * np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    photo = portrait(image, mesh, happiness(face["expression"]))
    texture = member_texture([photo])
    # What is smooth in the difference of the two halves is light from one side, and no feature.
    odd = (texture.detail - mirrored(texture.detail)) / 2
    seen = np.clip(photo.weight / _SEEN, 0, 1)
    maps = texture.detail - cv2.GaussianBlur(odd, (0, 0), _SIDE_LIGHT), np.maximum(seen, mirrored(seen))
    detail, seen = (cv2.resize(full, (DETAIL_SIDE,) * 2, interpolation=cv2.INTER_AREA) for full in maps)
    return {
        "detail": detail.astype(np.float16),
        "seen": np.rint(255 * seen).astype(np.uint8),
        "shape": texture.shape.ravel(),
        "vector": face["embedding"],
        "female": face["female"],
        "age": face["age"],
        "second": second.embed([image], [points])[0],
        "expression": face["expression"],
        "mouth": face["mouth_open"],
        "eyes": face["eyes_open"],
        "yaw": face["yaw"],
        "view": simplejpeg.encode_jpeg(view, quality=_QUALITY, colorsubsampling="444"),
        "mesh": np.concatenate([align.apply(matrix, mesh[:, :2]), depth], axis=1),
        "stranger": (strangers @ face["embedding"]).max(initial=-1.0),
    }


def _prepare_shard(
    uri: str, folder: Path, strangers: Floats, number: int, report: Report = lambda stage, outcome, units: None
) -> None:
    second = Recognizer(TRAINING_RECOGNIZER, load_engine(model_bytes(TRAINING_RECOGNIZER)))
    dataset = open_dataset(uri)
    learn = partial(_row, second, strangers)
    rows, photos, left_out = gather(dataset, learn, report=report, shards=[dataset.shards()[number]])
    left_out[_ALIKE] += int(sum(row["stranger"] >= APART for row in rows))
    storage = LocalStorage(folder)
    for start in range(0, len(rows), _PART):
        part = rows[start : start + _PART]
        columns: dict[str, Any] = {
            field.name: np.stack([row[field.name] for row in part]) for field in fields(PreparedFaces)
        }
        single = {name: array.astype(np.float32) for name, array in columns.items() if array.dtype == np.float64}
        buffer = io.BytesIO()
        np.savez(buffer, **(columns | single))
        storage.publish(f"part-{number:05}-{start:06}.npz", buffer.getvalue())
    notes = {"photos": photos, "faces": len(rows), "left_out": dict(left_out)}
    storage.publish(_DONE.format(number), json.dumps(notes, sort_keys=True).encode())


def _strangers(uris: Sequence[str], folder: Path, report: Report) -> Floats:
    """Vectors (n, 128) of every main face of the datasets to stay apart from, kept beside the parts."""
    path = folder / "apart.npy"
    if path.exists():
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    vectors = [np.zeros((0, EMBEDDING_DIM), np.float32)]
    for uri in uris:
        vectors += gather(open_dataset(uri), lambda image, face: face["embedding"][None], choosy=False, report=report)[
            0
        ]
    strangers, buffer = np.concatenate(vectors).astype(np.float32), io.BytesIO()
    np.save(buffer, strangers)
    LocalStorage(folder).publish(path.name, buffer.getvalue())
    return strangers
