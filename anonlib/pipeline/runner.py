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
from anonlib.pipeline.outcome import FAILURES, Outcome, sentence
from anonlib.pipeline.patience import is_of_the_place, patiently, said
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
    """Outcomes of all units as they come, in any order; a unit that failed comes with its error."""

    def run(self, make: MakeStage[Unit], units: Sequence[Unit]) -> Iterator[Outcome]: ...


def open_runner(ray: RayConfig) -> Runner:
    """The serial twin for `actors: 0`, else Ray."""
    return SerialRunner() if ray.actors == 0 else RayRunner(ray)


class SerialRunner:
    """One unit after another in this process."""

    def run(self, make: MakeStage[Unit], units: Sequence[Unit]) -> Iterator[Outcome]:
        stage = make() if units else None
        for unit in units:
            if stage is not None:
                yield attempt(stage, unit)


class RayRunner:
    """A pool of actors, each holding the stage; started on the cluster at `address`, or on this machine."""

    def __init__(self, config: RayConfig) -> None:
        self.config = config
        self._fitted = False

    def run(self, make: MakeStage[Unit], units: Sequence[Unit]) -> Iterator[Outcome]:
        if not units:
            return
        ray = start(self.config)
        actors = self._actors(ray, len(units))
        rows = ray.data.from_items([{"unit": unit} for unit in units], override_num_blocks=len(units))
        with warnings.catch_warnings():
            # Ray 2.60 deprecates the only two ways to bound retries before there is a third; its default is for ever.
            warnings.filterwarnings("ignore", message="`ray_remote_args`")
            outcomes = rows.map_batches(
                _Actor,
                fn_constructor_args=(ray.put(make),),
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

    def _actors(self, ray: Any, units: int) -> int:
        """How many to start. A shape that never fitted is refused; one that has lost machines begins with the rest."""
        wanted = min(self.config.actors or int(ray.cluster_resources().get("CPU", 0)), units)
        if not self._fitted:
            total = ray.cluster_resources()
            check_shape(wanted, self.config.num_gpus, total.get("CPU", 0), total.get("GPU", 0))
        self._fitted = True
        return max(wanted, 1)

    def _room(self, ray: Any) -> int:
        """How many actors fit on what the cluster has now."""
        total, gpus = ray.cluster_resources(), self.config.num_gpus
        return int(min(total.get("CPU", 0), total.get("GPU", 0) / gpus if gpus else math.inf))


class _Actor:
    """What Ray Data holds: the stage, made once, asked for one unit a batch."""

    def __init__(self, make: Any) -> None:
        import ray

        try:
            self.stage = (ray.get(make) if isinstance(make, ray.ObjectRef) else make)()
        except (ConfigError, StorageError) as error:
            # An actor that cannot begin would be started again for ever, and say nothing.
            self.stage = _Halted(str(error))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        outcome = attempt(self.stage, batch["unit"][0])
        return {name: [value] for name, value in asdict(outcome).items()}


class _Halted:
    """A stage that could not be made on this machine: says so of every unit."""

    def __init__(self, why: str) -> None:
        self.why = why

    def run(self, unit: object) -> Outcome:
        return Outcome(_name(unit), error=self.why, halts=True)


def attempt(stage: Stage[Unit], unit: Unit) -> Outcome:
    """Run one unit; a failure is an Outcome with a sentence, so that the other units go on."""
    began, start = time.time(), time.monotonic()
    try:
        outcome = patiently(lambda: stage.run(unit))
    except (StorageError, *FAILURES) as error:
        outcome = Outcome(_name(unit), error=said(error), halts=is_of_the_place(error))
    # Wall clocks are set back; how long it took is of the monotonic one.
    return replace(outcome, began=began, seconds=time.monotonic() - start)


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
        address = config.address or os.environ.get("RAY_ADDRESS")
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if not address:
            options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        with _silent_core():
            ray.init(address=address, **options)
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
