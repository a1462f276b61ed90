"""Every unit has an outcome, a failure is a sentence, and what is left after a round is tried again."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonlib.errors import AccessDenied, Changed, NotFound, SandboxUnavailable, StorageError, Unavailable
from anonlib.execution import retry
from anonlib.execution.base import UnitResult, current, in_chunks
from anonlib.execution.retry import describe, is_infrastructure_error, with_retries
from anonlib.execution.rounds import DIED, ROUNDS, Runner, SerialRunner, run_rounds
from anonlib.execution.telemetry import Labels, Round

ABOUT = {"stage": "scan", "method": "solid"}
OF_THE_DATA = (
    *(NotFound("gone"), Changed("changed")),
    *(OSError("Corrupt snappy compressed data."), ValueError("x"), MemoryError()),
)
OF_THE_PLACE = (
    *(StorageError("The disk is full."), AccessDenied("denied"), SandboxUnavailable("no decoder")),
    *(OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EIO, errno.EMFILE)),
)


@given(st.lists(st.integers(1, 90), max_size=40), st.integers(1, 10))
def test_chunks_hold_everything_in_order_and_are_bounded_by_count_and_px(megapixels: list[int], most: int) -> None:
    items = [(np.broadcast_to(np.uint8(0), (1000, size * 1000, 3)),) for size in megapixels]
    chunks = list(in_chunks(items, most))
    assert [id(photo) for photo in chain.from_iterable(chunks)] == [id(photo) for photo in items]
    for chunk in chunks:
        assert 1 <= len(chunk) <= most
        assert sum(rgb.shape[0] * rgb.shape[1] for (rgb,) in chunk[:-1]) < 64_000_000


class Stage:
    """Fails on units that name an exception."""

    made = 0

    def __init__(self) -> None:
        Stage.made += 1

    def run(self, unit: str) -> UnitResult:
        errors: dict[str, Callable[[], BaseException]] = {
            "value": lambda: ValueError("bad\nthing"),
            "storage": lambda: StorageError("The disk is full."),
            "changed": lambda: Changed("It has changed."),
            "interrupt": KeyboardInterrupt,
        }
        with current().timed("replace"):
            time.sleep(0.001)
        current().read += 7
        if unit in errors:
            raise errors[unit]()
        return UnitResult(unit, images=3)


def test_every_unit_has_an_outcome_and_only_what_failed_outside_of_the_unit_halts_the_job() -> None:
    before = Stage.made
    assert list(SerialRunner().run(Stage, [])) == [] and Stage.made == before
    results = {result.unit: result for result in SerialRunner().run(Stage, ["a", "value", "storage", "changed"])}
    assert Stage.made == before + 1
    assert results["a"].error is None and results["a"].images == 3
    assert str(results["value"].error).startswith("ValueError at rounds.py:")
    assert "ValueError: bad" in str(results["value"].details)
    assert results["storage"].error == "The disk is full."
    assert [result.halts for result in results.values()] == [False, False, True, False]


def test_units_run_on_all_cores_and_no_more_are_begun_once_nobody_listens() -> None:
    together, begun = threading.Barrier(3, timeout=20), list[str]()

    class Meeting:
        def run(self, unit: str) -> UnitResult:
            begun.append(unit)
            together.wait()
            return UnitResult(unit)

    results = SerialRunner(threads=3).run(Meeting, [str(number) for number in range(30)])
    assert next(results).error is None
    results.close()  # type: ignore[attr-defined]
    assert len(begun) <= 6


class Pool(Runner):
    """Two actors, each a second a unit; `fails` says how often a unit fails first, `lost` never come back."""

    def __init__(self, fails: dict[str, int] | None = None, lost: frozenset[str] = frozenset()) -> None:
        self.left, self.marked, self.rounds = list[float](), set[str](), list[int]()
        self.fails, self.lost = fails or {}, lost

    def actors(self, units: int) -> int:
        return min(2, units)

    def run(self, make: Any, units: Sequence[str]) -> Iterator[UnitResult]:
        self.rounds.append(len(units))
        for unit in units:
            if unit in self.lost:
                continue
            if self.fails.get(unit, 0) >= len(self.rounds):
                yield UnitResult(unit, images=9, seconds=1.0, error="The disk is full.")
                continue
            self.marked.add(unit)
            yield UnitResult(unit, images=5, seconds=1.0, parts={"start": 0.5})

    def take(self, name: str, value: float, labels: Labels) -> None:
        if name == "anonlib_units_left":
            self.left.append(value)


def ran(pool: Pool, units: str) -> tuple[dict[str, str], list[Round]]:
    ended: list[Round] = []
    failed = run_rounds(
        pool, ABOUT, Stage, list(units), lambda: set(pool.marked), str, lambda stage, result, total: None, ended.append
    )
    return failed, ended


def test_a_round_adds_up_what_came_back_and_the_rest_is_tried_again() -> None:
    pool = Pool(fails={"b": 1})
    failed, (first, second) = ran(pool, "abc")
    assert failed == {} and pool.rounds == [3, 1]
    assert (first.units, first.remaining, first.images) == (3, 1, 10), "of what failed nothing is counted"
    assert first.busy == 4.0, "seconds are those of every try, and the start of a worker"
    assert first.why == "The disk is full."
    assert (second.round, second.units, second.remaining, second.why, second.actors) == (2, 1, 0, None, 1)
    assert ran(pool, "abc") == ({}, []), "a finished stage has no round"


def test_a_unit_that_fails_is_tried_three_times_and_one_that_died_once_more() -> None:
    pool = Pool(fails={"x": 9})
    assert ran(pool, "ax")[0] == {"x": "The disk is full."} and len(pool.rounds) == ROUNDS
    pool = Pool(lost=frozenset("x"))
    failed, ended = ran(pool, "ax")
    assert failed == {"x": DIED}
    assert [(each.units, each.remaining) for each in ended] == [(2, 1)] + [(1, 1)] * ROUNDS
    assert pool.left[:3] == [2, 1, 0]


def test_machines_that_vanish_are_not_held_against_their_units_while_others_get_done() -> None:
    class Vanishing(Pool):
        """Gets one unit done a round; the others are lost."""

        def run(self, make: Any, units: Sequence[str]) -> Iterator[UnitResult]:
            yield from super().run(make, units[-1:])

    failed, ended = ran(Vanishing(), "abcdef")
    assert failed == {} and len(ended) == 6 > ROUNDS


def test_patience_is_for_what_passes_lasts_minutes_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)

    def fail(error: Exception) -> None:
        raise error

    for _ in range(2):
        with pytest.raises(Unavailable):
            with_retries(lambda: fail(Unavailable("busy")))
    first, second = waited[: len(retry.PAUSES_S)], waited[len(retry.PAUSES_S) :]
    assert len(first) == len(second) and 60 < sum(first) < 300
    assert all(pause / 2 <= seconds <= pause for seconds, pause in zip(first, retry.PAUSES_S, strict=True))
    assert first != second, "workers do not come back in step"
    waited.clear()
    for error in (*OF_THE_DATA, *OF_THE_PLACE):
        with pytest.raises(type(error)):
            with_retries(lambda error=error: fail(error))
    assert waited == []


def test_what_lies_in_the_data_is_told_from_what_lies_around_it() -> None:
    assert not any(map(is_infrastructure_error, OF_THE_DATA))
    assert all(map(is_infrastructure_error, (*OF_THE_PLACE, Unavailable("busy"))))


def test_a_failure_is_a_sentence_that_names_no_file() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x")
    assert describe(full) == "No space left on device on this machine"
    assert describe(SandboxUnavailable("no decoder")) == "no decoder"
    assert describe(ValueError("Ada Quill")) == "ValueError"
