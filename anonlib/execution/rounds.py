"""A stage's rounds: run what has no marker yet, try each unit up to three times, and report after each round.

A unit that came back with an error has been tried. One whose worker died has not, as long as others get done: machines
that vanish take healthy units with them, again and again where they are cheap.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TypeVar

from anonlib.execution.base import UnitResult
from anonlib.execution.local import Runner, in_waves
from anonlib.execution.retry import with_retries
from anonlib.execution.telemetry import Report, Round, UnitRecord
from anonlib.execution.worker import MakeStage

ROUNDS = 3
"""How often a unit is tried."""
DIED = "its worker died"

Unit = TypeVar("Unit")


@dataclass(frozen=True)
class Rounds:
    """Runs stages on a runner; `report` is called with every result, `ended` with every round."""

    runner: Runner
    report: Report
    ended: Callable[[Round], None]

    def run(
        self,
        work: UnitRecord,
        make: MakeStage[Unit],
        units: Sequence[Unit],
        done: Callable[[], set[str]],
        id_of: Callable[[Unit], str],
    ) -> dict[str, str]:
        """The units that have no marker in the end, and why."""
        finished = with_retries(done)
        todo = [unit for unit in units if id_of(unit) not in finished]
        total = len(todo)
        given_up: dict[str, str] = {}
        tries: Counter[str] = Counter()
        for number in count(1):
            if not todo:
                break
            failed = {id_of(unit): DIED for unit in todo}
            began, sums, finished = time.monotonic(), Counter[str](), set()
            try:
                for result in self._results(replace(work, round=number), make, todo):
                    _add(sums, result)
                    if result.error is None:
                        finished.add(result.unit)
                    else:
                        failed[result.unit] = result.error
                    self.report(work.stage, result, total)
                finished = with_retries(done)
            finally:
                # A round that is cut short has cost its time too.
                failed = {unit: why for unit, why in failed.items() if unit not in finished}
                self.ended(self._round(work.stage, number, len(todo), failed, sums, time.monotonic() - began))
            fruitless = len(failed) == len(todo)
            tries.update(unit for unit, why in failed.items() if why != DIED or fruitless)
            given_up |= {unit: why for unit, why in failed.items() if tries[unit] == ROUNDS}
            todo = [unit for unit in todo if id_of(unit) in failed and id_of(unit) not in given_up]
        return given_up

    def _results(self, work: UnitRecord, make: MakeStage[Unit], todo: Sequence[Unit]) -> Iterator[UnitResult]:
        """Those of the runner, counted as they come."""
        meter = self.runner.meter
        meter.left(work, len(todo))
        for number, result in enumerate(in_waves(self.runner, make, todo, work), 1):
            meter.count(work, result)
            meter.left(work, len(todo) - number)
            yield result
        meter.left(work, 0)

    def _round(
        self, stage: str, number: int, units: int, failed: Mapping[str, str], sums: Counter[str], seconds: float
    ) -> Round:
        commonest = Counter(failed.values()).most_common(1)
        return Round(
            stage=stage,
            round=number,
            units=units,
            done=units - len(failed),
            failed=sums["failed"],
            remaining=len(failed),
            images=sums["images"],
            faces=sums["faces"],
            quarantined=sums["quarantined"],
            seconds=seconds,
            actors=self.runner.actors(units),
            busy=sums["busy_us"] / 1e6,
            why=commonest[0][0] if commonest else None,
        )


def _add(sums: Counter[str], result: UnitResult) -> None:
    """Images and faces of what went well, microseconds of all."""
    sums["busy_us"] += round(result.busy * 1e6)
    if result.error is not None:
        sums["failed"] += 1
        return
    for name in ("images", "faces", "quarantined"):
        sums[name] += int(getattr(result, name))
