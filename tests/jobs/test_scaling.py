"""docs/scaling.md says what the script prints, and the script's arithmetic grows as the dataset does."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest

from anonlib.pipeline.cells.layout import FACES_A_CELL, WHOLE_UP_TO

ROOT = Path(__file__).parents[2]


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"jobs/{name}.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scaling() -> ModuleType:
    return loaded("scaling")


def test_the_page_says_what_the_script_prints(scaling: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert scaling.main([]) == 0
    page = (ROOT / "docs/scaling.md").read_text()
    tables = capsys.readouterr().out.strip().split("\n\n")
    assert len(tables) == 4
    assert all(table in page for table in tables), "run jobs/scaling.py and put its tables into docs/scaling.md"
    assert f"Above {WHOLE_UP_TO:,} faces" in page and f"{FACES_A_CELL:,} faces a cell" in page


def test_twice_the_photos_take_twice_the_work(scaling: ModuleType) -> None:
    data, costs = scaling.Dataset(), scaling.Costs()
    once, twice = (scaling.stages(replace(data, images=images), costs) for images in (50_000_000, 100_000_000))
    for a, b in zip(once, twice, strict=True):
        assert b.hours == pytest.approx(2 * a.hours, rel=1e-3) and b.read == pytest.approx(2 * a.read, rel=1e-3)
        assert b.puts >= 1.99 * a.puts


def test_larger_photos_cost_decoding_and_encoding_alone(scaling: ModuleType) -> None:
    data, costs = scaling.Dataset(), scaling.Costs()
    small, large = (
        {one.name: one.hours for one in scaling.stages(replace(data, megapixels=size), costs)} for size in (1.0, 12.0)
    )
    hours = 11 * data.images / 3.6e6
    assert large["scan"] - small["scan"] == pytest.approx(hours * costs.decode_a_megapixel)
    more = hours * (costs.decode_a_megapixel + costs.encode_a_megapixel)
    assert large["render"] - small["render"] == pytest.approx(more)
    assert large["plan"] == small["plan"]


def test_a_unit_of_the_plan_takes_no_more_memory_for_more_faces(scaling: ModuleType) -> None:
    rows = [line.split("|") for line in scaling.plan_table(scaling.Costs())[2:]]
    units = [float(row[5]) for row in rows]
    assert units[1:] == [units[1]] * 3
    whole = [float(row[2].replace(",", "")) for row in rows]
    assert whole[-1] > 100 * whole[1]


def test_figures_are_flags(scaling: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    scaling.main(["--images", "1000000", "--put", "0", "--get", "0", "--spot-vcpu-hour", "1"])
    total = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| all"))
    cells = [re.sub(r"[,|]", "", cell).strip() for cell in total.split(" | ")]
    assert cells[1] == cells[-1].split()[0]


def test_plans_of_one_scan_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "jobs"))
    benchmark = loaded("benchmark_plan")
    benchmark.drawn_scan(tmp_path, 600, light=True)
    people = np.array(pq.read_table(tmp_path / "people.parquet")["person"])
    plans = []
    for cells in (1, 3):
        made = benchmark.one_plan(tmp_path, cells, "k-diff")
        plans.append(made | benchmark.judged(tmp_path, cells, 1))
    whole, parts = plans
    assert (whole["same"]["merged"], whole["same"]["split"]) == (0, 0)
    assert parts["truth"]["recall"] > 0.98 and parts["truth"]["precision"] == 1.0
    assert abs(parts["subjects"] - (people.max() + 1)) < 8
    assert list(parts["steps"])[:3] == ["scatter", "labels", "cut-0"] and not whole["steps"]
    table = "\n".join(benchmark.table(plans))
    assert "| | 1 cells | 3 cells |" in table and "3 cells: scatter" in table
