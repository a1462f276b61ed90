"""How far a job is, by its markers and manifests alone: nothing is computed or written.

So it can be asked of a job that runs elsewhere, and of a release without its input.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from anonlib.codes import meaning_of
from anonlib.config import load_config
from anonlib.errors import ConfigError, JobError, NotFound
from anonlib.storage import Storage, StorageOptions, open_storage
from anonlib.workspace.inventory import read_note
from anonlib.workspace.layout import (
    PLAN_COUNTS,
    PURGED,
    JobStores,
    PlanStore,
    json_bytes,
    open_stores,
    plan_store,
    release_store,
    render_store,
)
from anonlib.workspace.schemas import QUARANTINED, SOLID

_READERS = 16


class ReasonCount(NamedTuple):
    """What happened (`quarantined`, or the fallback's name) and why, in a sentence that names nothing."""

    kind: str
    why: str


@dataclass(frozen=True)
class Summary:
    """Counts of the committed shards of a release; `code` is the exit code, 0 or 3."""

    shards: int
    committed: int
    images: int
    released: int
    no_face: int
    quarantined: int
    faces: int
    fallbacks: int

    @classmethod
    def of(cls, shards: int, markers: Sequence[Mapping[str, Any]], **more: Any) -> Self:
        """Add up the markers of a release that has `shards` shards in all."""
        names = ("images", "released", "no_face", "quarantined", "faces", "fallbacks")
        counts = {name: sum(int(marker[name]) for marker in markers) for name in names}
        return cls(shards, len(markers), **counts, **more)

    @property
    def code(self) -> int:
        return 0 if self.committed == self.shards and self.quarantined == 0 else 3


@dataclass(frozen=True)
class ReleaseStatus(Summary):
    """The same, and why images and faces are exceptions."""

    reasons: Counter[ReasonCount] = field(default_factory=Counter)


@dataclass(frozen=True)
class PlanStatus:
    """One plan; `blocks` is None until it is decided, `done` counts blocks of surrogates; the others are PLAN_COUNTS.

    `labels`: where the sentences about labels that do not fit their faces are.
    """

    blocks: int | None
    done: int
    labels: str
    subjects: int = 0
    persons: int = 0
    classes: int = 0
    redacted: int = 0
    disagreements: int = 0


@dataclass(frozen=True)
class Status:
    """A job as its markers tell it. `scans` are the shards that each scan has done, `spent` what each run wrote down.

    There is more than one scan or plan if the job's settings were changed.
    """

    shards: int
    scans: tuple[int, ...]
    plans: tuple[PlanStatus, ...]
    release: ReleaseStatus | None
    spent: Sequence[Mapping[str, Any]]


def open_named(file: Path | None, overrides: dict[str, Any]) -> tuple[Storage, Storage | None]:
    """Workspace and release of a job, or of `workspace.uri` and `output.uri` alone; raises ConfigError."""
    if file is not None or "input.uri" in overrides:
        stores = open_stores(load_config(file, overrides))
        return stores.workspace, stores.release
    if "workspace.uri" not in overrides:
        raise ConfigError("name a job file, or the workspace by --workspace (and the release by --output)")
    options = StorageOptions(overrides.get("storage.endpoint_url"), overrides.get("storage.region"))
    output = overrides.get("output.uri")
    release = open_storage(output, options) if output is not None else None
    return open_storage(overrides["workspace.uri"], options), release


def require_plan(stores: JobStores, plan_key: str) -> None:
    """Raise JobError if this job's plan is not decided yet."""
    if plan_store(stores, plan_key).plan() is None:
        raise JobError("this job has no plan yet; run `anonlib plan` first (or `anonlib run` for everything)")


def status(workspace: Storage, release: Storage | None) -> Status:
    """The state of a workspace, and of the release if one is given and begun.

    Raises JobError if the workspace was purged or is of another version.
    """
    if workspace.exists(PURGED):
        raise JobError(
            f"the workspace {workspace.uri} was purged, and nothing of the job is left there; `anonlib verify` says "
            "what the release is"
        )
    note = read_note(workspace) or {}
    return Status(
        shards=int(note.get("shards", 0)),
        scans=tuple(len(units) for units in _units(workspace, "scan/").values()),
        plans=tuple(_planned(workspace, prefix, units) for prefix, units in _units(workspace, "plan/").items()),
        release=None if release is None else read_release(JobStores(workspace, release)),
        spent=spent(workspace),
    )


def read_release(stores: JobStores) -> ReleaseStatus | None:
    """What the release's markers say, and the workspace of its exceptions; None if nothing was rendered yet."""
    store = release_store(stores)
    try:
        run = store.run()
    except NotFound:
        return None
    markers = store.markers(run["shards"])
    return ReleaseStatus.of(len(run["shards"]), markers, reasons=_reasons(stores, run["run"], markers))


def exceptions(stores: JobStores) -> Counter[ReasonCount]:
    """Why images were quarantined and faces fell back, over the whole release."""
    release = read_release(stores)
    return Counter() if release is None else release.reasons


def spent(workspace: Storage) -> list[dict[str, Any]]:
    """What each run wrote down that it spent (see `note_spending`)."""
    return [json.loads(workspace.read(entry.path)) for entry in workspace.list("spending/")]


def note_spending(workspace: Storage, run: str, record: Mapping[str, Any]) -> None:
    """Keep what a run has spent so far, in place of what it noted before. Raises StorageError."""
    workspace.publish(f"spending/{run}.json", json_bytes(record))


def note_failure(workspace: Storage, stage: str, unit: str, details: str) -> None:
    """Keep in full what went wrong in a unit, since no log may hold it. Raises StorageError."""
    workspace.publish(f"failures/{stage}/{unit}.txt", details.encode(errors="backslashreplace"))


def _reasons(stores: JobStores, run: str, markers: Iterable[dict[str, Any]]) -> Counter[ReasonCount]:
    """Tables are read only of shards whose marker counts an exception."""
    wanted = [str(marker["shard"]) for marker in markers if marker["quarantined"] or marker["fallbacks"]]
    found: Counter[ReasonCount] = Counter()
    with ThreadPoolExecutor(_READERS) as pool:
        for counts in pool.map(lambda shard: Counter(_reasons_of(stores, run, shard)), wanted):
            found.update(counts)
    return found


def _reasons_of(stores: JobStores, run: str, shard: str) -> Iterator[ReasonCount]:
    quarantined = set()
    for row in release_store(stores).manifest(shard, ["key", "status", "reason"]).to_pylist():
        if row["status"] == QUARANTINED:
            quarantined.add(row["key"])
            yield ReasonCount(QUARANTINED, meaning_of(row["reason"]))
    for key, faces in render_store(stores, run).faces(shard).items():
        for face in faces if key not in quarantined else ():
            if face["fallback"] in SOLID:
                yield ReasonCount("solid", face["reason"] or "no reason given")


def _units(workspace: Storage, stage: str) -> dict[str, set[str]]:
    """Committed units of every store of a stage by its prefix; a store without a marker yet is there, empty."""
    stores: dict[str, set[str]] = defaultdict(set)
    for entry in workspace.list(stage):
        key, _, rest = entry.path.removeprefix(stage).partition("/")
        units = stores[f"{stage}{key}"]
        if rest.startswith("commits/") and rest.endswith(".json"):
            units.add(rest.removeprefix("commits/").removesuffix(".json"))
    return dict(stores)


def _planned(workspace: Storage, prefix: str, units: set[str]) -> PlanStatus:
    store, done = PlanStore(workspace, prefix), sum(unit.startswith("surrogates/") for unit in units)
    plan = store.plan()
    if plan is None:
        return PlanStatus(None, done, store.labels_path)
    counts = {name: int(plan[name]) for name in PLAN_COUNTS}
    return PlanStatus(len(plan["blocks"]), done, store.labels_path, **counts)
