"""Render: every image once more. Replace each face, check the output, write the shard and its manifest.

Fail closed. Per face: the method, or the fallback that the plan decided on; of a method that claims nothing, a face
that still matches its source gets the next surrogate, then the fallback; of a method that claims k or epsilon only a
face whose px are still the source's does (see render_state.py). Per image: whatever goes wrong ends in a row
`quarantined` with the reason and no output. An original face px is never written because something went wrong.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from anonlib.codes import REASONS, Note, Problem, Reason, Stripped
from anonlib.config import JobConfig
from anonlib.datasets import Dataset, Sample, Shard, ShardWriter
from anonlib.errors import ImageProblem, StorageError, contained
from anonlib.execution.base import UnitResult, current
from anonlib.faces.mesh import FaceMesh
from anonlib.media import exact, jpeg
from anonlib.media.clip import ClipInfo
from anonlib.media.codec import Picture, encode
from anonlib.media.mark import marked
from anonlib.media.prefetch import chunks_ahead, read_or_open, sample_bytes
from anonlib.media.sandbox import replace_apart
from anonlib.methods import method_of
from anonlib.methods.base import Method, Replacement
from anonlib.methods.redaction import fallback_of
from anonlib.models.requirements import ModelBytes, device_of, load
from anonlib.privacy.keys import Purpose
from anonlib.stages.clip_render import ClipRenderer
from anonlib.stages.clip_scan import path_of
from anonlib.stages.render_state import (
    MATCHED,
    ClipState,
    FaceState,
    ImageState,
    OutputRecheck,
    Pairs,
    PlannedSurrogates,
)
from anonlib.stages.rerender import ActiveDecisions, carry_out, take_back
from anonlib.storage.scratch import scratch
from anonlib.verification.certificate import NONE
from anonlib.workspace import layout
from anonlib.workspace.decisions import DecisionLog
from anonlib.workspace.release import Naming
from anonlib.workspace.schemas import (
    CLIP,
    ELLIPSES,
    EXACT,
    IGNORED,
    KEPT,
    LOT,
    NO_FACE,
    QUARANTINED,
    REENCODED,
    RELEASED,
    STILL,
)
from anonlib.workspace.secrets import open_in_worker
from anonlib.workspace.tables import matrix

Rows = list[dict[str, Any]]
_HELD = 64
"""Replacements that a worker holds."""
_COUNTS = ("images", "faces", "released", "no_face", "quarantined", "fallbacks")


class RenderStage:
    """`run(shard)` writes data, manifest and marker of one shard; several threads may run shards at once."""

    name = "render"

    def __init__(
        self,
        job: JobConfig,
        dataset: Dataset,
        stores: layout.JobStores,
        keys: dict[str, str],
        models: ModelBytes,
        active: ActiveDecisions,
        check: str,
    ) -> None:
        """In the worker, which reads the secret itself and refuses another than the driver's, whose `check` this is."""
        cv2.setNumThreads(1)
        self.job, self.dataset, self.models, self.key = job, dataset, models, keys["render"]
        self.keyring = open_in_worker(job, stores, check)
        self.active, self.log = active, DecisionLog(stores.workspace, self.key)
        self.scan, self.plan = layout.scan_store(stores, keys["scan"]), layout.plan_store(stores, keys["plan"])
        self.release, self.notes = layout.release_store(stores), layout.render_store(stores, self.key)
        self.naming = Naming(self.keyring, job.rekey)
        self.method: Method = method_of(job.method, models, device_of(job))
        self.fallback = fallback_of(job.method.name, job.fallback)
        near = self.method.output_check(lambda: matrix(self.plan.subjects(["template"]), "template"))
        self.checker = OutputRecheck(job, models, near) if self.method.synthesis else None
        self._held: dict[str, Replacement] = {}
        self._lock = threading.Lock()

    def run(self, shard: Shard) -> UnitResult:
        """Render one shard; safe to repeat and to race, since the same shard gives the same bytes."""
        if finished := self._finished(shard):
            return finished
        watch = current()
        watch.read += shard.bytes
        with scratch() as folder:
            rows, figures = Rows(), Rows()
            name, keep = self.naming.new_shard(shard.shard_id), frozenset(self.job.keep_fields)
            with self.dataset.writer(shard, folder / "shard", keep, name) as writer:
                self._write(shard, writer, rows, figures)
            rows.sort(key=lambda row: row.pop("position"))
            publish_reasons(self.notes, shard.shard_id, rows)
            with watch.timed("publish"):
                return self._publish(shard, writer, self.naming.sorted(rows), figures)

    def _finished(self, shard: Shard) -> UnitResult | None:
        """What the marker says, if another job was faster. Raises StorageError if this attempt must not go on.

        Asked again before every file, since a worker that was asleep may wake up when another job or review began.
        """
        if self.release.run()["run"] != self.key:
            other = f"The output {self.release.storage.uri} now holds a release of another job (its run.json differs)"
            raise StorageError(f"{other}, so this one writes nothing more there.")
        if any(entry.shard == shard.shard_id for entry in self.log.entries(self.active.logged)):
            late = f"A reviewer has decided on shard {shard.shard_id} since this run began"
            raise StorageError(f"{late}; run it again, so that the decision is carried out.")
        marker = self.release.committed(self.naming.shard(shard.shard_id))
        return None if marker is None else _result(shard, marker)

    def _write(self, shard: Shard, writer: ShardWriter, rows: Rows, figures: Rows) -> None:
        """Every photo of a shard, chunk by chunk, in order."""
        planned: dict[str, Rows] = defaultdict(list)
        with current().timed("read"):
            scanned = {row["key"]: row for row in self.scan.images(shard.shard_id).to_pylist()}
            for row in self.plan.assignments(shard.shard_id).to_pylist():
                planned[row["key"]].append(row)
            surrogates = PlannedSurrogates(self.plan, self.keyring, shard.shard_id)

        def untouched(sample: Sample) -> bool:
            known = scanned.get(sample.key)
            exact_wanted = self.job.outside == "exact" and known is not None and known["exact"]
            return exact_wanted and not planned[sample.key] and not self.active.of(shard.shard_id, sample.key)

        def read(sample: Sample) -> Picture | ClipInfo | ImageProblem:
            known = scanned.get(sample.key)
            if known is None:
                return ImageProblem(Reason.NOT_SCANNED)
            if known["problem"] is not None and not self.active.released(shard.shard_id, sample.key):
                return ImageProblem(REASONS[known["reason"]], known["problem"])
            if sample.image is not None and known["digest"] not in (None, layout.sha256(sample.image)):
                return ImageProblem(Reason.CHANGED)
            if sample.image is not None and untouched(sample):
                return _without_pixels(known)
            picture = read_or_open(sample, self.job)
            if isinstance(picture, ClipInfo) and layout.file_sha256(path_of(sample)) != known["digest"]:
                return ImageProblem(Reason.CHANGED)
            return picture.plain if isinstance(picture, Picture) and self.job.outside == "reencode" else picture

        # Only the checker gains from many photos at once; one at a time stays in the processor's cache.
        most = self.job.limits.chunk if self.checker else 1

        def cost(sample: Sample) -> int:
            return len(sample.image or b"") if untouched(sample) else sample_bytes(sample, self.job, copies=2)

        bounds = {"most": most, "budget": self.job.shard_bytes}
        for chunk in chunks_ahead(read, self.dataset.read(shard), cost, timed=current().timed, **bounds):
            readable = self._readable(shard, chunk, planned, rows, scanned)
            self._render([photo for photo in readable if isinstance(photo, ImageState)], surrogates)
            with current().timed("encode"):
                rows += [self._finish(item, writer, shard, surrogates) for item in readable]
            for item in readable:
                key = self.naming.key(shard.shard_id, item.sample.key)
                figures += [face.figures(key) for face in item.faces]
            del readable

    def _readable(
        self,
        shard: Shard,
        chunk: list[tuple[Sample, Picture | ClipInfo | ImageProblem]],
        planned: Mapping[str, Rows],
        rows: Rows,
        scanned: Mapping[str, dict[str, Any]],
    ) -> list[ImageState | ClipState]:
        """Readable photos and clips with their planned faces; unreadable ones get their row at once."""
        readable: list[ImageState | ClipState] = []
        for sample, picture in chunk:
            if isinstance(picture, ImageProblem):
                rows.append(self._row(sample, shard, QUARANTINED, Problem(picture.reason, str(picture))))
                continue
            faces = []
            for row in planned[sample.key]:
                tries, hide = list(row["surrogates"] or ()), self.fallback.kind
                method = self.method.name if tries else hide
                fallback = (LOT if tries else hide) if row["reason"] else None
                faces.append(FaceState(row, method, tries, fallback=fallback, reason=row["reason"]))
                if row["kind"] == IGNORED:
                    faces[-1] = FaceState(row, KEPT, [], fallback=IGNORED, reason="it lies in an ignore area")
            decision = self.active.of(shard.shard_id, sample.key)
            if isinstance(picture, ClipInfo):
                clip = ClipState(sample, picture, faces, scanned[sample.key]["frames"])
                carry_out(decision, clip, self.fallback.kind)
                readable.append(clip)
                continue
            painted = decision or any(face.method != KEPT for face in faces)
            photo = ImageState(sample, picture, faces, picture.rgb.copy() if painted else picture.rgb)
            carry_out(decision, photo, self.fallback.kind)
            boxes = np.array([face.planned["box"] for face in faces], np.float32).reshape(-1, 4)
            for number, face in enumerate(faces):
                face.others = np.delete(boxes, number, axis=0)
            readable.append(photo)
        return readable

    def _render(self, chunk: list[ImageState], surrogates: PlannedSurrogates) -> None:
        """Replace and check every face of a chunk; a photo that fails keeps the reason and loses its pixels."""
        open_faces = [(photo, face) for photo in chunk for face in photo.faces]
        while open_faces:
            self._paint(open_faces, surrogates)
            failed = self._refused(open_faces)
            # A retry repaints the whole photo, so that no trace of the first try stays under the second.
            again = {id(photo): photo for photo, _ in failed}
            for photo in again.values():
                photo.out = photo.picture.rgb.copy()
            for _, face in failed:
                face.tries.pop(0)
            open_faces = [(photo, face) for photo in chunk if id(photo) in again for face in photo.faces]

    def _paint(self, faces: Pairs, surrogates: PlannedSurrogates) -> None:
        """Paint faces into their images; fills last: what they take from around a face must not be a face that is still
        to be replaced."""
        with current().timed("replace"):
            for photo, face in sorted(faces, key=lambda pair: not pair[1].tries):
                self._replace(photo, face, surrogates)

    def _refused(self, faces: Pairs) -> Pairs:
        """Those whose surrogate must not stay, and why."""
        replaced = [
            (photo, face)
            for photo, face in faces
            if photo.problem is None and face.method == self.method.name and face.tries
        ]
        if self.checker is None or not replaced:
            return []
        failed = self._still_matching(self.checker, replaced)
        if self.method.claim.kind == NONE:
            return failed
        shown = [(photo, face) for photo, face in replaced if face.still_shown(photo.rgb, photo.out)]
        for _, face in shown:
            face.why = "left the source's px where they were"
        return shown

    def _still_matching(self, checker: OutputRecheck, faces: Pairs) -> Pairs:
        """Faces to try again, and why; if the check of all fails, photo by photo, so that only the culprit is lost."""
        with contained("checking the output") as failure, current().timed("check"):
            failed = checker.check(faces)
            for _, face in failed:
                face.why = MATCHED
            matching = {id(face) for _, face in failed}
            near = checker.near_a_subject([(photo, face) for photo, face in faces if id(face) not in matching])
            for _, face in near:
                face.why = "came near somebody of the dataset"
            return failed + near
        photos = {id(photo): photo for photo, _ in faces}
        if len(photos) == 1:
            faces[0][0].problem = failure.problem(Reason.CHECK_FAILED)
            return []
        alone = [[(photo, face) for photo, face in faces if id(photo) == number] for number in photos]
        return [pair for pairs in alone for pair in self._still_matching(checker, pairs)]

    def _replace(self, photo: ImageState, face: FaceState, surrogates: PlannedSurrogates) -> None:
        """Paint one face into `photo.out`, by its next surrogate if it has one left, else by the redaction."""
        if photo.problem is not None or face.method == KEPT:
            return
        with contained("replacing a face") as failure:
            if face.method == self.method.name and face.tries:
                replacement = self._replacement(face.tries[0], surrogates)
                face.coverage, face.digest = replacement.apply(photo.out, face), replacement.digest
                if face.tries[0] != face.planned["surrogates"][0]:
                    face.fallback, face.reason = "next-surrogate", f"the first surrogate {face.why}"
                return
            if face.reason is None or face.fallback in ("next-surrogate", LOT):
                face.reason = f"every surrogate was tried, and the last {face.why}"
            face.method, face.tries, face.digest, face.coverage = self.fallback.kind, [], None, 1.0
            face.fallback = face.fallback if face.fallback in ELLIPSES else self.fallback.kind
            face.findings, face.detected_again = [], None
            self.fallback.apply(photo.out, face)
        photo.problem = failure.problem(Reason.REPLACE_FAILED)

    def _replacement(self, name: str, surrogates: PlannedSurrogates) -> Replacement:
        """The replacement by this name, the last few held for all threads; raises LookupError if there is none."""
        with self._lock:
            if name in self._held:
                self._held[name] = self._held.pop(name)
                return self._held[name]
        replacement = self.method.replacement(name, surrogates)
        with self._lock:
            self._held[name] = replacement
            if len(self._held) > _HELD:
                del self._held[next(iter(self._held))]
        return replacement

    def _finish(
        self, photo: ImageState | ClipState, writer: ShardWriter, shard: Shard, surrogates: PlannedSurrogates
    ) -> dict[str, Any]:
        """Encode and write a photo or a clip; returns its row."""
        if isinstance(photo, ClipState):
            with scratch() as folder:
                return self._finish_clip(photo, writer, shard, surrogates, folder)
        if photo.problem is None:
            try:
                with contained("encoding a photo") as failure:
                    data, outside = self._encode(photo)
                    if self.job.mark and any(face.digest for face in photo.faces):
                        data = marked(data)
                photo.problem = failure.problem(Reason.ENCODE_FAILED)
            except ImageProblem as problem:
                photo.problem = Problem(problem.reason, str(problem))
        if photo.problem is not None:
            return self._row(photo.sample, shard, QUARANTINED, photo.problem, photo)
        new = self.naming.key(shard.shard_id, photo.sample.key) if self.job.rekey else None
        writer.write(photo.sample, data, new)
        status = RELEASED if photo.faces else NO_FACE
        row = self._row(photo.sample, shard, status, None, photo)
        return row | {"output_sha256": layout.sha256(data), "outside": outside}

    def _finish_clip(
        self, clip: ClipState, writer: ShardWriter, shard: Shard, surrogates: PlannedSurrogates, folder: Path
    ) -> dict[str, Any]:
        """Render and write a clip; returns its row."""
        file = None
        if clip.problem is None:
            paint = partial(self._paint, surrogates=surrogates)
            mesh = self._mesh if self.method.synthesis else None
            file = ClipRenderer(self.job, mesh, self.fallback.kind, paint, self._refused).render(clip, folder)
        if file is None:
            return self._row(clip.sample, shard, QUARANTINED, clip.problem, clip)
        new = self.naming.key(shard.shard_id, clip.sample.key) if self.job.rekey else None
        digest = layout.file_sha256(file)
        writer.write(clip.sample, file, new)
        row = self._row(clip.sample, shard, RELEASED if clip.faces else NO_FACE, None, clip)
        return row | {"output_sha256": digest, "outside": REENCODED}

    @cached_property
    def _mesh(self) -> FaceMesh:
        return FaceMesh(load(self.models, "facemesh", self.job), load(self.models, "iris", self.job))

    def _encode(self, photo: ImageState) -> tuple[bytes, str]:
        """A photo's file, and whether what lies outside its regions is EXACT or REENCODED."""
        picture, file, limits = photo.picture, photo.sample.image or b"", self.job.limits
        if picture.is_exact and photo.out is picture.rgb:
            return exact.rewrite(file, picture.stored), EXACT
        if picture.is_exact and picture.format == "JPEG":
            frame = jpeg.parse(file)
            before, after = (exact.as_stored(pixels, picture.orientation) for pixels in (picture.rgb, photo.out))
            changed = jpeg.touched_mcus(frame, before, after)
            pixels = jpeg.pixels_of(after, frame, changed)
            bounds = {"max_mpx": limits.image_mpx, "seconds": limits.image_seconds}
            with suppress(ImageProblem):  # then it is encoded anew
                return replace_apart(file, changed, pixels, picture.stored, **bounds), EXACT
        kept = picture.is_exact and picture.lossless and picture.format != "JPEG"
        data = encode(photo.out, photo.leveled, jpeg_quality=self.job.jpeg_quality)
        return data, EXACT if kept and Note.EIGHT_BITS not in picture.notes else REENCODED

    def _row(
        self,
        sample: Sample,
        shard: Shard,
        status: str,
        problem: Problem | None,
        photo: ImageState | ClipState | None = None,
    ) -> dict[str, Any]:
        """A MANIFEST row, with the sample's own key, its position and its problem beside it until it is written."""
        return {
            "position": sample.position,
            "own_key": sample.key,
            "problem": problem,
            "key": self.naming.key(shard.shard_id, sample.key),
            "status": status,
            "reason": None if problem is None else problem.reason,
            "path": None if status == QUARANTINED else self.naming.path(self.dataset, shard),
            "media": CLIP if sample.clip else STILL,
            "input_hmac": self._input_digest(sample),
            **(photo.columns if photo else {}),
            "faces": [face.row(self.method.claim) for face in photo.faces] if photo else [],
            "review": self.active.word(shard.shard_id, sample.key),
        }

    def _input_digest(self, sample: Sample) -> str | None:
        """A keyed digest of a sample's image, of a clip's sha256."""
        content = layout.file_sha256(sample.clip) if sample.clip else sample.image
        return self.keyring.digest(Purpose.INPUT, content).hex() if content else None

    def _publish(self, shard: Shard, writer: ShardWriter, rows: Rows, figures: Rows) -> UnitResult:
        """Data, then manifest, then marker, replacing nothing; takes its data back if another job commits meanwhile."""
        name, created = self.naming.shard(shard.shard_id), list[str]()
        self.notes.write_faces(name, figures)
        try:
            files = {}
            for path, local in writer.outputs():
                files[path] = layout.file_sha256(local)
                current().written += local.stat().st_size
                if finished := self._finished(shard):
                    return finished
                if self.release.storage.create(path, local):
                    created.append(path)
            if finished := self._finished(shard):
                return finished
            manifest = self.release.create_manifest(name, rows)
            vouched = self.active.vouched(shard.shard_id, self.keyring)
            marker = _marker(name, self.key, files, manifest, rows) | vouched
            if not self.release.commit(name, marker) and self.release.committed(name) != marker:
                other = f"Another job, or this one with other decisions, committed shard {shard.shard_id} meanwhile"
                both = f"{self.release.marker(name)} and certificate.json in {self.release.storage.uri}"
                raise StorageError(f"{other}; delete {both}, and run the job again that the release is to be of.")
            created.clear()
            return _result(shard, marker)
        finally:
            take_back(self.release, name, created)


