"""Runs a stage over its units on Ray. The only file that imports Ray.

Ray Data schedules and restarts; it neither reads nor writes photographs. A row is a unit of work, its outcome a few
numbers: pixels never enter the object store. A unit is done by its marker alone, so Ray may lose or repeat units.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anonlib.config import RayConfig
from anonlib.errors import AnonlibError, ConfigError, DeviceLost, kind_and_place
from anonlib.execution.base import UnitResult
from anonlib.execution.capacity import ClusterNode, actor_capacity, check_shape, fail_when_no_nodes, wait_for_room
from anonlib.execution.rounds import MakeStage, Unit, worker
from anonlib.execution.telemetry import BOUNDS_S, METRICS, Labels, Meter
from anonlib.storage.scratch import scratch

_RETRIES = 3
"""Of a unit whose worker died. Actors restart without end: once none of a pool may restart, Ray waits for ever."""
_STILL_S = 24 * 3600
"""A shard may take hours in which nothing moves for Ray; only then is a round given up."""
_ANSWER_S = 10
"""How long a cluster's control service may take to refuse a question."""


class RayRunner(Meter):
    """A pool of actors, each holding the stage, on a cluster or on this machine; its own meter, for Ray's exporter."""

    def __init__(self, config: RayConfig) -> None:
        self.config, self.gpus, self.meter = config, config.num_gpus, self
        self._fitted = False
        self._metrics: dict[str, Any] = {}

    def run(self, make: MakeStage[Unit], units: Sequence[Unit]) -> Iterator[UnitResult]:
        if not units:
            return
        ray = start(self.config)
        pool = self._pool(ray, len(units))
        rows = ray.data.from_items([{"unit": unit} for unit in units], override_num_blocks=len(units))
        with warnings.catch_warnings():
            # Ray 2.60 deprecates the only two ways to bound retries before there is a third; its default is for ever.
            warnings.filterwarnings("ignore", message="`ray_remote_args`")
            outcomes = rows.map_batches(
                _Actor,
                fn_constructor_args=(ray.put(make),),
                batch_size=1,
                compute=pool,
                num_cpus=1,
                num_gpus=self.config.num_gpus or None,
                max_restarts=-1,
                max_task_retries=_RETRIES,
                batch_format="numpy",
            )
        try:
            rows_read = iter(outcomes.iter_rows())
            for row in fail_when_no_nodes(rows_read, lambda: self._room(ray), self.config.wait_s, _warn):
                yield UnitResult(**row)
        except (ray.exceptions.RayError, ray.data.exceptions.ExecutionTimeoutError) as error:
            # The units without a marker are simply still to do; the caller's next round takes them.
            _warn(f"Ray gave up a round: {kind_and_place(error)}")

    def actors(self, units: int) -> int:
        """How many actors these units begin with: the job's number, else what the cluster has room for now."""
        wanted = self.config.actors or self._room(start(self.config))
        return max(1, min(wanted, units))

    def _pool(self, ray: Any, units: int) -> Any:
        """The actors to start. A shape that never fitted is refused; one that has lost machines begins with the rest.

        On a cluster that was joined machines come and go, so there a number that is not given grows with them.
        """
        from ray.autoscaler.sdk import request_resources

        config, joined = self.config, joins(self.config)
        wanted = None if config.actors is None else min(config.actors, units)
        if joined and not self._fitted:
            # An autoscaler is told what is needed until there is a pool, whose waiting actors tell it then.
            actor = {"CPU": 1.0} | ({"GPU": config.num_gpus} if config.num_gpus else {})
            request_resources(bundles=[actor] * (wanted or 1))
            try:
                wait_for_room(wanted, config.num_gpus, lambda: machines(ray), config.wait_s, _warn)
            finally:
                # It would keep the machines up for ever.
                request_resources(bundles=[])
        elif not self._fitted:
            check_shape(wanted, config.num_gpus, machines(ray))
        self._fitted = True
        fit = max(1, min(self._room(ray), units))
        at_once = {"max_concurrent_calls_per_actor": config.shards_at_once, "enable_true_multi_threading": True}
        if joined and wanted is None:
            return ray.data.ActorPoolStrategy(min_size=fit, max_size=units, **at_once)
        return ray.data.ActorPoolStrategy(size=wanted or fit, **at_once)

    def _room(self, ray: Any) -> int:
        return actor_capacity(machines(ray), self.config.num_gpus)

    def take(self, name: str, value: float, labels: Labels) -> None:
        """Make Ray's own object for a metric when this process first uses it."""
        from ray.util import metrics

        start(self.config)
        declared = METRICS[name]
        if name not in self._metrics:
            keys = ("stage", "method", *declared.labels)
            bounds = {"boundaries": BOUNDS_S} if declared.kind == "histogram" else {}
            kind = getattr(metrics, declared.kind.title())
            self._metrics[name] = kind(name, declared.help, tag_keys=keys, **bounds)
        metric = self._metrics[name]
        if declared.kind == "gauge":
            metric.set(value, labels)
        elif declared.kind == "histogram":
            metric.observe(value, labels)
        elif value > 0:
            metric.inc(value, labels)


