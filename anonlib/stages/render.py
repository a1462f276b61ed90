"""Render: every image once more. Replace each face, check the output, write the shard and its manifest.

Fail closed. Per face: the method, or the fallback that the plan decided on; of a method that claims nothing, a face
that still matches its source gets the next surrogate, then the fallback; of a method that claims k or epsilon only a
face whose px are still the source's does (see render_state.py). Per image: whatever goes wrong ends in a row
`quarantined` with the reason and no output. An original face px is never written because something went wrong.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa

from anonlib.codes import REASONS, Note, Problem, Reason, Stripped
from anonlib.config import JobConfig
from anonlib.datasets import Dataset, Sample, Shard, ShardWriter
from anonlib.errors import ImageProblem, StorageError, contained
from anonlib.execution.base import UnitResult, current
from anonlib.faces.hidden import open_hidden, seen_in
from anonlib.faces.mesh import FaceMesh
from anonlib.faces.regions import why_hidden
from anonlib.media import exact, jpeg
from anonlib.media.clip import ClipInfo
from anonlib.media.codec import Picture, encode
from anonlib.media.mark import marked
from anonlib.media.prefetch import chunks_ahead, on_threads, read_or_open, sample_bytes
from anonlib.media.sandbox.process import replace_apart
from anonlib.methods import method_of
from anonlib.methods.base import Method, Replacement
from anonlib.methods.redaction import Fill, fallback_of
from anonlib.models.requirements import ModelBytes, device_of, load
from anonlib.privacy.keys import Purpose
from anonlib.stages.clip_render import ClipRenderer
from anonlib.stages.clip_scan import file_of
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
    ASSIGNMENTS,
    CLIP,
    COUNTS,
    ELLIPSES,
    EXACT,
    FACES,
    FILLS,
    IGNORED,
    IMAGES,
    KEPT,
    LOT,
    NO_FACE,
    QUARANTINED,
    REENCODED,
    RELEASED,
    SOLID,
    SPARED,
    STILL,
)
from anonlib.workspace.secrets import open_in_worker
from anonlib.workspace.tables import matrix, of_rows, rows_of

Rows = list[dict[str, Any]]
ReadSample = tuple[Sample, Picture | ClipInfo | ImageProblem]
_HELD = 64
"""Replacements that a worker holds."""
_REDACTED = [name for name in ASSIGNMENTS.names if name in FACES.names]
"""Columns of FACES that a redaction needs."""
_STAYS = {IGNORED: "it lies in an ignore area", SPARED: "its person agreed"}


@dataclass
class ShardWork:
    """A shard that is being rendered: IMAGES and ASSIGNMENTS of the samples at hand, by key, and what came of all.

    `rows` and `figures`: see MANIFEST and RENDERED; `left_out`: what in the shard is no image, by kind.
    """

    shard: Shard
    writer: ShardWriter
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    planned: dict[str, Rows] = field(default_factory=lambda: defaultdict(list))
    surrogates: PlannedSurrogates | None = None
    rows: Rows = field(default_factory=list)
    figures: Rows = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


class Finished(NamedTuple):
    """What came of a photo: its row of MANIFEST, and its file unless it is quarantined; or a clip still to render."""

    sample: Sample
    faces: list[FaceState]
    row: dict[str, Any]
    file: bytes | None
    clip: ClipState | None = None


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
        self.hidden = open_hidden(job, models)
        self._on_cores = on_threads(job.ray.threads)
        self._held: dict[str, Replacement] = {}
        self._lock = threading.Lock()

    def run(self, shard: Shard) -> UnitResult:
        """Render one shard; safe to repeat and to race, since the same shard gives the same bytes."""
        if finished := self._finished(shard):
            return finished
        current().read += shard.bytes
        return self.write(shard, self._add_planned)

    def write(self, shard: Shard, add_all: Callable[[ShardWork], None]) -> UnitResult:
        """Commit a shard, to which `add_all` adds the samples."""
        with scratch() as folder:
            name, keep = self.naming.new_shard(shard.shard_id), frozenset(self.job.keep_fields)
            with self.dataset.writer(shard, folder / "shard", keep, name) as writer:
                add_all(work := ShardWork(shard, writer))
            work.rows.sort(key=lambda row: row.pop("position"))
            publish_reasons(self.notes, shard.shard_id, work.rows)
            with current().timed("publish"):
                result = self._publish(work)
            if self.job.clip.segment:
                self.notes.drop_kept(shard.shard_id)
            return result

    def add(self, work: ShardWork, samples: Iterable[ReadSample], images: Rows, faces: Rows) -> None:
        """Redact samples that were just scanned, with their rows of IMAGES and FACES as these tables would hold them.

        What was decoded smaller than it is and has a face is decoded again.
        """
        self._know(work, of_rows(images, IMAGES), of_rows(faces, FACES))

        def redacted(sample_and_picture: ReadSample) -> list[Finished]:
            sample, picture = sample_and_picture
            with current().timed("decode"):
                whole = isinstance(picture, ClipInfo) or (
                    isinstance(picture, Picture) and picture.rgb.shape[:2] == picture.size
                )
                read = self._read(work, sample, picture if whole else None)
            readable = self._readable(work, [(sample, read)])
            self._replace_all([photo for photo in readable if isinstance(photo, ImageState)], work.surrogates)
            return [self._encoded(work.shard, item) for item in readable]

        for finished in self._on_cores(redacted, samples):
            for item in finished:
                self._keep(work, item)

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

    def _add_planned(self, work: ShardWork) -> None:
        """Every sample of a shard that was scanned and planned before, chunk by chunk, in order."""
        shard = work.shard
        with current().timed("read"):
            if self.method.synthesis:
                planned = self.plan.assignments(shard.shard_id)
                work.surrogates = PlannedSurrogates(self.plan, self.keyring, shard.shard_id)
            else:
                planned = self.scan.faces(shard.shard_id, _REDACTED)
            self._know(work, self.scan.images(shard.shard_id), planned)

        def cost(sample: Sample) -> int:
            if self._untouched(work, sample):
                return len(sample.image or b"")
            return sample_bytes(sample, self.job, copies=2)

        # Only the checker gains from many photos at once; one at a time stays in the processor's cache.
        bounds = {"most": self.job.limits.chunk if self.checker else 1, "budget": self.job.shard_bytes}
        samples, read = self.dataset.read(shard, work.left_out), partial(self._read, work)
        for chunk in chunks_ahead(read, samples, cost, timed=current().timed, **bounds):
            self._render(work, chunk)

    def _know(self, work: ShardWork, images: pa.Table, planned: pa.Table) -> None:
        """Note IMAGES of samples to come, and their ASSIGNMENTS, of a redaction their FACES."""
        work.images = {row["key"]: row for row in images.to_pylist()}
        work.planned = defaultdict(list)
        rows = rows_of(planned) if self.method.synthesis else self._redactions(planned)
        for row in rows:
            work.planned[row["key"]].append(row)

    def _redactions(self, faces: pa.Table) -> Rows:
        """FACES as ASSIGNMENTS: a redaction needs no plan, since every face gets the job's method."""
        rows: Rows = rows_of(faces.select(_REDACTED))
        for row in rows:
            hidden = row["kind"] is not None and self.method.name not in FILLS
            row |= {"surrogates": [] if hidden else [self.method.name]}
            row |= {"reason": why_hidden(row["kind"]) if hidden else None}
        return rows

    def _untouched(self, work: ShardWork, sample: Sample) -> bool:
        known, shard = work.images.get(sample.key), work.shard.shard_id
        exact_wanted = self.job.outside == "exact" and known is not None and known["exact"]
        return exact_wanted and not work.planned[sample.key] and not self.active.of(shard, sample.key)

    def _read(
        self, work: ShardWork, sample: Sample, read: Picture | ClipInfo | ImageProblem | None = None
    ) -> Picture | ClipInfo | ImageProblem:
        """A sample's photo at its own size, or its clip; it is `read` where that is given, just as it was scanned."""
        known = work.images.get(sample.key)
        if known is None:
            return ImageProblem(Reason.NOT_SCANNED)
        if known["problem"] is not None and not self.active.released(work.shard.shard_id, sample.key):
            return ImageProblem(REASONS[known["reason"]], known["problem"])
        if sample.image is not None and known["digest"] not in (None, layout.sha256(sample.image)):
            return ImageProblem(Reason.CHANGED)
        if sample.image is not None and self._untouched(work, sample):
            return _without_pixels(known)
        picture = read or read_or_open(sample, self.job)
        if isinstance(picture, ClipInfo) and file_of(sample).sha256 != known["digest"]:
            return ImageProblem(Reason.CHANGED)
        return picture.plain if isinstance(picture, Picture) and self.job.outside == "reencode" else picture

    def _render(self, work: ShardWork, chunk: Sequence[ReadSample]) -> None:
        """Replace the faces of a chunk, and write it."""
        readable = self._readable(work, chunk)
        self._replace_all([photo for photo in readable if isinstance(photo, ImageState)], work.surrogates)
        for item in self._on_cores(partial(self._encoded, work.shard), readable):
            self._keep(work, item)

    def _readable(self, work: ShardWork, chunk: Sequence[ReadSample]) -> list[ImageState | ClipState]:
        """Readable photos and clips with their planned faces; unreadable ones get their row at once."""
        readable: list[ImageState | ClipState] = []
        shard = work.shard
        for sample, picture in chunk:
            if isinstance(picture, ImageProblem):
                work.rows.append(self._row(sample, shard, QUARANTINED, Problem(picture.reason, str(picture))))
                continue
            faces = []
            for row in work.planned[sample.key]:
                tries, hide = list(row["surrogates"] or ()), self.fallback.kind
                method = self.method.name if tries else hide
                fallback = (LOT if tries else hide) if row["reason"] else None
                faces.append(FaceState(row, method, tries, fallback=fallback, reason=row["reason"]))
                if how := self.job.hide.get(row["kind"]):
                    faces[-1] = FaceState(row, how.method, [], reason=why_hidden(row["kind"]), kind=row["kind"])
                if why := _STAYS.get(row["kind"]):
                    name = row["consent"] and self.keyring.pseudonym(Purpose.CONSENT, row["consent"])
                    faces[-1] = FaceState(row | {"consent": name}, KEPT, [], fallback=row["kind"], reason=why)
            decision = self.active.of(shard.shard_id, sample.key)
            if isinstance(picture, ClipInfo):
                clip = ClipState(sample, picture, faces, work.images[sample.key]["frames"])
                carry_out(decision, clip, self.fallback.kind)
                readable.append(clip)
                continue
            painted = decision or any(face.method != KEPT for face in faces)
            photo = ImageState(sample, picture, faces, picture.rgb.copy() if painted else picture.rgb)
            carry_out(decision, photo, self.fallback.kind)
            reaches = np.array([face.reach for face in faces], np.float32).reshape(-1, 4)
            for number, face in enumerate(faces):
                face.reaches, face.number = reaches, number
            readable.append(photo)
        return readable

    def _replace_all(self, chunk: list[ImageState], surrogates: PlannedSurrogates | None) -> None:
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
        self._look_again(chunk)

    def _look_again(self, chunk: list[ImageState]) -> None:
        """Look for hidden regions with what found them; what a fill still shows of one becomes flat.

        Not after a blur or a mosaic, in which text, people and plates are still to be found.
        """
        for photo in chunk:
            for kind, finder in self.hidden.items():
                regions = [face for face in photo.faces if face.kind == kind and face.method in FILLS]
                if photo.problem is not None or not regions:
                    continue
                with contained("checking the output") as failure, current().timed("check"):
                    (found,) = finder.detect([photo.out])
                    for region in regions:
                        region.detected_again = seen_in(region.box, found)
                        if region.detected_again and region.method != SOLID:
                            region.method, region.reason = SOLID, f"a {kind} was found again under the fill"
                            Fill(SOLID, whole=True).apply(photo.out, region)
                photo.problem = failure.problem(Reason.CHECK_FAILED)

    def _paint(self, faces: Pairs, surrogates: PlannedSurrogates | None, *, depth: bool = False) -> None:
        """Paint faces into their images; fills last: what they take from around a face must not be a face that is still
        to be replaced. By `depth` the largest last, which is the nearest where people cross."""
        photos: dict[int, Pairs] = defaultdict(list)
        for pair in sorted(faces, key=lambda pair: pair[1].area if depth else not pair[1].tries):
            photos[id(pair[0])].append(pair)

        def paint(pairs: Pairs) -> None:
            with current().timed("replace"):
                for photo, face in pairs:
                    self._replace(photo, face, surrogates)

        if len(photos) == 1:  # also of a photo that one of the cores has already
            paint(*photos.values())
        else:
            list(self._on_cores(paint, photos.values()))

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

    def _replace(self, photo: ImageState, face: FaceState, surrogates: PlannedSurrogates | None) -> None:
        """Paint one face into `photo.out`, by its next surrogate if it has one left, else by the redaction."""
        if photo.problem is not None or face.method == KEPT:
            return
        with contained("replacing a face") as failure:
            if face.kind is not None:
                Fill(face.method, whole=True).apply(photo.out, face)
                return
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

    def _replacement(self, name: str, surrogates: PlannedSurrogates | None) -> Replacement:
        """The replacement by this name, the last few held for all threads; raises LookupError if there is none."""
        with self._lock:
            if name in self._held:
                self._held[name] = self._held.pop(name)
                return self._held[name]
        source: Any = surrogates  # a redaction asks for none
        replacement = self.method.replacement(name, source)
        with self._lock:
            self._held[name] = replacement
            if len(self._held) > _HELD:
                del self._held[next(iter(self._held))]
        return replacement

    def _encoded(self, shard: Shard, item: ImageState | ClipState) -> Finished:
        """A photo's row and file, without its pixels; a clip as it is."""
        if isinstance(item, ClipState):
            return Finished(item.sample, item.faces, {}, None, item)
        with current().timed("encode"):
            row, data = self._row_and_file(shard, item)
        return Finished(item.sample, item.faces, row, data)

    def _keep(self, work: ShardWork, done: Finished) -> None:
        """Write a photo, or render and write a clip, and note its rows."""
        sample, row, key = done.sample, done.row, self.naming.key(work.shard.shard_id, done.sample.key)
        if done.clip:
            with scratch() as folder:
                row = self._finish_clip(done.clip, work, folder)
        elif done.file is not None:
            work.writer.write(sample, done.file, key if self.job.rekey else None)
        work.rows.append(row)
        work.figures += [face.figures(key) for face in done.faces]

    def _row_and_file(self, shard: Shard, photo: ImageState) -> tuple[dict[str, Any], bytes | None]:
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
            return self._row(photo.sample, shard, QUARANTINED, photo.problem, photo), None
        row = self._row(photo.sample, shard, RELEASED if photo.faces else NO_FACE, None, photo)
        return row | {"output_sha256": layout.sha256(data), "outside": outside}, data

    def _finish_clip(self, clip: ClipState, work: ShardWork, folder: Path) -> dict[str, Any]:
        """Render and write a clip; returns its row."""
        file, shard = None, work.shard
        if clip.problem is None:
            paint = partial(self._paint, surrogates=work.surrogates, depth=True)
            mesh = self._mesh if self.method.synthesis else None
            renderer = ClipRenderer(self.job, mesh, self.fallback.kind, paint, self._refused)
            file = renderer.render(clip, folder, self.notes.keeper(shard.shard_id, clip.sample.key))
        if file is None:
            return self._row(clip.sample, shard, QUARANTINED, clip.problem, clip)
        new = self.naming.key(shard.shard_id, clip.sample.key) if self.job.rekey else None
        digest = layout.file_sha256(file)
        work.writer.write(clip.sample, file, new)
        row = self._row(clip.sample, shard, RELEASED if clip.faces else NO_FACE, None, clip)
        return row | {"output_sha256": digest, "outside": REENCODED}

    @cached_property
    def _mesh(self) -> FaceMesh:
        return FaceMesh(load(self.models, "facemesh", self.job), load(self.models, "iris", self.job))

    def _encode(self, photo: ImageState) -> tuple[bytes, str]:
        """A photo's file, and whether what lies outside its regions is EXACT or REENCODED."""
        picture, file = photo.picture, photo.sample.image or b""
        if picture.is_exact and photo.out is picture.rgb:
            return exact.rewrite(file, picture.stored), EXACT
        if picture.is_exact and picture.format == "JPEG":
            frame = jpeg.parse(file)
            before, after = (exact.as_stored(pixels, picture.orientation) for pixels in (picture.rgb, photo.out))
            changed = jpeg.touched_mcus(frame, before, after)
            pixels = jpeg.pixels_of(after, frame, changed)
            with suppress(ImageProblem):  # then it is encoded anew
                return replace_apart(file, changed, pixels, picture.stored, self.job.limits), EXACT
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
        content = sample.spooled.sha256 if sample.spooled else sample.image
        return self.keyring.digest(Purpose.INPUT, content).hex() if content else None

    def _publish(self, work: ShardWork) -> UnitResult:
        """Data, then manifest, then marker, replacing nothing; takes its data back if another job commits meanwhile."""
        shard, rows, created = work.shard, self.naming.sorted(work.rows), list[str]()
        name = self.naming.shard(shard.shard_id)
        self.notes.write_faces(name, work.figures)
        try:
            files = {}
            for path, local in work.writer.outputs():
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
            marker = _marker(name, self.key, files, manifest, rows, work.left_out) | vouched
            if not self.release.commit(name, marker) and self.release.committed(name) != marker:
                other = f"Another job, or this one with other decisions, committed shard {shard.shard_id} meanwhile"
                both = f"{self.release.marker(name)} and certificate.json in {self.release.storage.uri}"
                raise StorageError(f"{other}; delete {both}, and run the job again that the release is to be of.")
            created.clear()
            return _result(shard, marker)
        finally:
            take_back(self.release, name, created)


