"""Runs a stage over its units: on Ray, or one after another in this process. The only file that imports Ray.

Ray Data schedules and restarts; it neither reads nor writes photographs. One row is one unit of work and its
outcome is a few numbers: pixels never enter the object store. Whether a unit is done is said by its marker
alone, so Ray may lose, repeat or race units as it likes. Both twins build the same stage, single-threaded,
and so end in the same bytes.
"""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, Protocol, TypeVar

from anonlib.config import ConfigError, RayConfig
from anonlib.pipeline.deserted import watched
from anonlib.pipeline.metrics import METRICS, Labels, Meter, Unmetered, readings
from anonlib.pipeline.outcome import FAILURES, Outcome, sentence
from anonlib.pipeline.patience import is_of_the_place, patiently, said
from anonlib.pipeline.stopwatch import watching
from anonlib.pipeline.unit_log import Work, Worker, log_to_stdout, log_unit
from anonlib.storage import StorageError

Unit = TypeVar("Unit")

_RETRIES = 3
"""Of a unit whose worker died. Actors are brought back without end: where machines vanish each of them dies often, and
once no actor of a pool may come back Ray waits for ever."""
_STILL_S = 24 * 3600
"""A shard may take hours in which nothing moves for Ray; only then is a round given up."""


class Stage(Protocol[Unit]):  # type: ignore[misc]
    """One verb; a stage is made where it runs and holds its models."""

    def run(self, unit: Unit) -> Outcome: ...


MakeStage = Callable[[], Stage[Unit]]


class Runner(Protocol):
    """Runs a stage over its units; `meter` takes what is counted of them."""

    @property
    def meter(self) -> Meter: ...

    def actors(self, units: int) -> int:
        """How many workers share so many units."""

    def run(self, make: MakeStage[Unit], units: Sequence[Unit], work: Work) -> Iterator[Outcome]:
        """Outcomes of all units as they come, in any order; a unit that failed comes with its error."""


def open_runner(ray: RayConfig) -> Runner:
    """The serial twin for `actors: 0`, else Ray."""
    return SerialRunner() if ray.actors == 0 else RayRunner(ray)


class SerialRunner:
    """One unit after another in this process."""

    meter: Meter = Unmetered()

    def actors(self, units: int) -> int:
        return 1

    def run(self, make: MakeStage[Unit], units: Sequence[Unit], work: Work) -> Iterator[Outcome]:
        desk = Desk(make, work, Worker()) if units else None
        for unit in units:
            if desk is not None:
                yield desk.attempt(unit)


class RayRunner:
    """A pool of actors, each holding the stage; started on the cluster at `address`, or on this machine."""

    def __init__(self, config: RayConfig) -> None:
        self.config = config
        self._fitted = False
        self.meter: Meter = _RayMeter(config)

    def run(self, make: MakeStage[Unit], units: Sequence[Unit], work: Work) -> Iterator[Outcome]:
        if not units:
            return
        ray = start(self.config)
        actors = self.actors(len(units))
        rows = ray.data.from_items([{"unit": unit} for unit in units], override_num_blocks=len(units))
        with warnings.catch_warnings():
            # Ray 2.60 deprecates the only two ways to bound retries before there is a third; its default is for ever.
            warnings.filterwarnings("ignore", message="`ray_remote_args`")
            outcomes = rows.map_batches(
                _Actor,
                fn_constructor_args=(ray.put(make), work),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=actors),
                num_cpus=1,
                num_gpus=self.config.num_gpus or None,
                max_restarts=-1,
                max_task_retries=_RETRIES,
                batch_format="numpy",
            )
        try:
            for row in watched(iter(outcomes.iter_rows()), lambda: self._room(ray), self.config.wait_s, _warn):
                yield Outcome(**row)
        except (ray.exceptions.RayError, ray.data.exceptions.ExecutionTimeoutError) as error:
            # The units without a marker are simply still to do; the caller's next round takes them.
            _warn(f"Ray gave up a round: {sentence(error)}")

    def actors(self, units: int) -> int:
        """How many to start. A shape that never fitted is refused; one that has lost machines begins with the rest."""
        total = start(self.config).cluster_resources()
        wanted = min(self.config.actors or int(total.get("CPU", 0)), units)
        if not self._fitted:
            check_shape(wanted, self.config.num_gpus, total.get("CPU", 0), total.get("GPU", 0))
        self._fitted = True
        return max(wanted, 1)

    def _room(self, ray: Any) -> int:
        """How many actors fit on what the cluster has now."""
        total, gpus = ray.cluster_resources(), self.config.num_gpus
        return int(min(total.get("CPU", 0), total.get("GPU", 0) / gpus if gpus else math.inf))


