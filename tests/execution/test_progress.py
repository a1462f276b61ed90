"""What is seen of a job: JSON for a log, moving lines for a person, and sums that add up."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from anonlib.execution.base import UnitResult
from anonlib.execution.progress import JsonLines, MovingLines, ProgressCounts, clock, open_progress, pace, said_of
from anonlib.execution.rounds import Round


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def outcomes() -> list[tuple[str, UnitResult]]:
    return [
        ("scan", UnitResult("a", images=10, faces=12, seconds=1.0)),
        ("scan", UnitResult("b", error="its worker died", seconds=0.5)),
        ("scan", UnitResult("b", images=5, faces=5, seconds=1.0)),
        ("render", UnitResult("a", images=10, faces=12, quarantined=1, seconds=2.0)),
    ]


def test_a_log_gets_a_line_for_every_unit_and_one_for_every_stage() -> None:
    stream = io.StringIO()
    with open_progress(stream) as progress:
        for stage, outcome in outcomes():
            progress(stage, outcome, 2)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert isinstance(progress, JsonLines)
    assert [(line["stage"], line.get("unit")) for line in lines] == [
        ("scan", "a"),
        ("scan", "b"),
        ("scan", "b"),
        ("scan", None),
        ("render", "a"),
        ("render", None),
    ]
    assert lines[1]["error"] == "its worker died"
    assert {name: lines[3][name] for name in ("done", "failed", "images", "faces", "finished")} == {
        "done": 2,
        "failed": 1,
        "images": 15,
        "faces": 17,
        "finished": True,
    }
    assert (lines[5]["finished"], lines[5]["quarantined"]) == (False, 1)


def a_round(**changes: Any) -> Round:
    counts = {"wanted": 4, "done": 3, "failed": 0, "left": 1, "images": 30, "faces": 40, "quarantined": 2}
    rest = {"number": 2, "seconds": 12.0, "actors": 2, "busy": 18.0, "why": "KeyError at scan.py:1"}
    return Round(**({"stage": "scan"} | counts | rest | changes))


def test_a_log_gets_a_line_for_every_round() -> None:
    stream = io.StringIO()
    with open_progress(stream) as progress:
        progress.ended(a_round())
        progress.ended(a_round(why=None))
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["round"] == 2 and (first["wanted"], first["done"], first["left"]) == (4, 3, 1)
    assert (first["seconds"], first["images_per_s"], first["busy"], first["paid"]) == (12.0, 2.5, 18.0, 24.0)
    assert first["why"] == "KeyError at scan.py:1" and "why" not in second


def test_a_terminal_gets_a_short_line_for_every_round() -> None:
    stream = Terminal()
    with open_progress(stream) as progress:
        progress.ended(a_round(why="its worker died"))
    assert said_of(a_round(why=None)) == "scan, round 2: 3 of 4 done in 0:12"
    assert "1 to do again, most often because: its worker died" in " ".join(stream.getvalue().split())


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_what_an_error_says_in_full_is_not_shown(kind: type[io.StringIO]) -> None:
    stream = kind()
    with open_progress(stream) as progress:
        progress("scan", UnitResult("a", error="KeyError at scan.py:1", details="KeyError: 'john smith.jpg'"), 1)
    assert "KeyError at scan.py:1" in stream.getvalue() and "john" not in stream.getvalue()


def test_a_terminal_gets_one_line_for_every_stage() -> None:
    stream = Terminal()
    with open_progress(stream) as progress:
        for stage, outcome in outcomes():
            progress(stage, outcome, 2)
    assert isinstance(progress, MovingLines)
    seen = stream.getvalue()
    assert "scan" in seen and "render" in seen
    assert "its worker died" in seen
    assert "15 images" in seen and "1 quarantined" in seen


def test_a_stage_without_work_says_nothing() -> None:
    stream = io.StringIO()
    with open_progress(stream):
        pass
    assert stream.getvalue() == ""


def test_the_pace_is_of_this_stage_and_the_time_left_of_its_units() -> None:
    tally = ProgressCounts("scan", units=4, began=100.0, latest=110.0, done=1, images=20, faces=30)
    assert pace(tally) == "20 images, 2.0/s, 30 faces, 0:30 left"
    tally.done = 4
    assert pace(tally).endswith("in 0:10")


@pytest.mark.parametrize(("seconds", "said"), [(0, "0:00"), (7.4, "0:07"), (751, "12:31"), (11109, "3:05:09")])
def test_a_clock_reads_like_a_clock(seconds: float, said: str) -> None:
    assert clock(seconds) == said
