"""Plan: all faces together. Which person each face shows, the classes, and the surrogate of each face.

One process over the feature columns; the method decides, this file reads what the scan left and writes the tables. All
refusals are made here and by the person's class, none while rendering, so that none of them says how alike a face and
its surrogate are. Textures of surrogates need pixels, so they are made after it, a block at a time on any worker; a
single person's draw is not stored as a texture, which would be larger than the photos.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.config import JobConfig
from anonlib.datasets import Shard
from anonlib.execution.base import UnitResult, current
from anonlib.faces.regions import why_hidden
from anonlib.methods import method_of
from anonlib.methods.base import Assignment, EarlierReleases, Persons, SurrogateAssignment
from anonlib.models.requirements import device_of
from anonlib.privacy.keys import Keyring
from anonlib.stages.people import (
    FEATURES,
    PLACES,
    VECTORS,
    People,
    best_portraits,
    donor_faces_of,
    face_vectors,
    people_of,
    persons_of,
    seen_at_once,
)
from anonlib.storage.scratch import scratch
from anonlib.synthesis.base import IdentityDraw
from anonlib.synthesis.describe import crop_and_mesh, happiness
from anonlib.synthesis.textures.average import Portrait, member_texture, portrait
from anonlib.workspace import tables
from anonlib.workspace.layout import PLAN_COUNTS, JobStores, plan_store, scan_store, sha256
from anonlib.workspace.ledger_store import LedgerStore
from anonlib.workspace.schemas import ASSIGNMENTS, CLASSES, DRAWS, FACES, SUBJECTS, SURROGATES
from anonlib.workspace.schemas import PORTRAITS as PORTRAIT_ROWS

ASSIGNED = ("landmarks", "presence", "yaw", "bare", *(name for name in ASSIGNMENTS.names if name in FACES.names))
"""Columns of FACES that an assignment needs."""
BLOCK = 16
"""Surrogates that are made as one unit of work."""


@dataclass(frozen=True)
class Plan:
    """What `plan` decided: `blocks` of surrogates to make, how many persons and classes, and the digest of it all."""

    key: str
    digest: str
    blocks: tuple[str, ...] = ()
    persons: int = 0
    classes: int = 0

    @classmethod
    def of_redaction(cls, key: str) -> Plan:
        """That of a redaction, which decides nothing."""
        return cls(key, hashlib.sha256().hexdigest())


class PlanStage:
    """`run(shards)` writes subjects, classes, draws and assignments of a job, and claims the plan's marker last."""

    def __init__(
        self, job: JobConfig, stores: JobStores, keyring: Keyring, scan_key: str, key: str, models: Mapping[str, bytes]
    ) -> None:
        self.job, self.keyring, self.key = job, keyring, key
        self.scan = scan_store(stores, scan_key)
        self.store = plan_store(stores, key)
        self.method = method_of(job.method, models, device_of(job))
        self._digest = hashlib.sha256()

    def run(self, shards: Sequence[Shard]) -> Plan:
        """Plan the whole dataset, or read the plan that is already there."""
        marker = self.store.plan()
        if marker is None:
            self._digest = hashlib.sha256()
            # A redaction needs no subjects: every face gets the job's method.
            written = self._write(shards) if self.method.synthesis else {"blocks": []} | dict.fromkeys(PLAN_COUNTS, 0)
            self.store.commit("plan", written | {"digest": self._digest.hexdigest()})
            marker = self.store.plan() or {}
        return Plan(self.key, marker["digest"], tuple(marker["blocks"]), marker["persons"], marker["classes"])

    def _write(self, shards: Sequence[Shard]) -> dict[str, Any]:
        tables, apart, count = list[pa.Table](), list[list[int]](), 0
        for shard in shards:
            of_shard = self._faces(shard, (*FEATURES, *PLACES))
            apart += [[count + row for row in group] for group in seen_at_once(of_shard)]
            count += of_shard.num_rows
            tables.append(of_shard.select(list(FEATURES)))
        faces = pa.concat_tables(tables)
        with scratch() as folder:
            read = partial(map, lambda shard: self._faces(shard, VECTORS), shards)
            people = people_of(faces, face_vectors(read, faces.num_rows, folder), self.keyring, apart)
        replaced = np.array([reason is None for reason in self.method.eligible(faces)], bool)
        persons = persons_of(people, replaced)
        earlier = EarlierReleases()
        ledger = LedgerStore.open(self.job, self.key)
        if ledger and self.job.ledger:
            names = ledger.persons(persons, self.keyring)
            if len(set(names)) < len(names):
                persons = persons_of(people, replaced, names)
                names = list(dict.fromkeys(names))
            known = self.job.ledger.absences == "known"
            earlier = EarlierReleases(names, ledger.releases(), ledger.crowds(), known)
        persons = replace(persons, portraits=best_portraits(faces, persons.of_face, donor_faces_of(faces)))
        planned = self.method.plan(persons, self.keyring, earlier)
        if ledger:
            ledger.book(self.job, self.keyring.release, planned.bookings(persons, names))
        face_ids = faces.column("face_id").to_pylist()
        blocks = self._write_classes(planned, face_ids)
        self._write_subjects(people, persons, planned, face_ids)
        redacted = self._write_assignments(shards, persons, planned)
        self.store.write_labels(people.doubts)
        return {
            "blocks": blocks,
            "subjects": len(people.ids),
            "persons": len(persons.ids),
            "classes": len(planned.classes),
            "redacted": redacted,
            "disagreements": len(people.doubts),
        }

    def _write_classes(self, planned: Assignment, face_ids: Sequence[str]) -> list[str]:
        """classes.parquet, and surrogate_plans/BLOCK with the portraits of their donors; returns the blocks."""
        classes = [asdict(row) | {"stratum": list(row.stratum)} for row in planned.classes]
        self._publish(tables.of_rows(classes, CLASSES), "classes")
        blocks = []
        for start in range(0, len(planned.surrogates), BLOCK):
            rows = [
                {
                    "surrogate_id": plan.surrogate_id,
                    "donors": plan.donors,
                    "portraits": [[face_ids[face] for face in faces] for faces in plan.portraits],
                    "stratum": list(plan.stratum),
                    "draw": plan.draw and asdict(plan.draw),
                }
                for plan in planned.surrogates[start : start + BLOCK]
            ]
            blocks.append(f"block-{start // BLOCK:05d}")
            self._publish(tables.of_rows(rows, SURROGATES), "surrogate_plans", blocks[-1])
        return blocks

    def _write_subjects(self, people: People, persons: Persons, planned: Assignment, face_ids: Sequence[str]) -> None:
        order = np.argsort(people.of_face, kind="stable")
        bounds = np.searchsorted(people.of_face[order], np.arange(len(people.ids) + 1))
        rows = []
        for number, subject_id in enumerate(people.ids):
            faces = order[bounds[number] : bounds[number + 1]].tolist()
            person = persons.of_face[faces[0]]
            assigned = planned.persons[person]
            rows.append(
                {
                    "subject_id": subject_id,
                    "person_id": persons.ids[person],
                    "formed_by": "clustering" if people.labels[number] is None else "label",
                    "faces": [face_ids[face] for face in faces],
                    "template": people.template[number],
                    "female": float(people.female[number]),
                    "age": float(people.age[number]),
                    "stratum": list(persons.strata[person]),
                    "class_id": assigned.class_id,
                    "surrogates": list(assigned.surrogates),
                }
            )
        self._publish(tables.of_rows(rows, SUBJECTS), "subjects")

    def _write_assignments(self, shards: Sequence[Shard], persons: Persons, planned: Assignment) -> int:
        """assignments/SHARD for every shard, an empty one too, and the draws it needs; returns the faces redacted."""
        first = redacted = 0
        for shard in shards:
            regions = self.scan.faces(shard.shard_id, ASSIGNED)
            faces = regions.filter(regions.column("kind").is_null())
            of_face = []
            # Which faces get the fallback is decided from what the scan saw, and not while rendering: so the plan
            # knows whose faces will show a surrogate, and counts nobody else towards k.
            for person, reason in zip(persons.of_face[first:], self.method.eligible(faces), strict=False):
                assigned = planned.persons[person] if reason is None else SurrogateAssignment(reason=reason)
                redacted += not assigned.surrogates
                of_face.append(assigned)
            first += faces.num_rows
            self._publish(assignment_table(regions, of_face), "assignments", shard.shard_id)
            if planned.draws:
                names = sorted({name for assigned in of_face for name in assigned.surrogates})
                drawn = [{"surrogate": name, "draw": asdict(planned.draws[name])} for name in names]
                self._publish(tables.of_rows(drawn, DRAWS), "draws", shard.shard_id)
        return redacted

    def _faces(self, shard: Shard, columns: Sequence[str]) -> pa.Table:
        """Columns of the FACES of a shard, of the regions that are faces."""
        regions = self.scan.faces(shard.shard_id, (*columns, "kind"))
        if regions.column("kind").null_count < regions.num_rows:
            regions = regions.filter(regions.column("kind").is_null())
        return regions.select(list(columns))

    def _publish(self, table: pa.Table, *parts: str) -> None:
        self._digest.update(f"{'/'.join(parts)} {self.store.write(table, *parts)}\n".encode())


