"""What is said of a unit of work where it ran: one line of JSON, for whoever collects a cluster's logs.

A worker's stdout gets it, through the logger `anonlib.units`. Shard ids stand in it and sample keys never do: a file
name may be a person's. An Outcome's `error` is made without them; its `details` are no part of a line.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from anonlib.execution.base import UnitResult

COUNTS = ("images", "faces", "released", "no_face", "quarantined", "fallbacks")
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
    """Who works: Ray's node id, the process, and the GPUs it was given. Without a node it is the driver itself."""

    node: str = ""
    pid: int = 0
    gpus: tuple[str, ...] = ()


def log_to_stdout() -> None:
    """Let this process's units be logged; a worker calls it once."""
    if not _logger.handlers:
        _logger.addHandler(logging.StreamHandler(sys.stdout))
        _logger.setLevel(logging.INFO)
        _logger.propagate = False


def log_unit(work: UnitRecord, worker: WorkerIdentity, outcome: UnitResult) -> None:
    """Leave the line of one unit, if anybody asked for lines."""
    if _logger.isEnabledFor(logging.INFO):
        _logger.info("%s", json.dumps(line_of(work, worker, outcome), ensure_ascii=False))


def line_of(work: UnitRecord, worker: WorkerIdentity, outcome: UnitResult) -> dict[str, Any]:
    """All that is known of a unit; seconds are of a clock that is never set back, `ended` is for collectors."""
    return {
        "ended": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "stage": work.stage,
        "unit": outcome.unit,
        "run": work.key[:16],
        "method": work.method,
        "round": work.round,
        "node": worker.node,
        "pid": worker.pid,
        **({"gpus": list(worker.gpus)} if worker.gpus else {}),
        **({"error": outcome.error} if outcome.error else {name: getattr(outcome, name) for name in COUNTS}),
        "seconds": round(outcome.seconds, 3),
        **details(outcome),
    }


def details(outcome: UnitResult) -> dict[str, Any]:
    """Where a unit's time and bytes went; parts that took no time are left out."""
    parts = {part: round(float(seconds), 3) for part, seconds in outcome.parts.items() if seconds}
    return {"parts": parts, "read": int(outcome.read), "written": int(outcome.written)}
