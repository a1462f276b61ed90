"""One event a unit: moving lines for a person, JSON for a log, counters for Prometheus, and no name in any of them."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from anonlib.execution import worker
from anonlib.execution.base import UnitResult
from anonlib.execution.local import SerialRunner
from anonlib.execution.stopwatch import PARTS, current, watching
from anonlib.execution.telemetry import (
    METRICS,
    Round,
    StageProgress,
    UnitRecord,
    WorkerIdentity,
    clock,
    event,
    log_to_stdout,
    log_unit,
    open_progress,
    readings,
)
from anonlib.execution.worker import run_unit
from tests.support import photos
from tests.support.runs import job, kill_session

WORK = UnitRecord("render", "ab" * 32, 2, "solid")
PAUSE = 0.02
_DRIVER = """
import json, os, signal, sys
from dataclasses import asdict
from pathlib import Path

import ray

from anonlib.config import load_config
from anonlib.job import Job

ray.init("local", num_cpus=2, object_store_memory=120 << 20, include_dashboard=False, log_to_driver=False,
         _node_ip_address="127.0.0.1", _metrics_export_port=int(sys.argv[2]),
         _system_config={"metrics_report_interval_ms": 1000})
logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
mishaps = []

def units():
    return [json.loads(line) for file in logs.glob("worker-*.out") for line in file.read_text().splitlines()
            if line.startswith("{")]

def report(stage, outcome, wanted):
    # The worker dies that had done a shard of the render; what it has at hand then is tried again.
    if stage == "render" and not mishaps:
        mishaps.append(next(line["pid"] for line in units() if line["stage"] == "render"))
        os.kill(mishaps[0], signal.SIGKILL)

def ended(one):
    # The tar that the first round of the scan missed is there again.
    gone.rename(tar) if gone.exists() else None

job = Job(load_config(Path(sys.argv[1])), report=report, ended=ended)
tar = Path(job.config.input.uri) / "00001.tar"
gone = tar.rename(tar.with_suffix(".gone"))
summary = job.run()
print(json.dumps({"summary": asdict(summary), "units": units(), "mishaps": mishaps}), flush=True)
sys.stdin.read()
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


RESULTS = [
    ("scan", UnitResult("a", images=10, faces=12, seconds=1.0, parts={"detect": 1.0, "check": 0.0}, read=10)),
    ("scan", UnitResult("b", error="its worker died", details="KeyError: 'john smith.jpg'", seconds=0.5)),
    ("scan", UnitResult("b", images=5, faces=5, seconds=1.0)),
    ("render", UnitResult("a", images=10, faces=12, quarantined=1, seconds=2.0)),
]


def a_round(**changes: Any) -> Round:
    counts = {"units": 4, "done": 3, "failed": 0, "remaining": 1, "images": 30, "faces": 40, "quarantined": 2}
    rest = {"round": 2, "seconds": 12.0, "actors": 2, "busy": 18.0, "why": "KeyError at scan.py:1"}
    return Round(**({"stage": "scan"} | counts | rest | changes))


def shown(stream: io.StringIO) -> str:
    with open_progress(stream) as progress:
        for stage, result in RESULTS:
            progress(stage, result, 2)
        progress.ended(a_round())
        progress.ended(a_round(why=None))
    return stream.getvalue()


def test_a_log_gets_a_line_of_json_for_every_unit_and_every_round() -> None:
    text = shown(io.StringIO())
    *units, first, second = (json.loads(line) for line in text.splitlines())
    assert [(line["stage"], line["unit"], line["done"]) for line in units] == [
        ("scan", "a", 1),
        ("scan", "b", 1),
        ("scan", "b", 2),
        ("render", "a", 1),
    ]
    assert units[1]["error"] == "its worker died" and "images" not in units[1]
    assert units[0]["parts"] == {"detect": 1.0} and (units[0]["images"], units[3]["quarantined"]) == (10, 1)
    assert (first["round"], first["units"], first["done"], first["remaining"]) == (2, 4, 3, 1)
    assert (first["seconds"], first["images_per_s"], first["busy"], first["reserved"]) == (12.0, 2.5, 18.0, 24.0)
    assert first["why"] == "KeyError at scan.py:1" and "why" not in second
    assert "john" not in text


