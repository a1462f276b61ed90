"""What a job has cost so far: seconds of actors, and money if the job names prices.

A job may take several runs, on a laptop and on a cluster. So each run keeps its sums in the workspace, under a name of
its own (never in a marker or the release, which carry no time), and `anonlib status` adds them up. An estimate: a pool
is reserved from its round's beginning to its end, idle actors too; what machines cost before, after and between rounds
is not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import uuid4

from anonlib.config import RayConfig
from anonlib.errors import StorageError
from anonlib.storage import Storage
from anonlib.workspace.status import note_spending, spent

_STAGES = ("scan", "plan", "surrogates", "render")


@dataclass(frozen=True)
class CostEntry:
    """Of one stage, or of everything: images, seconds that actors were `busy` and were `reserved`, and the `cost`.

    `cost` is in the currency of the prices; None if any of it was spent without prices.
    """

    images: int = 0
    busy: float = 0.0
    reserved: float = 0.0
    cost: float | None = 0.0

    def __add__(self, other: CostEntry) -> CostEntry:
        cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        return CostEntry(self.images + other.images, self.busy + other.busy, self.reserved + other.reserved, cost)

    def __str__(self) -> str:
        """`1.4 actor hours at 0.2, 0.31 a thousand images`: money where prices are known, else hours."""
        hours = self.reserved / 3600
        text = f"{hours:.3g} actor hours" + ("" if self.cost is None else f" at {self.cost:.3g}")
        if not self.images:
            return text
        each = 1000 * (hours if self.cost is None else self.cost) / self.images
        return f"{text}, {each:.3g}{' hours' if self.cost is None else ''} a thousand images"


@dataclass(frozen=True)
class CostEstimate:
    """Sums by stage, in the order of a job, and over so many `runs`."""

    stages: Mapping[str, CostEntry]
    runs: int = 1

    @property
    def total(self) -> CostEntry:
        """All stages; its images are those that went furthest."""
        furthest = [entry.images for entry in self.stages.values() if entry.images]
        return replace(sum(self.stages.values(), CostEntry()), images=furthest[-1] if furthest else 0)

    def rows(self) -> list[tuple[str, str]]:
        """Lines for a terminal: the sum, then each stage."""
        total = self.total
        runs = "" if self.runs == 1 else f"{self.runs} runs, "
        rows = [("spent", f"{runs}{total}, {total.busy / 3600:.3g} h of it busy")]
        return rows + [("", f"{name}: {entry}") for name, entry in self.stages.items()]


def total_of(runs: Iterable[Mapping[str, CostEntry]]) -> CostEstimate | None:
    """Several runs as one, None of none."""
    runs = list(runs)
    stages = {name: [run[name] for run in runs if name in run] for name in _STAGES}
    sums = {name: sum(entries, CostEntry()) for name, entries in stages.items() if entries}
    return CostEstimate(sums, len(runs)) if runs else None


def read_costs(workspace: Storage) -> list[dict[str, CostEntry]]:
    """What each run of a workspace has spent, by stage."""
    return costs_of(spent(workspace))


def costs_of(records: Iterable[Mapping[str, Any]]) -> list[dict[str, CostEntry]]:
    """The same of the runs' records."""
    return [{name: CostEntry(**row) for name, row in record.items()} for record in records]


class CostLog:
    """This run's own sums, kept in the workspace after every round."""

    def __init__(self, ray: RayConfig, workspace: Storage) -> None:
        self.ray, self.workspace = ray, workspace
        self.stages: dict[str, CostEntry] = {}
        self.not_kept: str | None = None
        """Why `anonlib status` will not know of this run."""
        self._run = uuid4().hex

    def add(self, stage: str, *, images: int, busy: float, reserved: float, gpus: float) -> None:
        """Count a round, or the making of a plan, whose actors had so many GPUs each, and keep the sums.

        Where they cannot be kept, as by a role that may only read the workspace, `not_kept` says why: cost accounting
        must never fail a run.
        """
        price = self.ray.price
        hour = price.cpu_hour + gpus * price.gpu_hour
        entry = CostEntry(images, busy, reserved, reserved / 3600 * hour if price.known else None)
        self.stages[stage] = self.stages.get(stage, CostEntry()) + entry
        try:
            record = {name: asdict(entry) for name, entry in self.stages.items()}
            note_spending(self.workspace, self._run, record)
            self.not_kept = None
        except StorageError as error:
            self.not_kept = str(error)

    def so_far(self) -> CostEstimate | None:
        """All runs of this job, this one among them."""
        unkept = [self.stages] if self.not_kept is not None else []
        return total_of([*read_costs(self.workspace), *unkept])
