"""One unit of a plan in cells, whichever step it belongs to: `run("cut-2/00017")`, committed once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anonlib.config import SYNTHESIS_METHODS, JobConfig
from anonlib.pipeline.assignments import ASSIGNED, assignments
from anonlib.pipeline.cells import hiding, joining
from anonlib.pipeline.cells.bench import Bench, name
from anonlib.pipeline.decoding import painter_of
from anonlib.pipeline.lending import lender_of
from anonlib.pipeline.outcome import Outcome
from anonlib.pipeline.outfits import Outfit
from anonlib.pipeline.places import Places, plan_room, scan_room
from anonlib.pipeline.secret import open_in_worker
from anonlib.records import DRAWS, OUTFITS, PORTRAITS, WANTED

HELD_BYTES = 1 << 29
"""Portraits that a unit holds before it sends them: fewer bytes make more and smaller files."""


class CellStage:
    """Made in the worker, which reads the secret itself."""

    def __init__(
        self, job: JobConfig, places: Places, scan_key: str, key: str, models: Mapping[str, bytes], check: str
    ) -> None:
        import faiss

        # A sum in another order is another sum: the same bytes need one thread.
        faiss.omp_set_num_threads(1)
        self.bench = Bench(
            job,
            open_in_worker(job, places, check),
            scan_room(places, scan_key),
            plan_room(places, key),
            painter_of(models, job),
            lender_of(models, job),
        )

    def run(self, unit: str) -> Outcome:
        """Do one unit; safe to repeat and to race."""
        bench = self.bench
        bench.begin()
        step, _, number = unit.partition("/")
        said = _step(bench, step, int(number))
        bench.room.commit(unit, {"unit": unit, "digest": bench.published.hexdigest()} | said)
        return Outcome(unit, faces=int(said.get("faces", 0)))


def _step(bench: Bench, step: str, number: int) -> dict[str, Any]:
    match step.partition("-"):
        case "scatter", _, _:
            return joining.scatter(bench, number)
        case "labels", _, _:
            return joining.labels(bench, number)
        case "cut", _, which:
            return joining.cut(bench, int(which), number)
        case "classes", _, _:
            return hiding.classes(bench, number)
        case "deal", _, _:
            return hiding.deal_deck(bench, number)
        case "dress", _, _:
            return hiding.dress(bench, number)
        case "assign", _, _:
            return assign(bench, number)
    raise ValueError(f"a plan has no step {step}")


def assign(bench: Bench, batch: int) -> dict[str, Any]:
    """assignments and draws of the shards of a batch, and the portraits among its faces to their blocks."""
    outfit_of = _outfits(bench, batch)
    wanted = bench.parcels.received("wanted", batch, WANTED)
    draws = bench.parcels.received("draws-of", batch, DRAWS)
    row_of = {one: row for row, one in enumerate(draws.column("surrogate").to_pylist())}
    faces = redacted = 0
    portraits = _Portraits(bench, batch, wanted)
    for shard in bench.layout.batches[batch]:
        table = bench.faces(shard, [*ASSIGNED, "crop", "crop_from_image"])
        ids = table.column("face_id").to_pylist()
        assigned = assignments(bench.job, table, None if outfit_of is None else [outfit_of[one] for one in ids])
        bench.publish(f"assignments/{shard}", assigned.table)
        if row_of:
            drawn = draws.take(pa.array([row_of[one] for one in assigned.worn], pa.int64()))
            bench.publish(f"draws/{shard}", drawn)
        portraits.add(table)
        faces, redacted = faces + len(ids), redacted + assigned.redacted
    portraits.send()
    return {"faces": faces, "redacted": redacted}


class _Portraits:
    """The portraits of a batch on their way to their blocks: they are large, so a part of them at a time."""

    def __init__(self, bench: Bench, batch: int, wanted: pa.Table) -> None:
        self.bench, self.batch = bench, batch
        self.wanted = wanted.column("face_id").combine_chunks()
        blocks = wanted.column("block").to_pylist()
        self.block_of = dict(zip(self.wanted.to_pylist(), blocks, strict=True))
        self.held: list[pa.Table] = []
        self.sent = 0

    def add(self, faces: pa.Table) -> None:
        """Those among a shard's faces."""
        self.held.append(faces.select(PORTRAITS.names).filter(pc.is_in(faces.column("face_id"), self.wanted)))
        if sum(table.nbytes for table in self.held) >= HELD_BYTES:
            self.send()

    def send(self) -> None:
        """What is held."""
        crops = pa.concat_tables([PORTRAITS.empty_table(), *self.held]).combine_chunks()
        self.held.clear()
        to = np.array([self.block_of[one] for one in crops.column("face_id").to_pylist()], np.int64)
        self.bench.crops.send("crops", f"{name(self.batch)}-{name(self.sent)}", crops, to)
        self.sent += 1


def _outfits(bench: Bench, batch: int) -> dict[str, Outfit] | None:
    """By face id, one object for all faces of a subject; None for a redaction, which asks nobody who is who."""
    if bench.job.method.name not in SYNTHESIS_METHODS:
        return None
    rows = bench.parcels.received("outfits", batch, OUTFITS).to_pylist()
    same: dict[Outfit, Outfit] = {}
    found = {}
    for row in rows:
        outfit = Outfit(tuple(row["surrogates"]), row["class_id"], row["k"], row["reason"])
        found[row["face_id"]] = same.setdefault(outfit, outfit)
    return found
