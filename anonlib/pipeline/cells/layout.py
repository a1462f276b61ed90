"""How a plan is divided: into how many cells, and which shards are read together. A function of the scan alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.pipeline.places import Room, json_bytes

FACES_A_CELL = 250_000
"""Faces of a cell on average, where the job does not say how many cells there are."""
WHOLE_UP_TO = 1_000_000
"""Faces up to which one process makes the plan: 3.4 GiB and four minutes of a core."""
CLASSES_A_DECK = 4000
DONORS_A_ROOM = 40
"""Times k: donors that a room should have; cells with fewer share one."""
_FILE = "cells/layout.json"
_ROOMS = "cells/rooms.json"


def cells_of(job: JobConfig, scan: Room, shards: Iterable[str]) -> int:
    """In how many cells the faces of these scanned shards are planned, where the job does not say it; 1: whole."""
    if not job.may_have_cells:
        return 1
    faces = sum(int(marker["faces"]) for marker in scan.markers(shards))
    return 1 if faces <= WHOLE_UP_TO else -(-faces // FACES_A_CELL)


@dataclass(frozen=True)
class Layout:
    """`batches`: shard ids that are read together, about as many faces as a cell has."""

    cells: int
    faces: int
    batches: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, cells: int, faces_of: Mapping[str, int]) -> Layout:
        """Shards in their order, a batch closed as soon as it holds a cell's share."""
        total = sum(faces_of.values())
        batches: list[list[str]] = [[]]
        held = 0
        for shard, faces in faces_of.items():
            if held >= max(1, total / cells):
                batches.append([])
                held = 0
            batches[-1].append(shard)
            held += faces
        return cls(cells, total, tuple(map(tuple, batches)))

    @property
    def batch_of(self) -> dict[str, int]:
        """The batch of each shard."""
        return {shard: number for number, batch in enumerate(self.batches) for shard in batch}

    def save(self, room: Room) -> None:
        room.storage.claim(room.path(_FILE), json_bytes({"cells": self.cells, "faces": self.faces, "of": self.batches}))

    @classmethod
    def load(cls, room: Room) -> Layout:
        found = json.loads(room.storage.read(room.path(_FILE)))
        return cls(found["cells"], found["faces"], tuple(map(tuple, found["of"])))


@dataclass(frozen=True)
class Rooms:
    """`cells` of each room in which classes are formed, and the number of `decks` from which these are dealt."""

    cells: tuple[tuple[int, ...], ...]
    decks: int

    def save(self, room: Room) -> None:
        room.storage.claim(room.path(_ROOMS), json_bytes({"cells": self.cells, "decks": self.decks}))

    @classmethod
    def load(cls, room: Room) -> Rooms:
        found = json.loads(room.storage.read(room.path(_ROOMS)))
        return cls(tuple(map(tuple, found["cells"])), found["decks"])


def rooms_of(donors: Sequence[int], means: NDArray[np.float32], k: int) -> Rooms:
    """Cells that have too few `donors` share a room with the nearest, by the `means` (cells, d), until none has."""
    rooms = [[cell] for cell in range(len(donors))]
    held = list(donors)
    points = means.astype(np.float64)
    while len(rooms) > 1 and min(held) < DONORS_A_ROOM * k:
        least = int(np.argmin(held))
        centre = points[rooms[least]].mean(axis=0)
        apart = [
            np.inf if number == least else float(((points[some].mean(axis=0) - centre) ** 2).sum())
            for number, some in enumerate(rooms)
        ]
        goal = int(np.argmin(apart))
        rooms[goal] = sorted(rooms[goal] + rooms[least])
        held[goal] += held[least]
        del rooms[least], held[least]
    classes = sum(donors) // k
    return Rooms(tuple(map(tuple, sorted(rooms))), max(1, -(-classes // CLASSES_A_DECK)))
