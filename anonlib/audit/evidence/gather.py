"""The evidence of an audit: the face that each photo is of, as it was, as it was released, and as others would hide it.

It runs inside the trust boundary, since it reads originals, the plan and the release together. A released face is
looked for as an attacker would, by detector and mesh on the released image; where the detector finds none the
original's points are used, so that a hidden face is not counted as a safe one.

Looks at the originals, and at the same photos with all faces redacted, depend on no release. They are made once a scan
and kept in the workspace, so that the second audit of a dataset looks at the release alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anonlib.audit.evidence.evidence import (
    BASELINES,
    CLEAR,
    HIDDEN,
    RELEASED,
    Evidence,
    Look,
    from_bytes,
    to_bytes,
)
from anonlib.audit.evidence.observe import LOOKED_WITH, RECOGNIZERS, Observer, Pixels, Vectors, joined, main_of
from anonlib.audit.evidence.published import numbered, planned_faces
from anonlib.config import JobConfig, RayConfig
from anonlib.datasets import Shard
from anonlib.errors import ImageProblem, JobError, NotFound
from anonlib.execution.base import UnitResult, in_chunks
from anonlib.faces.mesh import five_points
from anonlib.job import Job
from anonlib.media.codec import decode
from anonlib.media.prefetch import read_image
from anonlib.models.catalog import MODELS
from anonlib.stages.render_state import METHOD_VERSION
from anonlib.synthesis.redact import redact
from anonlib.workspace.images import JobImages
from anonlib.workspace.layout import (
    INVENTORY,
    PURGED,
    RUN_NOTE,
    StageStore,
    audit_store,
    open_stores,
    plan_store,
    release_store,
    scan_store,
)
from anonlib.workspace.release import ReleasedSample, samples_of
from anonlib.workspace.schemas import SOLID
from anonlib.workspace.status import require_plan
from anonlib.workspace.tables import Row

KINDS = (CLEAR, *BASELINES)
MOST = 8000
"""Photos, about, that an audit looks at closely, each a third of a MiB of memory; of a larger dataset people are drawn
at random, with all of their photos."""
_COLUMNS = ("face_id", "key", "index", "height", "width", "label", "box", "landmarks", "score", "kind", "mesh")

Report = Callable[[str, UnitResult, int], None]


def gather(config: JobConfig, *, report: Report = lambda stage, outcome, units: None) -> Evidence:
    """Look at the main face of every photo of a finished job; raises JobError if it is not finished or does not fit."""
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
class _Photo:
    """A photo, its FACES rows, the face it is of if that is looked at, and the faces that are portraits to be read.

    `outcome`: what a release made of the face, its MANIFEST_FACE row.
    """

    rgb: Pixels
    faces: Sequence[Row]
    main: Row | None
    portraits: Sequence[Row] = ()
    outcome: Row | None = None


class _Gathering:
    """Shards one after another, then the evidence of all."""

    def __init__(self, job: Job) -> None:
        self.job, self.config = job, job.config
        self.plan = planned_faces(plan_store(job.stores, job.plan_key), job.keyring)
        self.observer = Observer(job.config)
        self.originals = Originals(job, self.observer)
        self.released = JobImages(job.config, job.dataset.format)
        self.faces: list[Row] = []
        self.outcomes: list[Row] = []
        self.looks: dict[str, list[Look]] = defaultdict(list)
        self.donors: list[tuple[str, Vectors]] = []
        self.scan, self.release = scan_store(job.stores, job.scan_key), release_store(job.stores)

    def add(self, shard: Shard) -> tuple[int, int]:
        """Look at a shard; returns how many images it has, and how many faces were looked at."""
        samples = samples_of(self.release, self.scan, self.job.naming, shard.shard_id, faces=_COLUMNS)
        faces = {sample.key: sample.faces for sample in samples if sample.faces}
        donors = {row["face_id"] for rows in faces.values() for row in rows} & self.plan.donated.keys()
        ids, looks, portraits = self.originals.see(shard, faces, donors)
        self.donors += sorted(portraits.items())
        number = {face: position for position, face in enumerate(ids)}
        kept = np.zeros(len(ids), bool)
        photos = (
            self._photo(sample, face)
            for sample in samples
            for face in sample.faces
            if face["face_id"] in number and not sample.quarantined
        )
        for chunk in in_chunks(photos, self.config.limits.chunk):
            mains = [photo.main for photo in chunk if photo.main is not None]
            numbers = [number[face["face_id"]] for face in mains]
            kept[numbers] = True
            before = looks[CLEAR].mesh[numbers]
            self.looks[RELEASED].append(self.observer.changed([photo.rgb for photo in chunk], mains, before))
            self.faces += mains
            self.outcomes += [photo.outcome for photo in chunk if photo.outcome is not None]
        for kind in KINDS:
            self.looks[kind].append(looks[kind].taken(kept))
        return len(samples), int(kept.sum())

    def _photo(self, sample: ReleasedSample, face: Row) -> _Photo:
        path = sample.row["path"]
        try:
            data = self.released.image(path, sample.row["output_sha256"])
            rgb = decode(data, max_mpx=self.config.limits.image_mpx).rgb
        except ImageProblem as problem:
            raise JobError(f"an image in {path} of the release cannot be read: {problem}") from None
        if rgb.shape[:2] != (face["height"], face["width"]):
            raise JobError(f"an image in {path} of the release has another size than its original")
        return _Photo(rgb, sample.faces, face, outcome=sample.row["faces"][face["index"]])

    def _surrogate(self, outcome: Row) -> int:
        digest = outcome["surrogate_digest"]
        if digest is not None and digest not in self.plan.by_digest:
            raise JobError("the release wears a surrogate of another plan; audit it with the settings that made it")
        return -1 if digest is None else self.plan.by_digest[digest]

    def evidence(self) -> Evidence:
        """Everything that was added."""
        plan, ids = self.plan, [face["face_id"] for face in self.faces]
        people = np.array([plan.person.get(face, -1) for face in ids], np.int64)
        labelled = self.config.input.subject_field is not None
        if labelled:
            names = [str(face["label"]) for face in self.faces]
        else:
            names = [f"subject {person}" if person >= 0 else face for person, face in zip(people, ids, strict=True)]
        looks = {kind: joined(self.looks.pop(kind, [])) for kind in (*KINDS, RELEASED)}
        points = [five_points(mesh) for mesh in looks[CLEAR].mesh]
        donors = [face for face, _ in self.donors]
        return Evidence(
            faces=ids,
            subjects=numbered(names),
            names=np.array(names, np.str_),
            labelled=labelled,
            people=people,
            classes=np.array([plan.class_of.get(face, -1) for face in ids], np.int64),
            worn=np.array([self._surrogate(outcome) for outcome in self.outcomes], np.int64),
            averaged=np.array([face in plan.donated for face in ids], bool),
            replaced=np.array([outcome["fallback"] not in SOLID for outcome in self.outcomes], bool),
            eye_distance=np.array([np.linalg.norm(five[1] - five[0]) for five in points], np.float32),
            boxes=np.array([outcome["box"] for outcome in self.outcomes], np.float32).reshape(-1, 4),
            looks=looks,
            donors={
                name: np.concatenate([vectors[name] for _, vectors in self.donors] or [np.zeros((0, 1), np.float32)])
                for name in RECOGNIZERS
            },
            donor_people=np.array([plan.person[face] for face in donors], np.int64),
            donor_classes=np.array([plan.donated[face] for face in donors], np.int64),
        )


class Originals:
    """Looks at the photos of a job's shards; one is opened only if a look or a donor's portrait is missing."""

    def __init__(self, job: Job, observer: Observer) -> None:
        self.job, self.observer = job, observer
        self.store = looks_store(job)
        self.share = share_of(job)

    def see(
        self, shard: Shard, faces: Mapping[str, Sequence[Row]], donors: Collection[str]
    ) -> tuple[list[str], dict[str, Look], dict[str, Vectors]]:
        """Ids of a shard's main faces, looks by KINDS, and vectors of `donors` by id; `faces` are its rows by key."""
        labelled = self.job.config.input.subject_field is not None
        found = {key: main_of(rows, labelled) for key, rows in faces.items()}
        mains = {key: row for key, row in found.items() if row is not None and drawn(row, self.share)}
        ids = {row["face_id"] for row in mains.values()}
        try:
            known, looks = from_bytes(self.store.arrays(shard.shard_id), KINDS)
        except NotFound:
            known, looks = [], {}
        if looks and set(known) != ids:
            raise JobError(f"{self.store.prefix} in the workspace does not fit its scan; remove it and audit again")
        portraits: dict[str, Vectors] = {}
        parts: dict[str, list[Look]] = {kind: [] for kind in KINDS}
        seen: list[str] = []
        photos = self._photos(shard, faces, {} if looks else mains, set(donors) - ids)
        for chunk in in_chunks(photos, self.job.config.limits.chunk):
            portraits |= self._portraits(chunk)
            shown = [photo for photo in chunk if photo.main is not None]
            if shown:
                rows = [photo.main for photo in shown if photo.main is not None]
                seen += [row["face_id"] for row in rows]
                for kind, look in self._looks(shown, rows):
                    parts[kind].append(look)
        if not looks:
            known, looks = seen, {kind: joined(part) for kind, part in parts.items()}
            self.store.write_arrays(shard.shard_id, to_bytes(known, looks))
        for number, face in enumerate(known):
            if face in donors:
                portraits[face] = {name: looks[CLEAR].vectors[name][[number]] for name in RECOGNIZERS}
        return known, looks, portraits

    def _photos(
        self, shard: Shard, faces: Mapping[str, Sequence[Row]], mains: Mapping[str, Row], donors: Collection[str]
    ) -> Iterator[_Photo]:
        if not mains and not any(row["face_id"] in donors for rows in faces.values() for row in rows):
            return
        for sample in self.job.dataset.read(shard):
            rows, main = faces.get(sample.key, ()), mains.get(sample.key)
            portraits = [row for row in rows if row["face_id"] in donors]
            if main is not None or portraits:
                yield _Photo(read_image(sample, self.job.config).rgb, rows, main, portraits)

    def _looks(self, photos: Sequence[_Photo], mains: Sequence[Row]) -> Iterator[tuple[str, Look]]:
        """Each kind of look at a chunk, one after another: only one redaction of it is held at a time."""
        clear = self.observer.original([photo.rgb for photo in photos], mains)
        yield CLEAR, clear
        for how in BASELINES:
            images = [photo.rgb.copy() for photo in photos]
            for image, photo in zip(images, photos, strict=True):
                for row in photo.faces:
                    redact(image, np.array(row["box"], np.float32), how)
            observe = self.observer.hidden if how == HIDDEN else self.observer.changed
            yield how, observe(images, mains, clear.mesh)

    def _portraits(self, photos: Sequence[_Photo]) -> dict[str, Vectors]:
        shown = [(photo.rgb, row) for photo in photos for row in photo.portraits]
        if not shown:
            return {}
        images, rows = [rgb for rgb, _ in shown], [row for _, row in shown]
        vectors = self.observer.vectors(images, self.observer.meshes(images, rows))
        return {
            row["face_id"]: {name: array[[number]] for name, array in vectors.items()}
            for number, row in enumerate(rows)
        }


def looks_store(job: Job) -> StageStore:
    """Where in the workspace lies what depends on scan, redactions and judges, and on no release."""
    parts = [job.scan_key, METHOD_VERSION, *(MODELS[name].sha256 for name in LOOKED_WITH)]
    if (share := share_of(job)) < 1:
        parts.append(f"{share:.9f}")
    key = hashlib.sha256("\n".join(["looks", *parts]).encode()).hexdigest()
    return audit_store(job.stores, key)


def share_of(job: Job) -> float:
    """The share of the people who are looked at closely, 0 to 1."""
    markers = scan_store(job.stores, job.scan_key).markers(shard.shard_id for shard in job.shards)
    return min(1.0, MOST / max(1, sum(int(marker["images"]) for marker in markers)))


def drawn(row: Row, share: float) -> bool:
    """Whether the person of a FACES row is drawn, with all of their photos, or a face without a label."""
    digest = hashlib.sha256(f"audited: {row['label'] or row['face_id']}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
