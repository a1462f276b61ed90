"""A Ray head as infra/aws/cluster.yaml starts it, in a network and a process namespace of its own, and what it answers.

Run as the first process of the namespaces, so everything that it started ends with it:

    unshare --net --pid --fork --kill-child --mount-proc python ray_head.py FOLDER (as-shipped | without-token)

What it prints is a line of JSON. `ray up` would run `ray stop` first and give the head a file for its autoscaler; both
are left out, because there is no other Ray in the namespace and no AWS.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "infra" / "aws" / "cluster.yaml"
START_S = 60
JOBS, SUBMIT = "http://127.0.0.1:8265/api/jobs/", b'{"entrypoint": "id"}'
JOIN = """
import logging, os, sys
from anonlib.errors import ConfigError
from anonlib.config import RayConfig
from anonlib.execution.ray import start
logging.basicConfig(format="%(message)s", level=logging.WARNING)
try:
    ray = start(RayConfig(address="127.0.0.1:6379"))
except ConfigError as error:
    sys.exit(str(error))
print("joined", len(ray.nodes()), os.environ.get("RAY_AUTH_TOKEN"))
"""


def environment_of(cluster: dict[str, Any], token: Path) -> dict[str, str]:
    """The variables that the cluster's containers get, with the token's file where it lies here."""
    options = [one.removeprefix("--env=") for one in cluster["docker"]["run_options"] if one.startswith("--env=")]
    given = dict(one.split("=", 1) for one in options)
    return given | ({"RAY_AUTH_TOKEN_PATH": str(token)} if "RAY_AUTH_TOKEN_PATH" in given else {})


def head_commands(cluster: dict[str, Any]) -> list[str]:
    """The commands that start a head, without what needs AWS."""
    commands = [one for one in cluster["head_start_ray_commands"] if one != "ray stop"]
    return [one.replace("--autoscaling-config=~/ray_bootstrap_config.yaml", "") for one in commands]


def status_of(url: str, body: bytes | None = None, token: str | None = None) -> int:
    """The HTTP status of the answer, with a token or without; 0 if there is none."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def joined(environment: dict[str, str]) -> str:
    """What a job says, in this environment, that joins the head."""
    done = subprocess.run(
        [sys.executable, "-c", JOIN], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return (done.stdout + done.stderr).strip()


def main(folder: Path, mode: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    home, token = folder / "home", folder / "token"
    home.mkdir()
    token.write_text("0123456789abcdef" * 4)
    cluster = yaml.safe_load(CLUSTER.read_text())
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    plain |= {"HOME": str(home), "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9"}
    plain["RAY_NUM_REDIS_GET_RETRIES"] = "1"
    plain["PATH"] = f"{Path(sys.executable).parent}:{plain['PATH']}"
    ours = plain | environment_of(cluster, token)
    if mode == "without-token":
        ours = {name: value for name, value in ours.items() if not name.startswith("RAY_AUTH_")}
    for command in head_commands(cluster):
        here = f" --node-ip-address=127.0.0.1 --object-store-memory={80 << 20} --temp-dir={folder}"
        done = subprocess.run(
            command + here, shell=True, env=ours, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
    deadline = time.monotonic() + START_S
    while not (without := status_of(JOBS, SUBMIT)) and time.monotonic() < deadline:
        time.sleep(0.2)
    jobs = {"job with another token": plain | {"RAY_AUTH_TOKEN": "f" * 64}}
    if mode == "without-token":
        jobs["job that accepts it"] = plain | {"RAY_AUTH_MODE": "disabled"}
    else:
        jobs["job of the head"] = ours
    with ThreadPoolExecutor() as pool:
        answers = dict(zip(jobs, pool.map(joined, jobs.values()), strict=True))
    more = {
        "post": [without, *(status_of(JOBS, SUBMIT, given) for given in ("f" * 64, token.read_text()))],
        "metrics": status_of("http://127.0.0.1:8080/metrics"),
        "files": sorted(one.name for one in home.rglob("*") if one.is_file()),
    }
    print(json.dumps(answers | more))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
