"""How the units of a stage are run: one by a worker, all by a runner, and what has no marker again in rounds.

A unit that came back with an error has been tried; one whose worker died has not, as long as others get done.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import replace
from itertools import count
from typing import Protocol, TypeVar

from anonlib.config import RayConfig
from anonlib.errors import AnonlibError, DeviceLost, contained, full_traceback
from anonlib.execution.base import UnitResult, watching
from anonlib.execution.retry import describe, is_infrastructure_error, with_retries
from anonlib.execution.telemetry import Labels, Meter, Report, Round
from anonlib.media.sandbox.confinement import bound_heap

ROUNDS = 3
"""How often a unit is tried."""
DIED = "its worker died"
UNTRIED = "the round was cut short before they were done"

Unit = TypeVar("Unit")


class Stage(Protocol[Unit]):  # type: ignore[misc]
    """One verb, which several threads may use at once; a stage is built where it runs and holds its models."""

    def run(self, unit: Unit) -> UnitResult: ...


MakeStage = Callable[[], Stage[Unit]]


class Runner(Meter, ABC):
    """Runs a stage over its units, and counts their results."""

    @abstractmethod
    def actors(self, units: int) -> int:
        """How many workers begin, for this number of units."""

    @abstractmethod
    def run(self, make: MakeStage[Unit], units: Sequence[Unit]) -> Generator[UnitResult]:
        """Results of all units as they come, in any order; a unit that failed comes with its error."""


def worker(make: MakeStage[Unit]) -> Callable[[Unit], UnitResult]:
    """Runs units on a stage that is built once; the first result has the seconds of that."""
    bound_heap()
    began = time.perf_counter()
    stage, start = make(), iter([time.perf_counter() - began])

    def run(unit: Unit) -> UnitResult:
        result = run_unit(stage, unit)
        return replace(result, parts={**result.parts, "start": next(start, 0.0)})

    return run


def run_unit(stage: Stage[Unit], unit: Unit) -> UnitResult:
    """Run one unit; a failure is a result with a sentence, so that the other units go on."""
    began = time.monotonic()
    name = str(getattr(unit, "shard_id", unit))
    with watching() as watch:
        error: Exception | None = None
        try:
            with contained(f"unit {name}") as failure:
                result = with_retries(lambda: stage.run(unit))
            error = failure.error
        except DeviceLost:
            raise
        except AnonlibError as problem:
            error = problem
        if error is not None:
            halts = is_infrastructure_error(error)
            result = UnitResult(name, error=describe(error), details=full_traceback(error), halts=halts)
    seconds = time.monotonic() - began
    return replace(result, seconds=seconds, parts=watch.parts, read=watch.read, written=watch.written)


class SerialRunner(Runner):
    """Units in this process, as many at once as `threads`, to the same bytes as RayRunner."""

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads

    def actors(self, units: int) -> int:
        return max(1, min(self.threads, units))

    def run(self, make: MakeStage[Unit], units: Sequence[Unit]) -> Generator[UnitResult]:
        if not units:
            return
        run, threads = worker(make), self.actors(len(units))
        if threads == 1:
            yield from map(run, units)
            return
        pool, running = ThreadPoolExecutor(threads), set[Future[UnitResult]]()
        try:
            for unit in units:
                running.add(pool.submit(run, unit))
                # No unit waits in the pool, so that a job that is stopped ends with those at work.
                if len(running) == threads:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            yield from (future.result() for future in as_completed(running))
            pool.shutdown()
        except KeyboardInterrupt:
            pool.shutdown(wait=False)
            raise
        except BaseException:
            pool.shutdown()  # units at work end before the job does
            raise


def open_runner(ray: RayConfig) -> Runner:
    """The serial runner for `actors: 0`, on all cores, else Ray."""
    if ray.actors == 0:
        return SerialRunner(ray.threads)
    from anonlib.execution.ray import RayRunner

    return RayRunner(ray)


def run_rounds(
    runner: Runner,
    about: Labels,
    make: MakeStage[Unit],
    units: Sequence[Unit],
    done: Callable[[], set[str]],
    id_of: Callable[[Unit], str],
    report: Report,
    ended: Callable[[Round], None],
) -> dict[str, str]:
    """Run the units without a marker up to three times; returns why some have none. `about`: stage and method."""
    finished = with_retries(done)
    todo = [unit for unit in units if id_of(unit) not in finished]
    total, stage = len(todo), about["stage"]
    given_up: dict[str, str] = {}
    tries: Counter[str] = Counter()
    for number in count(1):
        if not todo:
            return given_up
        failed = {id_of(unit): UNTRIED for unit in todo}
        began, images, busy, finished = time.monotonic(), 0, 0.0, set()
        runner.take("anonlib_units_left", left := len(todo), about)
        results = runner.run(make, todo)
        try:
            for result in results:
                runner.count(about, result)
                runner.take("anonlib_units_left", left := left - 1, about)
                busy += result.busy
                if result.error is None:
                    images += int(result.images)
                    finished.add(result.unit)
                else:
                    failed[result.unit] = result.error
                report(stage, result, total)
            # Only a round that came to its end has lost workers with the units that gave no result.
            failed = {unit: DIED if why == UNTRIED else why for unit, why in failed.items()}
            runner.take("anonlib_units_left", 0, about)
            finished = with_retries(done)
        finally:
            # A round that is cut short ends with the units at work, and has cost its time too.
            results.close()
            failed = {unit: why for unit, why in failed.items() if unit not in finished}
            why = next((why for why, _ in Counter(failed.values()).most_common(1)), None)
            seconds, actors = time.monotonic() - began, runner.actors(len(todo))
            ended(Round(stage, number, len(todo), len(failed), images, seconds, actors, busy, why))
        fruitless = len(failed) == len(todo)
        tries.update(unit for unit, why in failed.items() if why != DIED or fruitless)
        given_up |= {unit: why for unit, why in failed.items() if tries[unit] == ROUNDS}
        todo = [unit for unit in todo if id_of(unit) in failed and id_of(unit) not in given_up]
    return given_up