def _marker(
    name: str, run: str, files: Mapping[str, str], manifest: str, rows: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """The marker of a shard whose manifest holds these rows."""
    status = Counter(row["status"] for row in rows)
    faces = [face for row in rows for face in row["faces"]]
    return {
        "shard": name,
        "run": run,
        "files": dict(files),
        "manifest_sha256": manifest,
        "images": status.total(),
        "faces": len(faces),
        "released": status[RELEASED],
        "no_face": status[NO_FACE],
        "quarantined": status[QUARANTINED],
        "fallbacks": sum(face["fallback"] in ELLIPSES for face in faces),
    }


def _result(shard: Shard, marker: Mapping[str, Any]) -> UnitResult:
    return UnitResult(shard.shard_id, **{name: marker[name] for name in _COUNTS})


def _without_pixels(scanned: Mapping[str, Any]) -> Picture:
    """The Picture of an image that leaves as it came, by what the scan found of it."""
    notes = tuple(Note(note) for note in scanned["notes"] if note != Note.EIGHT_BITS)
    stripped, size = tuple(map(Stripped, scanned["stripped"])), (scanned["height"], scanned["width"])
    known = (scanned["format"], scanned["space"], stripped, notes, size, scanned["orientation"])
    return Picture(np.zeros((0, 0, 3), np.uint8), None, *known, is_exact=True)


def publish_reasons(notes: layout.RenderStore, shard_id: str, rows: Rows) -> None:
    """Take each row's `own_key` and `problem` out of it, and write what was quarantined and why into the workspace."""
    problems = [(row.pop("own_key"), row.pop("problem")) for row in rows]
    quarantined = [(key, problem) for key, problem in problems if problem is not None]
    reasons = [{"key": key, "reason": problem.reason, "sentence": str(problem)} for key, problem in quarantined]
    if reasons:
        notes.write_reasons(shard_id, reasons)


def quarantine_shard(
    shard: Shard,
    why: str,
    stores: layout.JobStores,
    scan: layout.ScanStore,
    run_key: str,
    naming: Naming,
    active: ActiveDecisions,
) -> UnitResult | None:
    """Write manifest and marker of a lost shard; None if there is a marker. Raises StorageError."""
    release, name = layout.release_store(stores), naming.shard(shard.shard_id)
    if release.committed(name) is not None:
        return None
    problem = Problem(Reason.SHARD_FAILED, f"the shard failed: {why}")
    fixed = {"problem": problem, "status": QUARANTINED, "reason": problem.reason, "faces": []}
    rows = [
        {"own_key": key, "key": naming.key(shard.shard_id, key), "review": active.word(shard.shard_id, key), **fixed}
        for key in scan.images(shard.shard_id, ["key"]).column("key").to_pylist()
    ]
    publish_reasons(layout.render_store(stores, run_key), shard.shard_id, rows)
    manifest = release.create_manifest(name, naming.sorted(rows))
    marker = _marker(name, run_key, {}, manifest, rows) | active.vouched(shard.shard_id, naming.keyring)
    return _result(shard, marker) if release.commit(name, marker) else None
