"""Plan: all faces together. Who is who, who hides with whom, and who wears whose surrogate.

One process over the feature columns; pixels stay where they are. Only subjects with a portrait worth
averaging become donors, and classes are formed of donors, at least k each, all weighing the same; everyone
else joins the nearest class as a wearer. A face without a usable mesh, and a subject without a class, are
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
from anonlib.pipeline import tables
from anonlib.pipeline.places import Places, Room, plan_room, scan_room, sha256
from anonlib.privacy.classes import EquivalenceClass, Stratum, form_classes
from anonlib.privacy.keys import Keyring
from anonlib.privacy.ksame import class_centres, k_diff
from anonlib.privacy.subjects import by_label, cluster, normalized, templates
from anonlib.records import ASSIGNMENTS, CLASSES, SUBJECTS

SAME_PERSON = 0.945
"""dlib cosine of two photos of one person: stricter than FAR 1e-3 (0.927), since merging two people is worse."""
MAYBE_SAME_PERSON = 0.96
"""Cosine of two templates above which they may be one person, for effective k."""

PORTRAITS_A_DONOR = 3
BLOCK = 16
"""Classes whose surrogates are made as one unit of work."""

_SURE = 0.7
_AGE_BANDS = (35.0, 50.0)
_DONOR_YAW, _DONOR_PITCH, _DONOR_EYES = 35.0, 30.0, 24.0
_DONOR_SHARPNESS = 6.0
_MIN_PRESENCE = 0.5
_MAX_YAW = 60.0
_FEATURES = (
    "face_id", "key", "index", "label", "score", "embedding", "presence", "yaw", "pitch", "roll", "sharpness",
    "mouth_open", "eyes_open", "age", "female", "landmarks",
)  # fmt: skip


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
class _People:
    """Subjects as columns: `of_face` (n,) subject numbers, `ids`, `formed_by`, `template` (s, d), attributes (s,)."""

    of_face: NDArray[np.int64]
    ids: list[str]
    formed_by: list[str]
    template: NDArray[np.float32]
    female: NDArray[np.float32]
    age: NDArray[np.float32]


class PlanStage:
    """`run(shards)` writes subjects, classes and assignments of a job, and claims the plan's marker last."""

    def __init__(self, job: JobConfig, places: Places, keyring: Keyring, scan_key: str, key: str) -> None:
        self.job, self.keyring, self.key = job, keyring, key
        self.scan: Room = scan_room(places, scan_key)
        self.room: Room = plan_room(places, key)

    def run(self, shards: Sequence[Shard]) -> Plan:
        """Plan the whole dataset, or read the plan that is already there."""
        known = self.room.committed("plan")
        if known is None:
            self.room.commit("plan", self._decide(shards))
            known = self.room.committed("plan") or {}
        return Plan(
            self.key,
            known["digest"],
            tuple(known["blocks"]),
            *(known[n] for n in ("subjects", "classes", "redacted")),
        )

    def _decide(self, shards: Sequence[Shard]) -> dict[str, Any]:
        if self.job.method.name not in SYNTHESIS_METHODS:
            return self._redact_all(shards)
        faces = pa.concat_tables(
            [self._faces(shard, _FEATURES).append_column("shard", pa.array([shard.shard_id] * n))
             for shard in shards if (n := self._faces(shard, ("face_id",)).num_rows) > 0]
            or [pa.table({name: [] for name in (*_FEATURES, "shard")})]
        )  # fmt: skip
        people = self._people(faces)
        usable = _column(faces, "presence") >= _MIN_PRESENCE
        turned = np.abs(_column(faces, "yaw")) > _MAX_YAW
        donor_faces = _donor_faces(faces, usable)
        is_donor = np.zeros(len(people.ids), bool)
        is_donor[people.of_face[donor_faces]] = True
        strata = [_stratum(*one) for one in zip(people.female, people.age, strict=True)]
        classes, wearers, left = _classes_with_guests(people.template, strata, is_donor, self.job.method.k)
        wears = self._wear(people.template, classes)
        class_of = np.full(len(people.ids), -1)
        for number, members in enumerate(wearers):
            class_of[members] = number
        class_ids = [
            self.keyring.pseudonym("class", *(people.ids[member] for member in one.members)) for one in classes
        ]
        digest = hashlib.sha256()
        blocks = self._write_classes(faces, people, classes, wearers, class_ids, wears, donor_faces, digest)
        self._write_subjects(faces, people, is_donor, strata, class_of, class_ids, digest)
        redacted = self._write_assignments(
            shards, faces, people, usable, turned, class_of, class_ids, wears, wearers, digest
        )
        del left
        return {
            "digest": digest.hexdigest(),
            "blocks": blocks,
            "subjects": len(people.ids),
            "classes": len(classes),
            "redacted": redacted,
        }

    def _faces(self, shard: Shard, columns: Sequence[str]) -> pa.Table:
        return tables.from_bytes(self.scan.storage.read(self.scan.path("faces", f"{shard.shard_id}.parquet")), columns)

    def _people(self, faces: pa.Table) -> _People:
        """Labelled faces by label; the others by clustering, a cluster like a labelled subject joining it."""
        count = faces.num_rows
        embeddings = _matrix(faces, "embedding")
        labels = faces.column("label").to_pylist()
        face_ids = faces.column("face_id").to_pylist()
        labelled = np.array([name is not None for name in labels], bool)
        of_face = np.full(count, -1, np.int64)
        named, names = by_label([name for name in labels if name is not None])
        of_face[labelled] = named
        ids = [self.keyring.pseudonym("subject", "label", name) for name in names]
        known = (
            templates(embeddings[labelled], named, len(names))
            if names
            else np.zeros((0, embeddings.shape[1]), np.float32)
        )
        groups = cluster(embeddings[~labelled], threshold=SAME_PERSON)
        rest = np.flatnonzero(~labelled)
        joined = 0
        for group in range(int(groups.max(initial=-1)) + 1):
            rows = rest[groups == group]
            mean = normalized(embeddings[rows].mean(axis=0, keepdims=True))[0]
            similarity = known @ mean if len(known) else np.zeros(1)
            if len(known) and similarity.max() >= SAME_PERSON:
                of_face[rows] = int(similarity.argmax())
            else:
                of_face[rows] = len(names) + joined
                ids.append(self.keyring.pseudonym("subject", "cluster", face_ids[rows[0]]))
                joined += 1
        subjects = len(ids)
        weight = np.bincount(of_face, minlength=subjects)

        def mean_of(name: str) -> NDArray[np.float32]:
            return np.asarray(np.bincount(of_face, _column(faces, name), subjects) / np.maximum(weight, 1), np.float32)

        return _People(
            of_face,
            ids,
            ["label"] * len(names) + ["clustering"] * joined,
            templates(embeddings, of_face, subjects),
            mean_of("female"),
            mean_of("age"),
        )

    def _wear(self, template: NDArray[np.float32], classes: list[EquivalenceClass]) -> list[tuple[int, ...]]:
        centres = class_centres(template, classes)
        dealt = k_diff(centres, [one.stratum for one in classes])
        if self.job.method.name == "k-same":
            return [(number, *others[:1]) for number, others in enumerate(dealt)]
        return dealt

    def _write_classes(
        self,
        faces: pa.Table,
        people: _People,
        classes: list[EquivalenceClass],
        wearers: list[list[int]],
        class_ids: list[str],
        wears: list[tuple[int, ...]],
        donor_faces: NDArray[np.int64],
        digest: Any,
    ) -> list[str]:
        """classes/BLOCK.parquet, one row a class with the portraits of its donors; returns the blocks."""
        face_ids = faces.column("face_id").to_pylist()
        best = _best_portraits(faces, people.of_face, donor_faces)
        blocks = []
        for start in range(0, len(classes), BLOCK):
            rows = [
                {
                    "class_id": class_ids[number],
                    "members": [people.ids[member] for member in wearers[number]],
                    "donors": [people.ids[member] for member in classes[number].members],
                    "portraits": [[face_ids[face] for face in best[member]] for member in classes[number].members],
                    "k": len(wearers[number]),
                    "effective_k": classes[number].effective_k,
                    "stratum": list(classes[number].stratum),
                    "surrogates": [class_ids[other] for other in wears[number]],
                }
                for number in range(start, min(start + BLOCK, len(classes)))
            ]
            block = f"block-{start // BLOCK:05d}"
            self._publish(f"classes/{block}", tables.to_bytes(rows, CLASSES), digest)
            blocks.append(block)
        return blocks

    def _write_subjects(
        self,
        faces: pa.Table,
        people: _People,
        is_donor: NDArray[np.bool_],
        strata: list[Stratum],
        class_of: NDArray[np.int64],
        class_ids: list[str],
        digest: Any,
    ) -> None:
        face_ids = faces.column("face_id").to_pylist()
        order = np.argsort(people.of_face, kind="stable")
        bounds = np.searchsorted(people.of_face[order], np.arange(len(people.ids) + 1))
        rows = [
            {
                "subject_id": subject_id,
                "formed_by": people.formed_by[number],
                "donor": bool(is_donor[number]),
                "faces": [face_ids[face] for face in order[bounds[number] : bounds[number + 1]]],
                "template": people.template[number],
                "female": float(people.female[number]),
                "age": float(people.age[number]),
                "stratum": list(strata[number]),
                "class_id": class_ids[class_of[number]] if class_of[number] >= 0 else None,
            }
            for number, subject_id in enumerate(people.ids)
        ]
        self._publish("subjects", tables.to_bytes(rows, SUBJECTS), digest)

    def _write_assignments(
        self,
        shards: Sequence[Shard],
        faces: pa.Table,
        people: _People,
        usable: NDArray[np.bool_],
        turned: NDArray[np.bool_],
        class_of: NDArray[np.int64],
        class_ids: list[str],
        wears: list[tuple[int, ...]],
        wearers: list[list[int]],
        digest: Any,
    ) -> int:
        """assignments/SHARD for every shard, an empty one too; returns how many faces are redacted by plan."""
        row_of = {face_id: row for row, face_id in enumerate(faces.column("face_id").to_pylist())}
        redacted = 0
        for shard in shards:
            rows = []
            for face in self._faces(shard, _ASSIGNED).to_pylist():
                row = row_of[face["face_id"]]
                number = int(class_of[people.of_face[row]])
                reason = None
                if not usable[row]:
                    reason = "the mesh does not fit: hidden, too small or no face"
                elif turned[row]:
                    reason = f"turned away by more than {_MAX_YAW:g} degrees"
                elif number < 0:
                    reason = f"fewer than {self.job.method.k} subjects could hide together"
                elif not wears[number]:
                    reason = "there is no other class whose surrogate it could wear"
                if reason is None:
                    face |= {
                        "method": self.job.method.name,
                        "class_id": class_ids[number],
                        "k": len(wearers[number]),
                        "surrogates": [class_ids[other] for other in wears[number]],
                    }
                else:
                    redacted += 1
                    face |= {"method": "solid", "reason": reason}
                rows.append(face)
            self._publish(f"assignments/{shard.shard_id}", tables.to_bytes(rows, ASSIGNMENTS), digest)
        return redacted

    def _redact_all(self, shards: Sequence[Shard]) -> dict[str, Any]:
        digest = hashlib.sha256()
        for shard in shards:
            rows = [face | {"method": self.job.method.name} for face in self._faces(shard, _ASSIGNED).to_pylist()]
            self._publish(f"assignments/{shard.shard_id}", tables.to_bytes(rows, ASSIGNMENTS), digest)
        return {"digest": digest.hexdigest(), "blocks": [], "subjects": 0, "classes": 0, "redacted": 0}

    def _publish(self, name: str, data: bytes, digest: Any) -> None:
        digest.update(f"{name} {sha256(data)}\n".encode())
        self.room.storage.publish(self.room.path(f"{name}.parquet"), data)


