"""Runs a stage's units in one process: builds the stage once, turns exceptions into results, and logs each unit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from anonlib.errors import AnonlibError, DeviceLost, contained, full_traceback
from anonlib.execution.base import UnitResult
from anonlib.execution.retry import describe, is_infrastructure_error, with_retries
from anonlib.execution.stopwatch import watching
from anonlib.execution.telemetry import UnitRecord, WorkerIdentity, log_unit

Unit = TypeVar("Unit")


class Stage(Protocol[Unit]):  # type: ignore[misc]
    """One verb, which several threads may use at once; a stage is built where it runs and holds its models."""

    def run(self, unit: Unit) -> UnitResult: ...


MakeStage = Callable[[], Stage[Unit]]


class Worker:
    """Builds a stage once, runs units on it, turns exceptions into results, and logs each."""

    def __init__(self, make: MakeStage[Any], work: UnitRecord, worker: WorkerIdentity) -> None:
        began = time.perf_counter()
        self.stage, self.work, self.worker = make(), work, worker
        self._start = time.perf_counter() - began

    def run(self, unit: Any) -> UnitResult:
        """The result of one unit; the first has the seconds of the start."""
        result = run_unit(self.stage, unit)
        start, self._start = self._start, 0.0
        result = replace(result, parts={**result.parts, "start": start})
        log_unit(self.work, self.worker, result)
        return result


def build_stage(make: MakeStage[Any]) -> Stage[Any]:
    """The stage, or a substitute that fails every unit with the reason: Ray would start a dying actor for ever."""
    try:
        return make()
    except AnonlibError as error:
        return _FailedStage(str(error))


class _FailedStage:
    """A stage that could not be built on this machine: fails every unit with the reason."""

    def __init__(self, why: str) -> None:
        self.why = why

    def run(self, unit: object) -> UnitResult:
        return UnitResult(_name(unit), error=self.why, halts=True)


def run_unit(stage: Stage[Unit], unit: Unit) -> UnitResult:
    """Run one unit; a failure is a result with a sentence, so that the other units go on."""
    # Wall clocks are set back; how long it took is of the monotonic one.
    began, start = time.time(), time.monotonic()
    with watching() as watch:
        error: Exception | None = None
        try:
            with contained(f"unit {_name(unit)}") as failure:
                result = with_retries(lambda: stage.run(unit))
            error = failure.error
        except DeviceLost:
            raise
        except AnonlibError as problem:
            error = problem
        if error is not None:
            result = UnitResult(
                _name(unit), error=describe(error), details=full_traceback(error), halts=is_infrastructure_error(error)
            )
    seconds = time.monotonic() - start
    return replace(result, began=began, seconds=seconds, parts=watch.parts, read=watch.read, written=watch.written)


def _name(unit: object) -> str:
    return str(getattr(unit, "shard_id", unit))