def _marker(
    name: str,
    run: str,
    files: Mapping[str, str],
    manifest: str,
    rows: Iterable[Mapping[str, Any]],
    left_out: Mapping[str, int],
) -> dict[str, Any]:
    """The marker of a shard whose manifest holds these rows; `left_out`: what in it is no image, by kind."""
    status = Counter(row["status"] for row in rows)
    faces = [face for row in rows for face in row["faces"]]
    return {
        "shard": name,
        "run": run,
        "files": dict(files),
        "manifest_sha256": manifest,
        "images": status.total(),
        "faces": sum(face.get("kind") is None for face in faces),
        "released": status[RELEASED],
        "no_face": status[NO_FACE],
        "quarantined": status[QUARANTINED],
        "fallbacks": sum(face["fallback"] in ELLIPSES for face in faces),
        **({"left_out": dict(sorted(left_out.items()))} if left_out else {}),
    }


def _result(shard: Shard, marker: Mapping[str, Any]) -> UnitResult:
    return UnitResult(shard.shard_id, **{name: marker[name] for name in COUNTS})


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
    left_out = (scan.committed(shard.shard_id) or {}).get("left_out", {})
    marker = _marker(name, run_key, {}, manifest, rows, left_out) | active.vouched(shard.shard_id, naming.keyring)
    return _result(shard, marker) if release.commit(name, marker) else None