_ASSIGNED = ("face_id", "key", "index", "box", "landmarks", "mesh", "expression", "presence", "yaw", "score")


def _classes_with_guests(
    template: NDArray[np.float32], strata: list[Stratum], is_donor: NDArray[np.bool_], k: int
) -> tuple[list[EquivalenceClass], list[list[int]], list[int]]:
    """Classes of donors (members in subject numbers), all members of each, and the subjects without a class."""
    donors = np.flatnonzero(is_donor)
    formed, left = form_classes(
        template[donors], [strata[donor] for donor in donors], k=k, same_person=MAYBE_SAME_PERSON
    )
    classes = [
        EquivalenceClass(tuple(int(donors[m]) for m in one.members), one.stratum, one.effective_k) for one in formed
    ]
    wearers = [list(one.members) for one in classes]
    centres = class_centres(template, classes)
    guests = np.flatnonzero(~is_donor)
    if not classes:
        return classes, wearers, sorted({*guests.tolist(), *(int(donors[one]) for one in left)})
    for guest in guests:
        similarity = centres @ template[guest]
        kin = [_kinship(one.stratum, strata[guest]) for one in classes]
        wearers[int(np.argmax(similarity + 2.0 * np.array(kin)))].append(int(guest))
    return classes, [sorted(members) for members in wearers], []


