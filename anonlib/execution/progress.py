"""What is seen of a job while it runs.

On a terminal each stage is one line that moves. Elsewhere every finished unit is one line of JSON, since a cluster's
log is read by programs. Both go to stderr; stdout holds the result alone.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import TaskID

    from anonlib.execution.base import UnitResult
    from anonlib.execution.rounds import Round


class Progress(AbstractContextManager["Progress"], Protocol):
    """Something that `Job` reports to: every outcome, and every round that ended."""

    def __call__(self, stage: str, outcome: UnitResult, units: int) -> None: ...

    def ended(self, one: Round) -> None: ...


def open_progress(stream: TextIO | None = None) -> Progress:
    """Moving lines on a terminal, JSON lines elsewhere; on stderr if no stream is given."""
    stream = stream or sys.stderr
    return MovingLines(stream) if stream.isatty() else JsonLines(stream)


@dataclass
class ProgressCounts:
    """What a stage has done so far; times are of this process's monotonic clock, in s."""

    stage: str
    units: int
    began: float
    done: int = 0
    failed: int = 0
    images: int = 0
    faces: int = 0
    quarantined: int = 0
    latest: float = 0.0

    def add(self, outcome: UnitResult) -> None:
        """Count one outcome; a failed unit comes again in the next round."""
        self.latest = time.monotonic()
        if outcome.error is not None:
            self.failed += 1
            return
        self.done += 1
        self.images += int(outcome.images)
        self.faces += int(outcome.faces)
        self.quarantined += int(outcome.quarantined)

    def seconds(self) -> float:
        """From the first unit's beginning to the latest one's end."""
        return max(self.latest - self.began, 1e-6)

    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds()

    def left(self) -> float | None:
        """Seconds to go at the pace so far; None before anything is done."""
        return self.seconds() * (self.units - self.done) / self.done if self.done else None


def _open_tally(stage: str, outcome: UnitResult, units: int) -> ProgressCounts:
    """A stage begins where its first unit began, after models were loaded and Ray was up."""
    return ProgressCounts(stage, units, time.monotonic() - float(outcome.seconds))


class JsonLines:
    """One line a unit, one a round and one a stage; an outcome's `error` names nobody, and its details stay out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tally: ProgressCounts | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def __call__(self, stage: str, outcome: UnitResult, units: int) -> None:
        if self._tally is None or self._tally.stage != stage:
            self._close()
            self._tally = _open_tally(stage, outcome, units)
        from anonlib.execution.unit_log import details

        self._tally.add(outcome)
        line: dict[str, Any] = {"stage": stage, "unit": outcome.unit, "done": self._tally.done, "of": units}
        if outcome.error is not None:
            self._say(line | {"error": outcome.error} | details(outcome))
            return
        counts = {name: int(getattr(outcome, name)) for name in ("images", "faces", "quarantined", "fallbacks")}
        self._say(line | counts | {"seconds": round(float(outcome.seconds), 2)} | details(outcome))

    def ended(self, one: Round) -> None:
        names = ("wanted", "done", "failed", "left", "images", "faces", "quarantined", "actors")
        seconds = {"seconds": one.seconds, "images_per_s": one.rate, "busy": one.busy, "paid": one.paid}
        line = {"stage": one.stage, "round": one.number} | {name: getattr(one, name) for name in names}
        line |= {name: round(value, 2) for name, value in seconds.items()}
        self._say(line | ({} if one.why is None else {"why": one.why}))

    def _close(self) -> None:
        tally, self._tally = self._tally, None
        if tally is not None:
            counts = {name: getattr(tally, name) for name in ("done", "failed", "images", "faces", "quarantined")}
            pace = {"seconds": round(tally.seconds(), 2), "images_per_s": round(tally.rate(), 2)}
            self._say({"stage": tally.stage, "finished": tally.done == tally.units, **counts, **pace})

    def _say(self, line: dict[str, Any]) -> None:
        print(json.dumps(line), file=self._stream, flush=True)


class MovingLines:
    """One line a stage: how far, how fast, how long still."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[said]}"),
            console=Console(file=stream),
            refresh_per_second=4,
        )
        self._stages: dict[str, tuple[ProgressCounts, TaskID]] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def __call__(self, stage: str, outcome: UnitResult, units: int) -> None:
        if stage not in self._stages:
            line = self._bars.add_task(stage, total=units, said="")
            self._stages[stage] = (_open_tally(stage, outcome, units), line)
        tally, line = self._stages[stage]
        tally.add(outcome)
        self._bars.update(line, completed=tally.done, said=pace(tally))
        if outcome.error is not None:
            self._bars.console.print(f"{stage} {outcome.unit}: {outcome.error}", markup=False, highlight=False)

    def ended(self, one: Round) -> None:
        self._bars.console.print(said_of(one), markup=False, highlight=False)


def said_of(one: Round) -> str:
    """`scan, round 1: 3 of 4 done in 0:12; 1 to do again, most often because its worker died`."""
    said = f"{one.stage}, round {one.number}: {one.done} of {one.wanted} done in {clock(one.seconds)}"
    return said if one.why is None else f"{said}; {one.left} to do again, most often because: {one.why}"


def pace(tally: ProgressCounts) -> str:
    """`120 images, 38.2/s, 140 faces, 0:12 left`."""
    said = [f"{tally.images:,} images, {tally.rate():.1f}/s"] if tally.images else []
    if tally.faces:
        said.append(f"{tally.faces:,} faces")
    if tally.quarantined:
        said.append(f"{tally.quarantined:,} quarantined")
    left = tally.left()
    if left is not None:
        said.append(f"{clock(left)} left" if tally.done < tally.units else f"in {clock(tally.seconds())}")
    return ", ".join(said)


def clock(seconds: float) -> str:
    """0:07, 12:31 or 3:05:09."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
