"""Every unit has an outcome, a failure is a sentence, and a shape that would hang is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from anonlib.config import ConfigError, RayConfig
from anonlib.pipeline.outcome import Outcome
from anonlib.pipeline.runner import RayRunner, SerialRunner, attempt, check_shape, open_runner
from anonlib.pipeline.unit_log import Work
from anonlib.storage import StorageError

WORK = Work("scan", "0" * 64, 1, "solid")


class Stage:
    """Fails on units that name an exception."""

    made = 0

    def __init__(self) -> None:
        Stage.made += 1

    def run(self, unit: str) -> Outcome:
        errors: dict[str, Callable[[], Exception]] = {
            "value": lambda: ValueError("bad\nthing"),
            "storage": lambda: StorageError("The disk is full."),
            "eof": lambda: EOFError("cut"),
        }
        if unit in errors:
            raise errors[unit]()
        return Outcome(unit, images=3)


def test_no_actors_is_the_serial_twin() -> None:
    assert isinstance(open_runner(RayConfig(actors=0)), SerialRunner)
    assert isinstance(open_runner(RayConfig(actors=2)), RayRunner)
    assert isinstance(open_runner(RayConfig()), RayRunner)


def test_every_unit_has_an_outcome_and_the_others_go_on() -> None:
    outcomes = {one.unit: one for one in SerialRunner().run(Stage, ["a", "value", "b", "storage", "eof"], WORK)}
    assert outcomes["a"].error is None and outcomes["b"].images == 3
    assert outcomes["value"].error == "ValueError: bad thing"
    assert outcomes["storage"].error == "The disk is full."
    assert outcomes["eof"].error == "EOFError: cut"


def test_a_stage_is_made_once_and_only_for_work() -> None:
    before = Stage.made
    assert list(SerialRunner().run(Stage, [], WORK)) == []
    assert Stage.made == before
    list(SerialRunner().run(Stage, ["a", "b"], WORK))
    assert Stage.made == before + 1


def test_an_interrupt_is_not_swallowed() -> None:
    class Interrupted:
        def run(self, unit: str) -> Outcome:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(Interrupted(), "a")


def test_a_shape_that_would_wait_for_ever_is_refused() -> None:
    check_shape(2, 0, 2, 0)
    check_shape(2, 0.5, 4, 1)
    with pytest.raises(ConfigError, match="the cluster has 2 CPUs"):
        check_shape(3, 0, 2, 0)
    with pytest.raises(ConfigError, match="the cluster has 1"):
        check_shape(2, 1, 4, 1)
