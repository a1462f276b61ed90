"""Hours and money of all runs of a job add up, and go with the workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from anonlib.config import JobConfig, RayConfig
from anonlib.errors import AccessDenied
from anonlib.execution.cost import CostLog, costs_of, read_costs, total_of
from anonlib.job import Job
from anonlib.storage import open_storage
from anonlib.workspace.purge import purge
from anonlib.workspace.status import status
from tests.support import photos
from tests.support.runs import job

PRICED = RayConfig.model_validate({"num_gpus": 0.5, "price": {"cpu_hour": 0.05, "gpu_hour": 1.0}})


def spent(folder: Path, config: RayConfig, images: int = 1000) -> CostLog:
    """A run of two hours of one actor's scan and one hour of its render."""
    log = CostLog(config, open_storage(str(folder)))
    log.add("scan", images=images, busy=3600, reserved=7200, gpus=config.num_gpus)
    log.add("render", images=images, busy=1800, reserved=3600, gpus=config.num_gpus)
    return log


def test_an_actor_costs_its_cpu_and_its_share_of_a_gpu(tmp_path: Path) -> None:
    bill = spent(tmp_path, PRICED).so_far()
    assert bill is not None and bill.total.cost == pytest.approx(3 * (0.05 + 0.5 * 1.0))
    assert (bill.total.images, bill.total.busy, bill.total.reserved) == (1000, 5400, 10800)


def test_runs_add_up_and_hours_without_a_price_make_no_sum_of_money(tmp_path: Path) -> None:
    assert CostLog(PRICED, open_storage(str(tmp_path))).so_far() is None
    spent(tmp_path, PRICED)
    bill = spent(tmp_path, PRICED, images=500).so_far()
    assert bill is not None and bill.total.images == 1500
    assert bill.rows()[0] == ("spent", "2 runs, 6 actor hours at 3.3, 2.2 a thousand images, 3 h of it busy")
    bill = spent(tmp_path, RayConfig()).so_far()
    assert bill is not None and bill.total.cost is None
    assert bill.rows()[0][1].startswith("3 runs, 9 actor hours, 3.6 hours a thousand images")


def test_costs_that_cannot_be_kept_stop_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(str(tmp_path))

    def refuse(path: str, source: object) -> None:
        raise AccessDenied("You may not write here.")

    monkeypatch.setattr(storage, "publish", refuse)
    spending = CostLog(PRICED, storage)
    spending.add("render", images=10, busy=1, reserved=1, gpus=0)
    assert spending.not_kept == "You may not write here."
    so_far = spending.so_far()
    assert so_far is not None and so_far.runs == 1 and so_far.total.images == 10


def test_a_resumed_job_knows_its_total_and_its_purge_forgets_it(tmp_path: Path) -> None:
    source = photos.tar(tmp_path / "input" / "00000.tar", [("a.jpg", photos.jpeg(photos.nobody()))]).parent
    config: JobConfig = job(source, tmp_path, method={"name": "solid"}, ray={"actors": 0, "price": {"cpu_hour": 1}})
    Job(config).scan()
    resumed = Job(config)
    resumed.run()
    assert set(resumed.spending.stages) == {"plan", "render"}, "what was scanned before is not this run's"
    again = Job(config)
    again.run()
    stores = again.stores
    bill = total_of(costs_of(status(stores.workspace, None).spent))
    assert bill is not None and bill.runs == 2, "a run that did nothing is none"
    assert set(bill.stages) == {"scan", "plan", "render"} and bill.total.images == 1
    assert bill.total.cost is not None and bill.total.cost > 0
    assert not [entry.path for entry in stores.release.list() if "spending" in entry.path]
    purge(config)
    assert read_costs(stores.workspace) == []
