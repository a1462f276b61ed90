"""The evidence of an audit: the face that each photo is of, as it was, as it was released, and as others would hide it.

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

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import CLEAR, RELEASED, Evidence, Look
from anonlib.audit.evidence.observe import RECOGNIZERS, Observer, Pixels, Row, Vectors, joined, taken
from anonlib.audit.evidence.originals import KINDS, ObservedOriginal, Originals
from anonlib.audit.evidence.plan import PlanRecord, planned_faces
from anonlib.config import JobConfig, RayConfig
from anonlib.datasets import Shard
from anonlib.errors import ImageProblem, JobError
from anonlib.execution.base import UnitResult, in_chunks
from anonlib.faces.mesh import five_points
from anonlib.job import Job
from anonlib.media.codec import decode
from anonlib.workspace.images import JobImages
from anonlib.workspace.layout import (
    INVENTORY,
    PURGED,
    RUN_NOTE,
    open_stores,
    plan_store,
    release_store,
    scan_store,
)
from anonlib.workspace.release import ReleasedSample, samples_of
from anonlib.workspace.schemas import SOLID
from anonlib.workspace.status import require_plan

_COLUMNS = ("face_id", "key", "index", "height", "width", "label", "box", "landmarks", "score", "mesh")

Report = Callable[[str, UnitResult, int], None]


def gather(config: JobConfig, *, report: Report = lambda stage, outcome, units: None) -> Evidence:
    """Look at the main face of every photo of a finished job; raises JobError if it is not finished or does not fit.

    What depends on the originals alone is kept in the workspace, so that it is looked at once for all releases.
    """
    stores = open_stores(config)
    if stores.workspace.exists(PURGED):
        raise JobError(f"the workspace {config.workspace.uri} was purged; without it nothing can be compared")
    if not stores.workspace.exists(INVENTORY) or not stores.release.exists(RUN_NOTE):
        raise JobError("there is no release of this job to evaluate yet; run it first (`anonlib run`)")
    # An audit is one process; no cluster is started for it.
    job = Job(config.model_copy(update={"ray": RayConfig(actors=0, num_gpus=config.ray.num_gpus)}))
    require_plan(job.stores, job.plan_key)
    names = json.loads(job.stores.release.read(RUN_NOTE))["shards"]
    done = release_store(job.stores).markers(names)
    if len(done) < len(job.shards):
        raise JobError(f"{len(done)} of {len(job.shards)} shards are rendered; finish the job first (`anonlib run`)")
    gathering = _Gathering(job)
    for shard in job.shards:
        began = time.monotonic()
        images, faces = gathering.add(shard)
        seconds = time.monotonic() - began
        report("evaluate", UnitResult(shard.shard_id, images=images, faces=faces, seconds=seconds), len(job.shards))
    return gathering.evidence()


@dataclass(frozen=True)
class _EvidencePhoto:
    """A released photo, with the FACES row and the MANIFEST_FACE of the face it is of, and that one's number."""

    rgb: Pixels
    face: Row
    outcome: Mapping[str, Any]
    number: int


@dataclass
class _Lists:
    """What grows shard by shard."""

    faces: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    outcomes: list[Mapping[str, Any]] = field(default_factory=list)
    looks: dict[str, list[Look]] = field(default_factory=lambda: defaultdict(list))
    donors: list[tuple[str, Vectors]] = field(default_factory=list)
    images: int = 0
    quarantined: int = 0


