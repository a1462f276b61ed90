"""Runs a stage over its units on Ray. The only file that imports Ray.

One pool of actors serves all stages of a job, so that a worker starts once. A unit and its outcome are a few numbers:
pixels never enter the object store. A unit is done by its marker alone, so it may be lost or repeated.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from threading import Lock, Timer
from typing import Any

from anonlib.config import RayConfig
from anonlib.errors import AnonlibError, ConfigError, DeviceLost, kind_and_place
from anonlib.execution.base import UnitResult
from anonlib.execution.capacity import ClusterNode, NodeWatch, actor_capacity, check_shape
from anonlib.execution.rounds import MakeStage, Runner, Unit, worker
from anonlib.execution.telemetry import BOUNDS_S, METRICS, Labels
from anonlib.storage.scratch import scratch

_RETRIES = 3
"""Of a unit in a round, after the death of its worker."""
_IDLE_S = 60.0
"""How long actors without work keep their networks and their machines; a plan may take hours."""
_LOOK_S = 5.0
"""Without an answer for so long, machines are looked for."""
_ANSWER_S = 10
"""How long a cluster's control service may take to refuse a question."""


class RayRunner(Runner):
    """A pool of actors on a cluster or on this machine, from the first stage of a job to the last; it counts for Ray's
    exporter."""

    def __init__(self, config: RayConfig) -> None:
        self.config, self.gpus = config, config.num_gpus
        self._pool: _Pool | None = None
        self._metrics: dict[str, Any] = {}

    def run(self, make: MakeStage[Unit], units: Sequence[Unit]) -> Generator[UnitResult]:
        """See Runner."""
        if not units:
            return
        ray = start(self.config)
        if self._pool is None:
            if not joins(self.config):  # where machines come, and an autoscaler is told by the actors that wait
                check_shape(self.config.actors and self.actors(len(units)), self.config.num_gpus, machines(ray))
            self._pool = _Pool(ray, self.config)
        try:
            yield from self._pool.run(make, units, self.actors(len(units)))
        except ray.exceptions.RayError as error:
            # The units without a marker are simply still to do; the caller's next round takes them.
            _warn(f"Ray gave up a round: {kind_and_place(error)}")

    def actors(self, units: int) -> int:
        """How many actors these units begin with: the job's number, else what the cluster has room for now."""
        wanted = self.config.actors or _room(start(self.config), self.config)
        return max(1, min(wanted, units))

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


class _Pool:
    """Actors of one shape. One that dies is replaced and its unit given to another; a unit is never given to an actor
    that still waits for its machine."""

    def __init__(self, ray: Any, config: RayConfig) -> None:
        self.ray, self.config = ray, config
        shape = {"num_cpus": 1, "num_gpus": config.num_gpus or None, "max_concurrency": config.shards_at_once}
        self._hire = ray.remote(_Actor).options(**shape).remote
        self._coming: dict[Any, Any] = {}  # actors by their answer to `ready`
        self._free: list[Any] = []  # actors, each as often as units fit
        self._at_work: dict[Any, tuple[Any, Any, int]] = {}  # actors, units and tries left, by the answers to come
        self._runs, self._changing = 0, Lock()

    def run(self, make: MakeStage[Unit], units: Sequence[Unit], actors: int) -> Iterator[UnitResult]:
        """Results as they come, on `actors` or, without a number on a cluster that was joined, as many as there come
        machines for. Raises RayError."""
        with self._changing:
            self._runs += 1
        stage, todo = [self.ray.put(make)], deque((unit, _RETRIES) for unit in units)
        may_grow = self.config.actors is None and joins(self.config) is not None
        watch = NodeWatch(lambda: _room(self.ray, self.config), self.config.wait_s, _warn)
        try:
            while todo or self._at_work:
                more = min(len(todo) - len(self._free), max(actors, len(self._hired))) if may_grow else 0
                for _ in range(max(actors - len(self._hired), more) - len(self._coming)):
                    actor = self._hire()
                    self._coming[actor.ready.remote()] = actor
                while todo and self._free:
                    actor, (unit, tries) = self._free.pop(), todo.popleft()
                    self._at_work[actor.run.remote(stage, unit)] = actor, unit, tries
                if not (answers := self._answers()):
                    watch.look()
                for answer in answers:
                    if result := self._taken(answer, todo):
                        yield result
        finally:
            # Of a round that is cut short, whose units must not be at work when the next one begins.
            for actor, *_ in [*self._at_work.values()]:
                self._lose(actor)
            self._at_work.clear()
            idle = Timer(_IDLE_S, self._let_go, [self._runs])
            idle.daemon = True
            idle.start()

    def _let_go(self, runs: int) -> None:
        """End all actors, unless another run has begun since this many had."""
        with self._changing:
            if runs == self._runs:
                for actor in {*self._free, *self._coming.values()}:
                    self._lose(actor)
                self._coming.clear()

    @property
    def _hired(self) -> set[Any]:
        """The actors that are there."""
        return {*self._free, *(actor for actor, *_ in self._at_work.values())}

    def _answers(self) -> list[Any]:
        """What actors have answered, after a while if need be."""
        waiting = [*self._coming, *self._at_work]
        if not self.ray.wait(waiting, timeout=_LOOK_S)[0]:
            return []
        answers, _ = self.ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return list(answers)

    def _taken(self, answer: Any, todo: deque[tuple[Any, int]]) -> UnitResult | None:
        """The result of a unit, whose actor is then free; a unit whose actor has died is put back."""
        if answer in self._coming:
            actor = self._coming.pop(answer)
            try:
                self.ray.get(answer)
            except self.ray.exceptions.RayActorError as death:
                if death.actor_init_failed:
                    raise
            else:
                self._free += [actor] * self.config.shards_at_once
            return None
        actor, unit, tries = self._at_work.pop(answer)
        try:
            result: UnitResult = self.ray.get(answer)
        except self.ray.exceptions.RayTaskError:
            raise
        except self.ray.exceptions.RayError:
            self._lose(actor)
            if tries:
                todo.append((unit, tries - 1))
            return None
        self._free.append(actor)
        return result

    def _lose(self, actor: Any) -> None:
        """Have no more of an actor; what it was doing is answered by its death."""
        self.ray.kill(actor)
        self._free = [other for other in self._free if other != actor]


