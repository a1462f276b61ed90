"""While a cluster has no machine, a job says so and waits, and not for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from anonlib.errors import JobError
from anonlib.execution.cluster_watch import fail_when_no_nodes

LOOK_S = 0.01


def rows_after(event: threading.Event) -> Iterator[int]:
    yield 1
    event.wait(10)
    yield 2


def test_rows_come_through_in_order_and_so_does_what_they_raise() -> None:
    def rows() -> Iterator[int]:
        yield from range(3)
        raise LookupError("lost")

    said: list[str] = []
    taken: list[int] = []
    with pytest.raises(LookupError, match="lost"):
        for row in fail_when_no_nodes(rows(), lambda: 1, 0, said.append, LOOK_S):
            taken.append(row)
    assert taken == [0, 1, 2] and said == []


def test_a_slow_row_is_waited_for_as_long_as_there_is_a_machine() -> None:
    came, looks = threading.Event(), []

    def room() -> int:
        looks.append(1)
        if len(looks) == 5:
            came.set()
        return 1

    said: list[str] = []
    assert list(fail_when_no_nodes(rows_after(came), room, 0, said.append, LOOK_S)) == [1, 2]
    assert len(looks) >= 5 and said == []


def test_machines_that_come_back_in_time_are_waited_for_and_both_is_said() -> None:
    came, answers = threading.Event(), iter([0, 0, 0, 1])

    def room() -> int:
        answer = next(answers, 1)
        if answer:
            came.set()
        return answer

    said: list[str] = []
    assert list(fail_when_no_nodes(rows_after(came), room, 60, said.append, LOOK_S)) == [1, 2]
    assert len(said) == 2 and "no machine left" in said[0] and "goes on" in said[1]


def test_a_cluster_without_a_machine_for_too_long_ends_the_job_with_a_sentence() -> None:
    never = threading.Event()
    said: list[str] = []
    with pytest.raises(JobError, match=r"no machine .* for 0\.05 s; what is finished is kept"):
        list(fail_when_no_nodes(rows_after(never), lambda: 0, 0.05, said.append, LOOK_S))
    never.set()
    assert len(said) == 1


def test_whoever_stops_reading_lets_the_rows_end() -> None:
    came, closed = threading.Event(), threading.Event()

    def rows() -> Iterator[int]:
        try:
            yield from rows_after(came)
        finally:
            closed.set()

    reading = fail_when_no_nodes(rows(), lambda: 1, 0, lambda said: None, LOOK_S)
    assert next(reading) == 1
    reading.close()
    came.set()
    assert closed.wait(10)