def assignment_table(regions: pa.Table, of_face: Iterable[SurrogateAssignment]) -> pa.Table:
    """ASSIGNMENTS of a shard, by column, since meshes as Python numbers are large; what is no face is hidden."""
    faces = iter(of_face)
    assigned = [
        next(faces) if kind is None else SurrogateAssignment(reason=why_hidden(kind))
        for kind in regions.column("kind").to_pylist()
    ]
    decided = {
        "class_id": [of.class_id for of in assigned],
        "surrogates": [list(of.surrogates) or None for of in assigned],
        "reason": [of.reason for of in assigned],
    }
    columns = [
        pa.array(decided[field.name], field.type) if field.name in decided else regions.column(field.name)
        for field in ASSIGNMENTS
    ]
    return pa.table(columns, schema=ASSIGNMENTS)


_FINER = 2
"""How many times finer than the canonical frame surrogates are, where the photos of their donors allow it."""


class SurrogateStage:
    """`run(block)` makes surrogates/SURROGATE.npz for the surrogates of a block."""

    name = "surrogates"

    def __init__(self, job: JobConfig, stores: JobStores, scan_key: str, key: str, models: Mapping[str, bytes]) -> None:
        cv2.setNumThreads(1)
        self.scan = scan_store(stores, scan_key)
        self.store = plan_store(stores, key)
        self.method = method_of(job.method, models, device_of(job))

    def run(self, block: str) -> UnitResult:
        """Make one block's surrogates."""
        planned = self.store.surrogate_plans([block])
        wanted = {face for row in planned for faces in row["portraits"] for face in faces}
        watch = current()
        with watch.timed("read"):
            photos = self._photos(wanted)
        row_of = {face: row for row, face in enumerate(photos.column("face_id").to_pylist())}

        def portrait_of(face: str) -> Portrait:
            photo = photos.slice(row_of[face], 1).to_pylist()[0]
            return portrait(*crop_and_mesh(photo), happiness(photo["expression"]), photo["age"], _FINER)

        digests = {}
        for row in planned:
            with watch.timed("replace"):
                # Portraits are large, a hundred times a crop: those of one surrogate at a time.
                members = [member_texture([portrait_of(face) for face in faces]) for faces in row["portraits"] if faces]
                draw = row["draw"] and IdentityDraw.of_row(row["draw"])
                data = self.method.texture(draw, members).to_bytes()
            digests[row["surrogate_id"]] = sha256(data)
            with watch.timed("publish"):
                self.store.write_surrogate(row["surrogate_id"], data)
            watch.written += len(data)
        self.store.commit_block(block, digests)
        return UnitResult(block, faces=len(wanted))

    def _photos(self, wanted: set[str]) -> pa.Table:
        """Crops and meshes of the wanted faces; only the row groups of the scan that hold one are opened."""
        by_shard: dict[str, set[str]] = {}
        for face in wanted:
            by_shard.setdefault(face.partition("/")[0], set()).add(face)
        photos = [PORTRAIT_ROWS.empty_table()]
        for shard, faces in sorted(by_shard.items()):
            data = self.scan.face_bytes(shard)
            current().read += len(data)
            file = pq.ParquetFile(io.BytesIO(data))
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, columns=["face_id"]).column(0).to_pylist()
                if not faces.isdisjoint(ids):
                    rows = file.read_row_group(group, columns=PORTRAIT_ROWS.names)
                    photos.append(rows.filter(pa.array([face in faces for face in ids])))
        return pa.concat_tables(photos).combine_chunks()