def _kinship(stratum: Stratum, other: Stratum) -> int:
    """How many leading parts two strata share, -1 where they name different genders."""
    shared = 0
    for one, two in zip(stratum, other, strict=False):
        if one != two:
            break
        shared += 1
    return shared


def _stratum(female: float, age: float) -> Stratum:
    gender = "female" if female >= _SURE else "male" if female <= 1 - _SURE else "unsure"
    return gender, f"age-{sum(age >= limit for limit in _AGE_BANDS)}"


def _donor_faces(faces: pa.Table, usable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Faces good enough to be averaged: nearly frontal, large, sharp, eyes open."""
    landmarks = _matrix(faces, "landmarks").reshape(-1, 5, 2)
    eyes = np.linalg.norm(landmarks[:, 1] - landmarks[:, 0], axis=1)
    good = (
        usable
        & (np.abs(_column(faces, "yaw")) <= _DONOR_YAW)
        & (np.abs(_column(faces, "pitch")) <= _DONOR_PITCH)
        & (eyes >= _DONOR_EYES)
        & (_column(faces, "sharpness") >= _DONOR_SHARPNESS)
    )
    return np.flatnonzero(good)


def _best_portraits(
    faces: pa.Table, of_face: NDArray[np.int64], donor_faces: NDArray[np.int64]
) -> dict[int, list[int]]:
    """Each donor's best faces, the most frontal and sharpest first."""
    badness = (
        np.abs(_column(faces, "yaw"))
        + 0.5 * np.abs(_column(faces, "pitch"))
        - 0.3 * np.minimum(_column(faces, "sharpness"), 40.0)
    )
    order = donor_faces[np.argsort(badness[donor_faces], kind="stable")]
    best: dict[int, list[int]] = {}
    for face in order:
        chosen = best.setdefault(int(of_face[face]), [])
        if len(chosen) < PORTRAITS_A_DONOR:
            chosen.append(int(face))
    return best


def _column(table: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(table.column(name).to_numpy(), np.float64)


def _matrix(table: pa.Table, name: str) -> NDArray[np.float32]:
    column = table.column(name).combine_chunks()
    if table.num_rows == 0:
        return np.zeros((0, 1), np.float32)
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(table.num_rows, -1)
