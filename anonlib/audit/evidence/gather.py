"""The evidence of an audit: the main face of each photo in the original, in the release, and under each redaction.

It runs inside the trust boundary: it reads originals, the plan and the release together. What originals and their
redactions look like is kept in the workspace, so that the second audit of a dataset looks at the release alone.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import (
    BASELINES,
    CLEAR,
    CONTROLS,
    HIDDEN,
    ONE_FACE,
    REDACTIONS,
    RELEASED,
    Evidence,
    Look,
    from_bytes,
    to_bytes,
)
from anonlib.audit.evidence.observe import LOOKED_WITH, RECOGNIZERS, Observer, Vectors, main_of, precision
from anonlib.audit.evidence.published import numbered, planned_faces
from anonlib.datasets import Shard
from anonlib.errors import ImageProblem, JobError, NotFound, contained
from anonlib.execution.base import UnitResult, in_chunks
from anonlib.faces.mesh import five_points
from anonlib.job import Job
from anonlib.media.codec import decode
from anonlib.media.prefetch import read_image
from anonlib.methods import method_of
from anonlib.methods.redaction import fallback_of
from anonlib.models.catalog import MODELS
from anonlib.privacy.classes import Stratum, stratum_of
from anonlib.stages.render_state import METHOD_VERSION
from anonlib.synthesis.base import FaceTexture, Pixels
from anonlib.synthesis.describe import happiness
from anonlib.synthesis.redact import redact
from anonlib.synthesis.textures.gallery import Gallery
from anonlib.workspace import layout
from anonlib.workspace.images import JobImages
from anonlib.workspace.release import ReleasedSample, samples_of
from anonlib.workspace.schemas import CLIP, ELLIPSES, FACES
from anonlib.workspace.tables import Row

ASKED = ("presence", "yaw", "bare", "tone")
"""Columns of FACES by which a method refuses to replace a face, beside its landmarks, and the tone of its skin."""


class Controls:
    """Draws the controls of a job: its photos with a new face that many share, put there by the release's own renderer.

    Everybody of a gender, age band and tone gets one face of the shipped gallery (one-face), or everybody one
    (one-face-all). The band is that of the plan's person, since a band by photo would tell how old each photo looks;
    where nobody was planned (a redaction) it is the photo's. A face that the method would not replace is hidden as the
    job hides it.
    """

    def __init__(self, job: Job) -> None:
        config, plan = job.config, layout.plan_store(job.stores, job.plan_key)
        self.method, self.extent = method_of(config.method), config.method.region
        self.hidden = fallback_of(config.method.name, config.fallback).kind
        self.gallery, self._faces = _gallery(), dict[Stratum, FaceTexture]()
        is_planned = (plan.committed("plan") or {}).get("subjects")
        subjects = plan.subjects(["faces", "stratum"]).to_pylist() if is_planned else ()
        self.strata: dict[str, Stratum] = {face: tuple(row["stratum"]) for row in subjects for face in row["faces"]}

    @property
    def key(self) -> str:
        """Names what is drawn: the gallery, how far a face reaches, how others are hidden, and who is in which band."""
        strata = hashlib.sha256(repr(sorted(self.strata.items())).encode()).hexdigest()
        return f"{self.gallery.digest} {self.extent} {self.hidden} {strata}"

    def refused(self, mains: Sequence[Row]) -> list[str | None]:
        """Why the method would not replace the faces of FACES rows; None where it would."""
        columns = pa.schema([FACES.field(name) for name in (*ASKED, "landmarks")])
        return self.method.eligible(pa.Table.from_pylist([dict(main) for main in mains], columns))

    def draw(
        self, photos: Sequence[tuple[Pixels, Row, Sequence[Row]]], meshes: NDArray[np.float32], clear: Look
    ) -> Iterator[tuple[str, list[Pixels]]]:
        """Each control's name and its pictures of n photos: an image, the FACES row of the face that is looked at and
        all rows; of these n faces `meshes` (n, 468, 3) px and the `clear` look. Other faces are under a flat ellipse.
        """
        refused = self.refused([main for _, main, _ in photos])
        alone = [image.copy() for image, *_ in photos]
        for image, (_, main, rows) in zip(alone, photos, strict=True):
            for row in rows:
                if row["face_id"] != main["face_id"]:
                    redact(image, np.array(row["box"], np.float32), HIDDEN)
        for name in CONTROLS:
            drawn = [image.copy() for image in alone]
            for number, (image, (_, main, _)) in enumerate(zip(drawn, photos, strict=True)):
                seen = stratum_of(float(clear.female[number]), float(clear.age[number]), main.get("tone"))
                kind = self.strata.get(main["face_id"], seen) if name == ONE_FACE else ()
                if refused[number] is not None or not self._put(image, meshes[number], clear, number, kind):
                    redact(image, np.array(main["box"], np.float32), self.hidden)
            yield name, drawn

    def _put(self, image: Pixels, mesh: NDArray[np.float32], clear: Look, number: int, kind: Stratum) -> bool:
        """The face of a stratum in `image`, in place, as face `number` of the clear look lies and looks there; False
        where it cannot be drawn."""
        from anonlib.synthesis.compositor import render

        with contained("drawing a control"):
            happy, gaze = happiness(clear.expression[number].tolist()), clear.eyes[number]
            render(image, mesh, happy, self.face(kind), self.extent, gaze).paste(image)
            return True
        return False

    def face(self, kind: Stratum) -> FaceTexture:
        """The face that is nearest to the mean of those of a stratum, of all for (); of the gender where there is none
        of the band."""
        if kind not in self._faces:
            rows = np.array(next(found for level in (3, 2, 1, 0) if (found := self.gallery.rows(kind[:level]))))
            vectors = self.gallery.bank.vectors[rows]
            self._faces[kind] = self.gallery.texture(int(rows[np.argmax(vectors @ vectors.mean(axis=0))]))
        return self._faces[kind]


@cache
def _gallery() -> Gallery:
    """The gallery that ships with anonlib, whatever the method's faces are made of."""
    return Gallery.from_bytes(Gallery.shipped())


