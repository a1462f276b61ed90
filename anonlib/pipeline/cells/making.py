"""Makes a plan in cells: one step after another, each a loop over what has no marker yet; its own marker comes last."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from anonlib.config import CLASS_METHODS, SYNTHESIS_METHODS, JobConfig
from anonlib.pipeline import tables
from anonlib.pipeline.cells.bench import BARS, CUTS, load_cuts, name, save_cuts
from anonlib.pipeline.cells.layout import Layout, Rooms, rooms_of
from anonlib.pipeline.cells.stage import CellStage
from anonlib.pipeline.desk import MakeStage
from anonlib.pipeline.people import matrix
from anonlib.pipeline.places import Places, Room, plan_room, scan_room
from anonlib.pipeline.plan import LABELS, Plan, plan_of
from anonlib.privacy.cuts import SAMPLED, cut

Rounds = Callable[[MakeStage[str], Sequence[str], Callable[[], set[str]]], None]
"""Runs units until all have a marker, and raises if one never gets it."""
_SHARDS_SAMPLED = 256
_READERS = 16


@dataclass(frozen=True)
class CellPlan:
    """`run(shards)` does what `PlanStage.run` does, in `cells` cells by the units of `CellStage`."""

    job: JobConfig
    places: Places
    scan_key: str
    key: str
    models: Mapping[str, bytes]
    check: str
    cells: int
    rounds: Rounds

    @property
    def room(self) -> Room:
        return plan_room(self.places, self.key)

    def run(self, shards: Sequence[str]) -> Plan:
        """Plan the whole dataset, or read the plan that is already there."""
        known = self.room.committed("plan")
        if known is None:
            self.room.commit("plan", self._made(shards))
            known = self.room.committed("plan") or {}
        return plan_of(self.key, known)

    def _made(self, shards: Sequence[str]) -> dict[str, Any]:
        scanned = scan_room(self.places, self.scan_key).markers(shards)
        faces_of = {str(one["shard"]): int(one["faces"]) for one in scanned}
        Layout.of(self.cells, faces_of).save(self.room)
        layout = Layout.load(self.room)
        batches, cells = range(len(layout.batches)), range(layout.cells)
        people: list[dict[str, Any]] = []
        doubts = 0
        if self.job.method.name in SYNTHESIS_METHODS and layout.faces:
            self._cut(faces_of)
            self._step("scatter", batches)
            known = self._step("labels", cells)
            for number in range(len(BARS)):
                last = self._step(f"cut-{number}", cells)
            doubts = sum(one["disagreements"] for one in known)
            donors = np.sum([one["donors"] for one in (*known, *last)], axis=0).tolist()
            rooms_of(donors, load_cuts(self.room)[-1].means(), self.job.method.k).save(self.room)
            rooms = Rooms.load(self.room)
            self._step("classes", range(len(rooms.cells)))
            if self.job.method.name in CLASS_METHODS:
                self._step("deal", range(rooms.decks))
            people = self._step("dress", range(len(rooms.cells)))
            self._gather_doubts()
        said = self._step("assign", batches)
        digest = hashlib.sha256("".join(one["digest"] for one in (*people, *said)).encode()).hexdigest()
        return {
            "digest": digest,
            "cells": layout.cells,
            "blocks": [block for one in people for block in one["blocks"]],
            "subjects": sum(one["subjects"] for one in people),
            "classes": sum(one["classes"] for one in people),
            "redacted": sum(one["redacted"] for one in said) if people else 0,
            "disagreements": doubts,
        }

    def _step(self, step: str, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Run a step's units; what their markers say."""
        units = [f"{step}/{name(number)}" for number in numbers]
        make = partial(CellStage, self.job, self.places, self.scan_key, self.key, self.models, self.check)
        self.rounds(make, units, self.room.done)
        return self.room.markers(units)

    def _cut(self, faces_of: Mapping[str, int]) -> None:
        """All cuts, from evenly spaced faces of evenly spaced shards."""
        if self.room.storage.exists(self.room.path("cells/cuts.npz")):
            return
        room = scan_room(self.places, self.scan_key)
        shards = [shard for shard, faces in faces_of.items() if faces]
        chosen = shards[:: -(-len(shards) // _SHARDS_SAMPLED)]
        wanted = -(-self.cells * SAMPLED // len(chosen))

        def some(shard: str) -> Any:
            data = room.storage.read(room.path("faces", f"{shard}.parquet"))
            vectors = matrix(tables.from_bytes(data, ["embedding"]), "embedding")
            return vectors[:: max(1, len(vectors) // wanted)][:wanted]

        with ThreadPoolExecutor(_READERS) as pool:
            sample = np.concatenate(list(pool.map(some, chosen)))
        save_cuts(self.room, [cut(sample, self.cells, seed=number + 1) for number in range(CUTS)])

    def _gather_doubts(self) -> None:
        """labels.txt, from what the buckets said."""
        storage = self.room.storage
        with ThreadPoolExecutor(_READERS) as pool:
            paths = [self.room.path("doubts", f"{name(number)}.txt") for number in range(self.cells)]
            storage.publish(self.room.path(LABELS), b"".join(pool.map(storage.read, paths)))