class _Gathering:
    """One shard after another, then the whole."""

    def __init__(self, job: Job) -> None:
        self.job, self.config = job, job.config
        self.scan = scan_store(job.stores, job.scan_key)
        self.plan: PlanRecord = planned_faces(plan_store(job.stores, job.plan_key), job.keyring)
        self.observer = Observer(job.config)
        self.originals = Originals(job, self.observer)
        self.released = JobImages(job.config, job.dataset.format)
        self.lists = _Lists()

    def add(self, shard: Shard) -> tuple[int, int]:
        """Look at a shard; returns how many images it has, and how many faces were looked at."""
        release = release_store(self.job.stores)
        samples = samples_of(release, self.scan, self.job.naming, shard.shard_id, faces=_COLUMNS)
        self.lists.images += len(samples)
        self.lists.quarantined += sum(sample.quarantined for sample in samples)
        faces = {sample.key: sample.faces for sample in samples if sample.faces}
        donors = {row["face_id"] for rows in faces.values() for row in rows} & self.plan.donated.keys()
        seen = self.originals.see(shard, faces, donors)
        self.lists.donors += sorted(seen.portraits.items())
        kept = np.zeros(len(seen.faces), bool)
        photos = self._photos(samples, {row["face_id"]: row for rows in faces.values() for row in rows}, seen)
        for chunk in in_chunks(photos, self.config.limits.chunk):
            numbers = [photo.number for photo in chunk]
            kept[numbers] = True
            before = seen.looks[CLEAR].mesh[numbers]
            images, rows = [photo.rgb for photo in chunk], [photo.face for photo in chunk]
            self.lists.looks[RELEASED].append(self.observer.changed(images, rows, before))
            self.lists.faces += [row["face_id"] for row in rows]
            self.lists.labels += [row["label"] for row in rows]
            self.lists.outcomes += [photo.outcome for photo in chunk]
        for kind in KINDS:
            self.lists.looks[kind].append(taken(seen.looks[kind], kept))
        return len(samples), int(kept.sum())

    def _photos(
        self, samples: Sequence[ReleasedSample], rows: Mapping[str, Row], seen: ObservedOriginal
    ) -> Iterator[_EvidencePhoto]:
        """The released photos of the faces that were seen, decoded."""
        main = {rows[face]["key"]: number for number, face in enumerate(seen.faces)}
        for sample in samples:
            if sample.quarantined or sample.key not in main:
                continue
            number, row = main[sample.key], sample.row
            face = rows[seen.faces[number]]
            rgb = self._decoded(self.released.image(row["path"], row["output_sha256"]), row["path"])
            if rgb.shape[:2] != (face["height"], face["width"]):
                raise JobError(f"an image in {row['path']} of the release has another size than its original")
            yield _EvidencePhoto(rgb, face, row["faces"][face["index"]], number)

    def _decoded(self, data: bytes, path: str) -> Pixels:
        try:
            return decode(data, max_mpx=self.config.limits.image_mpx).rgb
        except ImageProblem as problem:
            raise JobError(f"an image in {path} of the release cannot be read: {problem}") from None

    def _worn(self, outcome: Mapping[str, Any]) -> int:
        digest = outcome["surrogate_digest"]
        if digest is None:
            return -1
        if digest not in self.plan.by_digest:
            raise JobError("the release wears a surrogate of another plan; audit it with the settings that made it")
        return self.plan.by_digest[digest]

    def evidence(self) -> Evidence:
        """Everything that was added."""
        lists, plan = self.lists, self.plan
        people = np.array([plan.person.get(face, -1) for face in lists.faces], np.int64)
        labelled = self.config.input.subject_field is not None
        names = (
            [str(label) for label in lists.labels]
            if labelled
            else [f"subject {one}" if one >= 0 else face for one, face in zip(people, lists.faces, strict=True)]
        )
        number: dict[str, int] = {}
        looks = {kind: joined(lists.looks.pop(kind, [])) for kind in (*KINDS, RELEASED)}
        points = [five_points(mesh) for mesh in looks[CLEAR].mesh]
        donors = [face for face, _ in lists.donors]
        return Evidence(
            faces=lists.faces,
            subjects=np.array([number.setdefault(name, len(number)) for name in names], np.int64),
            names=np.array(names, np.str_),
            labelled=labelled,
            people=people,
            classes=np.array([plan.class_of.get(face, -1) for face in lists.faces], np.int64),
            worn=np.array([self._worn(outcome) for outcome in lists.outcomes], np.int64),
            averaged=np.array([face in plan.donated for face in lists.faces], bool),
            replaced=np.array([outcome["fallback"] not in SOLID for outcome in lists.outcomes], bool),
            eye_distance=np.array([np.linalg.norm(five[1] - five[0]) for five in points], np.float32),
            boxes=np.array([outcome["box"] for outcome in lists.outcomes], np.float32).reshape(-1, 4),
            looks=looks,
            donors={name: _rows([one[name] for _, one in lists.donors]) for name in RECOGNIZERS},
            donor_people=np.array([plan.person[face] for face in donors], np.int64),
            donor_classes=np.array([plan.donated[face] for face in donors], np.int64),
            images=lists.images,
            quarantined=lists.quarantined,
        )


def _rows(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
