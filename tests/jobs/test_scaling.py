"""The arithmetic of jobs/scaling.py grows as the dataset does."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.support.jobs import script

SCALING = script("scaling")
DATA, COSTS = SCALING.Dataset(), SCALING.Costs()


def test_twice_the_photos_take_twice_the_work_and_larger_ones_cost_decoding_and_encoding_alone() -> None:
    once, twice = (SCALING.stages(replace(DATA, images=images), COSTS) for images in (50_000_000, 100_000_000))
    for a, b in zip(once, twice, strict=True):
        assert b.hours == pytest.approx(2 * a.hours, rel=2e-3) and b.read == pytest.approx(2 * a.read, rel=2e-3)
        assert b.puts >= 1.99 * a.puts
    small, large = (
        {stage.name: stage.hours for stage in SCALING.stages(replace(DATA, megapixels=size), COSTS)}
        for size in (1.0, 12.0)
    )
    hours = 11 * DATA.images / 3.6e6
    assert large["scan"] - small["scan"] == pytest.approx(hours * COSTS.decode_a_megapixel)
    more = hours * (COSTS.decode_a_megapixel + COSTS.encode_a_megapixel)
    assert large["render"] - small["render"] == pytest.approx(more) and large["plan"] == small["plan"]


def test_the_plan_is_one_process_whose_memory_grows_with_the_faces() -> None:
    scan, plan, *_ = SCALING.stages(DATA, COSTS)
    assert plan.hours_at(1024) == plan.hours and scan.hours_at(1024) == scan.hours / 1024
    rows = [line.replace(",", "").split("|") for line in SCALING.plan_table(DATA, COSTS)[2:]]
    memory = {int(row[1]): float(row[2]) for row in rows}
    assert memory[10_000_000] == pytest.approx(10 * memory[1_000_000], rel=0.02)


def test_figures_are_flags(capsys: pytest.CaptureFixture[str]) -> None:
    SCALING.main(["--images", "1000000", "--put", "0", "--get", "0", "--spot-vcpu-hour", "1"])
    total = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| all"))
    columns = [re.sub(r"[,|]", "", column).strip() for column in total.split(" | ")]
    assert columns[1] == columns[-1].split()[0]
