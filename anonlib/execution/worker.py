"""A stage where it runs: made once, then asked for one unit after another.

Both twins of the runner hold one: a failure is the same sentence in either, and every unit leaves its line of log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from anonlib.errors import AnonlibError, DeviceLost, contained, full_traceback
from anonlib.execution.base import UnitResult
from anonlib.execution.retry import describe, is_infrastructure_error, with_retries
from anonlib.execution.stopwatch import watching
from anonlib.execution.unit_log import UnitRecord, WorkerIdentity, log_unit

Unit = TypeVar("Unit")


class Stage(Protocol[Unit]):  # type: ignore[misc]
    """One verb, which several threads may use at once; a stage is made where it runs and holds its models."""

    def run(self, unit: Unit) -> UnitResult: ...


MakeStage = Callable[[], Stage[Unit]]


class Worker:
    """A stage where it runs: made once, then asked for one unit after another, each of which leaves a line of log."""

    def __init__(self, make: MakeStage[Any], work: UnitRecord, worker: WorkerIdentity) -> None:
        began = time.perf_counter()
        self.stage, self.work, self.worker = make(), work, worker
        self._start = time.perf_counter() - began

    def attempt(self, unit: Any) -> UnitResult:
        """The outcome of one unit; the first one's tells what the start took."""
        outcome = run_unit(self.stage, unit)
        start, self._start = self._start, 0.0
        outcome = replace(outcome, parts={**outcome.parts, "start": start})
        log_unit(self.work, self.worker, outcome)
        return outcome


def build_stage(make: MakeStage[Any]) -> Stage[Any]:
    """The stage, or one that says why there is none: an actor that cannot begin would be started again for ever."""
    try:
        return make()
    except AnonlibError as error:
        return _StageFailed(str(error))


class _StageFailed:
    """A stage that could not be made on this machine: says so of every unit."""

    def __init__(self, why: str) -> None:
        self.why = why

    def run(self, unit: object) -> UnitResult:
        return UnitResult(_name(unit), error=self.why, halts=True)


def run_unit(stage: Stage[Unit], unit: Unit) -> UnitResult:
    """Run one unit; a failure is an Outcome with a sentence, so that the other units go on."""
    # Wall clocks are set back; how long it took is of the monotonic one.
    began, start = time.time(), time.monotonic()
    with watching() as watch:
        error: Exception | None = None
        try:
            with contained(f"unit {_name(unit)}") as failure:
                outcome = with_retries(lambda: stage.run(unit))
            error = failure.error
        except DeviceLost:
            raise
        except AnonlibError as problem:
            error = problem
        if error is not None:
            outcome = UnitResult(
                _name(unit), error=describe(error), details=full_traceback(error), halts=is_infrastructure_error(error)
            )
    seconds = time.monotonic() - start
    return replace(outcome, began=began, seconds=seconds, parts=watch.parts, read=watch.read, written=watch.written)


def _name(unit: object) -> str:
    return str(getattr(unit, "shard_id", unit))
