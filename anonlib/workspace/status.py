"""How far a job is, by its markers and manifests alone: nothing is opened, computed or written.

So it can be asked of a job that runs elsewhere, and of a release without its input.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from anonlib.codes import meaning_of
from anonlib.config import load_config
from anonlib.errors import ConfigError, JobError, NotFound
from anonlib.execution.cost import CostEstimate, read_costs, total_of
from anonlib.stages.plan import COUNTS
from anonlib.storage import Storage, StorageOptions, open_storage
from anonlib.workspace import tables
from anonlib.workspace.layout import (
    INVENTORY_NOTE,
    RUN_NOTE,
    JobStores,
    StageStore,
    open_stores,
    plan_store,
    release_store,
    rendered_rows,
)
from anonlib.workspace.purgeable import PURGED
from anonlib.workspace.schemas import QUARANTINED, SOLID
from anonlib.workspace.summary import Summary

_READERS = 16


class ReasonCount(NamedTuple):
    """What happened (`quarantined`, or the fallback's name) and why, in a sentence that names nothing."""

    kind: str
    why: str


@dataclass(frozen=True)
class ScanStatus:
    """One scan room; a workspace has more than one if its job's detector was changed."""

    store: str
    done: int


@dataclass(frozen=True)
class PlanStatus:
    """One plan room; `blocks` is None until the plan is decided, `done` counts surrogate blocks."""

    store: str
    blocks: int | None
    done: int
    subjects: int = 0
    persons: int = 0
    classes: int = 0
    redacted: int = 0
    disagreements: int = 0


@dataclass(frozen=True)
class ReleaseStatus(Summary):
    """Counts of the committed shards, and why images and faces are exceptions."""

    reasons: Counter[ReasonCount] = field(default_factory=Counter)


@dataclass(frozen=True)
class Status:
    """A job as its markers tell it, and what its runs wrote down that they spent."""

    shards: int
    scans: tuple[ScanStatus, ...]
    plans: tuple[PlanStatus, ...]
    release: ReleaseStatus | None
    spent: CostEstimate | None


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
    if plan_store(stores, plan_key).committed("plan") is None:
        raise JobError("this job has no plan yet; run `anonlib plan` first (or `anonlib run` for everything)")


def status(workspace: Storage, release: Storage | None) -> Status:
    """The state of a workspace, and of the release if one is given and begun; raises JobError if it was purged."""
    if workspace.exists(PURGED):
        raise JobError(
            f"the workspace {workspace.uri} was purged, and nothing of the job is left there; `anonlib verify` says "
            "what the release is"
        )
    note = _json(workspace, INVENTORY_NOTE) or {}
    return Status(
        shards=int(note.get("shards", 0)),
        scans=tuple(ScanStatus(store, len(units)) for store, units in _rooms(workspace, "scan").items()),
        plans=tuple(_planned(workspace, store, units) for store, units in _rooms(workspace, "plan").items()),
        release=None if release is None else read_release(JobStores(workspace, release)),
        spent=total_of(read_costs(workspace)),
    )


def read_release(stores: JobStores) -> ReleaseStatus | None:
    """What the release's markers say, and the workspace of its exceptions; None if nothing was rendered yet."""
    run = _json(stores.release, RUN_NOTE)
    if run is None:
        return None
    markers = release_store(stores).markers(run["shards"])
    return ReleaseStatus.of(len(run["shards"]), markers, reasons=_reasons(stores, run["run"], markers))


def exceptions(stores: JobStores) -> Counter[ReasonCount]:
    """Why images were quarantined and faces fell back, over the whole release."""
    release = read_release(stores)
    return Counter() if release is None else release.reasons


def _reasons(stores: JobStores, run: str, markers: Iterable[dict[str, Any]]) -> Counter[ReasonCount]:
    """Tables are read only of shards whose marker counts an exception."""
    wanted = [str(marker["shard"]) for marker in markers if marker["quarantined"] or marker["fallbacks"]]
    found: Counter[ReasonCount] = Counter()
    with ThreadPoolExecutor(_READERS) as pool:
        for one in pool.map(lambda shard: Counter(_reasons_of(stores, run, shard)), wanted):
            found.update(one)
    return found


def _reasons_of(stores: JobStores, run: str, shard: str) -> Iterator[ReasonCount]:
    store = release_store(stores)
    data = store.storage.read(store.path("manifest", f"{shard}.parquet"))
    quarantined = set()
    for row in tables.from_bytes(data, ["key", "status", "reason"]).to_pylist():
        if row["status"] == QUARANTINED:
            quarantined.add(row["key"])
            yield ReasonCount(QUARANTINED, meaning_of(row["reason"]))
    for key, faces in rendered_rows(stores, run, shard).items():
        for face in faces if key not in quarantined else ():
            if face["fallback"] in SOLID:
                yield ReasonCount("solid", face["reason"] or "no reason given")


def _rooms(workspace: Storage, stage: str) -> dict[str, set[str]]:
    """Committed units of every room of a stage; a room without a marker yet is there, empty."""
    stores: dict[str, set[str]] = defaultdict(set)
    for entry in workspace.list(f"{stage}/"):
        store, _, rest = entry.path.removeprefix(f"{stage}/").partition("/")
        units = stores[store]
        if rest.startswith("commits/") and rest.endswith(".json"):
            units.add(rest.removeprefix("commits/").removesuffix(".json"))
    return dict(stores)


def _planned(workspace: Storage, store: str, units: set[str]) -> PlanStatus:
    done = sum(unit.startswith("surrogates/") for unit in units)
    plan = StageStore(workspace, f"plan/{store}").committed("plan")
    if plan is None:
        return PlanStatus(store, None, done)
    counts = {name: int(plan[name]) for name in COUNTS}
    return PlanStatus(store, len(plan["blocks"]), done, **counts)


def _json(storage: Storage, path: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(storage.read(path)))
    except NotFound:
        return None