def test_a_terminal_gets_one_line_for_every_stage_and_a_short_one_for_every_round() -> None:
    text = " ".join(shown(Terminal()).split())
    assert "scan b: its worker died" in text and "15 images" in text and "1 quarantined" in text
    assert "scan, round 2: 3 of 4 done in 0:12" in text and "1 to do again, most often because: KeyError" in text
    assert "john" not in text


def test_the_pace_is_of_this_stage_and_the_time_left_of_its_units() -> None:
    progress = StageProgress(units=4, began=100.0, latest=110.0, done=1, images=20, faces=30)
    assert str(progress) == "20 images, 2.0/s, 30 faces, 0:30 left"
    progress.done = 4
    assert str(progress).endswith("in 0:10")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (751, "12:31"), (11109, "3:05:09")])
def test_a_clock_shows_minutes_and_seconds(seconds: float, text: str) -> None:
    assert clock(seconds) == text


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


def test_a_workers_line_names_run_node_and_gpus(quiet_again: None, capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stdout()
    result = UnitResult("00001", images=3, seconds=1.25, read=10, written=9)
    log_unit(WORK, WorkerIdentity("node", 17, ("0",)), result)
    line = json.loads(capsys.readouterr().out)
    expected = {"stage": "render", "unit": "00001", "run": "ab" * 8, "round": 2, "node": "node", "pid": 17}
    assert {**line, **expected, **event(result), "gpus": ["0"]} == line


def test_every_unit_leaves_one_line_and_no_name(quiet_again: None, capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stdout()
    list(SerialRunner().run(Stage, ["a", "bad"], WORK))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["unit"] for line in lines] == ["a", "bad"]
    assert lines[1]["error"].startswith("FileNotFoundError at worker.py:") and "images" not in lines[1]
    assert "john" not in json.dumps(lines)
    assert lines[0]["parts"]["start"] >= 0 and "start" not in lines[1]["parts"], "a start is counted once"


class Painter:
    def run(self, unit: str) -> UnitResult:
        with current().timed("replace"):
            time.sleep(PAUSE)
        current().read += 7
        if unit == "bad":
            raise ValueError("no")
        return UnitResult(unit, images=2)


@pytest.mark.parametrize("unit", ["good", "bad"])
def test_seconds_are_counted_by_part_also_of_a_unit_that_failed(unit: str) -> None:
    result = run_unit(Painter(), unit)
    assert set(result.parts) == set(PARTS)
    assert result.seconds >= result.parts["replace"] >= PAUSE and result.parts["detect"] == 0
    assert result.read == 7


def test_a_clock_that_is_set_back_makes_no_negative_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    backwards = iter(range(1_000_000, 0, -3600))
    monkeypatch.setattr(worker.time, "time", lambda: float(next(backwards)))
    assert 0 <= run_unit(Painter(), "good").seconds < 60


def test_a_unit_has_a_stopwatch_of_its_own() -> None:
    with watching() as first, first.timed("check"):
        assert current() is first
    with watching() as second:
        assert second.parts["check"] == 0
    assert current() is not second


@dataclass(frozen=True)
class Scraped:
    """A run of four shards with a failure and a dead worker: its summary, its log and its counters."""

    summary: dict[str, int]
    units: list[dict[str, Any]]
    samples: dict[str, Counter[tuple[str, ...]]]

    def value(self, name: str, *labels: str) -> float:
        return self.samples[name][labels]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Scraped:
    root = tmp_path_factory.mktemp("metrics")
    for shard in range(4):
        good = photos.jpeg(photos.nobody())
        members = [(f"john-smith-{shard}.jpg", good), *([(f"torn-{shard}.jpg", good[:500])] if shard == 3 else [])]
        photos.tar(root / "input" / f"{shard:05d}.tar", members)
    config = job(root / "input", root, method={"name": "solid"}, ray={"actors": 1})
    (root / "job.yaml").write_text(config.to_yaml())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        (root / "stderr").open("wb") as complaints,
        subprocess.Popen(
            [sys.executable, "-c", _DRIVER, str(root / "job.yaml"), str(port)],
            env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            start_new_session=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = next((line for line in process.stdout if line.startswith(b"{")), b"")
            assert line, (root / "stderr").read_text()[-3000:]
            said = json.loads(line)
            assert len(said["mishaps"]) == 1
            samples = scrape(port, lambda found: found["ray_anonlib_units_total"]["render", "solid", "done"] >= 4)
        finally:
            kill_session(process.pid)
    return Scraped(said["summary"], said["units"], samples)


def scrape(port: int, enough: Any, seconds: float = 60) -> dict[str, Counter[tuple[str, ...]]]:
    """Our samples by name and labels, once there are enough of them; each process's are added up."""
    deadline = time.monotonic() + seconds
    while True:
        found: dict[str, Counter[tuple[str, ...]]] = {f"ray_{name}": Counter() for name in METRICS}
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            text = ""
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in found:
                    own = METRICS[sample.name.removeprefix("ray_")].labels
                    labels = tuple(sample.labels[label] for label in ("stage", "method", *own))
                    found[sample.name][labels] += sample.value
        if enough(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.5)


@pytest.mark.cluster
def test_the_exporter_counts_what_the_release_counts(scraped: Scraped) -> None:
    assert scraped.summary["quarantined"] == 1 and scraped.summary["images"] == 5
    for name in ("images", "faces", "quarantined", "fallbacks"):
        assert scraped.value(f"ray_anonlib_{name}_total", "render", "solid") == scraped.summary[name], name
    assert scraped.value("ray_anonlib_images_total", "scan", "solid") == scraped.summary["images"]


@pytest.mark.cluster
def test_a_shard_that_was_tried_twice_is_counted_once_and_its_failure_too(scraped: Scraped) -> None:
    assert scraped.value("ray_anonlib_units_total", "scan", "solid", "done") == 4
    assert scraped.value("ray_anonlib_units_total", "scan", "solid", "failed") == 1
    assert scraped.value("ray_anonlib_units_total", "render", "solid", "done") == 4


@pytest.mark.cluster
def test_bytes_and_seconds_are_exported_by_part(scraped: Scraped) -> None:
    for direction in ("read", "written"):
        assert scraped.value("ray_anonlib_bytes_total", "render", "solid", direction) > 1000
    for part in ("start", "read", "decode", "detect", "publish"):
        assert scraped.value("ray_anonlib_seconds_total", "scan", "solid", part) > 0, part
    assert scraped.value("ray_anonlib_actor_seconds_total", "scan", "solid", "cpu") > 0
    assert scraped.value("ray_anonlib_actor_seconds_total", "scan", "solid", "gpu") == 0


@pytest.mark.cluster
def test_every_unit_left_a_line_in_its_workers_log_and_none_names_a_photo(scraped: Scraped) -> None:
    lines = [line for line in scraped.units if line["stage"] == "scan"]
    tries = Counter((line["unit"], line["round"]) for line in lines)
    assert tries == Counter({("00000", 1): 1, ("00001", 1): 1, ("00002", 1): 1, ("00003", 1): 1, ("00001", 2): 1})
    assert [line["unit"] for line in lines if "error" in line] == ["00001"]
    assert all(line["node"] and line["pid"] for line in lines)
    assert "john" not in json.dumps(scraped.units)


def test_a_shard_that_was_lost_for_good_counts_its_images_as_quarantined() -> None:
    found = {one.name: one for one in readings(WORK, UnitResult("a", images=7, quarantined=7), lost=True)}
    assert found["anonlib_units_total"].labels["outcome"] == "quarantined"
    assert found["anonlib_quarantined_total"].value == 7
    assert "anonlib_unit_seconds" not in found, "its seconds were counted when it failed"


def test_labels_are_the_declared_ones_and_a_gpu_is_counted_by_its_share() -> None:
    found = list(readings(WORK, UnitResult("a", images=7, seconds=10.0, parts={"check": 1.0}), gpus=0.5))
    for one in found:
        assert set(one.labels) == {"stage", "method", *METRICS[one.name].labels}
    seconds = {one.labels["resource"]: one.value for one in found if one.name == "anonlib_actor_seconds_total"}
    assert seconds == {"cpu": 10.0, "gpu": 5.0}
    assert {one.name for one in found} == set(METRICS) - {"anonlib_units_left", "anonlib_units_running"}
