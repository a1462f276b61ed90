"""Render: every image once more. Replace each face, check the output, write the shard and its manifest.

Fail closed. Per face: the method, or the flat ellipse that the plan decided on. The output is embedded by recognizers
that the method did not use; of a method that claims nothing, a face that still matches its source gets the next
surrogate, then a flat ellipse. A method that claims k or epsilon refuses no face for its looks, because the refusal
would tell them; a face whose px are still the source's gets the flat ellipse (see `check`). Per image: whatever goes
wrong ends in a row `quarantined` with the reason and no output. An original face px is never written because something
went wrong.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

import cv2

from anonlib.codes import Problem, Reason
from anonlib.config import JobConfig
from anonlib.datasets import Dataset, Sample, Shard, ShardWriter
from anonlib.errors import ImageProblem, StorageError, contained, kind_and_message
from anonlib.execution.base import UnitResult, current
from anonlib.media.codec import Picture, encode
from anonlib.media.prefetch import chunks_ahead, sample_bytes, try_to_read
from anonlib.methods import method_of
from anonlib.methods.base import Method
from anonlib.methods.redaction import FLAT
from anonlib.models.requirements import ModelBytes, device_of
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.stages.recheck import NearSubjectCheck, OutputRecheck, keeps_source
from anonlib.stages.render_state import MATCHED, FaceState, ImageState, PlannedSurrogates, Replacements
from anonlib.stages.rerender import ActiveDecisions, carry_out, take_back
from anonlib.storage.scratch import scratch
from anonlib.verification.certificate import NONE
from anonlib.workspace.decisions import DecisionLog
from anonlib.workspace.layout import (
    RUN_NOTE,
    JobStores,
    RenderStore,
    ScanStore,
    plan_store,
    release_store,
    render_store,
    scan_store,
    sha256,
)
from anonlib.workspace.release import Naming
from anonlib.workspace.schemas import NO_FACE, QUARANTINED, RELEASED, SOLID

_COUNTS = ("images", "faces", "released", "no_face", "quarantined", "fallbacks")


class RenderStage:
    """Holds the checkers and a few surrogates; `run(shard)` writes data, manifest and marker of one shard.

    Several threads may run shards at once.
    """

    name = "render"

    def __init__(
        self,
        job: JobConfig,
        dataset: Dataset,
        stores: JobStores,
        keyring: Keyring,
        keys: dict[str, str],
        models: ModelBytes,
        active: ActiveDecisions,
    ) -> None:
        cv2.setNumThreads(1)
        self.job, self.dataset, self.keyring, self.key = job, dataset, keyring, keys["render"]
        self.active, self.log = active, DecisionLog(stores.workspace, self.key)
        self.scan = scan_store(stores, keys["scan"])
        self.plan = plan_store(stores, keys["plan"])
        self.release = release_store(stores)
        self.method: Method = method_of(job.method, models, device_of(job))
        self.chooses_again = self.method.claim.kind == NONE
        self.notes = render_store(stores, keys["render"])
        self.naming = Naming(keyring, job.rekey)
        self.checker = OutputRecheck(job, models) if self.method.synthesis else None
        self.replacements = Replacements(self.method)
        self.near_subjects = NearSubjectCheck.of(job, models, self.method, self.plan)

    def run(self, shard: Shard) -> UnitResult:
        """Render one shard; safe to repeat and to race, since the same shard gives the same bytes."""
        if finished := self._finished(shard):
            return finished
        watch = current()
        watch.read += shard.bytes
        with scratch() as folder:
            rows: list[dict[str, Any]] = []
            figures: list[dict[str, Any]] = []
            local = folder / "shard"
            name, keep = self.naming.new_shard(shard.shard_id), frozenset(self.job.keep_fields)
            with self.dataset.writer(shard, local, keep, name) as writer:
                self._write(shard, writer, rows, figures)
            rows.sort(key=lambda row: row.pop("position"))
            publish_reasons(self.notes, shard.shard_id, rows)
            rows = self.naming.sorted(rows)
            with watch.timed("publish"):
                return self._publish(shard, writer, rows, figures)

    def _finished(self, shard: Shard) -> UnitResult | None:
        """What the marker says, if another job was faster. Raises StorageError if this attempt must not go on.

        Asked before the work and again before every file is written, because a worker that was asleep, or whose driver
        died, may wake up when decisions were made that it does not know, or another job began here.
        """
        if self.release.run()["run"] != self.key:
            raise StorageError(
                f"The output {self.release.storage.uri} now holds a release of another job (its {RUN_NOTE} differs), "
                "so this one writes nothing more there."
            )
        if any(entry.shard == shard.shard_id for entry in self.log.entries(self.active.logged)):
            raise StorageError(
                f"A reviewer has decided on shard {shard.shard_id} since this run began; run it again, so that the "
                "decision is carried out."
            )
        marker = self.release.committed(self.naming.shard(shard.shard_id))
        return None if marker is None else UnitResult(shard.shard_id, **{name: marker[name] for name in _COUNTS})

    def _write(
        self, shard: Shard, writer: ShardWriter, rows: list[dict[str, Any]], figures: list[dict[str, Any]]
    ) -> None:
        """Every photo of a shard, chunk by chunk, in order."""
        planned: dict[str, list[dict[str, Any]]] = defaultdict(list)
        with current().timed("read"):
            scanned = {row["key"]: row for row in self.scan.images(shard.shard_id).to_pylist()}
            for row in self.plan.assignments(shard.shard_id).to_pylist():
                planned[row["key"]].append(row)
            planned_surrogates = PlannedSurrogates(self.plan, self.keyring, shard.shard_id)

        def read(sample: Sample) -> Picture | ImageProblem:
            known = scanned.get(sample.key)
            if known is None:
                return ImageProblem(Reason.NOT_SCANNED)
            if known["problem"] is not None and not self.active.released(shard.shard_id, sample.key):
                return ImageProblem(Reason.of(known["reason"]), known["problem"])
            picture = try_to_read(sample, self.job)
            if isinstance(picture, Picture) and picture.rgb.shape[:2] != (known["height"], known["width"]):
                return ImageProblem(Reason.CHANGED)
            return picture

        # Only the checker gains from many photos at once; one at a time stays in the processor's cache.
        most, cost = (
            self.job.limits.chunk if self.checker else 1,
            partial(sample_bytes, job=self.job, copies=2 if self.checker else 1),
        )
        bounds = {"most": most, "budget": self.job.shard_bytes}
        for chunk in chunks_ahead(read, self.dataset.read(shard), cost, timed=current().timed, **bounds):
            photos = self._photos(shard, chunk, planned, rows)
            self._render(photos, planned_surrogates)
            with current().timed("encode"):
                self._finish(photos, writer, rows, shard)
            for photo in photos:
                key = self.naming.key(shard.shard_id, photo.sample.key)
                figures += [face.figures(key) for face in photo.faces]
            del photos

    def _photos(
        self,
        shard: Shard,
        chunk: list[tuple[Sample, Picture | ImageProblem]],
        planned: Mapping[str, list[dict[str, Any]]],
        rows: list[dict[str, Any]],
    ) -> list[ImageState]:
        """Readable photos with their planned faces; unreadable ones get their row at once."""
        photos = []
        for sample, picture in chunk:
            if isinstance(picture, ImageProblem):
                rows.append(self._row(sample, shard, QUARANTINED, Problem(picture.reason, str(picture))))
                continue
            faces = [
                FaceState(row, row["method"], list(row["surrogates"] or ()), reason=row["reason"])
                for row in planned[sample.key]
            ]
            for face in faces:
                face.fallback = "solid" if face.reason else None
            # A redaction never looks back at the original, so it paints straight into it.
            photo = ImageState(sample, picture, faces, picture.rgb.copy() if self.checker and faces else picture.rgb)
            carry_out(self.active.of(shard.shard_id, sample.key), photo)
            photos.append(photo)
        return photos

    def _render(self, chunk: list[ImageState], source: PlannedSurrogates) -> None:
        """Replace and check every face of a chunk; a photo that fails keeps the reason and loses its pixels."""
        open_faces = [(photo, face) for photo in chunk for face in photo.faces]
        while open_faces:
            with current().timed("replace"):
                for photo, face in open_faces:
                    self._replace(photo, face, source)
            checkable = [
                (p, f) for p, f in open_faces if p.problem is None and f.method == self.method.name and f.tries
            ]
            if self.checker is None or not checkable:
                break
            failed = self._still_matching(self.checker, checkable)
            if not self.chooses_again:
                failed = [(photo, face) for photo, face in checkable if keeps_source(photo.rgb, photo.out, face.box)]
                for _, face in failed:
                    face.why = "left the source's px where they were"
            # A retry repaints the whole photo, so that no trace of the first try stays under the second.
            again = {id(photo) for photo, _ in failed}
            for photo in chunk:
                if id(photo) in again:
                    photo.out = photo.picture.rgb.copy()
            for _, face in failed:
                face.tries.pop(0)
            open_faces = [(photo, face) for photo in chunk if id(photo) in again for face in photo.faces]

    def _still_matching(
        self, checker: OutputRecheck, faces: list[tuple[ImageState, FaceState]]
    ) -> list[tuple[ImageState, FaceState]]:
        """Faces to try again, and why; if the check of all fails, photo by photo, so that only the culprit is lost."""
        photos = {id(photo): photo for photo, _ in faces}
        with contained("checking the output") as failure:
            with current().timed("check"):
                failed = checker.check(faces)
            matching = {id(face) for _, face in failed}
            for _, face in failed:
                face.why = MATCHED
            left = [(photo, face) for photo, face in faces if id(face) not in matching]
            if self.near_subjects and left:
                with current().timed("check"):
                    near = [pair for pair, close in zip(left, self.near_subjects.near(left), strict=True) if close]
                for _, face in near:
                    face.why = "came near somebody of the dataset"
                failed += near
            return failed
        assert failure.error is not None
        if len(photos) == 1:
            sentence = f"checking the output failed: {kind_and_message(failure.error)}"
            faces[0][0].problem = Problem(Reason.CHECK_FAILED, sentence)
            return []
        return [
            pair
            for photo in photos.values()
            for pair in self._still_matching(checker, [(owner, face) for owner, face in faces if owner is photo])
        ]

    def _replace(self, photo: ImageState, face: FaceState, source: PlannedSurrogates) -> None:
        """Paint one face into `photo.out`, by its next surrogate if it has one left, else by the redaction."""
        if photo.problem is not None:
            return
        with contained("replacing a face") as failure:
            if face.method == self.method.name and face.tries:
                replacement = self.replacements.get(face.tries[0], source)
                face.coverage, face.digest = replacement.apply(photo.out, face), replacement.digest
                face.fallback = "next-surrogate" if face.tries[0] != face.planned["surrogates"][0] else None
                face.reason = f"the first surrogate {face.why}" if face.fallback else None
                return
            if face.reason is None or face.fallback == "next-surrogate":
                face.reason = f"every surrogate was tried, and the last {face.why}"
            face.method, face.tries, face.digest, face.coverage = FLAT.kind, [], None, 1.0
            face.fallback = face.fallback if face.fallback in SOLID else "solid"
            face.findings, face.detected_again = [], None
            FLAT.apply(photo.out, face)
        if failure.error is not None:
            sentence = f"replacing a face failed: {kind_and_message(failure.error)}"
            photo.problem = Problem(Reason.REPLACE_FAILED, sentence)

    def _finish(self, chunk: list[ImageState], writer: ShardWriter, rows: list[dict[str, Any]], shard: Shard) -> None:
        """Encode and write a chunk in order."""
        for photo in chunk:
            data = None
            if photo.problem is None:
                with contained("encoding a photo") as failure:
                    data = encode(photo.out, photo.picture, jpeg_quality=self.job.jpeg_quality)
                if failure.error is not None:
                    sentence = f"encoding failed: {kind_and_message(failure.error)}"
                    photo.problem = Problem(Reason.ENCODE_FAILED, sentence)
            if data is None:
                rows.append(self._row(photo.sample, shard, QUARANTINED, photo.problem, photo))
                continue
            new = self.naming.key(shard.shard_id, photo.sample.key) if self.job.rekey else None
            writer.write(photo.sample, data, new)
            status = RELEASED if photo.faces else NO_FACE
            rows.append(self._row(photo.sample, shard, status, None, photo) | {"output_sha256": sha256(data)})

    def _row(
        self, sample: Sample, shard: Shard, status: str, problem: Problem | None, photo: ImageState | None = None
    ) -> dict[str, Any]:
        """A MANIFEST row, with the sample's own key, its position and its problem beside it until it is written."""
        picture = photo.picture if photo else None
        return {
            "position": sample.position,
            "own_key": sample.key,
            "problem": problem,
            "key": self.naming.key(shard.shard_id, sample.key),
            "status": status,
            "reason": None if problem is None else problem.reason,
            "path": None if status == QUARANTINED else self.naming.path(self.dataset, shard),
            "input_hmac": self.keyring.digest(Purpose.INPUT, sample.image).hex() if sample.image else None,
            "height": picture.rgb.shape[0] if picture else None,
            "width": picture.rgb.shape[1] if picture else None,
            "format": picture.format if picture else None,
            "metadata_stripped": list(picture.stripped) if picture else None,
            "notes": list(picture.notes) if picture else None,
            "faces": [face.row(self.method.claim) for face in photo.faces] if photo else [],
            "review": self.active.word(shard.shard_id, sample.key),
        }

    def _publish(
        self, shard: Shard, writer: ShardWriter, rows: list[dict[str, Any]], figures: list[dict[str, Any]]
    ) -> UnitResult:
        """Data, then manifest, then marker, none of which replaces anything; see rerender.py for workers that are late.

        Nothing of this attempt stays if another job has committed the shard meanwhile without it.
        """
        name, created = self.naming.shard(shard.shard_id), list[str]()
        self.notes.write_faces(name, figures)
        try:
            return self._create(shard, writer, rows, created)
        finally:
            take_back(self.release, name, created)

    def _create(self, shard: Shard, writer: ShardWriter, rows: list[dict[str, Any]], created: list[str]) -> UnitResult:
        """As _publish; `created` gets the paths of data that was not there before, until the marker vouches for it."""
        files = {}
        for path, local in writer.outputs():
            with local.open("rb") as stream:
                files[path] = hashlib.file_digest(stream, "sha256").hexdigest()
            current().written += local.stat().st_size
            if finished := self._finished(shard):
                return finished
            if self.release.storage.create(path, local):
                created.append(path)
        if finished := self._finished(shard):
            return finished
        name = self.naming.shard(shard.shard_id)
        manifest = self.release.create_manifest(name, rows)
        counts = Counter(row["status"] for row in rows)
        faces = [face for row in rows for face in row["faces"]]
        summary: dict[str, Any] = {
            "images": len(rows),
            "faces": len(faces),
            "released": counts[RELEASED],
            "no_face": counts[NO_FACE],
            "quarantined": counts[QUARANTINED],
            "fallbacks": sum(face["fallback"] in SOLID for face in faces),
        }
        marker = {
            "shard": name,
            "run": self.key,
            "files": files,
            "manifest_sha256": manifest,
            **self.active.vouched(shard.shard_id, self.keyring),
            **summary,
        }
        if not self.release.commit(name, marker) and self.release.committed(name) != marker:
            raise StorageError(
                f"Another job, or this one with other decisions, committed shard {shard.shard_id} while this one wrote "
                f"it; delete {self.release.marker(name)} and certificate.json in "
                f"{self.release.storage.uri}, and run the job again that the release is to be of."
            )
        created.clear()
        return UnitResult(shard.shard_id, **summary)


