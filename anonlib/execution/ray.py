"""Runs a stage over its units on Ray. The only file that imports Ray.

Ray Data schedules and restarts; it neither reads nor writes photographs. One row is one unit of work and its
outcome is a few numbers: pixels never enter the object store. Whether a unit is done is said by its marker
alone, so Ray may lose, repeat or race units as it likes. Both twins build the same stage and so end in the same
bytes.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from anonlib.config import RayConfig
from anonlib.errors import ConfigError, DeviceLost, kind_and_place
from anonlib.execution.base import UnitResult
from anonlib.execution.capacity import ClusterNode, actor_capacity, check_shape, fail_when_no_nodes, wait_for_room
from anonlib.execution.telemetry import METRICS, Labels, Meter, UnitRecord, WorkerIdentity, log_to_stdout
from anonlib.execution.worker import MakeStage, Worker, build_stage
from anonlib.storage.scratch import scratch

Unit = TypeVar("Unit")

_RETRIES = 3
"""Of a unit whose worker died. Actors are brought back without end: where machines vanish each of them dies often, and
once no actor of a pool may come back Ray waits for ever."""
_STILL_S = 24 * 3600
"""A shard may take hours in which nothing moves for Ray; only then is a round given up."""
_ANSWER_S = 10
"""How long a cluster's control service may take to refuse a question."""


class RayRunner:
    """A pool of actors, each holding the stage; started on the cluster at `address`, or on this machine."""

    def __init__(self, config: RayConfig) -> None:
        self.config = config
        self._fitted = False
        self.meter: Meter = _RayMeter(config)

    def run(self, make: MakeStage[Unit], units: Sequence[Unit], work: UnitRecord) -> Iterator[UnitResult]:
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
                fn_constructor_args=(ray.put(make), work),
                batch_size=1,
                compute=pool,
                num_cpus=1,
                num_gpus=self.config.num_gpus or None,
                max_restarts=-1,
                max_task_retries=_RETRIES,
                batch_format="numpy",
            )
        try:
            for row in fail_when_no_nodes(
                iter(outcomes.iter_rows()), lambda: self._room(ray), self.config.wait_s, _warn
            ):
                yield UnitResult(**row)
        except (ray.exceptions.RayError, ray.data.exceptions.ExecutionTimeoutError) as error:
            # The units without a marker are simply still to do; the caller's next round takes them.
            _warn(f"Ray gave up a round: {kind_and_place(error)}")

    def actors(self, units: int) -> int:
        """How many actors so many units begin with: the job's number, else what the cluster has room for now."""
        wanted = self.config.actors or self._room(start(self.config))
        return max(1, min(wanted, units))

    def _pool(self, ray: Any, units: int) -> Any:
        """The actors to start. A shape that never fitted is refused; one that has lost machines begins with the rest.

        On a cluster that was joined machines come and go, so there a number that is not given grows with them.
        """
        config, joined = self.config, joins(self.config)
        wanted = None if config.actors is None else min(config.actors, units)
        if joined and not self._fitted:
            with _machines_asked_for(wanted or 1, config.num_gpus):
                wait_for_room(wanted, config.num_gpus, lambda: machines(ray), config.wait_s, _warn)
        elif not self._fitted:
            check_shape(wanted, config.num_gpus, machines(ray))
        self._fitted = True
        fit = max(1, min(self._room(ray), units))
        at_once = {"max_concurrent_calls_per_actor": config.shards_at_once, "enable_true_multi_threading": True}
        if joined and wanted is None:
            return ray.data.ActorPoolStrategy(min_size=fit, max_size=units, **at_once)
        return ray.data.ActorPoolStrategy(size=wanted or fit, **at_once)

    def _room(self, ray: Any) -> int:
        """How many actors fit on what the cluster has now."""
        return actor_capacity(machines(ray), self.config.num_gpus)


class _Actor:
    """What Ray Data holds: the stage, built once, that runs one unit a batch, in several threads at once."""

    def __init__(self, make: Any, work: UnitRecord) -> None:
        import ray

        log_to_stdout()
        self.meter, self.labels = _RayMeter(), {"stage": work.stage, "method": work.method}
        self.lock, self.units = Lock(), 0
        context = ray.get_runtime_context()
        gpus = tuple(map(str, context.get_accelerator_ids().get("GPU", ())))
        build = ray.get(make) if isinstance(make, ray.ObjectRef) else make
        identity = WorkerIdentity(context.get_node_id(), os.getpid(), gpus)
        self.worker = Worker(lambda: build_stage(build), work, identity)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        self._running(1)
        try:
            result = self.worker.run(batch["unit"][0])
        except DeviceLost as error:
            # Nothing that this process still computes can be trusted to end; Ray starts another.
            _warn(str(error))
            os._exit(1)
        finally:
            self._running(-1)
        return {name: [value] for name, value in asdict(result).items()}

    def _running(self, more: int) -> None:
        with self.lock:
            self.units += more
            self.meter.take("anonlib_units_running", self.units, self.labels)


class _RayMeter(Meter):
    """Counts for Ray's exporter on this node; in the driver with its `config`, in an actor without."""

    def __init__(self, config: RayConfig | None = None) -> None:
        self.config, self.gpus = config, config.num_gpus if config else 0.0
        self._metrics: dict[str, Any] = {}

    def take(self, name: str, value: float, labels: Labels) -> None:
        """See Meter; Ray's own object for a metric is made in the process that uses it, when it is first used."""
        from ray.util import metrics

        if self.config is not None:
            start(self.config)
        declared = METRICS[name]
        if name not in self._metrics:
            keys = ("stage", "method", *declared.labels)
            if declared.kind == "histogram":
                self._metrics[name] = metrics.Histogram(name, declared.help, list(declared.bounds), keys)
            else:
                kind = metrics.Counter if declared.kind == "counter" else metrics.Gauge
                self._metrics[name] = kind(name, declared.help, keys)
        metric = self._metrics[name]
        if declared.kind == "gauge":
            metric.set(value, labels)
        elif declared.kind == "histogram":
            metric.observe(value, labels)
        elif value > 0:
            metric.inc(value, labels)


