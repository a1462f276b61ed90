"""After every round its numbers add up, and what is left is tried again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from anonlib.execution.base import UnitResult
from anonlib.execution.rounds import DIED, ROUNDS, Round, Rounds
from anonlib.execution.telemetry import Meter, UnitRecord

WORK = UnitRecord("scan", "0" * 64, 1, "solid")


class Pool:
    """Two actors, each a second a unit; `fails` says how often a unit fails first, `lost` never come back."""

    def __init__(self, fails: dict[str, int] | None = None, lost: frozenset[str] = frozenset()) -> None:
        self.meter, self.marked, self.rounds = Gauge(), set[str](), list[int]()
        self.fails, self.lost = fails or {}, lost

    def actors(self, units: int) -> int:
        return min(2, units)

    def run(self, make: Any, units: Sequence[str], work: UnitRecord) -> Iterator[UnitResult]:
        self.rounds.append(work.round)
        for unit in units:
            if unit in self.lost:
                continue
            if self.fails.get(unit, 0) >= work.round:
                yield UnitResult(unit, images=9, seconds=1.0, error="The disk is full.")
                continue
            self.marked.add(unit)
            yield UnitResult(unit, images=5, faces=4, quarantined=1, seconds=1.0, parts={"start": 0.5})


class Gauge(Meter):
    """Remembers what was left."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def left(self, work: UnitRecord, units: int) -> None:
        self.seen.append(units)


def ran(pool: Pool, units: list[str]) -> tuple[dict[str, str], list[Round]]:
    ended: list[Round] = []
    rounds = Rounds(pool, lambda stage, outcome, wanted: None, ended.append)
    return rounds.run(WORK, lambda: None, units, lambda: set(pool.marked), str), ended  # type: ignore[arg-type, return-value]


def test_a_round_adds_up_what_came_back() -> None:
    pool = Pool(fails={"b": 1})
    failed, (first, second) = ran(pool, ["a", "b", "c"])
    assert failed == {} and pool.rounds == [1, 2]
    assert (first.units, first.done, first.failed, first.remaining) == (3, 2, 1, 1)
    assert (first.images, first.faces, first.quarantined) == (10, 8, 2), "of what failed nothing is counted"
    assert first.busy == 4.0, "seconds are those of every try, and the start of a worker"
    assert first.why == "The disk is full."
    assert (second.round, second.units, second.remaining, second.why) == (2, 1, 0, None)
    assert (first.actors, second.actors) == (2, 1)
    assert first.reserved == 2 * first.seconds


def test_what_never_comes_back_is_told_after_the_last_round() -> None:
    pool = Pool(lost=frozenset("x"))
    failed, ended = ran(pool, ["a", "x"])
    assert failed == {"x": DIED}
    assert [(one.units, one.remaining) for one in ended] == [(2, 1)] + [(1, 1)] * ROUNDS
    assert pool.meter.seen[:3] == [2, 1, 0]


def test_a_unit_that_fails_is_tried_three_times_whatever_becomes_of_others() -> None:
    pool = Pool(fails={"x": 9})
    assert ran(pool, ["a", "x"])[0] == {"x": "The disk is full."} and pool.rounds == [1, 2, 3]


def test_machines_that_vanish_are_not_held_against_their_units_while_others_get_done() -> None:
    class Vanishing(Pool):
        """Gets one unit done a round; whoever else was at hand is lost."""

        def run(self, make: Any, units: Sequence[str], work: UnitRecord) -> Iterator[UnitResult]:
            yield from super().run(make, units[-1:], work)

    pool = Vanishing()
    failed, ended = ran(pool, ["a", "b", "c", "d", "e", "f"])
    assert failed == {} and len(ended) == 6 > ROUNDS


def test_a_finished_stage_has_no_round() -> None:
    pool = Pool()
    pool.marked = {"a"}
    assert ran(pool, ["a"]) == ({}, [])
