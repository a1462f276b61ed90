"""What Prometheus reads off a real Ray is what the release's markers say, also after a shard was tried twice."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from anonlib.execution.base import UnitResult
from anonlib.execution.metrics import METRICS, readings
from anonlib.execution.unit_log import UnitRecord
from tests.support import photos
from tests.support.runs import job, kill_session

WORK = UnitRecord("render", "0" * 64, 1, "solid")
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


def test_the_exporter_counts_what_the_release_counts(scraped: Scraped) -> None:
    assert scraped.summary["quarantined"] == 1 and scraped.summary["images"] == 5
    for name in ("images", "faces", "quarantined", "fallbacks"):
        assert scraped.value(f"ray_anonlib_{name}_total", "render", "solid") == scraped.summary[name], name
    assert scraped.value("ray_anonlib_images_total", "scan", "solid") == scraped.summary["images"]


def test_a_shard_that_was_tried_twice_is_counted_once_and_its_failure_too(scraped: Scraped) -> None:
    assert scraped.value("ray_anonlib_units_total", "scan", "solid", "done") == 4
    assert scraped.value("ray_anonlib_units_total", "scan", "solid", "failed") == 1
    assert scraped.value("ray_anonlib_units_total", "render", "solid", "done") == 4


def test_bytes_and_seconds_are_exported_by_part(scraped: Scraped) -> None:
    for direction in ("read", "written"):
        assert scraped.value("ray_anonlib_bytes_total", "render", "solid", direction) > 1000
    for part in ("start", "read", "decode", "detect", "publish"):
        assert scraped.value("ray_anonlib_seconds_total", "scan", "solid", part) > 0, part
    assert scraped.value("ray_anonlib_actor_seconds_total", "scan", "solid", "cpu") > 0
    assert scraped.value("ray_anonlib_actor_seconds_total", "scan", "solid", "gpu") == 0


def test_every_unit_left_a_line_in_its_workers_log_and_none_names_a_photo(scraped: Scraped) -> None:
    lines = [line for line in scraped.units if line["stage"] == "scan"]
    tries = Counter((line["unit"], line["round"]) for line in lines)
    assert tries == Counter({("00000", 1): 1, ("00001", 1): 1, ("00002", 1): 1, ("00003", 1): 1, ("00001", 2): 1})
    assert [line["unit"] for line in lines if "error" in line] == ["00001"]
    assert all(line["node"] and line["pid"] for line in lines)
    assert "john" not in json.dumps(scraped.units)


def test_a_shard_that_was_lost_for_good_counts_its_images_as_quarantined() -> None:
    found = {one.name: one for one in readings(WORK, UnitResult("a", images=7, quarantined=7), gpus=0.5, lost=True)}
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
