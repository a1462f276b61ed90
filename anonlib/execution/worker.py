"""A stage where it runs: made once, then asked for one unit after another.

Both twins of the runner hold one: a failure is the same sentence in either, and every unit leaves its line of log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from anonlib.config import ConfigError
from anonlib.execution.base import FAILURES, Outcome, traced
from anonlib.execution.retry import is_of_the_place, patiently, said
from anonlib.execution.stopwatch import watching
from anonlib.execution.unit_log import Work, Worker, log_unit
from anonlib.storage import StorageError

Unit = TypeVar("Unit")


class Stage(Protocol[Unit]):  # type: ignore[misc]
    """One verb, which several threads may use at once; a stage is made where it runs and holds its models."""

    def run(self, unit: Unit) -> Outcome: ...


MakeStage = Callable[[], Stage[Unit]]


class Desk:
    """A stage where it runs: made once, then asked for one unit after another, each of which leaves a line of log."""

    def __init__(self, make: MakeStage[Any], work: Work, worker: Worker) -> None:
        began = time.perf_counter()
        self.stage, self.work, self.worker = make(), work, worker
        self._start = time.perf_counter() - began

    def attempt(self, unit: Any) -> Outcome:
        """The outcome of one unit; the first one's tells what the start took."""
        outcome = attempt(self.stage, unit)
        start, self._start = self._start, 0.0
        outcome = replace(outcome, parts={**outcome.parts, "start": start})
        log_unit(self.work, self.worker, outcome)
        return outcome


def begun(make: MakeStage[Any]) -> Stage[Any]:
    """The stage, or one that says why there is none: an actor that cannot begin would be started again for ever."""
    try:
        return make()
    except (ConfigError, StorageError) as error:
        return _Halted(str(error))


class _Halted:
    """A stage that could not be made on this machine: says so of every unit."""

    def __init__(self, why: str) -> None:
        self.why = why

    def run(self, unit: object) -> Outcome:
        return Outcome(_name(unit), error=self.why, halts=True)


def attempt(stage: Stage[Unit], unit: Unit) -> Outcome:
    """Run one unit; a failure is an Outcome with a sentence, so that the other units go on."""
    # Wall clocks are set back; how long it took is of the monotonic one.
    began, start = time.time(), time.monotonic()
    with watching() as watch:
        try:
            outcome = patiently(lambda: stage.run(unit))
        except (StorageError, *FAILURES) as error:
            outcome = Outcome(_name(unit), error=said(error), details=traced(error), halts=is_of_the_place(error))
    seconds = time.monotonic() - start
    return replace(outcome, began=began, seconds=seconds, parts=watch.parts, read=watch.read, written=watch.written)


def _name(unit: object) -> str:
    return str(getattr(unit, "shard_id", unit))