KINDS = (CLEAR, *BASELINES)
MOST = 8000
"""Photos, about, that an audit looks at closely, each a third of a MiB of memory; of a larger dataset people are
drawn at random, with all of their photos."""
QUICK = 1000
"""As many in an audit that is to take no more than minutes."""
_CHUNK = 16
"""Photos that an observer looks at together, at most: two batches of a network."""
_MOST_OBSERVERS = 8
_VERSION = "2"
_COLUMNS = ("face_id", "key", "index", "height", "width", "label", "box", "landmarks", "score", "kind", "mesh", *ASKED)

Report = Callable[[str, UnitResult, int], None]
_Photo = tuple[Pixels, Row | None, Sequence[Row]]
_Chunk = TypeVar("_Chunk")
_Answer = TypeVar("_Answer")


def gather(job: Job, *, most: int | None = None, report: Report = lambda stage, outcome, units: None) -> Evidence:
    """Look at the main face of `most` stills, about, of a finished job, MOST if it is None; raises JobError if release,
    scan and plan do not fit."""
    gathering = _Gathering(job, most)
    for shard in job.shards:
        began = time.monotonic()
        images, faces = gathering.add(shard)
        seconds = time.monotonic() - began
        report("evaluate", UnitResult(shard.shard_id, images=images, faces=faces, seconds=seconds), len(job.shards))
    return gathering.evidence()


