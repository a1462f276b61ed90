"""What a job has cost so far: seconds of actors, and money if the job names prices.

A job may take several runs, on a laptop and on a cluster. So each run that did anything keeps its sums in the
workspace, under a name of its own (never in a marker or the release, which carry no time), and `anonlib status` adds
them up. An estimate: a pool is paid from its round's beginning to its end, idle actors too; what machines cost before,
after and between is known to whoever rents them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Self
from uuid import uuid4

from anonlib.config import RayConfig
from anonlib.errors import StorageError
from anonlib.storage import Storage
from anonlib.workspace.layout import json_bytes

FOLDER = "spending"


@dataclass(frozen=True)
class CostEntry:
    """Of one stage, or of everything: images, seconds that actors were `busy` and were `paid` for, and the `cost`.

    `cost` is in the currency of the prices; None if any of it was spent without prices.
    """

    images: int = 0
    busy: float = 0.0
    paid: float = 0.0
    cost: float | None = 0.0

    def __add__(self, other: CostEntry) -> CostEntry:
        cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        return CostEntry(self.images + other.images, self.busy + other.busy, self.paid + other.paid, cost)

    @property
    def hours(self) -> float:
        """Actor hours that are paid for."""
        return self.paid / 3600

    def per_thousand(self, value: float) -> float | None:
        """`value` for a thousand images; None before there is one."""
        return 1000 * value / self.images if self.images else None


@dataclass(frozen=True)
class CostEstimate:
    """Sums by stage, in the order of the run, and over so many `runs`."""

    stages: Mapping[str, CostEntry] = field(default_factory=dict)
    runs: int = 1

    @property
    def total(self) -> CostEntry:
        """All stages; its images are those that went furthest."""
        spent = sum(self.stages.values(), CostEntry())
        furthest = [one.images for one in self.stages.values() if one.images]
        return replace(spent, images=furthest[-1] if furthest else 0)

    @classmethod
    def sum(cls, bills: Iterable[CostEstimate]) -> Self:
        """Several runs as one; stages stand in the order of a job."""
        bills = list(bills)
        stages: dict[str, CostEntry] = {}
        for name in ("scan", "plan", "surrogates", "render"):
            parts = [bill.stages[name] for bill in bills if name in bill.stages]
            if parts:
                stages[name] = sum(parts, CostEntry())
        return cls(stages, sum(bill.runs for bill in bills))


def rows_of(bill: CostEstimate) -> list[tuple[str, str]]:
    """A bill as lines for a terminal: the sum, then each stage."""
    total = bill.total
    runs = "" if bill.runs == 1 else f"{bill.runs} runs, "
    rows = [("spent", f"{runs}{_said(total)}, {total.busy / 3600:.3g} h of it busy")]
    return rows + [("", f"{name}: {_said(one)}") for name, one in bill.stages.items()]


def _said(spent: CostEntry) -> str:
    """`1.4 actor hours, 0.31 a thousand images`: money where prices are known, else hours."""
    what = spent.hours if spent.cost is None else spent.cost
    said = f"{spent.hours:.3g} actor hours"
    if spent.cost is not None:
        said += f" at {spent.cost:.3g}"
    each = spent.per_thousand(what)
    return said if each is None else f"{said}, {each:.3g}{' hours' if spent.cost is None else ''} a thousand images"


class CostLog:
    """This run's own sums, kept in the workspace after every round."""

    def __init__(self, ray: RayConfig, workspace: Storage) -> None:
        self.ray, self.workspace = ray, workspace
        self.bill = CostEstimate()
        self.not_kept: str | None = None
        """Why `anonlib status` will not know of this run."""
        self._path = f"{FOLDER}/{uuid4().hex}.json"

    def add(self, stage: str, *, images: int, busy: float, paid: float, gpus: float) -> None:
        """Count a round, or the making of a plan, whose actors had so many GPUs each, and keep the sums.

        Where they cannot be kept, as by a role that may only read the workspace, `not_kept` says why: no release
        should fail for its bill.
        """
        price = self.ray.price
        hour = price.cpu_hour + gpus * price.gpu_hour
        spent = CostEntry(images, busy, paid, paid / 3600 * hour if price.known else None)
        self.bill = CostEstimate(dict(self.bill.stages) | {stage: self.bill.stages.get(stage, CostEntry()) + spent})
        record = {"stages": {name: asdict(one) for name, one in self.bill.stages.items()}}
        try:
            self.workspace.publish(self._path, json_bytes(record | {"price": price.model_dump()}))
            self.not_kept = None
        except StorageError as error:
            self.not_kept = str(error)

    def so_far(self) -> CostEstimate | None:
        """All runs of this job, this one among them."""
        kept = read_bill(self.workspace)
        mine = [self.bill] if self.not_kept is not None else []
        return CostEstimate.sum([*([kept] if kept else []), *mine]) if kept or mine else None


def read_bill(workspace: Storage) -> CostEstimate | None:
    """All runs that are kept in a workspace; None if there is none."""
    records = [json.loads(workspace.read(entry.path)) for entry in workspace.list(f"{FOLDER}/")]
    if not records:
        return None
    return CostEstimate.sum(
        CostEstimate({name: CostEntry(**row) for name, row in record["stages"].items()}) for record in records
    )