class _Actor:
    """What Ray Data holds: the stage, built once, that runs one unit a batch, in several threads at once."""

    def __init__(self, make: Any) -> None:
        import ray

        build = ray.get(make) if isinstance(make, ray.ObjectRef) else make
        try:
            self.run: Callable[[Any], UnitResult] = worker(build)
        except AnonlibError as error:
            # Ray would restart an actor that fails to start for ever.
            why = str(error)
            self.run = lambda unit: UnitResult(str(getattr(unit, "shard_id", unit)), error=why, halts=True)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        try:
            result = self.run(batch["unit"][0])
        except DeviceLost as error:
            # Nothing that this process still computes can be trusted to end; Ray starts another.
            _warn(str(error))
            os._exit(1)
        return {name: [value] for name, value in asdict(result).items()}


def joins(config: RayConfig) -> str | None:
    """The address of the cluster that the job joins; None if Ray is started here."""
    return config.address or os.environ.get("RAY_ADDRESS") or None


def machines(ray: Any) -> list[ClusterNode]:
    """The nodes of the cluster that are up."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [ClusterNode(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in resources]


def _warn(sentence: str) -> None:
    logging.getLogger(__name__).warning("%s", sentence)


def start(config: RayConfig) -> Any:
    """Ray, connected or started on loopback, once; raises ConfigError for one without token authentication."""
    # Ray's workers would be at niceness 15, and starve beside any other program.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Without the last a question after the end of a job would begin a cluster of its own.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    import ray
    import ray.data

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not ray.is_initialized():
        address = joins(config)
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if not address:
            options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": _session_folder(ray)}
        with _silent_core(), _with_token(address), nullcontext() if address else _without_usage_reports():
            # Without "local" Ray joins the cluster last started on this machine, or waits for one that is gone.
            ray.init(address=address or "local", **options)
        if address:
            _refuse_open_cluster(ray, address)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1
    context.execution_no_progress_timeout_s = _STILL_S
    return ray


def _session_folder(ray: Any) -> str:
    """A folder of this user alone for the session of our Ray, removed at the end unless it is in RAY_TMPDIR."""
    if kept := os.environ.get("RAY_TMPDIR"):
        return str(Path(tempfile.mkdtemp(prefix="anonlib-", dir=kept)) / "ray")
    ending = ExitStack()
    folder = ending.enter_context(scratch())
    # Ray shuts down at exit, too, but perhaps only after the folder is gone.
    ending.callback(ray.shutdown)
    atexit.register(ending.close)
    return str(folder / "ray")


@contextmanager
def _with_token(address: str | None) -> Iterator[None]:
    """Token authentication for the block that starts a Ray here or joins the one at `address`.

    A Ray that is started here listens on every interface; its token is new and in no file. The token of a cluster comes
    from where Ray looks for it; RAY_AUTH_MODE=disabled is consent to a cluster without authentication.
    """
    import ray
    from ray import _raylet

    given = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    if address:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    else:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # Ray read both variables when it was imported.
    core: Any = _raylet
    core.Config.initialize("")
    core.AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield
    except (ray.exceptions.AuthenticationError, ConnectionError) as error:
        if not address:
            raise
        raise ConfigError(
            f"the Ray cluster at {address} was not joined: it does not answer, or has another token than this machine; "
            "check ray.address, and give the token by RAY_AUTH_TOKEN or by a file that RAY_AUTH_TOKEN_PATH names"
        ) from error
    finally:
        for name, value in given.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}


def _refuse_open_cluster(ray: Any, address: str) -> None:
    """Leave a cluster without token or TLS: everyone who reaches it could run code with the rights of this job."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return
    try:
        import grpc
    except ImportError:
        raise ConfigError("joining a Ray cluster needs grpcio: pip install 'anonlib[cluster]'") from None
    server = ray.get_runtime_context().gcs_address
    with grpc.insecure_channel(server, options=[("grpc.enable_http_proxy", 0)]) as channel:
        is_alive = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            is_alive(b"", timeout=_ANSWER_S, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return
    problem = f"the Ray cluster at {address} has no authentication: everyone who reaches it can run code in this job"
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        _warn(f"{problem} (RAY_AUTH_MODE=disabled accepts that)")
        return
    ray.shutdown()
    raise ConfigError(
        f"{problem}; start it with RAY_AUTH_MODE=token and a token on every node, or accept that by "
        "RAY_AUTH_MODE=disabled"
    )


@contextmanager
def _without_usage_reports() -> Iterator[None]:
    """A Ray of our own gets no dashboard: that of Ray 2.60 asks the network for the metadata services of clouds."""
    from ray._private.node import Node

    usual = Node.start_api_server
    Node.start_api_server = lambda self, **_: None
    try:
        yield
    finally:
        Node.start_api_server = usual


@contextmanager
def _silent_core() -> Iterator[None]:
    """Silence Ray's C++ core, which writes to file descriptor 2, unless RAY_BACKEND_LOG_LEVEL is set."""
    if "RAY_BACKEND_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)
