"""Hours and money of all runs of a job add up, and go with the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from anonlib.config import JobConfig, RayConfig
from anonlib.errors import AccessDenied
from anonlib.execution.cost import CostLog, cost_rows
from anonlib.job import Job
from anonlib.storage import open_storage
from anonlib.workspace.purge import purge
from anonlib.workspace.status import spent, status
from tests.support import photos
from tests.support.runs import job

PRICED = RayConfig.model_validate({"num_gpus": 0.5, "price": {"cpu_hour": 0.05, "gpu_hour": 1.0}})


def spend(folder: Path, config: RayConfig, images: int = 1000) -> list[dict[str, Any]]:
    """Two hours of one actor's scan and one hour of its render; returns the records of all runs."""
    log = CostLog(config, open_storage(str(folder)))
    log.add("scan", images=images, busy=3600, reserved=7200, gpus=config.num_gpus)
    log.add("render", images=images, busy=1800, reserved=3600, gpus=config.num_gpus)
    return spent(log.workspace)


def test_runs_add_up_and_hours_without_a_price_make_no_sum_of_money(tmp_path: Path) -> None:
    assert cost_rows(spent(open_storage(str(tmp_path)))) == []
    spend(tmp_path, PRICED)
    rows = cost_rows(spend(tmp_path, PRICED, images=500))
    assert [name for name, _ in rows] == ["spent", "", ""] and rows[2][1].startswith("render: 2 actor hours at 1.1")
    assert rows[0][1] == "2 runs, 6 actor hours at 3.3, 2.2 a thousand images, 3 h of it busy"
    rows = cost_rows(spend(tmp_path, RayConfig()))
    assert rows[0][1].startswith("3 runs, 9 actor hours, 3.6 hours a thousand images")


def test_costs_that_cannot_be_kept_stop_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage = open_storage(str(tmp_path))

    def refuse(path: str, source: object) -> None:
        raise AccessDenied("You may not write here.")

    monkeypatch.setattr(storage, "publish", refuse)
    CostLog(PRICED, storage).add("render", images=10, busy=1, reserved=1, gpus=0)
    assert "will not know what this run cost: You may not write here." in caplog.text


def test_a_resumed_job_knows_its_total_and_its_purge_forgets_it(tmp_path: Path) -> None:
    source = photos.tar(tmp_path / "input" / "00000.tar", [("a.jpg", photos.jpeg(photos.nobody()))]).parent
    config: JobConfig = job(source, tmp_path, method={"name": "solid"}, ray={"actors": 0, "price": {"cpu_hour": 1}})
    Job(config).scan()
    resumed = Job(config)
    resumed.run()
    assert set(resumed.spending.stages) == {"plan", "render"}, "what was scanned before is not this run's"
    Job(config).run()
    stores = resumed.stores
    records = status(stores.workspace, None).spent
    assert sorted(map(sorted, records)) == [["plan", "render"], ["scan"]], "a run that did nothing is none"
    assert all(entry["cost"] > 0 for record in records for entry in record.values())
    assert not [entry.path for entry in stores.release.list() if "spending" in entry.path]
    purge(config)
    assert spent(stores.workspace) == []
