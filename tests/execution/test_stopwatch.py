"""A unit's seconds are told by part, on a clock that is never set back, at next to no cost."""

from __future__ import annotations

import time

import pytest

from anonlib.execution import worker
from anonlib.execution.base import UnitResult
from anonlib.execution.stopwatch import PARTS, Stopwatch, current, watching
from anonlib.execution.worker import run_unit
from anonlib.media.prefetch import chunks_ahead

PAUSE = 0.02


class Sleeper:
    """Reads and decodes in the thread beside it, and paints."""

    def run(self, unit: str) -> UnitResult:
        def slowly(item: int) -> int:
            time.sleep(PAUSE)
            return item

        items = map(slowly, range(2))
        for _ in chunks_ahead(slowly, items, lambda item: 1, most=1, budget=4, timed=current().timed):
            with current().timed("replace"):
                time.sleep(PAUSE)
        current().read += 7
        if unit == "bad":
            raise ValueError("no")
        return UnitResult(unit, images=2)


@pytest.mark.parametrize("unit", ["good", "bad"])
def test_every_part_is_told_also_of_a_unit_that_failed(unit: str) -> None:
    outcome = run_unit(Sleeper(), unit)
    assert set(outcome.parts) == set(PARTS)
    assert all(outcome.parts[part] >= 2 * PAUSE for part in ("read", "decode", "replace"))
    assert outcome.parts["wait"] > 0
    assert outcome.parts["detect"] == 0
    assert outcome.seconds >= outcome.parts["replace"] + outcome.parts["wait"]
    assert outcome.read == 7


def test_a_clock_that_is_set_back_makes_no_negative_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    backwards = iter(range(1_000_000, 0, -3600))
    monkeypatch.setattr(worker.time, "time", lambda: float(next(backwards)))
    assert 0 <= run_unit(Sleeper(), "good").seconds < 60


def test_one_unit_hears_nothing_of_another() -> None:
    with watching() as first, first.timed("check"):
        assert current() is first
    with watching() as second:
        assert second.parts["check"] == 0
    assert current() is not second, "where no unit runs, nobody reads the stopwatch"


def test_timing_costs_next_to_nothing() -> None:
    """Ten parts an image stay under a per cent of a fast image's 10 ms."""
    watch, rounds = Stopwatch(), 2000
    began = time.process_time()
    for _ in range(rounds):
        with watch.timed("detect"):
            pass
    assert 10 * (time.process_time() - began) / rounds < 100e-6
