"""From a dataset of consented photos to the faces that a decoder or a network learns from, as a scan sees them.

Of each photo the large and central face is taken, since whoever stands behind was not asked. It must be as good as the
donors of a class are. Nothing is written: pixels and vectors stay in memory until the decoder is fitted.
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

from anonlib.config import JobConfig
from anonlib.datasets import Dataset, Shard
from anonlib.errors import ImageProblem
from anonlib.execution.base import UnitResult, in_chunks
from anonlib.faces.detect import CenterFaceDetector
from anonlib.models.requirements import ModelBytes, load
from anonlib.stages.people import donor_faces_of
from anonlib.stages.scan import Describer, main_face, read_image
from anonlib.stages.surrogates import happiness
from anonlib.synthesis.textures.average import portrait
from anonlib.training.decoder import TrainingFace, example
from anonlib.workspace.schemas import MESH_POINTS

UNREADABLE, NO_FACE = "cannot be read", "no face was found"

_CHUNK = 32
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
Learned = TypeVar("Learned")
Learn = Callable[[NDArray[np.uint8], dict[str, Any]], Learned]
"""What is kept of a photo (H, W, 3) and its face's FACES columns."""


@dataclass
class Gathered(Generic[Learned]):
    """The `examples`, of how many `photos`, and why the other photos gave none (reason -> photos)."""

    examples: list[Learned] = field(default_factory=list)
    photos: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _CandidatePhoto:
    rgb: NDArray[np.uint8]


def example_of(image: NDArray[np.uint8], row: dict[str, Any]) -> TrainingFace:
    """What a linear decoder learns from a photo."""
    photo = portrait(image, row["mesh"].reshape(MESH_POINTS, 3), happiness(row["expression"]))
    return example(photo, row["embedding"], row["female"], row["age"])


class Gatherer(Generic[Learned]):
    """Holds the models; `gather` reads a dataset until it has `most` examples, each what `learn` makes of a face.

    If it is not `choosy`, faces that are turned, covered or blurred count too.
    """

    def __init__(self, job: JobConfig, models: ModelBytes, learn: Learn[Learned], *, choosy: bool = True) -> None:
        cv2.setNumThreads(1)
        self.job, self.learn, self.choosy = job, learn, choosy
        self.detector = CenterFaceDetector(
            load(models, "centerface", job), side=job.detector.side, score=job.detector.score
        )
        self.describer = Describer(job, models)

    def gather(
        self,
        dataset: Dataset,
        most: int,
        report: Report = lambda stage, outcome, units: None,
        shards: Sequence[Shard] | None = None,
    ) -> Gathered[Learned]:
        """Examples in the dataset's order, of some of its shards or all; `report` hears of every shard."""
        gathered: Gathered[Learned] = Gathered()
        shards = dataset.shards() if shards is None else shards
        for shard in shards:
            began, photos, faces = time.monotonic(), gathered.photos, len(gathered.examples)
            for chunk in in_chunks(self._photos(dataset, shard, gathered), _CHUNK):
                self._learn([photo.rgb for photo in chunk], gathered)
                if len(gathered.examples) >= most:
                    break
            seconds = time.monotonic() - began
            found = min(len(gathered.examples), most) - faces
            report("faces", UnitResult(shard.shard_id, gathered.photos - photos, found, seconds=seconds), len(shards))
            if len(gathered.examples) >= most:
                break
        surplus = len(gathered.examples) - most
        if surplus > 0:
            del gathered.examples[most:]
            gathered.left_out["not needed any more"] += surplus
        return gathered

    def _photos(self, dataset: Dataset, shard: Shard, gathered: Gathered[Learned]) -> Iterator[_CandidatePhoto]:
        for sample in dataset.read(shard):
            gathered.photos += 1
            try:
                yield _CandidatePhoto(read_image(sample, self.job).rgb)
            except ImageProblem:
                gathered.left_out[UNREADABLE] += 1

    def _learn(self, pixels: list[NDArray[np.uint8]], gathered: Gathered[Learned]) -> None:
        found = [
            main_face(faces, image.shape) for faces, image in zip(self.detector.detect(pixels), pixels, strict=True)
        ]
        described = self.describer.describe(pixels, found)
        for image, faces, rows in zip(pixels, found, described, strict=True):
            if not rows:
                gathered.left_out[NO_FACE] += 1
                continue
            row = rows[0] | {_EYES: faces.landmarks[0].ravel()}
            fault = fault_of(row)
            if fault is not None and self.choosy:
                gathered.left_out[fault] += 1
                continue
            gathered.examples.append(self.learn(image, row))


def fault_of(row: dict[str, Any]) -> str | None:
    """Why a FACES row is not good enough to learn from, or None.

    What is good enough is said in one place, for donors; here each property is put to it with all others perfect.
    """
    for fault, columns in _FAULTS.items():
        tried = _PERFECT | {name: row[name] for name in columns}
        if len(donor_faces_of(_table(tried))) == 0:
            return fault
    return None


def _table(row: dict[str, Any]) -> pa.Table:
    schema = pa.schema([(name, pa.list_(pa.float32(), 10) if name == _EYES else pa.float32()) for name in row])
    return pa.Table.from_pylist([row], schema=schema)
