"""Plan: all faces together. Which person each face shows, the classes, and the surrogate of each face.

One process over the feature columns; pixels stay where they are. The method decides; this file reads what the scan
left and writes the tables. A face that cannot be replaced, and a person without a surrogate, are assigned to the solid
redaction with the reason. All refusals are made here and by the person's class, none while rendering, so that none of
them says how alike a face and its surrogate are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from anonlib.config import JobConfig
from anonlib.datasets import Shard
from anonlib.methods import method_of
from anonlib.methods.base import Assignment, EarlierReleases, Method, Persons, SurrogateAssignment, SurrogatePlan
from anonlib.methods.redaction import FLAT
from anonlib.models.requirements import device_of
from anonlib.privacy.keys import Keyring
from anonlib.stages.people import (
    FEATURES,
    VECTORS,
    People,
    best_portraits,
    donor_faces_of,
    face_vectors,
    people_of,
    persons_of,
)
from anonlib.storage.scratch import scratch
from anonlib.workspace import tables
from anonlib.workspace.layout import PLAN_COUNTS, JobStores, plan_store, scan_store
from anonlib.workspace.ledger_store import LedgerStore
from anonlib.workspace.schemas import ASSIGNMENTS, CLASSES, DRAWS, SUBJECTS, SURROGATES

ASSIGNED = ("face_id", "key", "index", "kind", "box", "landmarks", "mesh", "expression", "presence", "yaw", "bare")
"""Columns of FACES that an assignment needs."""
BLOCK = 16
"""Surrogates that are made as one unit of work."""


@dataclass(frozen=True)
class Plan:
    """What `plan` decided: `blocks` of surrogates to make, and the digest of it all.

    `disagreements`: sentences in labels.txt of the plan's room about labels that do not fit their faces.
    """

    key: str
    digest: str
    blocks: tuple[str, ...]
    subjects: int
    persons: int
    classes: int
    redacted: int
    disagreements: int


def plan_of(key: str, marker: Mapping[str, Any]) -> Plan:
    """The plan that a marker vouches for."""
    return Plan(key, marker["digest"], tuple(marker["blocks"]), *(marker[name] for name in PLAN_COUNTS))


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
        known = self.store.plan()
        if known is None:
            self._digest = hashlib.sha256()
            self.store.commit("plan", self._write(shards) if self.method.synthesis else self._redact_all(shards))
            known = self.store.plan() or {}
        return plan_of(self.key, known)

    def _write(self, shards: Sequence[Shard]) -> dict[str, Any]:
        faces = pa.concat_tables([self._faces(shard, FEATURES) for shard in shards])
        with scratch() as folder:
            read = partial(map, lambda shard: self._faces(shard, VECTORS), shards)
            people = people_of(faces, face_vectors(read, faces.num_rows, folder), self.keyring)
        replaced = np.array([reason is None for reason in self.method.eligible(faces)], bool)
        persons = persons_of(people, replaced)
        ledger = LedgerStore.open(self.job, self.key)
        names: list[str] = []
        if ledger:
            names = ledger.persons(persons, self.keyring)
            if len(set(names)) < len(names):
                persons = persons_of(people, replaced, names)
                names = list(dict.fromkeys(names))
        persons = replace(persons, portraits=best_portraits(faces, persons.of_face, donor_faces_of(faces)))
        planned = self.method.plan(persons, self.keyring, self._earlier(ledger, names))
        if ledger:
            ledger.book(self.job, self.keyring.release, self.method.kind, planned.ledger)
        face_ids = faces.column("face_id").to_pylist()
        blocks = self._write_classes(planned, face_ids)
        self._write_subjects(people, persons, planned, face_ids)
        redacted = self._write_assignments(shards, persons, planned)
        disagreements = people.label_check.sentences()
        self.store.write_labels(disagreements)
        return {
            "digest": self._digest.hexdigest(),
            "blocks": blocks,
            "subjects": len(people.ids),
            "persons": len(persons.ids),
            "classes": len(planned.classes),
            "redacted": redacted,
            "disagreements": len(disagreements),
        }

    def _earlier(self, ledger: LedgerStore | None, names: list[str]) -> EarlierReleases:
        """What a ledger knows of the persons with these lasting names."""
        if ledger is None or self.job.ledger is None:
            return EarlierReleases()
        draws = ledger.drawn(self.method.kind) if self.method.settings.draw == "reuse" else {}
        known = self.job.ledger.absences == "known"
        return EarlierReleases(names, draws, ledger.releases(), ledger.crowds(), known)

    def _redact_all(self, shards: Sequence[Shard]) -> dict[str, Any]:
        """A redaction needs no subjects: every face gets the job's method."""
        for shard in shards:
            regions = self.scan.faces(shard.shard_id, ASSIGNED)
            redacted = [SurrogateAssignment((self.method.name,))] * regions.num_rows
            self._publish(assignment_table(self.method, regions, redacted), "assignments", shard.shard_id)
        return {"digest": self._digest.hexdigest(), "blocks": []} | dict.fromkeys(PLAN_COUNTS, 0)

    def _write_classes(self, planned: Assignment, face_ids: Sequence[str]) -> list[str]:
        """classes.parquet, and surrogate_plans/BLOCK with the portraits of their donors; returns the blocks."""
        classes = [asdict(row) | {"stratum": list(row.stratum)} for row in planned.classes]
        self._publish(tables.of_rows(classes, CLASSES), "classes")
        blocks = []
        for start in range(0, len(planned.surrogates), BLOCK):
            rows = [surrogate_row(row, face_ids) for row in planned.surrogates[start : start + BLOCK]]
            blocks.append(f"block-{start // BLOCK:05d}")
            self._publish(tables.of_rows(rows, SURROGATES), "surrogate_plans", blocks[-1])
        return blocks

    def _write_subjects(self, people: People, persons: Persons, planned: Assignment, face_ids: Sequence[str]) -> None:
        order = np.argsort(people.of_face, kind="stable")
        bounds = np.searchsorted(people.of_face[order], np.arange(len(people.ids) + 1))
        rows = []
        for number in range(len(people.ids)):
            faces = order[bounds[number] : bounds[number + 1]].tolist()
            assigned = planned.persons[persons.of_face[faces[0]]]
            rows.append(subject_row(people, persons, number, faces, assigned, face_ids))
        self._publish(tables.of_rows(rows, SUBJECTS), "subjects")

    def _write_assignments(self, shards: Sequence[Shard], persons: Persons, planned: Assignment) -> int:
        """assignments/SHARD for every shard, an empty one too, and the draws it needs; returns the faces redacted."""
        first = redacted = 0
        for shard in shards:
            regions = self.scan.faces(shard.shard_id, ASSIGNED)
            faces = regions.filter(is_face(regions))
            of_face = [planned.persons[person] for person in persons.of_face[first : first + faces.num_rows]]
            first += faces.num_rows
            # Which faces get the flat ellipse is decided from what the scan saw, and not while rendering: so the plan
            # knows whose faces will show a surrogate, and counts nobody else towards k.
            reasons = [reason or of.reason for reason, of in zip(self.method.eligible(faces), of_face, strict=True)]
            of_face = [
                of if reason is None else SurrogateAssignment(reason=reason)
                for of, reason in zip(of_face, reasons, strict=True)
            ]
            redacted += sum(reason is not None for reason in reasons)
            self._publish(assignment_table(self.method, regions, of_face), "assignments", shard.shard_id)
            if planned.draws:
                names = sorted({name for of in of_face for name in of.surrogates})
                drawn = [{"surrogate": name, "draw": asdict(planned.draws[name])} for name in names]
                self._publish(tables.of_rows(drawn, DRAWS), "draws", shard.shard_id)
        return redacted

    def _faces(self, shard: Shard, columns: Sequence[str]) -> pa.Table:
        """Columns of the FACES of a shard, of the regions that are faces."""
        regions = self.scan.faces(shard.shard_id, (*columns, "kind"))
        if regions.column("kind").null_count < regions.num_rows:
            regions = regions.filter(is_face(regions))
        return regions.select(list(columns))

    def _publish(self, table: pa.Table, *parts: str) -> None:
        self._digest.update(f"{'/'.join(parts)} {self.store.write(table, *parts)}\n".encode())


