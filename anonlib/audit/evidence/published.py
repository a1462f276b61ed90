"""What a release says beside its pictures: a manifest row a face, and every other table, with what the plan knows.

The attacks on the release's own records read this and nothing else of the job. Labels that the job never used
(`truth_field`) are read here alone, to evaluate with: they reach no plan.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import Evidence
from anonlib.audit.evidence.observe import main_of
from anonlib.datasets import label
from anonlib.errors import JobError
from anonlib.job import Job
from anonlib.methods.base import released_digest
from anonlib.privacy.keys import Keyring
from anonlib.storage import Storage
from anonlib.verification.certificate import Certificate, Claim
from anonlib.workspace import tables
from anonlib.workspace.layout import PlanStore, plan_store, release_store, scan_store
from anonlib.workspace.release import samples_of
from anonlib.workspace.schemas import AUDIT_FILES, CERTIFICATE, DATA, MANIFEST_FACE, MANIFESTS, MARKERS, STATEMENT

DIGEST = "surrogate_digest"

_SHARD_FILES = (DATA, MANIFESTS, MARKERS)
_SCANNED = ("face_id", "key", "index", "label")
_PLACED = ("height", "width", "box", "score", "landmarks", "kind")

Rows = list[dict[str, Any]]


class PlanRecord(NamedTuple):
    """What the plan says of faces by id: numbers of the `person` and the class, and of the surrogate it helped to make.

    `by_digest` numbers surrogates, by the person where each has one of their own; `sizes`: persons and effective k.
    """

    person: dict[str, int]
    class_of: dict[str, int]
    donated: dict[str, int]
    by_digest: dict[str, int]
    sizes: list[tuple[int, int]]


def planned_faces(store: PlanStore, keyring: Keyring) -> PlanRecord:
    """The plan of a synthesis; a redaction has no people and no classes, so everything is empty."""
    plan = store.committed("plan") or {}
    if not plan["subjects"]:
        return PlanRecord({}, {}, {}, {}, [])
    subjects = store.subjects(["person_id", "faces", "class_id", "surrogates"]).to_pylist()
    persons: dict[str, int] = {}
    person = {face: persons.setdefault(row["person_id"], len(persons)) for row in subjects for face in row["faces"]}
    blocks = plan["blocks"]
    if not blocks:
        drawn = [(name, persons[row["person_id"]]) for row in subjects for name in row["surrogates"]]
        return PlanRecord(person, {}, {}, {released_digest(keyring, name): number for name, number in drawn}, [])
    classes = store.classes()
    class_number = {row["class_id"]: number for number, row in enumerate(classes)}
    surrogates = store.surrogate_plans(blocks, ["surrogate_id", "donors", "portraits"])
    number = {row["surrogate_id"]: index for index, row in enumerate(surrogates)}
    # A decoded surrogate has no portraits; one photo of each donor stands for what its mean was made of.
    shown = {row["person_id"]: row["faces"][:1] for row in reversed(subjects)}
    return PlanRecord(
        person,
        class_of={face: class_number.get(row["class_id"], -1) for row in subjects for face in row["faces"]},
        donated={
            face: number[row["surrogate_id"]]
            for row in surrogates
            for donor, portraits in zip(row["donors"], row["portraits"], strict=True)
            for face in portraits or shown.get(donor, ())
        },
        by_digest={
            released_digest(keyring, digest): number[name]
            for block in blocks
            for name, digest in (store.committed(f"surrogates/{block}") or {"digests": {}})["digests"].items()
        },
        sizes=[(len(row["members"]), int(row["effective_k"])) for row in classes],
    )


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

    @cached_property
    def _digests(self) -> pa.DictionaryArray:
        return self.manifest.column(DIGEST).combine_chunks().dictionary_encode()

    @property
    def surrogates(self) -> list[str]:
        """Digests of the surrogates that are shown, in the order in which they first come."""
        return list(self._digests.dictionary.to_pylist())

    @property
    def shown(self) -> NDArray[np.int64]:
        """(n,) Which of `surrogates` each face shows, -1 for none."""
        return np.asarray(self._digests.indices.fill_null(-1), np.int64)

    @property
    def people(self) -> NDArray[np.int64]:
        """(n,) Numbers of people: by name, else by the plan's subject, else every face its own."""
        pairs = zip(self.faces, self.names, strict=True)
        return numbered(name if name is not None else self.plan.person.get(face, face) for face, name in pairs)

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
    release, scan = release_store(job.stores), scan_store(job.stores, job.scan_key)
    for shard in job.shards:
        columns = (*_SCANNED, *(_PLACED if truth_field else ()))
        samples = samples_of(release, scan, job.naming, shard.shard_id, manifest=("faces",), faces=columns)
        truth: dict[str, str | None] = {}
        if truth_field:
            by_key = {sample.key: sample.faces for sample in samples}
            mains = ((main_of(by_key.get(photo.key, ()), labelled=False), photo) for photo in job.dataset.read(shard))
            truth = {main["face_id"]: label(photo, truth_field) for main, photo in mains if main is not None}
        shown = [sample for sample in samples if not sample.quarantined]
        pairs = [pair for sample in shown for pair in zip(sample.row["faces"], sample.faces, strict=True)]
        pairs = [(outcome, row) for outcome, row in pairs if outcome.get("kind") is None]
        manifests.append(pa.Table.from_pylist([outcome for outcome, _ in pairs], pa.schema(list(MANIFEST_FACE))))
        scanned = [row for _, row in pairs]
        faces += [row["face_id"] for row in scanned]
        names += [truth.get(row["face_id"]) if truth_field else row["label"] for row in scanned]
    if truth_field and not any(names):
        raise JobError(f"no photo of the input has a field {truth_field!r} that names a person (--truth-field)")
    return Published(
        faces=faces,
        manifest=pa.concat_tables(manifests),
        names=names,
        evaluated=truth_field is not None,
        clustered=job.config.input.subject_field is None,
        plan=planned_faces(plan_store(job.stores, job.plan_key), job.keyring),
        tables=dict(_tables(job.stores.release)),
        claim=Certificate.from_bytes(job.stores.release.read(CERTIFICATE)).claim,
    )


def by_truth(evidence: Evidence, published: Published) -> Evidence:
    """The evidence with people as the labels of the evaluation name them; a photo without a label is its own person."""
    known = dict(zip(published.faces, published.names, strict=True))
    names = [known.get(face) or face for face in evidence.faces]
    return replace(evidence, subjects=numbered(names), names=np.array(names, np.str_), labelled=True)


def numbered(names: Iterable[Hashable]) -> NDArray[np.int64]:
    """(n,) Numbers of n names, in the order in which they first come."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], np.int64)


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
        rows = [item if isinstance(item, dict) else {"value": item} for item in content]
        yield path, rows
        for number, row in enumerate(rows):
            for key, value in row.items():
                if isinstance(value, dict | list):
                    yield from _of_json(value, f"{path} {number}, {key}")
