"""The arithmetic of jobs/scaling.py grows as the dataset does."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scaling() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scaling", ROOT / "jobs/scaling.py")
    assert spec is not None and spec.loader is not None
    sys.modules["scaling"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_twice_the_photos_take_twice_the_work(scaling: ModuleType) -> None:
    data, costs = scaling.Dataset(), scaling.Costs()
    once, twice = (scaling.stages(replace(data, images=images), costs) for images in (50_000_000, 100_000_000))
    for a, b in zip(once, twice, strict=True):
        assert b.hours == pytest.approx(2 * a.hours, rel=2e-3) and b.read == pytest.approx(2 * a.read, rel=2e-3)
        assert b.puts >= 1.99 * a.puts


def test_larger_photos_cost_decoding_and_encoding_alone(scaling: ModuleType) -> None:
    data, costs = scaling.Dataset(), scaling.Costs()
    small, large = (
        {stage.name: stage.hours for stage in scaling.stages(replace(data, megapixels=size), costs)}
        for size in (1.0, 12.0)
    )
    hours = 11 * data.images / 3.6e6
    assert large["scan"] - small["scan"] == pytest.approx(hours * costs.decode_a_megapixel)
    more = hours * (costs.decode_a_megapixel + costs.encode_a_megapixel)
    assert large["render"] - small["render"] == pytest.approx(more)
    assert large["plan"] == small["plan"]


def test_the_plan_is_one_process_that_more_actors_do_not_shorten(scaling: ModuleType) -> None:
    plan, *others = sorted(scaling.stages(scaling.Dataset(), scaling.Costs()), key=lambda stage: stage.name != "plan")
    assert plan.hours_at(1024) == plan.hours_at(1) == plan.hours
    assert all(stage.hours_at(1024) == stage.hours / 1024 for stage in others)


def test_a_plan_of_ten_times_the_faces_takes_ten_times_the_memory_and_time(scaling: ModuleType) -> None:
    rows = [line.replace(",", "").split("|") for line in scaling.plan_table(scaling.Dataset(), scaling.Costs())[2:]]
    memory, hours = ({int(row[1]): float(row[column]) for row in rows} for column in (2, 3))
    assert memory[10_000_000] == pytest.approx(10 * memory[1_000_000], rel=0.02)
    assert hours[130_000_000] == pytest.approx(13 * hours[10_000_000], rel=0.01)


@pytest.mark.parametrize("shards", [1, 40, 1000])
def test_portraits_at_random_lie_in_as_many_shards_as_are_counted(scaling: ModuleType, shards: int) -> None:
    rng = np.random.default_rng(shards)
    seen = [len(np.unique(rng.integers(shards, size=288))) for _ in range(200)]
    assert scaling.shards_hit(288, shards) == pytest.approx(np.mean(seen), rel=0.01)


def test_averaged_surrogates_read_a_table_for_a_portrait(scaling: ModuleType) -> None:
    data, costs = scaling.Dataset(), scaling.Costs()
    surrogates = next(stage for stage in scaling.stages(data, costs) if stage.name == "surrogates")
    table = costs.scanned_bytes_a_face * data.a_shard * data.faces
    assert surrogates.read == pytest.approx(data.portraits * table, rel=0.01)


def test_figures_are_flags(scaling: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    scaling.main(["--images", "1000000", "--put", "0", "--get", "0", "--spot-vcpu-hour", "1"])
    total = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| all"))
    columns = [re.sub(r"[,|]", "", column).strip() for column in total.split(" | ")]
    assert columns[1] == columns[-1].split()[0]
