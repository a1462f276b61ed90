"""A Ray cluster of several nodes on this machine, for tests and scripts: start, submit, look, kill a node, replace it.

Every node is a `ray start` in a session and at a loopback address of its own, so that it can be ended by its pids
alone; `ray stop` would end every Ray of the machine. What a node's workers need from outside, such as the rights on
buckets, is in the node's environment, as on a machine of a cloud: no job says it. Needs `ray[default]`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from tests.support.runs import kill_session, under
from tests.support.s3server import free_port

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "jobs" / "anonymize.py"
START_TIMEOUT_S = 60
NODE_BYTES = 80 << 20
"""Shared memory of a node: pixels never enter it."""
_OVER = ("SUCCEEDED", "FAILED", "STOPPED")
_RAY = (sys.executable, "-m", "ray.scripts.scripts")


def missing() -> str | None:
    """Why there can be no cluster here; None if there can."""
    needed = ("aiohttp_cors", "grpc", "opencensus", "prometheus_client", "virtualenv")
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    return f"ray[default] is not installed ({', '.join(absent)})" if absent else None


@dataclass
class Node:
    """One `ray start`; its processes are those of its session, and of the sessions that they began."""

    name: str
    address: str
    process: subprocess.Popen[bytes]
    folder: Path

    def processes(self) -> list[tuple[int, str]]:
        """(pid, command line) of all that runs on it, drivers of jobs too."""
        return [(pid, command) for pid, _, command in under(self.process.pid)]

    def actors(self) -> list[int]:
        """The pids of the actors that hold a stage."""
        return [pid for pid, command in self.processes() if command.startswith("ray::") and "_Actor" in command]

    def drivers(self) -> list[int]:
        """The pids of submitted scripts."""
        return [pid for pid, command in self.processes() if str(SCRIPT) in command and "/bin/sh" not in command]

    def kill(self) -> None:
        """SIGKILL for everything on it, as when a machine vanishes."""
        for session in {self.process.pid, *(session for _, session, _ in under(self.process.pid))}:
            kill_session(session)
        self.process.wait()


@dataclass
class Submitted:
    """A job that the cluster's job server runs."""

    cluster: Cluster
    id: str

    @property
    def status(self) -> str:
        return str(self.cluster.ask(f"/api/jobs/{self.id}")["status"])

    @property
    def logs(self) -> str:
        """What `ray job logs` shows: stdout and stderr of the script."""
        return str(self.cluster.ask(f"/api/jobs/{self.id}/logs")["logs"])

    @property
    def code(self) -> int | None:
        """The script's exit code, None while it runs or if it was killed."""
        return self.cluster.ask(f"/api/jobs/{self.id}")["driver_exit_code"]

    def over(self) -> bool:
        return self.status in _OVER


@dataclass
class Cluster:
    """A head without actors' CPUs unless it is given some, and workers that come and go."""

    folder: Path
    environment: Mapping[str, str]
    token: str = field(default_factory=lambda: uuid4().hex * 2, repr=False)
    nodes: dict[str, Node] = field(default_factory=dict)
    gcs: str = ""
    server: str = ""
    _made: int = 0

    def start_head(self, cpus: int = 0) -> Node:
        """The first node: GCS, dashboard, job server."""
        port, dashboard, address = free_port(), free_port(), self._next_address()
        self.gcs, self.server = f"{address}:{port}", f"http://127.0.0.1:{dashboard}"
        ports = [f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
        return self._start("head", address, cpus, ["--head", *ports])

    def start_node(self, cpus: int = 1) -> Node:
        """One more node, registered when this returns."""
        return self._start(f"node-{self._made}", self._next_address(), cpus, [f"--address={self.gcs}"])

    def kill(self, node: Node) -> None:
        """The machine vanishes."""
        node.kill()
        del self.nodes[node.name]

    def close(self) -> None:
        for node in reversed(list(self.nodes.values())):
            node.kill()
        self.nodes.clear()

    def alive(self) -> dict[str, str]:
        """Node id -> address of the nodes that the cluster believes in."""
        rows = self._state("nodes")
        return {str(row["node_id"]): str(row["node_ip"]) for row in rows if row["state"] == "ALIVE"}

    def submit(self, job: Path, name: str | None = None) -> Submitted:
        """Start jobs/anonymize.py with a job file by the job server's HTTP, which is what `ray job submit` speaks."""
        name = name or f"job-{uuid4().hex[:8]}"
        self.ask("/api/jobs/", {"entrypoint": f"{sys.executable} {SCRIPT} {job}", "submission_id": name})
        return Submitted(self, name)

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The job server's answer to GET, or to POST if there is a body."""
        request = urllib.request.Request(
            self.server + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)

    def _state(self, what: str) -> list[dict[str, Any]]:
        answer = self.ask(f"/api/v0/{what}?limit=10000&detail=true")
        return list(answer["data"]["result"]["result"])

    def _next_address(self) -> str:
        self._made += 1
        return f"127.0.77.{self._made}"

    def _environment(self) -> dict[str, str]:
        return dict(self.environment) | {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_ADDRESS": self.server,
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray 2.60 reports to its makers even that it may not report.
            "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9",
            # A node that is gone is noticed after seconds; by default after a quarter of a minute and more.
            "RAY_health_check_initial_delay_ms": "2000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "3",
        }

    def _start(self, name: str, address: str, cpus: int, options: list[str]) -> Node:
        folder = self.folder / name
        folder.mkdir(parents=True)
        command = [
            *(*_RAY, "start", *options, f"--node-ip-address={address}", f"--num-cpus={cpus}", "--block"),
            *(f"--object-store-memory={NODE_BYTES}", f"--dashboard-agent-listen-port={free_port()}"),
            *("--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={folder}", "--disable-usage-stats"),
        ]
        environment = self._environment()
        del environment["RAY_ADDRESS"]
        with (folder / "start.log").open("wb") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            process = subprocess.Popen(command, env=environment, cwd=folder, **streams, start_new_session=True)
        node = self.nodes[name] = Node(name, address, process, folder)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                if address in self.alive().values():
                    return node
            time.sleep(0.2)
        said = (folder / "start.log").read_text()[-3000:]
        node.kill()
        raise RuntimeError(f"{name} did not join the cluster within {START_TIMEOUT_S} s: {said}")


@contextmanager
def cluster(*, nodes: int = 1, head_cpus: int = 0, **environment: str) -> Iterator[Cluster]:
    """A head and so many workers of one CPU, in a temporary folder; all of it is ended afterwards."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
    # Not below a test's folder: the path of a socket may have 107 bytes.
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        made = Cluster(Path(folder), mine | environment)
        stack.callback(made.close)
        made.start_head(head_cpus)
        for _ in range(nodes):
            made.start_node()
        yield made