def joins(config: RayConfig) -> str | None:
    """The address of the cluster that the job joins; None if Ray is started here."""
    return config.address or os.environ.get("RAY_ADDRESS") or None


def machines(ray: Any) -> list[ClusterNode]:
    """The nodes of the cluster that are up."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [ClusterNode(one.get("CPU", 0.0), one.get("GPU", 0.0)) for one in found]


@contextmanager
def _machines_asked_for(actors: int, num_gpus: float) -> Iterator[None]:
    """Tell the cluster's autoscaler, if it has one, what is needed; once there is a pool, actors that wait tell it."""
    from ray.autoscaler.sdk import request_resources

    one = {"CPU": 1.0} | ({"GPU": num_gpus} if num_gpus else {})
    request_resources(bundles=[one] * actors)
    try:
        yield
    finally:
        # What is asked for would be kept up for ever, also after the job.
        request_resources(bundles=[])


def _warn(said: str) -> None:
    logging.getLogger(__name__).warning("%s", said)


def start(config: RayConfig) -> Any:
    """Ray, quiet, connected to the configured cluster or started here on loopback; idempotent.

    Raises ConfigError for a Ray that cannot authenticate, and for a cluster that serves requests without a token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # Whatever is still asked after the end of a job must not begin a cluster of its own.
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
            # Without a word Ray joins whatever cluster was last started on this machine, or waits for one that is gone.
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
    """Where a Ray of our own keeps its session: below a folder of this user alone, since Ray opens its own to all.

    It is removed at the end, unless RAY_TMPDIR names a place where sessions are to be kept, such as for their logs.
    """
    if kept := os.environ.get("RAY_TMPDIR"):
        return str(Path(tempfile.mkdtemp(prefix="anonlib-", dir=kept)) / "ray")
    ending = ExitStack()
    folder = ending.enter_context(scratch())

    def end() -> None:
        # Ray shuts down at exit, too, but perhaps only after this.
        ray.shutdown()
        ending.close()

    atexit.register(end)
    return str(folder / "ray")


@contextmanager
def _with_token(address: str | None) -> Iterator[None]:
    """Token authentication (RAY_AUTH_MODE=token) for the block that starts a Ray here or joins the one at `address`.

    A Ray that is started here listens on every interface of the machine. It gets a new token, which is in the
    environment of its own processes and in no file. A cluster's token comes from where Ray looks for it; there
    RAY_AUTH_MODE=disabled is respected, as the written consent to a cluster without authentication.
    """
    import ray
    from ray import _raylet

    settings, tokens = getattr(_raylet, "Config", None), getattr(_raylet, "AuthenticationTokenLoader", None)
    if settings is None or tokens is None:
        raise ConfigError(
            f"Ray {ray.__version__} has no token authentication, so everyone on the network could run code in this "
            "job; install ray>=2.59, or run with --actors 0"
        )
    given = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    if address:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    else:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # Ray read both variables when it was imported.
    settings.initialize("")
    tokens.instance().reset_cache()
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
    """Leave a cluster whose control service (GCS) answers without a token, and raise ConfigError.

    Everyone who reaches such a cluster runs code with the rights of this job: the originals and the secret. With mutual
    TLS (RAY_USE_TLS) a caller without a certificate is refused already. RAY_AUTH_MODE=disabled turns the refusal into
    a warning, for a cluster that something else protects.
    """
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true") or _asks_for_token(ray):
        return
    said = f"the Ray cluster at {address} has no authentication: everyone who reaches it can run code in this job"
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        _warn(f"{said} (RAY_AUTH_MODE=disabled accepts that)")
        return
    ray.shutdown()
    raise ConfigError(
        f"{said}; start it with RAY_AUTH_MODE=token and a token on every node, or accept that by RAY_AUTH_MODE=disabled"
    )


def _asks_for_token(ray: Any) -> bool:
    """Whether the cluster refuses the question whether it is alive when it comes without a token."""
    try:
        import grpc
    except ImportError:
        raise ConfigError("joining a Ray cluster needs grpcio: pip install 'anonlib[cluster]'") from None
    where = ray.get_runtime_context().gcs_address
    with grpc.insecure_channel(where, options=[("grpc.enable_http_proxy", 0)]) as channel:
        alive = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            alive(b"", timeout=_ANSWER_S, wait_for_ready=True)
        except grpc.RpcError as error:
            return bool(error.code() is grpc.StatusCode.UNAUTHENTICATED)
    return False


@contextmanager
def _without_usage_reports() -> Iterator[None]:
    """A Ray of our own gets no dashboard at all.

    Ray 2.60 starts one even where none is wanted, for usage reports, and where these are off too it still asks the
    network, by name and by address, for the metadata services of three clouds.
    """
    from ray._private.node import Node

    usual = Node.start_api_server
    Node.start_api_server = lambda self, **_: None
    try:
        yield
    finally:
        Node.start_api_server = usual


@contextmanager
def _silent_core() -> Iterator[None]:
    """Ray's C++ core writes to file descriptor 2, past Python: that it has a log level, and warnings nobody can act on.

    What goes wrong in here is raised. Whoever sets RAY_BACKEND_LOG_LEVEL hears everything.
    """
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
