"""What is seen of a job while it runs, on a terminal, in a log of JSON lines and in Prometheus (by Ray's exporter).

Shard ids are in all of them, and sample keys in none, since a file name may be a person's.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TextIO

from anonlib.execution.base import UnitResult
from anonlib.workspace.schemas import COUNTS

if TYPE_CHECKING:
    from rich.progress import TaskID

Labels = dict[str, str]
Report = Callable[[str, UnitResult, int], None]
"""Called with the stage's name, a result and how many units the stage has to do in this run."""


@dataclass(frozen=True)
class Round:
    """A round as the driver saw it: which units remain, most often because of `why`, and busy seconds of actors."""

    stage: str
    round: int
    units: int
    remaining: int
    images: int
    seconds: float
    actors: int
    busy: float
    why: str | None = None


class Metric(NamedTuple):
    """A metric's kind, its help and its labels beside `stage` and `method`."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


METRICS = {
    "anonlib_units_total": Metric("counter", "Tries of shards or blocks: done, failed or quarantined", ("outcome",)),
    "anonlib_images_total": Metric("counter", "Images of units that are done or quarantined"),
    "anonlib_faces_total": Metric("counter", "Faces of units that are done"),
    "anonlib_quarantined_total": Metric("counter", "Images that are quarantined"),
    "anonlib_fallbacks_total": Metric("counter", "Faces that are hidden under an ellipse because something failed"),
    "anonlib_bytes_total": Metric("counter", "Bytes of shards and tables", ("direction",)),
    "anonlib_seconds_total": Metric("counter", "Seconds of workers by part; decode runs beside the others", ("part",)),
    "anonlib_actor_seconds_total": Metric("counter", "Busy seconds of actors times their CPUs or GPUs", ("resource",)),
    "anonlib_unit_seconds": Metric("histogram", "Seconds a try of a unit"),
    "anonlib_units_left": Metric("gauge", "Units that the round has still to do"),
}
"""The driver counts a result when it arrives, so counts are the release's own as far as this driver made it, however
often a unit was tried. A unit whose result was lost with its node is done by its marker and is not counted. Seconds and
bytes are those of every try. A worker that is killed takes with it up to ten seconds of what it had not exported."""
BOUNDS_S = [1, 5, 15, 60, 300, 900, 3600]


class Meter:
    """Counts results for an exporter; this one, of a run without Ray, has none. `gpus` are those of one actor."""

    gpus = 0.0

    def count(self, about: Labels, result: UnitResult, lost: bool = False) -> None:
        """Take one result; `about`: stage and method; `lost`: it always failed, its tries were counted."""
        outcome = "quarantined" if lost else "failed" if result.error is not None else "done"
        self.take("anonlib_units_total", 1, about | {"outcome": outcome})
        for name in ("images", "faces", "quarantined", "fallbacks"):
            self.take(f"anonlib_{name}_total", float(getattr(result, name)), about)
        if lost:
            return
        busy = float(result.busy)
        self.take("anonlib_bytes_total", float(result.read), about | {"direction": "read"})
        self.take("anonlib_bytes_total", float(result.written), about | {"direction": "written"})
        for part, seconds in result.parts.items():
            self.take("anonlib_seconds_total", float(seconds), about | {"part": part})
        self.take("anonlib_actor_seconds_total", busy, about | {"resource": "cpu"})
        self.take("anonlib_actor_seconds_total", busy * self.gpus, about | {"resource": "gpu"})
        self.take("anonlib_unit_seconds", float(result.seconds), about)

    def take(self, name: str, value: float, labels: Labels) -> None:
        """Add to a counter, set a gauge, or observe."""


class JsonProgress:
    def __init__(self, stream: TextIO) -> None:
        self._stream, self._done = stream, Counter[str]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def __call__(self, stage: str, result: UnitResult, units: int) -> None:
        """A line without the parts that took no time."""
        self._done[stage] += result.error is None
        line = {"stage": stage, "done": self._done[stage], "of": units, "unit": result.unit}
        line |= {"error": result.error} if result.error else {name: int(getattr(result, name)) for name in COUNTS}
        parts = {part: round(float(seconds), 3) for part, seconds in result.parts.items() if seconds}
        line |= {"seconds": float(result.seconds), "parts": parts}
        self._print(line | {"read": int(result.read), "written": int(result.written)})

    def ended(self, round: Round) -> None:
        self._print({name: value for name, value in asdict(round).items() if value is not None})

    def _print(self, line: dict[str, Any]) -> None:
        rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in line.items()}
        print(json.dumps(rounded), file=self._stream, flush=True)


class TerminalProgress:
    """One line a stage: how far, what it did, how long still."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bars = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(file=stream),
            refresh_per_second=4,
        )
        self._stages: dict[str, tuple[TaskID, Counter[str]]] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def __call__(self, stage: str, result: UnitResult, units: int) -> None:
        if stage not in self._stages:
            self._stages[stage] = self._bars.add_task(stage, total=units, counts=""), Counter()
        task, counts = self._stages[stage]
        if result.error is None:
            counts += Counter({name: int(getattr(result, name)) for name in ("images", "faces", "quarantined")})
        else:
            self._print(f"{stage} {result.unit}: {result.error}")
        counts_text = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        self._bars.update(task, advance=int(result.error is None), counts=counts_text)

    def ended(self, round: Round) -> None:
        done, duration = round.units - round.remaining, timedelta(seconds=int(round.seconds))
        line = f"{round.stage}, round {round.round}: {done} of {round.units} done in {duration}"
        again = f"; {round.remaining} to do again, most often because: {round.why}" if round.why is not None else ""
        self._print(line + again)

    def _print(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False)


Progress = TerminalProgress | JsonProgress


def open_progress(stream: TextIO | None = None) -> Progress:
    """Moving lines on a terminal, JSON lines elsewhere; on stderr if no stream is given, since stdout holds results."""
    stream = stream or sys.stderr
    return TerminalProgress(stream) if stream.isatty() else JsonProgress(stream)
