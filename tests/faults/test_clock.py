"""A clock that is set back in the middle of a job changes no byte, and nothing takes less than no time."""

from __future__ import annotations

import io
import json
import time
from itertools import count
from pathlib import Path

import pytest

from anonlib.execution.base import UnitResult
from anonlib.execution.telemetry import open_progress
from anonlib.job import Job
from tests.support.runs import Run, job, lasting

HOUR_S = 3600.0


def test_a_clock_that_jumps_back_an_hour_changes_nothing(
    redacted: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours, outcomes, shown = count(), [], io.StringIO()
    seconds, nanoseconds = time.time, time.time_ns
    # Each time it is asked it is an hour earlier, so whoever asks twice sees a negative time.
    monkeypatch.setattr(time, "time", lambda: seconds() - HOUR_S * next(hours))
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() - int(HOUR_S * 1e9) * next(hours))
    with open_progress(shown) as progress:

        def report(stage: str, outcome: UnitResult, units: int) -> None:
            outcomes.append(outcome)
            progress(stage, outcome, units)

        config = job(redacted.input, tmp_path, method={"name": "solid"}, secret=redacted.config.secret.model_dump())
        assert Job(config, report=report).run() == redacted.summary
    assert next(hours) > 2 and all(0 <= one.seconds < HOUR_S for one in outcomes)
    for line in shown.getvalue().splitlines():
        assert all(value >= 0 for value in json.loads(line).values() if isinstance(value, int | float)), line
    for place, clean in (("release", redacted.output), ("workspace", redacted.workspace)):
        assert lasting(tmp_path / place) == lasting(clean)
