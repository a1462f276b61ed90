"""What is seen of a job while it runs: one event a unit, its result, for three readers.

A person sees a moving line a stage on a terminal (TerminalProgress). A cluster's log gets a line of JSON a unit, from
the driver on stderr (JsonProgress) and with more about the place from each worker on stdout (`log_unit`). Prometheus
gets METRICS by Ray's own exporter, which puts `ray_` before every name. What a run has cost is a sum over its rounds
(cost.py). Shard ids stand in all of them and sample keys never do, since a file name may be a person's: a result's
`error` is made without them, and its `details` go to the workspace alone.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self, TextIO

from anonlib.execution.base import UnitResult

if TYPE_CHECKING:
    from rich.progress import TaskID

COUNTS = ("images", "faces", "released", "no_face", "quarantined", "fallbacks")
Labels = dict[str, str]
Report = Callable[[str, UnitResult, int], None]
"""Called with the stage's name, a result and how many units the stage has to do in this run."""
_logger = logging.getLogger("anonlib.units")


@dataclass(frozen=True)
class UnitRecord:
    """What a round's units belong to: the stage, its run key, the round (from 1) and the job's method."""

    stage: str
    key: str
    round: int
    method: str


@dataclass(frozen=True)
class WorkerIdentity:
    """A worker: Ray's node id, the process, and the GPUs it was given. Without a node it is the driver itself."""

    node: str = ""
    pid: int = 0
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Round:
    """One round of a stage as the driver saw it.

    Of `units`, `done` have a marker now and `remaining` have not, most often because of `why`; `failed` results came
    back with an error. `seconds` passed, in which the pool's `actors` were `busy` for so many seconds in all.
    """

    stage: str
    round: int
    units: int
    done: int
    failed: int
    remaining: int
    images: int
    faces: int
    quarantined: int
    seconds: float
    actors: int
    busy: float
    why: str | None = None

    @property
    def reserved(self) -> float:
        """Seconds of actors, idle or not: they wait for the slowest unit together."""
        return self.actors * self.seconds

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / max(self.seconds, 1e-6)


def event(result: UnitResult) -> dict[str, Any]:
    """A result as it is logged; parts that took no time are left out."""
    counts = {"error": result.error} if result.error else {name: int(getattr(result, name)) for name in COUNTS}
    parts = {part: round(float(seconds), 3) for part, seconds in result.parts.items() if seconds}
    spent = {"seconds": round(float(result.seconds), 3), "parts": parts}
    return {"unit": result.unit, **counts, **spent, "read": int(result.read), "written": int(result.written)}


def log_to_stdout() -> None:
    """Let this process's units be logged; a worker calls it once."""
    if not _logger.handlers:
        _logger.addHandler(logging.StreamHandler(sys.stdout))
        _logger.setLevel(logging.INFO)
        _logger.propagate = False


def log_unit(work: UnitRecord, worker: WorkerIdentity, result: UnitResult) -> None:
    """Log one unit where it ran, if `log_to_stdout` was called; `ended` is for collectors of logs."""
    if _logger.isEnabledFor(logging.INFO):
        ended = datetime.now(UTC).isoformat(timespec="milliseconds")
        where = {"run": work.key[:16], "method": work.method, "round": work.round, "node": worker.node}
        where |= {"pid": worker.pid} | ({"gpus": list(worker.gpus)} if worker.gpus else {})
        line = {"ended": ended, "stage": work.stage, **where, **event(result)}
        _logger.info("%s", json.dumps(line, ensure_ascii=False))


