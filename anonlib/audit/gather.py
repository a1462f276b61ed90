"""The evidence of an evaluation: each labelled face before and after, as embeddings, attributes and meshes.

It runs inside the trust boundary, since it reads originals, the plan and the release together. The n-th row of a
manifest is the n-th sample of its shard, and the output's sha256 leads to the released image, so new keys need no
secret. A released face is looked for as an attacker would, by detector and mesh on the released image; where the
detector finds none the original's points are used, so that a hidden face is not counted as a safe one.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.again import look_again
from anonlib.audit.evidence import Evidence
from anonlib.audit.planned import planned_faces
from anonlib.audit.released import ReleasedImages
from anonlib.audit.utility import mesh_error
from anonlib.config import JobConfig, RayConfig
from anonlib.datasets import Sample, Shard
from anonlib.faces.attributes import AttributeReader
from anonlib.faces.detect import CenterFaceDetector, Faces
from anonlib.faces.embed import Recognizer
from anonlib.faces.image import ImageProblem, decode
from anonlib.faces.mesh import FaceMesh, five_points
from anonlib.models.fetch import model_bytes
from anonlib.pipeline import tables
from anonlib.pipeline.engines import VERIFIERS, load
from anonlib.pipeline.job import Job, JobError
from anonlib.pipeline.outcome import Outcome, in_chunks
from anonlib.pipeline.places import INVENTORY, PURGED, RUN_NOTE, Room, open_places, plan_room, release_room, scan_room
from anonlib.pipeline.scan import read_image
from anonlib.pipeline.status import require_plan
from anonlib.records import EXPRESSIONS, MESH_POINTS, QUARANTINED
from anonlib.synthesis.redact import redact

RECOGNIZERS = ("fr-feature", "mobileface", *VERIFIERS)

_MODELS = (*RECOGNIZERS, "centerface", "facemesh", "age-gender", "expression")
_COLUMNS = ("face_id", "key", "index", "label", "box", "landmarks", "score", "mesh")

Pixels = NDArray[np.uint8]
Report = Callable[[str, Outcome, int], None]


def gather(
    config: JobConfig, *, context: bool = False, report: Report = lambda stage, outcome, units: None
) -> Evidence:
    """Look at every labelled face of a finished job; raises JobError if it is not finished or does not fit."""
    places = open_places(config)
    if places.workspace.exists(PURGED):
        raise JobError(f"the workspace {config.workspace.uri} was purged; without it nothing can be compared")
    if not places.workspace.exists(INVENTORY) or not places.release.exists(RUN_NOTE):
        raise JobError("there is no release of this job to evaluate yet; run it first (`anonlib run`)")
    # The evaluation is one process; no cluster is started for it.
    job = Job(config.model_copy(update={"ray": RayConfig(actors=0, num_gpus=config.ray.num_gpus)}))
    require_plan(job.places, job.plan_key)
    names = json.loads(job.places.release.read(RUN_NOTE))["shards"]
    done = release_room(job.places).markers(names)
    if len(done) < len(job.shards):
        raise JobError(f"{len(done)} of {len(job.shards)} shards are rendered; finish the job first (`anonlib run`)")
    return _Gathering(job, context).run(report)


@dataclass(frozen=True)
class _Pair:
    """A labelled face: its photo before and after, its FACES row and its MANIFEST_FACE."""

    rgb: Pixels
    out: Pixels
    face: Mapping[str, Any]
    outcome: Mapping[str, Any]


@dataclass(frozen=True)
class _Photo:
    """A photo with a labelled face, or with portraits of donors (FACES rows), or both."""

    rgb: Pixels
    pair: _Pair | None
    portraits: Sequence[Mapping[str, Any]]


@dataclass
class _Columns:
    """What grows chunk by chunk; joined at the end."""

    parts: dict[str, list[NDArray[Any]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, **arrays: NDArray[Any]) -> None:
        for name, array in arrays.items():
            self.parts[name].append(array)

    def joined(self, name: str, empty: tuple[int, ...] = (0,)) -> NDArray[Any]:
        parts = self.parts.get(name)
        return np.concatenate(parts) if parts else np.zeros(empty, np.float32)


class _Gathering:
    """Holds the models; one pass over the shards."""

    def __init__(self, job: Job, context: bool) -> None:
        cv2.setNumThreads(1)
        config = job.config
        models = {name: model_bytes(name) for name in _MODELS}
        self.job, self.config, self.context = job, config, context
        self.scan: Room = scan_room(job.places, job.scan_key)
        self.manifests = Room(job.places.release, "")
        self.plan = planned_faces(plan_room(job.places, job.plan_key))
        self.released = ReleasedImages(config, job.dataset.format)
        self.detector = CenterFaceDetector(
            load(models, "centerface", config), side=config.detector.side, score=config.detector.score
        )
        self.mesh = FaceMesh(load(models, "facemesh", config))
        self.recognizers = [Recognizer(name, load(models, name, config)) for name in RECOGNIZERS]
        self.reader = AttributeReader(load(models, "age-gender", config), load(models, "expression", config))
        self.labels: dict[str, int] = {}
        self.columns = _Columns()
        self.fallbacks: list[str | None] = []
        self.labelled_fallbacks: list[str | None] = []
        self.images = self.quarantined = 0

    def run(self, report: Report) -> Evidence:
        """Every shard, then the columns as they are."""
        for shard in self.job.shards:
            began = time.monotonic()
            before, faces = self.images, 0
            for chunk in in_chunks(self._photos(shard), self.config.limits.chunk):
                faces += self._look(chunk)
            seconds = time.monotonic() - began
            report(
                "evaluate",
                Outcome(shard.shard_id, images=self.images - before, faces=faces, seconds=seconds),
                len(self.job.shards),
            )
        return self._evidence()

    def _photos(self, shard: Shard) -> Iterator[_Photo]:
        """The photos of a shard that matter, decoded; all faces are counted on the way."""
        data = self.scan.storage.read(self.scan.path("faces", f"{shard.shard_id}.parquet"))
        faces: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in tables.from_bytes(data, _COLUMNS).to_pylist():
            faces[row["key"]].append(row)
        data = self.manifests.storage.read(self.manifests.path("manifest", f"{shard.shard_id}.parquet"))
        manifest = tables.from_bytes(data).to_pylist()
        for position, sample in enumerate(self.job.dataset.read(shard)):
            if position >= len(manifest):
                raise JobError(f"the manifest of {shard.shard_id} has fewer rows than its shard has images")
            photo = self._photo(sample, manifest[position], faces[sample.key], shard)
            if photo is not None:
                yield photo

    def _photo(
        self, sample: Sample, row: Mapping[str, Any], faces: Sequence[dict[str, Any]], shard: Shard
    ) -> _Photo | None:
        self.images += 1
        lost = row["status"] == QUARANTINED
        self.quarantined += lost
        if not lost and len(row["faces"]) != len(faces):
            raise JobError(f"the manifest of {shard.shard_id} and its scan do not hold the same faces")
        labelled = next((face for face in faces if face["label"] is not None and not lost), None)
        outcome = None if labelled is None else row["faces"][labelled["index"]]
        portraits = [face for face in faces if face["face_id"] in self.plan.donor_class]
        if not lost:
            self.fallbacks += [_fell_back(face) for face in row["faces"]]
        if outcome is not None:
            self.labelled_fallbacks.append(_fell_back(outcome))
        if labelled is None and not portraits:
            return None
        rgb = read_image(sample, self.config).rgb
        if labelled is None or outcome is None:
            return _Photo(rgb, None, portraits)
        out = self._decoded(self.released.image(row["path"], row["output_sha256"]), row["path"])
        if out.shape != rgb.shape:
            raise JobError(f"an image in {row['path']} of the release has another size than its original")
        return _Photo(rgb, _Pair(rgb, out, labelled, outcome), portraits)

    def _decoded(self, data: bytes, path: str) -> Pixels:
        try:
            return decode(data, max_mpx=self.config.limits.image_mpx).rgb
        except ImageProblem as problem:
            raise JobError(f"an image in {path} of the release cannot be read: {problem}") from None

    def _look(self, chunk: Sequence[_Photo]) -> int:
        """All columns of a chunk; returns how many labelled faces it has."""
        self._look_at_donors([(photo, face) for photo in chunk for face in photo.portraits])
        pairs = [photo.pair for photo in chunk if photo.pair is not None]
        if not pairs:
            return 0
        images, outs = [one.rgb for one in pairs], [one.out for one in pairs]
        rows, outcomes = [one.face for one in pairs], [one.outcome for one in pairs]
        before = self._meshes(images, rows)
        boxes = [np.array(row["box"], np.float32) for row in rows]
        after, found, fits = look_again(self.detector, self.mesh, outs, boxes, before)
        points, seen = [five_points(mesh) for mesh in before], [five_points(mesh) for mesh in after]
        for recognizer in self.recognizers:
            self.columns.add(
                **{
                    f"clear {recognizer.name}": recognizer.embed(images, points),
                    f"released {recognizer.name}": recognizer.embed(outs, seen),
                }
            )
            if self.context:
                hidden = [_hidden(image, row) for image, row in zip(images, rows, strict=True)]
                self.columns.add(**{f"context {recognizer.name}": recognizer.embed(hidden, points)})
        first, second = self.reader.read(images, points), self.reader.read(outs, seen)
        unseen = np.where(fits, 0.0, np.nan).astype(np.float32)
        ids = [row["face_id"] for row in rows]
        self.columns.add(
            subjects=np.array([self.labels.setdefault(row["label"], len(self.labels)) for row in rows], np.int64),
            names=np.array([row["label"] for row in rows], np.str_),
            people=np.array([self.plan.person.get(face, -1) for face in ids], np.int64),
            classes=np.array([self.plan.class_of.get(face, -1) for face in ids], np.int64),
            worn=np.array([self._worn(outcome) for outcome in outcomes], np.int64),
            averaged=np.array([face in self.plan.donor_class for face in ids], bool),
            replaced=np.array([_fell_back(outcome) is None for outcome in outcomes], bool),
            found=found,
            female_before=first.female,
            female_after=second.female + unseen,
            expression_before=first.expression,
            expression_after=second.expression + unseen[:, None],
            mesh_error=mesh_error(before, after) + unseen,
        )
        return len(pairs)

    def _look_at_donors(self, portraits: Sequence[tuple[_Photo, Mapping[str, Any]]]) -> None:
        if not portraits:
            return
        images, rows = [photo.rgb for photo, _ in portraits], [face for _, face in portraits]
        points = [five_points(mesh) for mesh in self._meshes(images, rows)]
        ids = [face["face_id"] for face in rows]
        self.columns.add(
            donor_people=np.array([self.plan.person[face] for face in ids], np.int64),
            donor_classes=np.array([self.plan.donor_class[face] for face in ids], np.int64),
            **{f"donors {one.name}": one.embed(images, points) for one in self.recognizers},
        )

    def _meshes(self, images: Sequence[Pixels], rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
        """Meshes (n, 468, 3) of originals, out of the scan; fitted here where the job was a redaction."""
        if all(row["mesh"] is not None for row in rows):
            return np.array([row["mesh"] for row in rows], np.float32).reshape(-1, MESH_POINTS, 3)
        faces = [
            Faces(
                np.array([row["box"]], np.float32),
                np.array([row["score"]], np.float32),
                np.array([row["landmarks"]], np.float32).reshape(1, 5, 2),
            )
            for row in rows
        ]
        return np.concatenate([one.points for one in self.mesh.fit(images, faces)])

    def _worn(self, outcome: Mapping[str, Any]) -> int:
        digest = outcome["surrogate_digest"]
        if digest is None:
            return -1
        if digest not in self.plan.by_digest:
            raise JobError("the release wears a surrogate of another plan; evaluate it with the settings that made it")
        return self.plan.by_digest[digest]

    def _evidence(self) -> Evidence:
        columns = self.columns

        def numbers(name: str) -> NDArray[np.int64]:
            return columns.joined(name).astype(np.int64)

        def vectors(kind: str) -> dict[str, NDArray[np.float32]]:
            return {name: columns.joined(f"{kind} {name}", (0, 1)) for name in RECOGNIZERS}

        return Evidence(
            subjects=numbers("subjects"),
            names=columns.joined("names").astype(np.str_),
            people=numbers("people"),
            classes=numbers("classes"),
            worn=numbers("worn"),
            averaged=columns.joined("averaged").astype(bool),
            replaced=columns.joined("replaced").astype(bool),
            found=columns.joined("found").astype(bool),
            clear=vectors("clear"),
            released=vectors("released"),
            context=vectors("context") if self.context else None,
            female_before=columns.joined("female_before"),
            female_after=columns.joined("female_after"),
            expression_before=columns.joined("expression_before", (0, len(EXPRESSIONS))),
            expression_after=columns.joined("expression_after", (0, len(EXPRESSIONS))),
            mesh_error=columns.joined("mesh_error").astype(np.float64),
            donors=vectors("donors"),
            donor_people=numbers("donor_people"),
            donor_classes=numbers("donor_classes"),
            labelled_fallbacks=self.labelled_fallbacks,
            fallbacks=self.fallbacks,
            images=self.images,
            quarantined=self.quarantined,
        )


def _fell_back(face: Mapping[str, Any]) -> str | None:
    """Why a MANIFEST_FACE is a flat ellipse although the job's method is another, or None."""
    return (face["reason"] or "no reason given") if face["fallback"] == "solid" else None


def _hidden(image: Pixels, row: Mapping[str, Any]) -> Pixels:
    """The photo with the face under the flat ellipse."""
    hidden = image.copy()
    redact(hidden, np.array(row["box"], np.float32), "solid")
    return hidden