class _Gathering:
    """Adds shard after shard, then gives the evidence of all. Originals are opened only where nothing is stored.

    A photo is its px, the FACES row of the face that is looked at, if any, and rows: of an original all its FACES rows,
    of an output the face's own MANIFEST_FACE row.
    """

    def __init__(self, job: Job, most: int | None = None) -> None:
        self.job, self.config = job, job.config
        self.labelled = job.config.input.subject_field is not None
        self.plan = planned_faces(layout.plan_store(job.stores, job.plan_key), job.keyring)
        self.idle: deque[Observer] = deque()
        self.controls = Controls(job)
        self.store, self.share = looks_store(job, most, self.controls), share_of(job, most)
        self.chunk = min(job.config.limits.chunk, _CHUNK)
        self.released = JobImages(job.config, job.dataset.format)
        self.faces: list[Row] = []
        self.outcomes: list[Row] = []
        (self.nothing,) = self._observed(lambda observer, photos: observer.original(photos, photos), [[]])
        self.looks: dict[str, list[Look]] = {kind: [self.nothing] for kind in (*KINDS, RELEASED)}
        self.donors: dict[str, Vectors] = {}
        self.scan, self.release = layout.scan_store(job.stores, job.scan_key), layout.release_store(job.stores)

    def add(self, shard: Shard) -> tuple[int, int]:
        """Look at a shard; returns how many images it has, and how many faces were looked at."""
        samples = samples_of(self.release, self.scan, self.job.naming, shard.shard_id, faces=_COLUMNS)
        samples = [sample for sample in samples if sample.row["media"] != CLIP]
        ids, looks = self._originals(shard, {sample.key: sample.faces for sample in samples})
        number = {face: position for position, face in enumerate(ids)}
        kept = np.zeros(len(ids), bool)
        photos = (
            self._output(sample, face)
            for sample in samples
            for face in sample.faces
            if face["face_id"] in number and not sample.quarantined
        )

        def look(observer: Observer, photos: list[_Photo]) -> tuple[list[Row], list[Row], Look]:
            mains = [main for _, main, _ in photos if main is not None]
            before = looks[CLEAR].mesh[[number[face["face_id"]] for face in mains]]
            seen = observer.changed([rgb for rgb, *_ in photos], mains, before)
            return mains, [rows[0] for *_, rows in photos], seen

        for mains, outcomes, seen in self._observed(look, in_chunks(photos, self.chunk)):
            kept[[number[face["face_id"]] for face in mains]] = True
            self.looks[RELEASED].append(seen)
            self.faces += mains
            self.outcomes += outcomes
        for kind in KINDS:
            self.looks[kind].append(looks[kind].taken(kept))
        return len(samples), int(kept.sum())

    def _observed(self, work: Callable[[Observer, _Chunk], _Answer], chunks: Iterable[_Chunk]) -> Iterator[_Answer]:
        """`work` of each chunk, in order, by an Observer for every core, up to eight, each made when it is needed; few
        more chunks are held than are looked at."""

        def answer(chunk: _Chunk) -> _Answer:
            try:
                observer = self.idle.pop()
            except IndexError:
                observer = Observer(self.config)
            try:
                return work(observer, chunk)
            finally:
                self.idle.append(observer)

        count = min(len(os.sched_getaffinity(0)), _MOST_OBSERVERS)
        coming: deque[Future[_Answer]] = deque()
        with ThreadPoolExecutor(count) as pool:
            for chunk in chunks:
                coming.append(pool.submit(answer, chunk))
                if len(coming) > count:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()

    def _output(self, sample: ReleasedSample, face: Row) -> _Photo:
        path, outcome = sample.row["path"], sample.row["faces"][face["index"]]
        try:
            data = self.released.image(path, sample.row["output_sha256"])
            rgb = decode(data, max_mpx=self.config.limits.image_mpx).rgb
        except ImageProblem as problem:
            raise JobError(f"an image in {path} of the release cannot be read: {problem}") from None
        if rgb.shape[:2] != (face["height"], face["width"]):
            raise JobError(f"an image in {path} of the release has another size than its original")
        digest = outcome["surrogate_digest"]
        if digest is not None and digest not in self.plan.by_digest:
            raise JobError("the release wears a surrogate of another plan; audit it with the settings that made it")
        return rgb, face, [outcome]

    def _originals(self, shard: Shard, faces: Mapping[str, Sequence[Row]]) -> tuple[list[str], dict[str, Look]]:
        """Ids of a shard's main faces, and looks by KINDS; `faces` are its rows by key. Donors' vectors are kept."""
        mains = {key: row for key, rows in faces.items() if (row := main_of(rows, self.labelled)) is not None}
        mains = {key: row for key, row in mains.items() if drawn(row, self.share)}
        ids = [row["face_id"] for row in mains.values()]
        donors = {row["face_id"] for rows in faces.values() for row in rows} & self.plan.donated.keys()
        portraits = donors - set(ids)
        try:
            known, looks = from_bytes(self.store.arrays(shard.shard_id), KINDS)
        except NotFound:
            known, looks = ids, {}
        if known != ids:
            raise JobError(f"{self.store.prefix} in the workspace does not fit its scan; remove it and audit again")
        vectors: dict[str, Vectors] = {}
        parts: dict[str, list[Look]] = {kind: [self.nothing] for kind in KINDS}
        photos = self._photos(shard, faces, {} if looks else mains, portraits)

        def look(observer: Observer, photos: list[_Photo]) -> tuple[list[str], Vectors, dict[str, Look]]:
            shown = [(rgb, row) for rgb, _, rows in photos for row in rows if row["face_id"] in portraits]
            images, rows = [rgb for rgb, _ in shown], [row for _, row in shown]
            seen = observer.vectors(images, observer.meshes(images, rows))
            whole = [(rgb, main, rows) for rgb, main, rows in photos if main is not None]
            return [row["face_id"] for row in rows], seen, dict(_looks(observer, self.controls, whole))

        for names, seen, several in self._observed(look, in_chunks(photos, self.chunk)):
            for number, face in enumerate(names):
                vectors[face] = {name: array[[number]] for name, array in seen.items()}
            for kind, part in several.items():
                parts[kind].append(part)
        if not looks:
            looks = {kind: Look.joined(part) for kind, part in parts.items()}
            self.store.write_arrays(shard.shard_id, to_bytes(ids, looks))
        for number, face in enumerate(ids):
            if face in donors:
                vectors[face] = {name: looks[CLEAR].vectors[name][[number]] for name in RECOGNIZERS}
        self.donors |= dict(sorted(vectors.items()))
        return ids, looks

    def _photos(
        self, shard: Shard, faces: Mapping[str, Sequence[Row]], mains: Mapping[str, Row], portraits: Collection[str]
    ) -> Iterator[_Photo]:
        """The originals of `mains` by key, and those that show `portraits`."""
        wanted = {
            key for key, rows in faces.items() if key in mains or any(row["face_id"] in portraits for row in rows)
        }
        for sample in self.job.dataset.read(shard) if wanted else ():
            if sample.key in wanted:
                yield read_image(sample, self.config).rgb, mains.get(sample.key), faces[sample.key]

    def evidence(self) -> Evidence:
        """Everything that was added."""
        plan, ids = self.plan, [face["face_id"] for face in self.faces]
        people = np.array([plan.person.get(face, -1) for face in ids], np.int64)
        if self.labelled:
            names = [str(face["label"]) for face in self.faces]
        else:
            names = [f"subject {person}" if person >= 0 else face for person, face in zip(people, ids, strict=True)]
        looks = {kind: Look.joined(self.looks.pop(kind)) for kind in (*KINDS, RELEASED)}
        points = [five_points(mesh) for mesh in looks[CLEAR].mesh]
        digests = [outcome["surrogate_digest"] for outcome in self.outcomes]
        return Evidence(
            faces=ids,
            subjects=numbered(names),
            names=np.array(names, np.str_),
            labelled=self.labelled,
            people=people,
            classes=np.array([plan.class_of.get(face, -1) for face in ids], np.int64),
            worn=np.array([-1 if digest is None else plan.by_digest[digest] for digest in digests], np.int64),
            averaged=np.array([face in plan.donated for face in ids], bool),
            replaced=np.array([outcome["fallback"] not in ELLIPSES for outcome in self.outcomes], bool),
            eye_distance=np.array([np.linalg.norm(five[1] - five[0]) for five in points], np.float32),
            boxes=np.array([outcome["box"] for outcome in self.outcomes], np.float32).reshape(-1, 4),
            looks=looks,
            donors={
                name: np.concatenate([self.nothing.vectors[name], *(donor[name] for donor in self.donors.values())])
                for name in RECOGNIZERS
            },
            donor_people=np.array([plan.person[face] for face in self.donors], np.int64),
            donor_classes=np.array([plan.donated[face] for face in self.donors], np.int64),
        )


