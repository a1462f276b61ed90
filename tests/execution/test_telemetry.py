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
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from anonlib.execution.base import UnitResult
from anonlib.execution.rounds import SerialRunner
from anonlib.execution.telemetry import (
    METRICS,
    Labels,
    Meter,
    Round,
    UnitRecord,
    event,
    log_to_stdout,
    log_unit,
    open_progress,
)
from tests.support import photos
from tests.support.runs import job, kill_session

WORK = UnitRecord("render", "ab" * 32, 2, "solid")
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


def test_a_terminal_gets_one_line_for_every_stage_and_a_short_one_for_every_round() -> None:
    text = " ".join(shown(Terminal()).split())
    assert "scan b: its worker died" in text and "15 images" in text and "1 quarantined" in text
    assert "scan, round 2: 3 of 4 done in 0:12" in text and "1 to do again, most often because: KeyError" in text
    assert "john" not in text


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


def test_every_unit_leaves_one_line_and_no_name(quiet_again: None, capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stdout()
    list(SerialRunner().run(Stage, ["a", "bad"], WORK))
    result = UnitResult("00001", images=3, seconds=1.25, read=10, written=9)
    log_unit(WORK, {"node": "node", "pid": 17, "gpus": ["0"]}, result)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["unit"] for line in lines] == ["a", "bad", "00001"]
    assert lines[1]["error"].startswith("FileNotFoundError at rounds.py:") and "images" not in lines[1]
    assert "john" not in json.dumps(lines)
    assert lines[0]["parts"]["start"] >= 0 and "start" not in lines[1]["parts"], "a start is counted once"
    place = {"stage": "render", "run": "ab" * 8, "round": 2, "node": "node", "pid": 17, "gpus": ["0"]}
    assert {**lines[2], **place, **event(result)} == lines[2]


Samples = dict[str, Counter[tuple[str, ...]]]


def scrape(port: int, seconds: float = 60) -> Samples:
    """Our samples by name and labels, once four shards are rendered; each process's are added up."""
    deadline = time.monotonic() + seconds
    while True:
        samples: Samples = {name: Counter() for name in METRICS}
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            text = ""
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if (name := sample.name.removeprefix("ray_")) in METRICS:
                    labels = tuple(sample.labels[label] for label in ("stage", "method", *METRICS[name].labels))
                    samples[name][labels] += sample.value
        if samples["anonlib_units_total"]["render", "solid", "done"] >= 4:
            return samples
        assert time.monotonic() < deadline, samples
        time.sleep(0.5)


@pytest.mark.cluster
def test_the_exporter_counts_what_the_release_counts_and_no_log_names_a_photo(tmp_path: Path) -> None:
    """Of a run of four shards with a failure and a dead worker."""
    for shard in range(4):
        good = photos.jpeg(photos.nobody())
        members = [(f"john-smith-{shard}.jpg", good), *([(f"torn-{shard}.jpg", good[:500])] if shard == 3 else [])]
        photos.tar(tmp_path / "input" / f"{shard:05d}.tar", members)
    config = job(tmp_path / "input", tmp_path, method={"name": "solid"}, ray={"actors": 1})
    (tmp_path / "job.yaml").write_text(config.to_yaml())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        (tmp_path / "stderr").open("wb") as complaints,
        subprocess.Popen(
            [sys.executable, "-c", _DRIVER, str(tmp_path / "job.yaml"), str(port)],
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
            assert line, (tmp_path / "stderr").read_text()[-3000:]
            samples = scrape(port)
        finally:
            kill_session(process.pid)
    run = json.loads(line)
    summary = run["summary"]
    assert len(run["mishaps"]) == 1 and (summary["quarantined"], summary["images"]) == (1, 5)
    for name in ("images", "faces", "quarantined", "fallbacks"):
        assert samples[f"anonlib_{name}_total"]["render", "solid"] == summary[name], name
    assert samples["anonlib_images_total"]["scan", "solid"] == summary["images"]
    assert samples["anonlib_units_total"]["scan", "solid", "done"] == 4
    assert samples["anonlib_units_total"]["scan", "solid", "failed"] == 1
    assert samples["anonlib_units_total"]["render", "solid", "done"] == 4
    for direction in ("read", "written"):
        assert samples["anonlib_bytes_total"]["render", "solid", direction] > 1000
    for part in ("start", "read", "decode", "detect", "publish"):
        assert samples["anonlib_seconds_total"]["scan", "solid", part] > 0, part
    assert samples["anonlib_actor_seconds_total"]["scan", "solid", "cpu"] > 0
    assert samples["anonlib_actor_seconds_total"]["scan", "solid", "gpu"] == 0

    lines = [line for line in run["units"] if line["stage"] == "scan"]
    tries = sorted((line["unit"], line["round"]) for line in lines)
    assert tries == [("00000", 1), ("00001", 1), ("00001", 2), ("00002", 1), ("00003", 1)]
    assert [line["unit"] for line in lines if "error" in line] == ["00001"]
    assert all(line["node"] and line["pid"] for line in lines)
    assert "john" not in json.dumps(run["units"])


class Taken(Meter):
    """Keeps what it counts."""

    gpus = 0.5

    def __init__(self) -> None:
        self.values: list[tuple[str, float, Labels]] = []

    def take(self, name: str, value: float, labels: Labels) -> None:
        self.values.append((name, value, labels))


def test_labels_are_the_declared_ones_and_a_gpu_is_counted_by_its_share() -> None:
    meter, lost = Taken(), Taken()
    meter.count(WORK, UnitResult("a", images=7, seconds=10.0, parts={"check": 1.0}))
    for name, _, labels in meter.values:
        assert set(labels) == {"stage", "method", *METRICS[name].labels}
    seconds = [value for name, value, _ in meter.values if name == "anonlib_actor_seconds_total"]
    assert seconds == [10.0, 5.0], "CPU, then GPU"
    assert {name for name, _, _ in meter.values} == set(METRICS) - {"anonlib_units_left", "anonlib_units_running"}
    lost.count(WORK, UnitResult("a", images=7, quarantined=7), lost=True)
    values = {name: (value, labels) for name, value, labels in lost.values}
    assert values["anonlib_units_total"][1]["outcome"] == "quarantined"
    assert values["anonlib_quarantined_total"][0] == 7
    assert "anonlib_unit_seconds" not in values, "its seconds were counted when it failed"
