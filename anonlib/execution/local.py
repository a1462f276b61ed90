"""Runs a stage over its units, one after another in this process: the twin of ray.py that ends in the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from anonlib.config import RayConfig
from anonlib.execution.base import UnitResult
from anonlib.execution.telemetry import Meter, UnitRecord, WorkerIdentity
from anonlib.execution.worker import MakeStage, Worker

Unit = TypeVar("Unit")

WAVE = 20_000
"""Units that a runner holds at once. On Ray each is a block, for which the driver holds 9 KB and spends 5 ms."""


class Runner(Protocol):
    """Runs a stage over its units; `meter` counts their results."""

    @property
    def meter(self) -> Meter: ...

    def actors(self, units: int) -> int:
        """How many workers share so many units."""

    def run(self, make: MakeStage[Unit], units: Sequence[Unit], work: UnitRecord) -> Iterator[UnitResult]:
        """Results of all units as they come, in any order; a unit that failed comes with its error."""


def open_runner(ray: RayConfig) -> Runner:
    """The serial twin for `actors: 0`, else Ray."""
    if ray.actors == 0:
        return SerialRunner()
    from anonlib.execution.ray import RayRunner

    return RayRunner(ray)


def in_waves(runner: Runner, make: MakeStage[Unit], units: Sequence[Unit], work: UnitRecord) -> Iterator[UnitResult]:
    """Results of all units, of which the runner has no more than WAVE at once."""
    for start in range(0, len(units), WAVE):
        yield from runner.run(make, units[start : start + WAVE], work)


class SerialRunner:
    """One unit after another in this process."""

    meter = Meter()

    def actors(self, units: int) -> int:
        return 1

    def run(self, make: MakeStage[Unit], units: Sequence[Unit], work: UnitRecord) -> Iterator[UnitResult]:
        if units:
            worker = Worker(make, work, WorkerIdentity())
            yield from map(worker.run, units)