def _looks(
    observer: Observer, controls: Controls, photos: Sequence[tuple[Pixels, Row, Sequence[Row]]]
) -> Iterator[tuple[str, Look]]:
    """Each kind of look at originals, one after another: only one baseline of them is held at a time."""
    pictures, mains = [rgb for rgb, *_ in photos], [main for _, main, _ in photos]
    clear = observer.original(pictures, mains)
    yield CLEAR, clear
    for how in REDACTIONS:
        images = [rgb.copy() for rgb in pictures]
        for image, (*_, rows) in zip(images, photos, strict=True):
            for row in rows:
                redact(image, np.array(row["box"], np.float32), how)
        yield how, observer.changed(images, mains, clear.mesh, searched=how != HIDDEN)
    for name, images in controls.draw(photos, observer.meshes(pictures, mains), clear):
        yield name, observer.changed(images, mains, clear.mesh)


def looks_store(job: Job, most: int | None = None, controls: Controls | None = None) -> layout.StageStore:
    """Where in the workspace lies what depends on scan, redactions and judges, and on no release. `controls`: those of
    the job, if they are at hand, since making them reads every subject of the plan."""
    parts = [
        _VERSION,
        precision(job.config),
        job.scan_key,
        METHOD_VERSION,
        (controls or Controls(job)).key,
        *(MODELS[name].sha256 for name in LOOKED_WITH),
    ]
    if (share := share_of(job, most)) < 1:
        parts.append(f"{share:.9f}")
    key = hashlib.sha256("\n".join(["looks", *parts]).encode()).hexdigest()
    return layout.audit_store(job.stores, key)


def share_of(job: Job, most: int | None = None) -> float:
    """The share of the people who are looked at closely, 0 to 1, so that `most` of all photos are, MOST by default."""
    markers = layout.scan_store(job.stores, job.scan_key).markers(shard.shard_id for shard in job.shards)
    return min(1.0, (most or MOST) / max(1, sum(int(marker["images"]) for marker in markers)))


def drawn(row: Row, share: float) -> bool:
    """Whether the person of a FACES row is drawn, with all of their photos, or a face without a label."""
    digest = hashlib.sha256(f"audited: {row['label'] or row['face_id']}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