class _Actor:
    """What Ray Data holds: the stage, made once, asked for one unit a batch."""

    def __init__(self, make: Any, work: Work) -> None:
        import ray

        log_to_stdout()
        self.running, self.work = _Exported(), work
        context = ray.get_runtime_context()
        gpus = tuple(map(str, context.get_accelerator_ids().get("GPU", ())))
        worker = Worker(context.get_node_id(), os.getpid(), gpus)
        made = ray.get(make) if isinstance(make, ray.ObjectRef) else make
        self.desk = Desk(lambda: _begun(made), work, worker)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        labels = {"stage": self.work.stage, "method": self.work.method}
        self.running.take("anonlib_units_running", 1, labels)
        try:
            outcome = self.desk.attempt(batch["unit"][0])
        finally:
            self.running.take("anonlib_units_running", 0, labels)
        return {name: [value] for name, value in asdict(outcome).items()}


class Desk:
    """A stage where it runs: made once, then asked for one unit after another, each of which leaves a line of log."""

    def __init__(self, make: MakeStage[Any], work: Work, worker: Worker) -> None:
        began = time.perf_counter()
        self.stage, self.work, self.worker = make(), work, worker
        self._start = time.perf_counter() - began

    def attempt(self, unit: Any) -> Outcome:
        """The outcome of one unit; the first one's tells what the start took."""
        outcome = attempt(self.stage, unit)
        outcome = replace(outcome, parts={**outcome.parts, "start": self._start})
        self._start = 0.0
        log_unit(self.work, self.worker, outcome)
        return outcome


def _begun(make: MakeStage[Any]) -> Stage[Any]:
    """The stage, or one that says why there is none: an actor that cannot begin would be started again for ever."""
    try:
        return make()
    except (ConfigError, StorageError) as error:
        return _Halted(str(error))


class _Halted:
    """A stage that could not be made on this machine: says so of every unit."""

    def __init__(self, why: str) -> None:
        self.why = why

    def run(self, unit: object) -> Outcome:
        return Outcome(_name(unit), error=self.why, halts=True)


def attempt(stage: Stage[Unit], unit: Unit) -> Outcome:
    """Run one unit; a failure is an Outcome with a sentence, so that the other units go on."""
    # Wall clocks are set back; how long it took is of the monotonic one.
    began, start = time.time(), time.monotonic()
    with watching() as watch:
        try:
            outcome = patiently(lambda: stage.run(unit))
        except (StorageError, *FAILURES) as error:
            outcome = Outcome(_name(unit), error=said(error), halts=is_of_the_place(error))
    seconds = time.monotonic() - start
    return replace(outcome, began=began, seconds=seconds, parts=watch.parts, read=watch.read, written=watch.written)


class _RayMeter:
    """Counts in the driver, for Ray's exporter on the driver's node."""

    def __init__(self, config: RayConfig) -> None:
        self.config, self.exported = config, _Exported()

    def count(self, work: Work, outcome: Outcome, lost: bool = False) -> None:
        start(self.config)
        for one in readings(work, outcome, gpus=self.config.num_gpus, lost=lost):
            self.exported.take(one.name, one.value, one.labels)

    def left(self, work: Work, units: int) -> None:
        start(self.config)
        self.exported.take("anonlib_units_left", units, {"stage": work.stage, "method": work.method})


class _Exported:
    """Ray's own objects for METRICS, made in the process that uses them, when they are first used."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def take(self, name: str, value: float, labels: Labels) -> None:
        """Add to a counter (nothing where there is nothing to add), set a gauge, or observe."""
        from ray.util import metrics

        declared = METRICS[name]
        if name not in self._made:
            keys = ("stage", "method", *declared.labels)
            if declared.kind == "histogram":
                self._made[name] = metrics.Histogram(name, declared.help, list(declared.bounds), keys)
            else:
                kind = metrics.Counter if declared.kind == "counter" else metrics.Gauge
                self._made[name] = kind(name, declared.help, keys)
        metric = self._made[name]
        if declared.kind == "gauge":
            metric.set(value, labels)
        elif declared.kind == "histogram":
            metric.observe(value, labels)
        elif value > 0:
            metric.inc(value, labels)


def check_shape(actors: int, num_gpus: float, cpus: float, gpus: float) -> None:
    """Raise ConfigError for a shape on which Ray would wait for ever."""
    if actors > cpus:
        raise ConfigError(f"ray.actors is {actors}, but the cluster has {cpus:g} CPUs; give at most {int(cpus)}")
    if actors * num_gpus > gpus:
        raise ConfigError(
            f"{actors} actors with {num_gpus:g} GPUs each need {actors * num_gpus:g}; the cluster has {gpus:g}"
        )


def _warn(said: str) -> None:
    logging.getLogger(__name__).warning("%s", said)


def start(config: RayConfig) -> Any:
    """Ray, quiet, connected to the configured cluster or started here on loopback; idempotent."""
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
        # Without "local" Ray would join whatever cluster it finds on this machine.
        address = config.address or os.environ.get("RAY_ADDRESS") or "local"
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address == "local":
            options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        with _silent_core():
            # Without a word Ray joins whatever cluster was last started on this machine, or waits for one that is gone.
            ray.init(address=address or "local", **options)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1
    context.execution_no_progress_timeout_s = _STILL_S
    return ray


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


def _name(unit: object) -> str:
    return str(getattr(unit, "shard_id", unit))
