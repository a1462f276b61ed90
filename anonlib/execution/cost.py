"""What a job has cost so far: seconds of actors, and money if the job names prices; an estimate.

A pool is reserved from its round's beginning to its end, idle actors too; what machines cost outside of rounds is not
in it. Each run keeps its sums in the workspace under a name of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import uuid4

from anonlib.config import RayConfig
from anonlib.errors import StorageError
from anonlib.storage import Storage
from anonlib.workspace.status import note_spending

_STAGES = ("scan", "plan", "surrogates", "render")


@dataclass(frozen=True)
class CostEntry:
    """Images, busy and reserved seconds of actors, and money, None if any of it was spent without prices."""

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


def cost_rows(records: Iterable[Mapping[str, Mapping[str, Any]]]) -> list[tuple[str, str]]:
    """Lines for a terminal from the records of runs: the sum, with the images of the last stage, then each stage."""
    runs = [{stage: CostEntry(**entry) for stage, entry in record.items()} for record in records]
    if not runs:
        return []
    stages = {name: sum((run[name] for run in runs if name in run), CostEntry()) for name in _STAGES}
    stages = {name: entry for name, entry in stages.items() if entry != CostEntry()}
    images = [entry.images for entry in stages.values() if entry.images]
    total = replace(sum(stages.values(), CostEntry()), images=images[-1] if images else 0)
    count = "" if len(runs) == 1 else f"{len(runs)} runs, "
    rows = [("spent", f"{count}{total}, {total.busy / 3600:.3g} h of it busy")]
    return rows + [("", f"{name}: {entry}") for name, entry in stages.items()]


class CostLog:
    """This run's own sums, kept in the workspace after every round."""

    def __init__(self, ray: RayConfig, workspace: Storage) -> None:
        self.ray, self.workspace = ray, workspace
        self.stages: dict[str, CostEntry] = {}
        self._run = uuid4().hex

    def add(self, stage: str, *, images: int, busy: float, reserved: float, gpus: float) -> None:
        """Count a round, or the making of a plan, and keep the sums if that is possible."""
        price = self.ray.price
        hour = price.cpu_hour + gpus * price.gpu_hour
        entry = CostEntry(images, busy, reserved, reserved / 3600 * hour if price.known else None)
        self.stages[stage] = self.stages.get(stage, CostEntry()) + entry
        try:
            note_spending(self.workspace, self._run, {name: asdict(entry) for name, entry in self.stages.items()})
        except StorageError as error:
            logging.getLogger(__name__).warning("`anonlib status` will not know what this run cost: %s", error)
