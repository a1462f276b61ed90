"""A Ray of our own lets nobody else in, and its workers serve all stages of a job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.namespaces import refused, unshared

OWN = """
import os, stat
from pathlib import Path
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
session = Path(ray._private.worker._global_node.get_session_dir_path())
folder = session.parents[1]
print(folder, oct(stat.S_IMODE(folder.stat().st_mode)), session.exists())
"""


@pytest.mark.skipif(refused() is not None, reason=refused() or "")
@pytest.mark.cluster
def test_a_ray_of_our_own_asks_for_a_token_that_is_in_no_file_and_works_in_a_closed_folder(tmp_path: Path) -> None:
    """Although Ray was told to ask for none, and makes its session folders writable by all."""
    here = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, "-c", OWN]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [*unshared("--net"), *here], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    *token, where = done.stdout.splitlines()
    assert token == ["UNAUTHENTICATED", "False True"], done.stdout + done.stderr
    folder, mode, there = where.split()
    assert Path(folder).name.startswith("anonlib-") and (mode, there) == ("0o700", "True")
    assert not Path(folder).exists()
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


POOL = """
import json, os, sys, time
from functools import partial
from pathlib import Path
from anonlib.config import RayConfig
from anonlib.errors import ConfigError, DeviceLost
from anonlib.execution.base import UnitResult
from anonlib.execution.ray import RayRunner

root = Path(sys.argv[1])

class Stage:
    def __init__(self, name):
        if name == "impossible":
            raise ConfigError("SECRET is not set on this machine")

    def run(self, unit):
        new = not (root / unit).exists()
        (root / unit).touch()
        (root / f"{os.getpid()}.pid").touch()
        while len(list(root.glob("*.pid"))) < 2:
            time.sleep(0.01)
        if unit == "dies" or (unit == "dies-once" and new):
            os._exit(1)
        if unit == "loses-its-device" and new:
            raise DeviceLost("gone")
        return UnitResult(unit, images=os.getpid())

runner = RayRunner(RayConfig(actors=2))
for name, units in (
    ("first", "abcd"), ("second", "efgh"), ("third", ["i", "dies", "dies-once", "loses-its-device", "j"]),
    ("impossible", "k"),
):
    results = list(runner.run(partial(Stage, name), units))
    print(json.dumps({r.unit: r.error or r.images for r in results}))
"""


@pytest.mark.cluster
def test_workers_serve_every_stage_and_the_unit_of_one_that_died_goes_to_another(tmp_path: Path) -> None:
    command = [sys.executable, "-c", POOL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line[0] == "{"]  # Ray tells of deaths there
    assert len(lines) == 4, done.stderr[-3000:]
    first, second, third, impossible = lines
    assert (first.keys(), second.keys(), impossible.keys()) == ({*"abcd"}, {*"efgh"}, {"k"})
    assert third.keys() == {*"ij", "dies-once", "loses-its-device"}, "all but the one that kills every worker"
    assert {*second.values()} <= {*first.values()} and len({*first.values()}) == 2
    assert "SECRET is not set" in impossible["k"]