def publish_reasons(notes: RenderStore, shard_id: str, rows: list[dict[str, Any]]) -> None:
    """Take each row's `own_key` and `problem` out of it, and write what was quarantined and why into the workspace."""
    problems = [(row.pop("own_key"), row.pop("problem")) for row in rows]
    found = [
        {"key": key, "reason": problem.reason, "sentence": str(problem)}
        for key, problem in problems
        if problem is not None
    ]
    if found:
        notes.write_reasons(shard_id, found)


def quarantine_shard(
    shard: Shard, why: str, stores: JobStores, scan: ScanStore, run_key: str, naming: Naming, active: ActiveDecisions
) -> UnitResult | None:
    """Write the manifest and the marker of a lost shard; None if another driver has written a marker before.

    Raises Differs if an attempt that was cut off has left another manifest.
    """
    release, name = release_store(stores), naming.shard(shard.shard_id)
    if release.committed(name) is not None:
        return None
    keys = scan.images(shard.shard_id, ["key"]).column("key").to_pylist()
    problem = Problem(Reason.SHARD_FAILED, f"the shard failed: {why}")
    rows = [
        {
            "own_key": key,
            "problem": problem,
            "key": naming.key(shard.shard_id, key),
            "review": active.word(shard.shard_id, key),
            "status": QUARANTINED,
            "reason": problem.reason,
            "faces": [],
        }
        for key in keys
    ]
    publish_reasons(render_store(stores, run_key), shard.shard_id, rows)
    manifest = release.create_manifest(name, naming.sorted(rows))
    counts = {"images": len(rows), "faces": 0, "released": 0, "no_face": 0, "quarantined": len(rows), "fallbacks": 0}
    claimed = release.commit(
        name,
        {
            "shard": name,
            "run": run_key,
            "files": {},
            "manifest_sha256": manifest,
            **active.vouched(shard.shard_id, naming.keyring),
            **counts,
        },
    )
    return UnitResult(shard.shard_id, images=len(rows), quarantined=len(rows)) if claimed else None