def is_face(regions: pa.Table) -> pa.Array:
    """Which rows of FACES (n,) are faces."""
    return regions.column("kind").is_null()


def assignment_table(method: Method, regions: pa.Table, of_face: Sequence[SurrogateAssignment]) -> pa.Table:
    """ASSIGNMENTS of a shard's regions, of which each face has an assignment and the others get the flat ellipse.

    Column by column, since a mesh as Python numbers costs 40 KiB a face.
    """
    faces = iter(of_face)
    assigned = [
        next(faces)
        if kind is None or method.name == FLAT.kind
        else SurrogateAssignment(reason=f"a {kind} is no face: it is hidden and not replaced")
        for kind in regions.column("kind").to_pylist()
    ]
    decided = {
        "method": [method.name if of.reason is None else FLAT.kind for of in assigned],
        "class_id": [of.class_id for of in assigned],
        "surrogates": [list(of.surrogates) or None for of in assigned],
        "reason": [of.reason for of in assigned],
    }
    columns = [
        pa.array(decided[field.name], field.type) if field.name in decided else regions.column(field.name)
        for field in ASSIGNMENTS
    ]
    return pa.table(columns, schema=ASSIGNMENTS)


def surrogate_row(plan: SurrogatePlan, face_ids: Sequence[str]) -> dict[str, Any]:
    """A surrogate as SURROGATES has it; `face_ids` of the numbers in its portraits."""
    return {
        "surrogate_id": plan.surrogate_id,
        "donors": plan.donors,
        "portraits": [[face_ids[face] for face in faces] for faces in plan.portraits],
        "stratum": list(plan.stratum),
        "draw": plan.draw and asdict(plan.draw),
    }


def subject_row(
    people: People,
    persons: Persons,
    number: int,
    faces: Sequence[int],
    assigned: SurrogateAssignment,
    face_ids: Sequence[str],
) -> dict[str, Any]:
    """A subject as SUBJECTS has it; `faces` are its face numbers."""
    person = persons.of_face[faces[0]]
    return {
        "subject_id": people.ids[number],
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
