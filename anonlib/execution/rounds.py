"""A stage's rounds: run what has no marker yet, try each unit up to three times, and say after each round how it went.

A unit that came back with an error has been tried. One whose worker died has not, as long as others get done: machines
that vanish take healthy units with them, again and again where they are cheap.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TypeVar

from anonlib.execution.base import UnitResult
from anonlib.execution.ray import Runner, in_waves
from anonlib.execution.retry import with_retries
from anonlib.execution.unit_log import UnitRecord
from anonlib.execution.worker import MakeStage

ROUNDS = 3
"""How often a unit is tried."""
DIED = "its worker died"

Unit = TypeVar("Unit")
Report = Callable[[str, UnitResult, int], None]
"""Called with the stage's name, an outcome and how many units the stage has to do in this run."""


@dataclass(frozen=True)
class Round:
    """One round of a stage as the driver saw it.

    `wanted` units were to do, `done` have a marker now, `left` have not, most often because of `why`; `failed` outcomes
    came back with an error. `seconds` passed; the pool's `actors` were `busy` for so many seconds in all, and are paid
    for `paid`, since they wait together.
    """

    stage: str
    number: int
    wanted: int
    done: int
    failed: int
    left: int
    images: int
    faces: int
    quarantined: int
    seconds: float
    actors: int
    busy: float
    why: str | None = None

    @property
    def paid(self) -> float:
        return self.actors * self.seconds

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / max(self.seconds, 1e-6)


@dataclass(frozen=True)
class Rounds:
    """Runs stages on a runner; `report` hears of every outcome, `ended` of every round."""

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
        wanted = len(todo)
        failed: dict[str, str] = {}
        given_up: dict[str, str] = {}
        tries: Counter[str] = Counter()
        for number in count(1):
            if not todo:
                break
            failed = {id_of(unit): DIED for unit in todo}
            began, sums, finished = time.monotonic(), defaultdict[str, float](float), set()
            try:
                for outcome in self._outcomes(replace(work, round=number), make, todo):
                    _add(sums, outcome)
                    if outcome.error is None:
                        finished.add(outcome.unit)
                    else:
                        failed[outcome.unit] = outcome.error
                    self.report(work.stage, outcome, wanted)
                finished = with_retries(done)
            finally:
                # A round that is cut short has cost its time too.
                failed = {unit: why for unit, why in failed.items() if unit not in finished}
                self.ended(self._round(work.stage, number, todo, failed, sums, time.monotonic() - began))
            fruitless = len(failed) == len(todo)
            tries.update(unit for unit, why in failed.items() if why != DIED or fruitless)
            given_up |= {unit: why for unit, why in failed.items() if tries[unit] == ROUNDS}
            todo = [unit for unit in todo if id_of(unit) in failed and id_of(unit) not in given_up]
        return given_up

    def _outcomes(self, work: UnitRecord, make: MakeStage[Unit], todo: Sequence[Unit]) -> Iterator[UnitResult]:
        """Those of the runner, counted as they come."""
        meter = self.runner.meter
        meter.left(work, len(todo))
        for number, outcome in enumerate(in_waves(self.runner, make, todo, work), 1):
            meter.count(work, outcome)
            meter.left(work, len(todo) - number)
            yield outcome
        meter.left(work, 0)

    def _round(
        self,
        stage: str,
        number: int,
        todo: Sequence[Unit],
        failed: Mapping[str, str],
        sums: Mapping[str, float],
        seconds: float,
    ) -> Round:
        commonest = Counter(failed.values()).most_common(1)
        return Round(
            stage=stage,
            number=number,
            wanted=len(todo),
            done=len(todo) - len(failed),
            failed=int(sums["failed"]),
            left=len(failed),
            images=int(sums["images"]),
            faces=int(sums["faces"]),
            quarantined=int(sums["quarantined"]),
            seconds=seconds,
            actors=self.runner.actors(len(todo)),
            busy=sums["busy"],
            why=commonest[0][0] if commonest else None,
        )


def _add(sums: MutableMapping[str, float], outcome: UnitResult) -> None:
    """Images and faces of what went well, seconds of all."""
    sums["busy"] += outcome.busy
    if outcome.error is not None:
        sums["failed"] += 1
        return
    for name in ("images", "faces", "quarantined"):
        sums[name] += int(getattr(outcome, name))
