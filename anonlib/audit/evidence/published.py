"""What a release says beside its pictures: a manifest row a face, and every other table, with what the plan knows.

The attacks on the release's own records read this and nothing else of the job. Labels that the job never used
(`truth_field`) are read here alone, to evaluate with: they reach no plan.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import Evidence
from anonlib.audit.evidence.originals import main_of
from anonlib.audit.evidence.plan import PlanRecord, planned_faces
from anonlib.datasets import Shard, label
from anonlib.errors import JobError
from anonlib.job import Job
from anonlib.storage import Storage
from anonlib.verification.certificate import Certificate, Claim
from anonlib.workspace import tables
from anonlib.workspace.layout import StageStore, plan_store, scan_store
from anonlib.workspace.schemas import AUDIT_FILES, CERTIFICATE, QUARANTINED, STATEMENT

DIGEST = "surrogate_digest"

_SHARD_FILES = ("data/", "manifest/", "commits/")
_SCANNED = ("face_id", "key", "index", "label")
_PLACED = ("height", "width", "box", "score", "landmarks")

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Published:
    """n faces of all released images in the order of the dataset, and the tables beside the manifest.

    `faces` (n,) are the scan's ids, `manifest` has their n MANIFEST_FACE rows. `names` (n,): the person as the dataset
    names them, None where it does not; `evaluated`: those names are labels that the job never used. `clustered`: the
    job formed its subjects without labels. `tables`: path -> rows, of every Parquet and JSON file that is no shard's.
    """

    faces: Sequence[str]
    manifest: pa.Table
    names: Sequence[str | None]
    evaluated: bool
    clustered: bool
    plan: PlanRecord
    tables: Mapping[str, Rows]
    claim: Claim

    @property
    def digests(self) -> list[str | None]:
        """(n,) What each face shows; None where it shows no surrogate."""
        return list(self.manifest.column(DIGEST).to_pylist())

    @property
    def people(self) -> NDArray[np.int64]:
        """(n,) Numbers of people: by name, else by the plan's subject, else every face its own."""
        number: dict[object, int] = {}
        keys = (
            name if name is not None else self.plan.person.get(face, face)
            for face, name in zip(self.faces, self.names, strict=True)
        )
        return np.array([number.setdefault(key, len(number)) for key in keys], np.int64)

    @property
    def named(self) -> NDArray[np.bool_]:
        """(n,) Whether the dataset names the person."""
        return np.array([name is not None for name in self.names], bool)

    @property
    def classes(self) -> NDArray[np.int64]:
        """(n,) The plan's class of each face, -1 for none."""
        return np.array([self.plan.class_of.get(face, -1) for face in self.faces], np.int64)


def read_published(job: Job, *, truth_field: str | None = None) -> Published:
    """The records of a finished job; `truth_field`: a sidecar field with the people's names, for evaluation alone.

    Raises JobError where manifest and scan do not fit, or no photo has the field.
    """
    faces: list[str] = []
    names: list[str | None] = []
    manifests: list[pa.Table] = []
    for shard in job.shards:
        manifest, ids, known = _shard(job, shard, truth_field)
        faces += ids
        names += known
        manifests.append(manifest)
    if truth_field and not any(names):
        raise JobError(f"no photo of the input has a field {truth_field!r} that names a person (--truth-field)")
    release = job.stores.release
    return Published(
        faces=faces,
        manifest=pa.concat_tables(manifests),
        names=names,
        evaluated=truth_field is not None,
        clustered=job.config.input.subject_field is None,
        plan=planned_faces(plan_store(job.stores, job.plan_key), job.keyring),
        tables=dict(_tables(release)),
        claim=Certificate.from_bytes(release.read(CERTIFICATE)).claim,
    )


def by_truth(evidence: Evidence, published: Published) -> Evidence:
    """The evidence with people as the labels of the evaluation name them; a photo without a label is its own person."""
    known = dict(zip(published.faces, published.names, strict=True))
    names = [known.get(face) or face for face in evidence.faces]
    number: dict[str, int] = {}
    subjects = np.array([number.setdefault(name, len(number)) for name in names], np.int64)
    return replace(evidence, subjects=subjects, names=np.array(names, np.str_), labelled=True)


def _shard(job: Job, shard: Shard, truth_field: str | None) -> tuple[pa.Table, list[str], list[str | None]]:
    """The manifest's faces of one shard, their ids, and their people's names."""
    name = f"{shard.shard_id}.parquet"
    scan, release = scan_store(job.stores, job.scan_key), StageStore(job.stores.release, "")
    positions = tables.from_bytes(scan.storage.read(scan.path("images", name)), ("key", "position")).to_pylist()
    by_key: dict[str, Rows] = defaultdict(list)
    columns = (*_SCANNED, *(_PLACED if truth_field else ()))
    for row in tables.from_bytes(scan.storage.read(scan.path("faces", name)), columns).to_pylist():
        by_key[row["key"]].append(row)
    truth = dict[str, str | None]()
    if truth_field:
        for sample in job.dataset.read(shard):
            main = main_of(by_key.get(sample.key, ()), labelled=False)
            truth |= {main["face_id"]: label(sample, truth_field)} if main is not None else {}
    path = release.path("manifest", f"{job.naming.shard(shard.shard_id)}.parquet")
    manifest = tables.from_bytes(release.storage.read(path), ("key", "status", "faces"))
    listed = [row["key"] for row in sorted(positions, key=lambda row: int(row["position"]))]
    try:
        keys = job.naming.keys_of(manifest.select(["key"]).to_pylist(), shard.shard_id, listed)
    except ValueError as error:
        raise JobError(str(error)) from None
    kept = pc.not_equal(manifest.column("status"), QUARANTINED)
    found = [
        face
        for key, there in zip(keys, kept.to_pylist(), strict=True)
        if there
        for face in sorted(by_key.get(key, ()), key=lambda face: int(face["index"]))
    ]
    faces = manifest.filter(kept).column("faces").combine_chunks()
    outcomes = pa.Table.from_struct_array(faces.flatten())
    if outcomes.num_rows != len(found):
        raise JobError(f"the manifest of {shard.shard_id} and its scan do not hold the same faces")
    ids = [face["face_id"] for face in found]
    return outcomes, ids, [truth.get(face["face_id"]) if truth_field else face["label"] for face in found]


def _tables(release: Storage) -> Iterator[tuple[str, Rows]]:
    for entry in release.list():
        path = entry.path
        if path.startswith(_SHARD_FILES) or path in (STATEMENT, *AUDIT_FILES):
            continue
        if path.endswith(".parquet"):
            yield path, tables.from_bytes(release.read(path)).to_pylist()
        elif path.endswith(".json"):
            try:
                content = json.loads(release.read(path))
            except ValueError:
                raise JobError(f"{path} in the release is not JSON, so what it says cannot be followed") from None
            yield from _of_json(content, path)


def _of_json(content: Any, path: str) -> Iterator[tuple[str, Rows]]:
    """Tables in a JSON document: an object is a row, its entries are rows of key and value, a list is rows."""
    if isinstance(content, dict):
        yield path, [content]
        yield f"{path}, entries", [{"key": key, "value": value} for key, value in content.items()]
        for key, value in content.items():
            yield from _of_json(value, f"{path}, {key}")
    elif isinstance(content, list):
        rows = [one if isinstance(one, dict) else {"value": one} for one in content]
        yield path, rows
        for number, row in enumerate(rows):
            for key, value in row.items():
                if isinstance(value, dict | list):
                    yield from _of_json(value, f"{path} {number}, {key}")
