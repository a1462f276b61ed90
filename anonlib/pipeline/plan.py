"""Plan: all faces together. Who is who, who hides with whom, and who wears whose surrogate.

One process over the feature columns; pixels stay where they are. Only subjects with a portrait worth
averaging become donors, and classes are formed of donors, at least k each, all weighing the same; everyone
else joins the nearest class as a guest. A face without a usable mesh, and a subject without a class, are
assigned to the solid redaction with the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.config import SYNTHESIS_METHODS, JobConfig
from anonlib.datasets import Shard
from anonlib.faces.mesh import MIN_PRESENCE
from anonlib.pipeline import tables
from anonlib.pipeline.people import People, best_portraits, column, donor_faces_of, people_of, stratum_of
from anonlib.pipeline.places import Places, Room, plan_room, scan_room, sha256
from anonlib.privacy.classes import EquivalenceClass, Stratum, with_guests
from anonlib.privacy.keys import Keyring
from anonlib.privacy.ksame import ALTERNATIVES, class_centres, k_diff
from anonlib.records import ASSIGNMENTS, CLASSES, SUBJECTS

MAYBE_SAME_PERSON = 0.96
"""dlib cosine of two templates above which they may be one person, for effective k."""
BLOCK = 16
"""Classes whose surrogates are made as one unit of work."""

_MAX_YAW = 60.0
_FEATURES = (
    "face_id", "label", "embedding", "presence", "yaw", "pitch", "sharpness", "clarity", "glasses", "age", "female",
    "landmarks",
)  # fmt: skip
_ASSIGNED = ("face_id", "key", "index", "box", "landmarks", "mesh", "expression", "presence", "yaw", "score")


@dataclass(frozen=True)
class Plan:
    """What `plan` decided: `blocks` of class ids to make surrogates for, and the digest of it all."""

    key: str
    digest: str
    blocks: tuple[str, ...]
    subjects: int
    classes: int
    redacted: int


@dataclass(frozen=True)
class _Decision:
    """Everything decided, by number: `wearers[c]` and `wears[c]` of class c, `class_of[s]` of subject s or -1."""

    faces: pa.Table
    people: People
    is_donor: NDArray[np.bool_]
    portraits: dict[int, list[int]]
    strata: list[Stratum]
    classes: list[EquivalenceClass]
    class_ids: list[str]
    wearers: list[list[int]]
    wears: list[tuple[int, ...]]
    class_of: NDArray[np.int64]


class PlanStage:
    """`run(shards)` writes subjects, classes and assignments of a job, and claims the plan's marker last."""

    def __init__(self, job: JobConfig, places: Places, keyring: Keyring, scan_key: str, key: str) -> None:
        self.job, self.keyring, self.key = job, keyring, key
        self.scan: Room = scan_room(places, scan_key)
        self.room: Room = plan_room(places, key)
        self._digest = hashlib.sha256()

    def run(self, shards: Sequence[Shard]) -> Plan:
        """Plan the whole dataset, or read the plan that is already there."""
        known = self.room.committed("plan")
        if known is None:
            self._digest = hashlib.sha256()
            synthesis = self.job.method.name in SYNTHESIS_METHODS
            self.room.commit("plan", self._write(shards) if synthesis else self._redact_all(shards))
            known = self.room.committed("plan") or {}
        counts = (known[name] for name in ("subjects", "classes", "redacted"))
        return Plan(self.key, known["digest"], tuple(known["blocks"]), *counts)

    def _write(self, shards: Sequence[Shard]) -> dict[str, Any]:
        decision = self._decide(shards)
        blocks = self._write_classes(decision)
        self._write_subjects(decision)
        redacted = self._write_assignments(shards, decision)
        return {
            "digest": self._digest.hexdigest(),
            "blocks": blocks,
            "subjects": len(decision.people.ids),
            "classes": len(decision.classes),
            "redacted": redacted,
        }

    def _redact_all(self, shards: Sequence[Shard]) -> dict[str, Any]:
        """A redaction needs no subjects: every face gets the job's method."""
        for shard in shards:
            rows = [face | {"method": self.job.method.name} for face in self._faces(shard, _ASSIGNED).to_pylist()]
            self._publish(f"assignments/{shard.shard_id}", rows, ASSIGNMENTS)
        return {"digest": self._digest.hexdigest(), "blocks": [], "subjects": 0, "classes": 0, "redacted": 0}

    def _decide(self, shards: Sequence[Shard]) -> _Decision:
        faces = pa.concat_tables([self._faces(shard, _FEATURES) for shard in shards])
        people = people_of(faces, self.keyring)
        donor_faces = donor_faces_of(faces)
        is_donor = np.zeros(len(people.ids), bool)
        is_donor[people.of_face[donor_faces]] = True
        strata = [stratum_of(*one) for one in zip(people.female, people.age, strict=True)]
        classes, wearers = with_guests(
            people.template, strata, is_donor, k=self.job.method.k, same_person=MAYBE_SAME_PERSON
        )
        class_of = np.full(len(people.ids), -1)
        for number, members in enumerate(wearers):
            class_of[members] = number
        return _Decision(
            faces,
            people,
            is_donor,
            best_portraits(faces, people.of_face, donor_faces),
            strata,
            classes,
            [self.keyring.pseudonym("class", *(people.ids[member] for member in one.members)) for one in classes],
            wearers,
            self._deal(people, classes),
            class_of,
        )

    def _deal(self, people: People, classes: list[EquivalenceClass]) -> list[tuple[int, ...]]:
        """For each class whose surrogates it wears: the method's, then the one to try next."""
        dealt = k_diff(class_centres(people.template, classes), [one.stratum for one in classes])
        if self.job.method.name == "k-same":
            return [(number, *others[:ALTERNATIVES]) for number, others in enumerate(dealt)]
        return dealt

    def _write_classes(self, plan: _Decision) -> list[str]:
        """classes/BLOCK, one row a class with the portraits of its donors; returns the blocks."""
        face_ids = plan.faces.column("face_id").to_pylist()
        blocks = []
        for start in range(0, len(plan.classes), BLOCK):
            rows = [
                {
                    "class_id": plan.class_ids[number],
                    "members": [plan.people.ids[member] for member in plan.wearers[number]],
                    "donors": [plan.people.ids[member] for member in plan.classes[number].members],
                    "portraits": [
                        [face_ids[face] for face in plan.portraits[member]] for member in plan.classes[number].members
                    ],
                    "k": len(plan.wearers[number]),
                    "effective_k": plan.classes[number].effective_k,
                    "stratum": list(plan.classes[number].stratum),
                    "surrogates": [plan.class_ids[other] for other in plan.wears[number]],
                }
                for number in range(start, min(start + BLOCK, len(plan.classes)))
            ]
            blocks.append(f"block-{start // BLOCK:05d}")
            self._publish(f"classes/{blocks[-1]}", rows, CLASSES)
        return blocks

    def _write_subjects(self, plan: _Decision) -> None:
        face_ids = plan.faces.column("face_id").to_pylist()
        people = plan.people
        order = np.argsort(people.of_face, kind="stable")
        bounds = np.searchsorted(people.of_face[order], np.arange(len(people.ids) + 1))
        rows = [
            {
                "subject_id": subject_id,
                "formed_by": people.formed_by[number],
                "donor": bool(plan.is_donor[number]),
                "faces": [face_ids[face] for face in order[bounds[number] : bounds[number + 1]]],
                "template": people.template[number],
                "female": float(people.female[number]),
                "age": float(people.age[number]),
                "stratum": list(plan.strata[number]),
                "class_id": plan.class_ids[plan.class_of[number]] if plan.class_of[number] >= 0 else None,
            }
            for number, subject_id in enumerate(people.ids)
        ]
        self._publish("subjects", rows, SUBJECTS)

    def _write_assignments(self, shards: Sequence[Shard], plan: _Decision) -> int:
        """assignments/SHARD for every shard, an empty one too; returns how many faces are redacted by plan."""
        row_of = {face_id: row for row, face_id in enumerate(plan.faces.column("face_id").to_pylist())}
        presence, yaw = column(plan.faces, "presence"), np.abs(column(plan.faces, "yaw"))
        redacted = 0
        for shard in shards:
            rows = []
            for face in self._faces(shard, _ASSIGNED).to_pylist():
                row = row_of[face["face_id"]]
                number = int(plan.class_of[plan.people.of_face[row]])
                reason = self._why_redacted(plan, number, float(presence[row]), float(yaw[row]))
                if reason is None:
                    face |= {
                        "method": self.job.method.name,
                        "class_id": plan.class_ids[number],
                        "k": len(plan.wearers[number]),
                        "surrogates": [plan.class_ids[other] for other in plan.wears[number]],
                    }
                else:
                    redacted += 1
                    face |= {"method": "solid", "reason": reason}
                rows.append(face)
            self._publish(f"assignments/{shard.shard_id}", rows, ASSIGNMENTS)
        return redacted

    def _why_redacted(self, plan: _Decision, number: int, presence: float, yaw: float) -> str | None:
        if presence < MIN_PRESENCE:
            return "the mesh does not fit: hidden, cut off, too small or no face"
        if yaw > _MAX_YAW:
            return f"turned away by more than {_MAX_YAW:g} degrees"
        if number < 0:
            return f"fewer than {self.job.method.k} subjects could hide together"
        if not plan.wears[number]:
            return "there is no other class whose surrogate it could wear"
        return None

    def _faces(self, shard: Shard, columns: Sequence[str]) -> pa.Table:
        return tables.from_bytes(self.scan.storage.read(self.scan.path("faces", f"{shard.shard_id}.parquet")), columns)

    def _publish(self, name: str, rows: Sequence[tables.Row], schema: pa.Schema) -> None:
        data = tables.to_bytes(rows, schema)
        self._digest.update(f"{name} {sha256(data)}\n".encode())
        self.room.storage.publish(self.room.path(f"{name}.parquet"), data)
