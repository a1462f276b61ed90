"""Every unit has an outcome, and a failure is a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anonlib.config import RayConfig
from anonlib.errors import Changed, ConfigError, StorageError, Unavailable
from anonlib.execution import retry
from anonlib.execution.base import UnitResult
from anonlib.execution.local import SerialRunner, in_waves, open_runner
from anonlib.execution.ray import RayRunner
from anonlib.execution.telemetry import UnitRecord
from anonlib.execution.worker import build_stage, run_unit
from tests.support.witness import new_namespace, refused

WORK = UnitRecord("scan", "0" * 64, 1, "solid")


class Stage:
    """Fails on units that name an exception."""

    made = 0

    def __init__(self) -> None:
        Stage.made += 1

    def run(self, unit: str) -> UnitResult:
        errors: dict[str, Callable[[], Exception]] = {
            "value": lambda: ValueError("bad\nthing"),
            "storage": lambda: StorageError("The disk is full."),
            "changed": lambda: Changed("It has changed."),
            "eof": lambda: EOFError("cut"),
        }
        if unit in errors:
            raise errors[unit]()
        return UnitResult(unit, images=3)


def test_no_actors_is_the_serial_twin() -> None:
    assert isinstance(open_runner(RayConfig(actors=0)), SerialRunner)
    assert isinstance(open_runner(RayConfig(actors=2)), RayRunner)
    assert isinstance(open_runner(RayConfig()), RayRunner)


def test_every_unit_has_an_outcome_and_the_others_go_on() -> None:
    outcomes = {one.unit: one for one in SerialRunner().run(Stage, ["a", "value", "b", "storage", "eof"], WORK)}
    assert outcomes["a"].error is None and outcomes["b"].images == 3
    assert str(outcomes["value"].error).startswith("ValueError at worker.py:")
    assert "ValueError: bad" in str(outcomes["value"].details)
    assert outcomes["storage"].error == "The disk is full."
    assert str(outcomes["eof"].error).startswith("EOFError at worker.py:")


def test_only_what_failed_outside_of_the_unit_halts_the_job() -> None:
    halts = {one.unit: one.halts for one in SerialRunner().run(Stage, ["a", "value", "storage", "changed"], WORK)}
    assert halts == {"a": False, "value": False, "storage": True, "changed": False}


def test_a_unit_is_repeated_until_its_storage_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late:
        asked = 0

        def run(self, unit: str) -> UnitResult:
            self.asked += 1
            if self.asked <= 3:
                raise Unavailable("Nobody there.")
            return UnitResult(unit)

    monkeypatch.setattr(retry, "PAUSES_S", (0.0,) * 3)
    assert run_unit(Late(), "a").error is None
    monkeypatch.setattr(retry, "PAUSES_S", (0.0,) * 2)
    given_up = run_unit(Late(), "a")
    assert (given_up.error, given_up.halts) == ("Nobody there.", True)


def test_an_actor_that_cannot_make_its_stage_says_why_of_every_unit() -> None:
    def make() -> Stage:
        raise ConfigError("the environment variable SECRET is not set on this machine")

    stage = build_stage(make)
    for unit in ("a", "b"):
        found = run_unit(stage, unit)
        assert found.unit == unit and found.halts and "SECRET" in str(found.error)


def test_a_stage_is_made_once_and_only_for_work() -> None:
    before = Stage.made
    assert list(SerialRunner().run(Stage, [], WORK)) == []
    assert Stage.made == before
    list(SerialRunner().run(Stage, ["a", "b"], WORK))
    assert Stage.made == before + 1


def test_an_interrupt_is_not_swallowed() -> None:
    class Interrupted:
        def run(self, unit: str) -> UnitResult:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_unit(Interrupted(), "a")


def test_a_runner_never_holds_more_units_than_a_wave(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    class Counted(SerialRunner):
        def run(self, make: Any, units: Any, work: UnitRecord) -> Any:
            held.append(len(units))
            return super().run(make, units, work)

    monkeypatch.setattr("anonlib.execution.local.WAVE", 3)
    outcomes = list(in_waves(Counted(), Stage, [f"u{one}" for one in range(8)], WORK))
    assert [one.unit for one in outcomes] == [f"u{one}" for one in range(8)]
    assert held == [3, 3, 2]


OWN = """
import json, os, sys
import ray
from anonlib.config import RayConfig
from anonlib.execution.ray import start
ray = start(RayConfig(actors=1))
import grpc
with grpc.insecure_channel(ray.get_runtime_context().gcs_address) as channel:
    try:
        channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=10)
        print("anybody is answered")
    except grpc.RpcError as error:
        print(error.code().name)

@ray.remote
def known():
    return "RAY_AUTH_TOKEN" in os.environ

print("RAY_AUTH_TOKEN" in os.environ, ray.get(known.remote()))
"""


@pytest.mark.skipif(refused() is not None, reason=refused() or "")
@pytest.mark.cluster
def test_a_ray_of_our_own_asks_for_a_token_that_is_in_no_file(tmp_path: Path) -> None:
    """Although Ray was told to ask for none, and had read its settings before."""
    here = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, "-c", OWN]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [*new_namespace(), *here], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.splitlines() == ["UNAUTHENTICATED", "False True"], done.stdout + done.stderr
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
