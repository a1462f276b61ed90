"""What Prometheus is told of a run, by Ray's own exporter, which puts `ray_` before every name.

The driver counts an outcome when it arrives. A worker that is killed takes with it what it had not exported yet, up to
ten seconds of counts; the driver exports the rest when it ends. So images, faces, quarantined and fallbacks are
the release's own counts as far as this driver made it, however often a unit was tried; a unit whose outcome was lost
with its node is done by its marker and is not counted. Seconds and bytes are those of every try.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from anonlib.execution.base import UnitResult
from anonlib.execution.unit_log import UnitRecord

Labels = dict[str, str]


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
    "anonlib_units_left": Metric("gauge", "Units that the running round has still to do"),
    "anonlib_units_running": Metric("gauge", "Units that a worker has at hand"),
}
"""All of them; labels are bounded, and the node is Ray's own label."""


@dataclass(frozen=True)
class Reading:
    """What is added to a counter, or observed."""

    name: str
    value: float
    labels: Labels


class Meter(Protocol):
    """Something that takes what happened."""

    def count(self, work: UnitRecord, outcome: UnitResult, lost: bool = False) -> None:
        """Take one outcome; `lost`: the driver wrote a manifest without images for a unit that always failed."""

    def left(self, work: UnitRecord, units: int) -> None:
        """Take how many units the round has still to do."""


class Unmetered:
    """The meter of a run without Ray, which has no exporter."""

    def count(self, work: UnitRecord, outcome: UnitResult, lost: bool = False) -> None: ...

    def left(self, work: UnitRecord, units: int) -> None: ...


def readings(work: UnitRecord, outcome: UnitResult, *, gpus: float, lost: bool = False) -> Iterator[Reading]:
    """An outcome in numbers; `gpus` are those of one actor."""
    about = {"stage": work.stage, "method": work.method}
    ended = "quarantined" if lost else "failed" if outcome.error is not None else "done"
    yield Reading("anonlib_units_total", 1, about | {"outcome": ended})
    for name in ("images", "faces", "quarantined", "fallbacks"):
        yield Reading(f"anonlib_{name}_total", float(getattr(outcome, name)), about)
    if lost:
        return
    yield Reading("anonlib_bytes_total", float(outcome.read), about | {"direction": "read"})
    yield Reading("anonlib_bytes_total", float(outcome.written), about | {"direction": "written"})
    for part, seconds in outcome.parts.items():
        yield Reading("anonlib_seconds_total", float(seconds), about | {"part": part})
    yield Reading("anonlib_actor_seconds_total", float(outcome.busy), about | {"resource": "cpu"})
    yield Reading("anonlib_actor_seconds_total", float(outcome.busy) * gpus, about | {"resource": "gpu"})
    yield Reading("anonlib_unit_seconds", float(outcome.seconds), about)
