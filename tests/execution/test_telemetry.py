"""One event a unit: moving lines for a person, JSON for a log, counters for Prometheus, and no name in any of them."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import pytest

from anonlib.execution.base import UnitResult
from anonlib.execution.rounds import SerialRunner
from anonlib.execution.telemetry import METRICS, Labels, Round, open_progress
from anonlib.job import Job
from tests.support import photos
from tests.support.runs import job

RESULTS = [
    ("scan", UnitResult("a", images=10, faces=12, seconds=1.0, parts={"detect": 1.0, "check": 0.0}, read=10)),
    ("scan", UnitResult("b", error="its worker died", details="KeyError: 'john smith.jpg'", seconds=0.5)),
    ("scan", UnitResult("b", images=5, faces=5, seconds=1.0)),
    ("render", UnitResult("a", images=10, faces=12, quarantined=1, seconds=2.0)),
]


def shown(stream: io.StringIO) -> str:
    with open_progress(stream) as progress:
        for stage, result in RESULTS:
            progress(stage, result, 2)
        for why in ("KeyError at scan.py:1", None):
            progress.ended(Round("scan", 2, 4, 1, images=30, seconds=12.0, actors=2, busy=18.0, why=why))
    return stream.getvalue()


def test_a_log_gets_a_line_of_json_for_every_unit_and_every_round() -> None:
    text = shown(io.StringIO())
    *units, first, second = (json.loads(line) for line in text.splitlines())
    done = [(line["stage"], line["unit"], line["done"]) for line in units]
    assert done == [("scan", "a", 1), ("scan", "b", 1), ("scan", "b", 2), ("render", "a", 1)]
    assert units[1]["error"] == "its worker died" and "images" not in units[1]
    assert units[0]["parts"] == {"detect": 1.0} and (units[0]["images"], units[3]["quarantined"]) == (10, 1)
    assert [first[name] for name in ("round", "units", "remaining", "seconds", "busy")] == [2, 4, 1, 12.0, 18.0]
    assert first["why"] == "KeyError at scan.py:1" and "why" not in second
    assert "john" not in text


class Exported(SerialRunner):
    """Adds up what it takes, by metric and its further labels."""

    gpus = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.values: Counter[tuple[str, ...]] = Counter()

    def take(self, name: str, value: float, labels: Labels) -> None:
        assert set(labels) == {"stage", "method", *METRICS[name].labels}
        key = (name.removeprefix("anonlib_"), labels["stage"], *(labels[label] for label in METRICS[name].labels))
        self.values[key] += value


def test_the_exporter_counts_what_the_release_counts(tmp_path: Path) -> None:
    """A photo is torn; a tar is gone at first, and one for good."""
    for shard in range(4):
        good = photos.jpeg(photos.nobody())
        members = [(f"{shard}.jpg", good), *([(f"torn-{shard}.jpg", good[:500])] if shard == 3 else [])]
        photos.tar(tmp_path / "input" / f"{shard:05d}.tar", members)
    runner = Exported()
    config = job(tmp_path / "input", tmp_path, method={"name": "solid"})
    running = Job(config, runner=runner, ended=lambda last: gone.rename(tar) if gone.exists() else None)
    tar, lost = (tmp_path / "input" / f"0000{number}.tar" for number in (1, 2))
    gone = tar.rename(tar.with_suffix(".gone"))
    lost.rename(tmp_path / "lost.tar")
    summary = running.run()
    values = runner.values
    assert (summary.images, summary.quarantined) == (5, 2)
    for name in ("images", "faces", "quarantined", "fallbacks"):
        counted = sum(values[f"{name}_total", stage] for stage in ("redact", "render"))
        assert counted == getattr(summary, name), name
    outcomes = {outcome: values["units_total", "redact", outcome] for outcome in ("done", "failed")}
    assert outcomes == {"done": 3, "failed": 4}
    assert (values["units_total", "scan", "failed"], values["units_total", "render", "quarantined"]) == (3, 1)
    for direction in ("read", "written"):
        assert values["bytes_total", "redact", direction] > 1000
    for part in ("start", "read", "decode", "detect", "publish"):
        assert values["seconds_total", "redact", part] > 0, part
    cpu, gpu = (values["actor_seconds_total", "redact", resource] for resource in ("cpu", "gpu"))
    assert 0 < gpu == pytest.approx(cpu / 2)
    assert {name for name, *_ in values} == {name.removeprefix("anonlib_") for name in METRICS}
