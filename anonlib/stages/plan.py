"""Plan: all faces together. Which person each face shows, the classes, and the surrogate of each face.

One process over the feature columns; pixels stay where they are. `outfits` decides; this file reads what the scan
left and writes the tables. A face without a usable mesh, and a person without a surrogate, are assigned to the solid
redaction with the reason. All refusals are made here and by the person's class, none while rendering, so that none of
them says how alike a face and its surrogate are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from anonlib.config import CLASS_METHODS, SYNTHESIS_METHODS, JobConfig
from anonlib.datasets import Shard
from anonlib.methods.class_growth import class_wardrobe
from anonlib.methods.decoders import FaceDecoderSet, face_decoders_of
from anonlib.methods.feature_transfer import FeatureSource, feature_source_of
from anonlib.methods.planning import PlanResult, donors_of, draws_of
from anonlib.privacy.keys import Keyring
from anonlib.stages.assignments import ASSIGNED, assignments, why_redacted
from anonlib.stages.people import FEATURES, People, Persons, people_of, persons_of
from anonlib.stages.plan_rows import class_row, subject_row, surrogate_row
from anonlib.workspace import tables
from anonlib.workspace.layout import PLAN_COUNTS, JobStores, StageStore, plan_store, scan_store, sha256
from anonlib.workspace.ledger_store import LedgerStore, kind_of
from anonlib.workspace.schemas import CLASSES, DRAWS, SUBJECTS, SURROGATES

LABELS = "labels.txt"
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


def subjects_of(store: StageStore, columns: Sequence[str]) -> pa.Table:
    """Columns of all subjects of a plan."""
    return tables.from_bytes(store.storage.read(store.path("subjects.parquet")), columns)


class PlanStage:
    """`run(shards)` writes subjects, classes, draws and assignments of a job, and claims the plan's marker last."""

    def __init__(
        self, job: JobConfig, stores: JobStores, keyring: Keyring, scan_key: str, key: str, models: Mapping[str, bytes]
    ) -> None:
        self.job, self.keyring, self.key = job, keyring, key
        self.scan: StageStore = scan_store(stores, scan_key)
        self.store: StageStore = plan_store(stores, key)
        self.painter: FaceDecoderSet | None = face_decoders_of(models, job)
        self.lender: FeatureSource | None = feature_source_of(models, job)
        file = self.painter.decoder if self.painter else self.lender
        self._kind = kind_of(job.method, file.digest if file else "")
        self._digest = hashlib.sha256()

    def run(self, shards: Sequence[Shard]) -> Plan:
        """Plan the whole dataset, or read the plan that is already there."""
        known = self.store.committed("plan")
        if known is None:
            self._digest = hashlib.sha256()
            synthesis = self.job.method.name in SYNTHESIS_METHODS
            self.store.commit("plan", self._write(shards) if synthesis else self._redact_all(shards))
            known = self.store.committed("plan") or {}
        return plan_of(self.key, known)

    def _write(self, shards: Sequence[Shard]) -> dict[str, Any]:
        faces = pa.concat_tables([self._faces(shard, FEATURES) for shard in shards])
        people = people_of(faces, self.keyring)
        replaced = np.array([reason is None for reason in why_redacted(faces, self.job.method.name)], bool)
        persons = persons_of(people, replaced)
        accounts = LedgerStore.open(self.job, self.key)
        names: list[str] = []
        if accounts:
            names = accounts.persons(persons, self.keyring)
            if len(set(names)) < len(names):
                persons = persons_of(people, replaced, names)
                names = list(dict.fromkeys(names))
        wardrobe = self._dress(faces, persons, accounts, names)
        if accounts:
            accounts.book(self.job, self.keyring.release, self._kind, wardrobe.booked)
        face_ids = faces.column("face_id").to_pylist()
        blocks = self._write_classes(wardrobe, face_ids)
        self._write_subjects(people, persons, wardrobe, face_ids)
        redacted = self._write_assignments(shards, persons, wardrobe)
        disagreements = people.label_check.sentences()
        self.store.storage.publish(self.store.path(LABELS), "".join(f"{one}\n" for one in disagreements).encode())
        return {
            "digest": self._digest.hexdigest(),
            "blocks": blocks,
            "subjects": len(people.ids),
            "persons": len(persons.ids),
            "classes": len(wardrobe.classes),
            "redacted": redacted,
            "disagreements": len(disagreements),
        }

    def _dress(self, faces: pa.Table, persons: Persons, accounts: LedgerStore | None, names: list[str]) -> PlanResult:
        job, painter, lender = self.job, self.painter, self.lender
        earlier = accounts.drawn(self._kind) if accounts and job.method.draw == "reuse" else {}
        if lender is not None:
            return donors_of(job, persons, self.keyring, lender, names, earlier)
        if job.method.name in CLASS_METHODS:
            return class_wardrobe(job, faces, persons, self.keyring, painter, accounts, names)
        if painter is None:
            raise ValueError(f"{job.method.name} draws identities, and no file to draw them by came with the job")
        return draws_of(job, persons, self.keyring, painter, names, earlier)

    def _redact_all(self, shards: Sequence[Shard]) -> dict[str, Any]:
        """A redaction needs no subjects: every face gets the job's method."""
        for shard in shards:
            table = assignments(self.job, self._faces(shard, ASSIGNED)).table
            self._publish_table(f"assignments/{shard.shard_id}", table)
        return {"digest": self._digest.hexdigest(), "blocks": []} | dict.fromkeys(PLAN_COUNTS, 0)

    def _write_classes(self, wardrobe: PlanResult, face_ids: Sequence[str]) -> list[str]:
        """classes.parquet, and surrogate_plans/BLOCK with the portraits of their donors; returns the blocks."""
        self._publish("classes", [class_row(one) for one in wardrobe.classes], CLASSES)
        blocks = []
        for start in range(0, len(wardrobe.surrogates), BLOCK):
            rows = [surrogate_row(one, face_ids) for one in wardrobe.surrogates[start : start + BLOCK]]
            blocks.append(f"block-{start // BLOCK:05d}")
            self._publish(f"surrogate_plans/{blocks[-1]}", rows, SURROGATES)
        return blocks

    def _write_subjects(self, people: People, persons: Persons, wardrobe: PlanResult, face_ids: Sequence[str]) -> None:
        order = np.argsort(people.of_face, kind="stable")
        bounds = np.searchsorted(people.of_face[order], np.arange(len(people.ids) + 1))
        rows = []
        for number in range(len(people.ids)):
            faces = order[bounds[number] : bounds[number + 1]].tolist()
            outfit = wardrobe.outfits[persons.of_face[faces[0]]]
            rows.append(subject_row(people, persons, number, faces, outfit, face_ids))
        self._publish("subjects", rows, SUBJECTS)

    def _write_assignments(self, shards: Sequence[Shard], persons: Persons, wardrobe: PlanResult) -> int:
        """assignments/SHARD for every shard, an empty one too, and the draws it needs; returns the faces redacted."""
        first = redacted = 0
        for shard in shards:
            faces = self._faces(shard, ASSIGNED)
            outfits = [wardrobe.outfits[person] for person in persons.of_face[first : first + faces.num_rows]]
            first += faces.num_rows
            assigned = assignments(self.job, faces, outfits)
            redacted += assigned.redacted
            self._publish_table(f"assignments/{shard.shard_id}", assigned.table)
            if wardrobe.draws:
                drawn = [{"surrogate": one, "draw": asdict(wardrobe.draws[one])} for one in assigned.worn]
                self._publish(f"draws/{shard.shard_id}", drawn, DRAWS)
        return redacted

    def _faces(self, shard: Shard, columns: Sequence[str]) -> pa.Table:
        return tables.from_bytes(self.scan.storage.read(self.scan.path("faces", f"{shard.shard_id}.parquet")), columns)

    def _publish(self, name: str, rows: Sequence[tables.Row], schema: pa.Schema) -> None:
        self._publish_table(name, tables.of_rows(rows, schema))

    def _publish_table(self, name: str, table: pa.Table) -> None:
        data = tables.table_bytes(table)
        self._digest.update(f"{name} {sha256(data)}\n".encode())
        self.store.storage.publish(self.store.path(f"{name}.parquet"), data)
