"""docs/scaling.md says what the script prints, and the script's arithmetic grows as the dataset does."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scaling() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scaling", ROOT / "jobs/scaling.py")
    assert spec is not None and spec.loader is not None
    sys.modules["scaling"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_says_what_the_script_prints(scaling: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert scaling.main([]) == 0
    page = (ROOT / "docs/scaling.md").read_text()
    tables = capsys.readouterr().out.strip().split("\n\n")
    assert len(tables) == 4
    assert all(table in page for table in tables), "run jobs/scaling.py and put its tables into docs/scaling.md"


def test_twice_the_photos_take_twice_the_work(scaling: ModuleType) -> None:
    data, costs = scaling.Dataset(), scaling.Costs()
    once, twice = (scaling.stages(replace(data, images=images), costs) for images in (50_000_000, 100_000_000))
    for a, b in zip(once, twice, strict=True):
        assert b.hours == pytest.approx(2 * a.hours, rel=2e-3) and b.read == pytest.approx(2 * a.read, rel=2e-3)
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


def test_the_plan_is_one_process_that_more_actors_do_not_shorten(scaling: ModuleType) -> None:
    plan, *others = sorted(scaling.stages(scaling.Dataset(), scaling.Costs()), key=lambda one: one.name != "plan")
    assert plan.hours_at(1024) == plan.hours_at(1) == plan.hours
    assert all(one.hours_at(1024) == one.hours / 1024 for one in others)


def test_a_plan_of_ten_times_the_faces_takes_ten_times_the_memory_and_time(scaling: ModuleType) -> None:
    rows = [line.replace(",", "").split("|") for line in scaling.plan_table(scaling.Dataset(), scaling.Costs())[2:]]
    memory, hours = ({int(row[1]): float(row[column]) for row in rows} for column in (2, 3))
    assert memory[10_000_000] == pytest.approx(10 * memory[1_000_000], rel=0.02)
    assert hours[130_000_000] == pytest.approx(13 * hours[10_000_000], rel=0.01)


def test_the_head_that_ships_holds_the_plan_that_the_pages_promise(scaling: ModuleType) -> None:
    job = yaml.safe_load((ROOT / "infra/kuberay/rayjob.yaml").read_text())
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    gib = int(pod["containers"][0]["resources"]["limits"]["memory"].removesuffix("Gi"))
    plan = 4_000_000 * scaling.Costs().plan_memory_a_face / scaling.GIB
    assert 0.75 * gib < plan < gib - 2, "the driver and Ray need some 2 GiB beside the plan"
    for page, promise in (
        ("docs/scaling.md", f"{gib} GiB, enough for four million faces"),
        ("infra/README.md", f"{gib} GiB are enough for four million faces"),
    ):
        assert promise in " ".join((ROOT / page).read_text().split())


@pytest.mark.parametrize("shards", [1, 40, 1000])
def test_portraits_at_random_lie_in_as_many_shards_as_are_counted(scaling: ModuleType, shards: int) -> None:
    rng = np.random.default_rng(shards)
    seen = [len(np.unique(rng.integers(shards, size=288))) for _ in range(200)]
    assert scaling.shards_hit(288, shards) == pytest.approx(np.mean(seen), rel=0.01)


def test_averaged_surrogates_read_a_table_for_a_portrait(scaling: ModuleType) -> None:
    data, costs = scaling.Dataset(), scaling.Costs()
    surrogates = next(one for one in scaling.stages(data, costs) if one.name == "surrogates")
    table = costs.scanned_bytes_a_face * data.a_shard * data.faces
    assert surrogates.read == pytest.approx(data.portraits * table, rel=0.01)


def test_figures_are_flags(scaling: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    scaling.main(["--images", "1000000", "--put", "0", "--get", "0", "--spot-vcpu-hour", "1"])
    total = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| all"))
    columns = [re.sub(r"[,|]", "", column).strip() for column in total.split(" | ")]
    assert columns[1] == columns[-1].split()[0]
