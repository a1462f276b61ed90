"""Runs a stage over its units: on Ray, or one after another in this process. The only file that imports Ray.

Ray Data schedules and restarts; it neither reads nor writes photographs. One row is one unit of work and its
outcome is a few numbers: pixels never enter the object store. Whether a unit is done is said by its marker
alone, so Ray may lose, repeat or race units as it likes. Both twins build the same stage, single-threaded,
and so end in the same bytes.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, Protocol, TypeVar

from anonlib.config import ConfigError, RayConfig
from anonlib.pipeline.outcome import FAILURES, Outcome, sentence
from anonlib.storage import StorageError

Unit = TypeVar("Unit")

_RESTARTS = 3


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

    def run(self, make: MakeStage[Unit], units: Sequence[Unit]) -> Iterator[Outcome]:
        if not units:
            return
        ray = start(self.config)
        cpus, gpus = ray.cluster_resources().get("CPU", 0), ray.cluster_resources().get("GPU", 0)
        actors = min(self.config.actors or int(cpus), len(units))
        check_shape(actors, self.config.num_gpus, cpus, gpus)
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
                max_restarts=_RESTARTS,
                max_task_retries=_RESTARTS,
                batch_format="numpy",
            )
        try:
            for row in outcomes.iter_rows():
                outcome = Outcome(**row)
                if outcome.stop:
                    raise ConfigError(outcome.error or "a worker could not start")
                yield outcome
        except ray.exceptions.RayError as error:
            # The units without a marker are simply still to do; the caller's next round takes them.
            logging.getLogger(__name__).warning("Ray gave up a round: %s", sentence(error))


class _Actor:
    """What Ray Data holds: the stage, made once, asked for one unit a batch."""

    def __init__(self, make: Any) -> None:
        import ray

        self.refusal: str | None = None
        try:
            self.stage = (ray.get(make) if isinstance(make, ray.ObjectRef) else make)()
        except (ConfigError, StorageError) as error:
            # Raised in here it would be a dead actor, and then three rounds and a quarantine for every unit.
            self.refusal = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        unit = batch["unit"][0]
        refused = self.refusal is not None
        outcome = Outcome(_name(unit), error=self.refusal, stop=True) if refused else attempt(self.stage, unit)
        return {name: [value] for name, value in asdict(outcome).items()}


def attempt(stage: Stage[Unit], unit: Unit) -> Outcome:
    """Run one unit; a failure is an Outcome with a sentence, so that the other units go on."""
    began = time.time()
    try:
        outcome = stage.run(unit)
    except StorageError as error:
        outcome = Outcome(_name(unit), error=str(error))
    except FAILURES as error:
        outcome = Outcome(_name(unit), error=sentence(error))
    return replace(outcome, began=began, seconds=time.time() - began)


def check_shape(actors: int, num_gpus: float, cpus: float, gpus: float) -> None:
    """Raise ConfigError for a shape on which Ray would wait for ever."""
    if actors > cpus:
        raise ConfigError(f"ray.actors is {actors}, but the cluster has {cpus:g} CPUs; give at most {int(cpus)}")
    if actors * num_gpus > gpus:
        raise ConfigError(
            f"{actors} actors with {num_gpus:g} GPUs each need {actors * num_gpus:g}; the cluster has {gpus:g}"
        )


def start(config: RayConfig) -> Any:
    """Ray, quiet, connected to the configured cluster or started here on loopback; idempotent."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
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
            # Without a word Ray joins whatever cluster was last started on this machine, or waits for one that is gone.
            ray.init(address=address or "local", **options)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1
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
