"""Redact: scan and render in one pass, for methods that need boxes alone.

A photo is read once; its faces are hidden and it is encoded while it is at hand, and the next chunk of photos is looked
at meanwhile. Tables, release and markers are those of the two stages, whose work this is: a shard that was scanned and
not committed is left to `render`.
"""

from __future__ import annotations

from collections.abc import Callable

from anonlib.datasets import Shard
from anonlib.execution.base import UnitResult
from anonlib.media.prefetch import one_ahead
from anonlib.stages.render import RenderStage, ShardWork
from anonlib.stages.scan import Scanned, ScanStage


class RedactStage:
    """Holds both stages; `run(shard)` writes the tables of the scan and its marker, then those of the release."""

    name = "redact"

    def __init__(self, make_scan: Callable[[], ScanStage], make_render: Callable[[], RenderStage]) -> None:
        self.scan, self.render = make_scan(), make_render()

    def run(self, shard: Shard) -> UnitResult:
        """Redact one shard; safe to repeat and to race."""
        scanned = Scanned()

        def add_all(work: ShardWork) -> None:
            # Three chunks are held: one that is decoded, one that is looked at, and one that is redacted.
            for chunk in one_ahead(self.scan.chunks(shard, scanned, self.scan.job.shard_bytes * 2 // 3)):
                self.render.add(work, *chunk)
            work.left_out = scanned.beside.left_out
            self.scan.publish(shard, scanned)

        return self.render.write(shard, add_all)