class _Actor:
    """A worker: it holds the stage that it was last asked for, and runs units on it, several at once in threads."""

    def __init__(self) -> None:
        self._making, self._made_of = Lock(), ""
        self._run: Callable[[Any], UnitResult]

    def ready(self) -> None:
        """Answer, which it does once it is there."""

    def run(self, stage: Sequence[Any], unit: Any) -> UnitResult:
        """The result of a unit on the stage that lies in Ray's store, made if it is another than before."""
        with self._making:
            if self._made_of != (made_of := stage[0].hex()):
                self._run, self._made_of = _begin(stage[0]), made_of
            run = self._run
        try:
            return run(unit)
        except DeviceLost as error:
            # Nothing that this process still computes can be trusted to end; another takes its place.
            _warn(str(error))
            os._exit(1)


def _begin(stage: Any) -> Callable[[Any], UnitResult]:
    """What runs units on a stage that lies in Ray's store, or says of each why the stage cannot be made."""
    import ray

    try:
        return worker(ray.get(stage))
    except AnonlibError as error:
        why = str(error)
        return lambda unit: UnitResult(str(getattr(unit, "shard_id", unit)), error=why, halts=True)


def joins(config: RayConfig) -> str | None:
    """The address of the cluster that the job joins; None if Ray is started here."""
    return config.address or os.environ.get("RAY_ADDRESS") or None


def machines(ray: Any) -> list[ClusterNode]:
    """The nodes of the cluster that are up."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [ClusterNode(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in resources]


def _room(ray: Any, config: RayConfig) -> int:
    """How many actors the cluster holds, without what they leave of it."""
    return actor_capacity(machines(ray), config.num_gpus)


def _warn(sentence: str) -> None:
    logging.getLogger(__name__).warning("%s", sentence)


def start(config: RayConfig) -> Any:
    """Ray, connected or started on loopback, once; raises ConfigError for one without token authentication."""
    # Ray's workers would be at niceness 15, and starve beside any other program.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # The threads of Ray's core come before ours, and each would keep what it frees in a heap of its own: 1 MB a photo.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    # Without the last a question after the end of a job would begin a cluster of its own.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    if config.actors not in (None, len(os.sched_getaffinity(0))):
        # Ray would start a Python on every core.
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    if not ray.is_initialized():
        address = joins(config)
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if not address:
            options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": _session_folder(ray)}
        with _silent_core(), _with_token(address), nullcontext() if address else _alone():
            # Without "local" Ray joins the cluster last started on this machine, or waits for one that is gone.
            ray.init(address=address or "local", **options)
        if address:
            _refuse_open_cluster(ray, address)
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
def _alone() -> Iterator[None]:
    """A Ray of our own gets no dashboard, which in Ray 2.60 asks the network for the metadata services of clouds, and
    neither the monitors of an autoscaler and of logs, each of which takes a second of a core to start."""
    from ray._private.node import Node

    with ExitStack() as undone:
        for name in ("start_api_server", "start_monitor", "start_log_monitor"):
            undone.callback(setattr, Node, name, getattr(Node, name))
            setattr(Node, name, lambda self, **_: None)
        yield


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
