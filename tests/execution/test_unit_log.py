"""The line that a unit leaves where it ran says what happened, and nothing that could name a person."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from anonlib.execution.base import UnitResult
from anonlib.execution.ray import SerialRunner
from anonlib.execution.unit_log import UnitRecord, WorkerIdentity, line_of, log_to_stdout

WORK = UnitRecord("render", "ab" * 32, 2, "solid")


@pytest.fixture
def quiet_again() -> Iterator[None]:
    """What a worker switches on is off again after the test."""
    logger = logging.getLogger("anonlib.units")
    level, propagate = logger.level, logger.propagate
    yield
    logger.handlers.clear()
    logger.setLevel(level)
    logger.propagate = propagate


class Stage:
    def run(self, unit: str) -> UnitResult:
        if unit == "bad":
            raise OSError(2, "No such file", "holiday/john smith.jpg")
        return UnitResult(unit, images=3, faces=2, quarantined=1)


def test_a_line_says_what_was_done_where_and_for_how_long() -> None:
    outcome = UnitResult(
        "00001", images=3, faces=2, seconds=1.25, parts={"detect": 1.0, "check": 0.0}, read=10, written=9
    )
    line = line_of(WORK, WorkerIdentity("node", 17, ("0",)), outcome)
    expected = {"stage": "render", "unit": "00001", "run": "ab" * 8, "round": 2, "node": "node", "pid": 17}
    expected |= {"gpus": ["0"], "images": 3, "faces": 2, "seconds": 1.25, "read": 10, "written": 9}
    assert {name: line[name] for name in expected} == expected
    assert line["parts"] == {"detect": 1.0}
    assert "error" not in line and "gpus" not in line_of(WORK, WorkerIdentity("node", 17), outcome)


def test_every_unit_leaves_one_line_and_no_name(quiet_again: None, capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stdout()
    list(SerialRunner().run(Stage, ["a", "bad"], WORK))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["unit"] for line in lines] == ["a", "bad"]
    assert lines[1]["error"].startswith("FileNotFoundError at worker.py:") and "images" not in lines[1]
    assert "john" not in json.dumps(lines)
    assert lines[0]["parts"]["start"] >= 0 and "start" not in lines[1]["parts"], "a start is told once"


def test_without_a_listener_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    list(SerialRunner().run(Stage, ["a"], WORK))
    assert capsys.readouterr().out == ""
