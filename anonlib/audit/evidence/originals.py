"""The looks that do not depend on a release: the originals, and the same photos with all their faces redacted.

They are made once a scan and kept in the workspace, so that the second audit of a dataset looks at the release alone.
Of the dataset each photo is opened once, and only if a look at it is missing or a donor's portrait is in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anonlib.audit.evidence.evidence import BASELINES, CLEAR, Look
from anonlib.audit.evidence.observe import (
    LOOKED_WITH,
    RECOGNIZERS,
    Observer,
    Pixels,
    Row,
    Vectors,
    faces_of,
    from_bytes,
    joined,
    to_bytes,
)
from anonlib.datasets import Shard
from anonlib.errors import JobError, NotFound
from anonlib.execution.base import in_chunks
from anonlib.faces.detect import labelled_face
from anonlib.job import Job
from anonlib.media.prefetch import read_image
from anonlib.models.catalog import MODELS
from anonlib.stages.render_state import METHOD_VERSION
from anonlib.synthesis.redact import redact
from anonlib.workspace.layout import AuditStore, audit_store, scan_store

KINDS = (CLEAR, *BASELINES)
MOST = 8000
"""Photos, about, that an audit looks at closely, each a third of a MiB of memory; of a larger dataset people are drawn
by lot, with all of their photos."""


@dataclass(frozen=True)
class ObservedOriginal:
    """Of one shard: the ids of the faces that its photos are of, their looks by KINDS, and portraits by face id."""

    faces: list[str]
    looks: dict[str, Look]
    portraits: dict[str, Vectors]


@dataclass(frozen=True)
class _OriginalPhoto:
    """A photo, its FACES rows, the one it is of if that must be looked at, and those that are portraits to be read."""

    rgb: Pixels
    faces: Sequence[Row]
    main: Row | None
    portraits: Sequence[Row]


class Originals:
    """Looks at the photos of a job's shards."""

    def __init__(self, job: Job, observer: Observer) -> None:
        self.job, self.observer = job, observer
        self.store = looks_room(job)
        self.share = share_of(job)

    def see(self, shard: Shard, faces: Mapping[str, Sequence[Row]], donors: Collection[str]) -> ObservedOriginal:
        """The main faces of a shard whose FACES rows by key are `faces`, and its faces that are `donors`."""
        labelled = self.job.config.input.subject_field is not None
        found = {key: main_of(rows, labelled) for key, rows in faces.items()}
        mains = {key: row for key, row in found.items() if row is not None and drawn(row, self.share)}
        try:
            known, looks = from_bytes(self.store.looks(shard.shard_id), KINDS)
        except NotFound:
            known, looks = [], {}
        ids = {row["face_id"] for row in mains.values()}
        if looks and set(known) != ids:
            path = self.store.looks_path(shard.shard_id)
            raise JobError(f"{path} in the workspace does not fit its scan; remove it and audit again")
        portraits: dict[str, Vectors] = {}
        parts: dict[str, list[Look]] = {kind: [] for kind in KINDS}
        seen: list[str] = []
        photos = self._photos(shard, faces, {} if looks else mains, set(donors) - ids)
        for chunk in in_chunks(photos, self.job.config.limits.chunk):
            self._add_portraits(chunk, portraits)
            shown = [(photo, photo.main) for photo in chunk if photo.main is not None]
            if shown:
                seen += [main["face_id"] for _, main in shown]
                for kind, look in self._looks([photo for photo, _ in shown], [main for _, main in shown]):
                    parts[kind].append(look)
        if not looks:
            known, looks = seen, {kind: joined(some) for kind, some in parts.items()}
            self.store.write_looks(shard.shard_id, to_bytes(known, looks))
        for number, face in enumerate(known):
            if face in donors:
                portraits[face] = {name: looks[CLEAR].vectors[name][[number]] for name in RECOGNIZERS}
        return ObservedOriginal(known, looks, portraits)

    def _photos(
        self, shard: Shard, faces: Mapping[str, Sequence[Row]], mains: Mapping[str, Row], donors: Collection[str]
    ) -> Iterator[_OriginalPhoto]:
        if not mains and not any(row["face_id"] in donors for rows in faces.values() for row in rows):
            return
        for sample in self.job.dataset.read(shard):
            rows, main = faces.get(sample.key, ()), mains.get(sample.key)
            portraits = [row for row in rows if row["face_id"] in donors]
            if main is not None or portraits:
                yield _OriginalPhoto(read_image(sample, self.job.config).rgb, rows, main, portraits)

    def _looks(self, photos: Sequence[_OriginalPhoto], mains: Sequence[Row]) -> Iterator[tuple[str, Look]]:
        """Each kind of look at a chunk, one after another: only one redaction of it is held at a time."""
        images = [photo.rgb for photo in photos]
        clear = self.observer.original(images, mains)
        yield CLEAR, clear
        for how in BASELINES:
            redacted = [_redacted(photo, how) for photo in photos]
            if how == "solid":
                yield how, self.observer.hidden(redacted, mains, clear.mesh)
            else:
                yield how, self.observer.changed(redacted, mains, clear.mesh)

    def _add_portraits(self, photos: Sequence[_OriginalPhoto], portraits: dict[str, Vectors]) -> None:
        shown = [(photo.rgb, row) for photo in photos for row in photo.portraits]
        if not shown:
            return
        images, rows = [rgb for rgb, _ in shown], [row for _, row in shown]
        vectors = self.observer.vectors(images, self.observer.meshes(images, rows))
        for number, row in enumerate(rows):
            portraits[row["face_id"]] = {name: array[[number]] for name, array in vectors.items()}


def looks_room(job: Job) -> AuditStore:
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
    """Whether the lot falls on the person of a FACES row, with all of their photos, or on a face without a label."""
    who = hashlib.sha256(f"audited: {row['label'] or row['face_id']}".encode()).digest()
    return int.from_bytes(who[:8], "big") < share * 2**64


def main_of(rows: Sequence[Row], labelled: bool) -> Row | None:
    """The face that a photo is of: the one with the label, or without labels the large and central one."""
    if labelled:
        return next((row for row in rows if row["label"] is not None), None)
    chosen = labelled_face(faces_of(rows), (rows[0]["height"], rows[0]["width"])) if rows else -1
    return rows[chosen] if chosen >= 0 else None


def _redacted(photo: _OriginalPhoto, how: str) -> Pixels:
    """A copy with every face that the scan found redacted, as a release by that method has it."""
    image = photo.rgb.copy()
    for row in photo.faces:
        redact(image, np.array(row["box"], np.float32), how)
    return image