@dataclass(frozen=True)
class Metric:
    """A metric's kind, its help and its labels beside `stage` and `method`; a histogram has bounds, in s."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


METRICS = {
    "anonlib_units_total": Metric("counter", "Tries of shards or blocks: done, failed or quarantined", ("outcome",)),
    "anonlib_images_total": Metric("counter", "Images of units that are done or quarantined"),
    "anonlib_faces_total": Metric("counter", "Faces of units that are done"),
    "anonlib_quarantined_total": Metric("counter", "Images that are quarantined"),
    "anonlib_fallbacks_total": Metric("counter", "Faces that became a flat ellipse because something failed"),
    "anonlib_bytes_total": Metric("counter", "Bytes of shards and tables", ("direction",)),
    "anonlib_seconds_total": Metric("counter", "Seconds of workers by part; decode runs beside the others", ("part",)),
    "anonlib_actor_seconds_total": Metric("counter", "Busy seconds of actors times their CPUs or GPUs", ("resource",)),
    "anonlib_unit_seconds": Metric("histogram", "Seconds a try of a unit", (), (1, 5, 15, 60, 300, 900, 3600)),
    "anonlib_units_left": Metric("gauge", "Units that the round has still to do"),
    "anonlib_units_running": Metric("gauge", "Units that a worker has at hand"),
}
"""The driver counts a result when it arrives, so counts are the release's own as far as this driver made it, however
often a unit was tried. A unit whose result was lost with its node is done by its marker and is not counted. Seconds and
bytes are those of every try. A worker that is killed takes with it up to ten seconds of what it had not exported."""


class Reading(NamedTuple):
    """One number for one metric: added, set or observed."""

    name: str
    value: float
    labels: Labels


def readings(work: UnitRecord, result: UnitResult, *, gpus: float = 0.0, lost: bool = False) -> Iterator[Reading]:
    """A result in numbers; `gpus` are those of one actor. `lost`: a unit that always failed and is quarantined."""
    about = {"stage": work.stage, "method": work.method}
    outcome = "quarantined" if lost else "failed" if result.error is not None else "done"
    yield Reading("anonlib_units_total", 1, about | {"outcome": outcome})
    for name in ("images", "faces", "quarantined", "fallbacks"):
        yield Reading(f"anonlib_{name}_total", float(getattr(result, name)), about)
    if lost:
        return
    yield Reading("anonlib_bytes_total", float(result.read), about | {"direction": "read"})
    yield Reading("anonlib_bytes_total", float(result.written), about | {"direction": "written"})
    for part, seconds in result.parts.items():
        yield Reading("anonlib_seconds_total", float(seconds), about | {"part": part})
    yield Reading("anonlib_actor_seconds_total", float(result.busy), about | {"resource": "cpu"})
    yield Reading("anonlib_actor_seconds_total", float(result.busy) * gpus, about | {"resource": "gpu"})
    yield Reading("anonlib_unit_seconds", float(result.seconds), about)


class Meter:
    """Counts results for an exporter; this one, of a run without Ray, has none."""

    gpus = 0.0

    def count(self, work: UnitRecord, result: UnitResult, lost: bool = False) -> None:
        """Take one result; see `readings`."""
        for reading in readings(work, result, gpus=self.gpus, lost=lost):
            self.take(*reading)

    def left(self, work: UnitRecord, units: int) -> None:
        """Take how many units the round has still to do."""
        self.take("anonlib_units_left", units, {"stage": work.stage, "method": work.method})

    def take(self, name: str, value: float, labels: Labels) -> None:
        """Add to a counter, set a gauge, or observe."""


class Progress(AbstractContextManager["Progress"], Protocol):
    """Something that `Job` reports to: every result, and every round that ended."""

    def __call__(self, stage: str, result: UnitResult, units: int) -> None: ...

    def ended(self, round: Round) -> None: ...


def open_progress(stream: TextIO | None = None) -> Progress:
    """Moving lines on a terminal, JSON lines elsewhere; on stderr if no stream is given, since stdout holds results."""
    stream = stream or sys.stderr
    return TerminalProgress(stream) if stream.isatty() else JsonProgress(stream)


class JsonProgress:
    """One line a unit and one a round."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._stage, self._done = stream, "", 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def __call__(self, stage: str, result: UnitResult, units: int) -> None:
        self._done = (self._done if stage == self._stage else 0) + (result.error is None)
        self._stage = stage
        self._print({"stage": stage, "done": self._done, "of": units, **event(result)})

    def ended(self, round: Round) -> None:
        values = {field.name: getattr(round, field.name) for field in fields(round)}
        values |= {"images_per_s": round.rate, "reserved": round.reserved}
        if round.why is None:
            del values["why"]
        self._print({name: _short(value) for name, value in values.items()})

    def _print(self, line: dict[str, Any]) -> None:
        print(json.dumps(line), file=self._stream, flush=True)


def _short(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else value


@dataclass
class StageProgress:
    """What a stage has done so far; times are of this process's monotonic clock, in s."""

    units: int
    began: float
    done: int = 0
    images: int = 0
    faces: int = 0
    quarantined: int = 0
    latest: float = 0.0

    def add(self, result: UnitResult) -> None:
        """Count one result; a failed unit comes again in the next round."""
        self.latest = time.monotonic()
        if result.error is None:
            self.done += 1
            self.images += int(result.images)
            self.faces += int(result.faces)
            self.quarantined += int(result.quarantined)

    def __str__(self) -> str:
        """`120 images, 38.2/s, 140 faces, 0:12 left`."""
        seconds = max(self.latest - self.began, 1e-6)
        parts = [f"{self.images:,} images, {self.images / seconds:.1f}/s"] if self.images else []
        parts += [f"{self.faces:,} faces"] if self.faces else []
        parts += [f"{self.quarantined:,} quarantined"] if self.quarantined else []
        if self.done:
            left = seconds * (self.units - self.done) / self.done
            parts.append(f"{clock(left)} left" if self.done < self.units else f"in {clock(seconds)}")
        return ", ".join(parts)


class TerminalProgress:
    """One line a stage: how far, how fast, how long still."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[pace]}"),
            console=Console(file=stream),
            refresh_per_second=4,
        )
        self._stages: dict[str, tuple[StageProgress, TaskID]] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def __call__(self, stage: str, result: UnitResult, units: int) -> None:
        if stage not in self._stages:
            # A stage begins where its first unit began, after models were loaded and Ray was up.
            progress = StageProgress(units, time.monotonic() - float(result.seconds))
            self._stages[stage] = (progress, self._bars.add_task(stage, total=units, pace=""))
        progress, line = self._stages[stage]
        progress.add(result)
        self._bars.update(line, completed=progress.done, pace=str(progress))
        if result.error is not None:
            self._print(f"{stage} {result.unit}: {result.error}")

    def ended(self, round: Round) -> None:
        line = f"{round.stage}, round {round.round}: {round.done} of {round.units} done in {clock(round.seconds)}"
        again = f"; {round.remaining} to do again, most often because: {round.why}" if round.why is not None else ""
        self._print(line + again)

    def _print(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False)


def clock(seconds: float) -> str:
    """0:07, 12:31 or 3:05:09."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
