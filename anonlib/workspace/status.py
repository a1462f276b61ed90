"""How far a job is, by its markers and manifests alone, without its input: nothing is computed or written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anonlib.codes import meaning_of
from anonlib.errors import EXIT_QUARANTINED, ConfigError, JobError, NotFound
from anonlib.storage import Storage, open_storage
from anonlib.verification.certificate import Certificate
from anonlib.workspace import layout
from anonlib.workspace.inventory import named_job, named_options, named_workspace, read_note
from anonlib.workspace.layout import JobStores, PlanStore
from anonlib.workspace.schemas import CERTIFICATE, COUNTS, ELLIPSES, QUARANTINED

_READERS = 16

Reasons = Counter[tuple[str, str]]
"""How often what happened (`quarantined`, or the fallback's name) and why, in a sentence that names nothing."""


@dataclass(frozen=True)
class Summary:
    """Counts of the committed shards of a release; `code` is the exit code, 0 or 3.

    `left_out`: how many objects of the input are no images of it, by kind.
    """

    shards: int
    committed: int
    images: int
    released: int
    no_face: int
    quarantined: int
    faces: int
    fallbacks: int
    left_out: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Mapping[str, Any], markers: Sequence[Mapping[str, Any]]) -> Summary:
        """Add up the markers of a release, whose run.json is `run`."""
        counts = {name: sum(int(marker[name]) for marker in markers) for name in COUNTS}
        left_out = sum((Counter(of.get("left_out", {})) for of in (run, *markers)), Counter[str]())
        return cls(len(run["shards"]), len(markers), **counts, left_out=dict(sorted(left_out.items())))

    @property
    def code(self) -> int:
        return 0 if self.committed == self.shards and self.quarantined == 0 else EXIT_QUARANTINED


def crowd_of(plan: PlanStore) -> tuple[int, int, int, int] | None:
    """Of a plan that is decided the people, the classes, and the people who wear a face of another gender and of
    another age band; None of a redaction, which needs to know nobody."""
    marker = plan.plan()
    if marker is None or not marker["subjects"]:
        return None
    rows = plan.subjects(["person_id", "stratum", "class_id"]).to_pylist()
    people = {row["person_id"]: row for row in rows}.values()
    worn = plan.surrogate_plans(marker["blocks"], ["surrogate_id", "stratum"])
    kinds = {row["surrogate_id"]: row["stratum"] for row in worn}
    kind_of = {row["class_id"]: kinds[row["surrogate"]] for row in plan.classes()}
    pairs = [(row["stratum"], kind_of[row["class_id"]]) for row in people if row["class_id"] in kind_of]
    # A face that was averaged over both genders, or several age bands, is of none.
    genders, ages = (sum(kind[at : at + 1] != own[at : at + 1] for own, kind in pairs) for at in (0, 1))
    return len(people), len(kind_of), genders, ages


@dataclass(frozen=True)
class Status:
    """A job as its markers tell it, with several scans or plans if its settings were changed.

    `scans`: shards done. `plans`: blocks `done`, the path of its `labels`, and once decided `blocks` and PLAN_COUNTS.
    """

    shards: int
    scans: tuple[int, ...]
    plans: tuple[dict[str, Any], ...]
    release: Summary | None
    reasons: Reasons = field(default_factory=Counter)
    left_out: Mapping[str, int] = field(default_factory=dict)


def open_named(file: Path | None, overrides: dict[str, Any]) -> tuple[Storage, Storage | None]:
    """Workspace and release of a job, or of `workspace.uri` and `output.uri` alone; raises ConfigError."""
    try:
        stores = layout.open_stores(named_job(file, overrides))
    except (ConfigError, JobError):
        # Nothing has run there yet, an earlier version has, or it was purged.
        workspace = named_workspace(file, overrides)
        output, options = overrides.get("output.uri"), named_options(overrides)
        return workspace, open_storage(output, options) if output is not None else None
    return stores.workspace, stores.release


def require_plan(stores: JobStores, plan_key: str) -> None:
    """Raise JobError if this job's plan is not decided yet."""
    if layout.plan_store(stores, plan_key).plan() is None:
        raise JobError("this job has no plan yet; run `anonlib plan` first (or `anonlib run` for everything)")


def status(workspace: Storage, release: Storage | None) -> Status:
    """The state of a workspace and a release; raises JobError if the workspace was purged or is of another version."""
    if workspace.exists(layout.PURGED):
        raise JobError(
            f"the workspace {workspace.uri} was purged, and nothing of the job is left there; `anonlib verify` says "
            "what the release is"
        )
    note = read_note(workspace) or {}
    summary, reasons = (None, Reasons()) if release is None else _release(JobStores(workspace, release))
    return Status(
        shards=int(note.get("shards", 0)),
        scans=tuple(len(scan.done()) for scan in layout.scans_of(workspace).values()),
        plans=tuple(map(_plan, layout.plans_of(workspace))),
        release=summary,
        reasons=reasons,
        left_out=note.get("left_out", {}) if summary is None else summary.left_out,
    )


def certificate_of(release: Storage) -> Certificate | None:
    """What the release says of itself; None before it is finished."""
    try:
        return Certificate.from_bytes(release.read(CERTIFICATE))
    except NotFound:
        return None


def exceptions(stores: JobStores) -> Reasons:
    """Why images were quarantined and faces fell back, over the whole release."""
    return _release(stores)[1]


def note_failure(workspace: Storage, stage: str, unit: str, details: str) -> None:
    """Keep in full what went wrong in a unit, since no log may hold it. Raises StorageError."""
    workspace.publish(f"failures/{stage}/{unit}.txt", details.encode(errors="backslashreplace"))


def _release(stores: JobStores) -> tuple[Summary | None, Reasons]:
    """What the release's markers say, and the workspace of its exceptions; None and none before a render."""
    store, reasons = layout.release_store(stores), Reasons()
    try:
        run = store.run()
    except NotFound:
        return None, reasons
    markers = store.markers(run["shards"])
    # Tables are read only of shards whose marker counts an exception.
    shards = [str(marker["shard"]) for marker in markers if marker["quarantined"] or marker["fallbacks"]]
    with ThreadPoolExecutor(_READERS) as pool:
        for counts in pool.map(lambda shard: Counter(_reasons(stores, run["run"], shard)), shards):
            reasons.update(counts)
    return Summary.of(run, markers), reasons


def _reasons(stores: JobStores, run: str, shard: str) -> Iterator[tuple[str, str]]:
    quarantined = set()
    for row in layout.release_store(stores).manifest(shard, ["key", "status", "reason"]).to_pylist():
        if row["status"] == QUARANTINED:
            quarantined.add(row["key"])
            yield QUARANTINED, meaning_of(row["reason"])
    for key, faces in layout.render_store(stores, run).faces(shard).items():
        for face in faces if key not in quarantined else ():
            if face["fallback"] in ELLIPSES:
                yield face["method"], face["reason"] or "no reason given"


def _plan(store: PlanStore) -> dict[str, Any]:
    state = {"done": len(store.blocks_done()), "labels": store.path(layout.LABELS)}
    if (plan := store.plan()) is None:
        return state
    return state | {"blocks": len(plan["blocks"])} | {name: int(plan[name]) for name in layout.PLAN_COUNTS}
