"""From a dataset of consented photos to the faces that a decoder or a network learns from, as a scan sees them.

Of each photo the large and central face is taken, since nobody asked the people behind it. It must be as good as the
portraits that classes are averaged from. Nothing is written: pixels and vectors stay in memory.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.config import no_job
from anonlib.datasets import Dataset, Shard
from anonlib.errors import ImageProblem
from anonlib.execution.base import UnitResult, in_chunks
from anonlib.faces.detect import open_detector
from anonlib.faces.regions import main_face
from anonlib.media.codec import Picture
from anonlib.media.prefetch import read_image
from anonlib.methods import models_of
from anonlib.models.cache import model_bytes
from anonlib.stages.people import donor_faces_of
from anonlib.synthesis.describe import Describer, happiness
from anonlib.synthesis.textures.average import Portrait, member_texture, mirrored, portrait
from anonlib.synthesis.textures.face_space import packed
from anonlib.workspace.schemas import MESH_POINTS

_CHUNK = 32
_SEEN, _SEEN_SIDE = 0.25, 64
_SIDE_LIGHT = 16.0
_EYES = "landmarks"
_PERFECT: dict[str, Any] = {
    "presence": 1.0,
    "glasses": -1.0,
    "clarity": 1.0,
    "yaw": 0.0,
    "pitch": 0.0,
    "sharpness": 100.0,
    _EYES: [0.0, 0.0, 1000.0, *[0.0] * 7],
}
_FAULTS = {
    "the mesh does not fit": ("presence",),
    "glasses": ("glasses",),
    "turned away": ("yaw", "pitch"),
    "too small": (_EYES,),
    "blurred": ("sharpness",),
    "covered or in hard light": ("clarity",),
}

Report = Callable[[str, UnitResult, int], None]
Example = TypeVar("Example")
Learn = Callable[[NDArray[np.uint8], dict[str, Any]], Example]
"""What is kept of a photo (H, W, 3) and its face's FACES columns."""


@dataclass(frozen=True)
class TrainingFace:
    """One face to learn from: `detail` (p,) half precision, `seen` (64, 64) 0-255, `shape` (1404,), `vector` (d,).

    `female`, `happy`: 0-1; `age`: years.
    """

    detail: NDArray[np.float16]
    seen: NDArray[np.uint8]
    shape: NDArray[np.float32]
    vector: NDArray[np.float32]
    female: float
    age: float
    happy: float


def example_of(image: NDArray[np.uint8], row: dict[str, Any]) -> TrainingFace:
    """What a linear decoder learns from a photo."""
    photo = portrait(image, row["mesh"].reshape(MESH_POINTS, 3), happiness(row["expression"]))
    texture = member_texture([photo])
    return TrainingFace(
        packed(_evenly_lit(texture.detail)).astype(np.float16),
        _seen(photo),
        texture.shape.ravel(),
        row["embedding"],
        row["female"],
        row["age"],
        texture.happy,
    )


def _seen(photo: Portrait) -> NDArray[np.uint8]:
    """How well the photo or its mirror image shows each place (64, 64), 0-255."""
    seen = np.clip(photo.weight / _SEEN, 0, 1)
    seen = cv2.resize(np.maximum(seen, mirrored(seen)), (_SEEN_SIDE, _SEEN_SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(np.rint(255 * seen), np.uint8)


def _evenly_lit(detail: NDArray[np.float32]) -> NDArray[np.float32]:
    """A detail (S, S, 3) without the smooth part of the difference of its halves: light from one side, no feature."""
    odd = (detail - mirrored(detail)) / 2
    return np.asarray(detail - cv2.GaussianBlur(odd, (0, 0), _SIDE_LIGHT), np.float32)


@dataclass
class Gathered(Generic[Example]):
    """The `examples`, of how many `photos`, and why the other photos gave none (reason -> photos)."""

    examples: list[Example] = field(default_factory=list)
    photos: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


class Gatherer(Generic[Example]):
    """Holds the models; `gather` reads a dataset until it has `most` examples, each what `learn` makes of a face.

    If it is not `choosy`, faces that are turned, covered or blurred count too.
    """

    def __init__(self, learn: Learn[Example], *, choosy: bool = True) -> None:
        cv2.setNumThreads(1)
        self.job, self.learn, self.choosy = no_job(), learn, choosy
        models = {name: model_bytes(name) for name in models_of(self.job)[0]}
        self.detector = open_detector(self.job.detector)
        self.describer = Describer(self.job, models)

    def gather(
        self,
        dataset: Dataset,
        *,
        most: int | None = None,
        report: Report = lambda stage, outcome, units: None,
        shards: Sequence[Shard] | None = None,
    ) -> Gathered[Example]:
        """Examples in the dataset's order, of some of its shards or all; `report` hears of every shard."""
        gathered: Gathered[Example] = Gathered()
        shards = dataset.shards() if shards is None else shards
        for shard in shards:
            began, photos, faces = time.monotonic(), gathered.photos, len(gathered.examples)
            for chunk in in_chunks(self._pictures(dataset, shard, gathered), _CHUNK):
                self._learn([picture.rgb for picture in chunk], gathered)
                surplus = 0 if most is None else len(gathered.examples) - most
                if surplus > 0:
                    del gathered.examples[most:]
                    gathered.left_out["not needed any more"] += surplus
                if len(gathered.examples) == most:
                    break
            done = gathered.photos - photos, len(gathered.examples) - faces
            report("faces", UnitResult(shard.shard_id, *done, seconds=time.monotonic() - began), len(shards))
            if len(gathered.examples) == most:
                break
        return gathered

    def _pictures(self, dataset: Dataset, shard: Shard, gathered: Gathered[Example]) -> Iterator[Picture]:
        for sample in dataset.read(shard):
            gathered.photos += 1
            try:
                yield read_image(sample, self.job)
            except ImageProblem:
                gathered.left_out["cannot be read"] += 1

    def _learn(self, images: list[NDArray[np.uint8]], gathered: Gathered[Example]) -> None:
        found = self.detector.detect(images)
        main = [main_face(faces, image.shape) for faces, image in zip(found, images, strict=True)]
        for image, faces, rows in zip(images, main, self.describer.describe(images, main), strict=True):
            if not rows:
                gathered.left_out["no face was found"] += 1
                continue
            row = rows[0] | {_EYES: faces.landmarks[0].ravel()}
            fault = fault_of(row) if self.choosy else None
            if fault is not None:
                gathered.left_out[fault] += 1
            else:
                gathered.examples.append(self.learn(image, row))


def fault_of(row: dict[str, Any]) -> str | None:
    """Why a FACES row is not good enough to learn from, or None.

    The rule for donors is defined in one place; here each property is put to it with all others perfect.
    """
    for fault, columns in _FAULTS.items():
        tried = _PERFECT | {name: row[name] for name in columns}
        types = [(name, pa.list_(pa.float32(), 10) if name == _EYES else pa.float32()) for name in tried]
        if len(donor_faces_of(pa.Table.from_pylist([tried], schema=pa.schema(types)))) == 0:
            return fault
    return None
