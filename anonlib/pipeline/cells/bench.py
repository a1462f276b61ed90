"""What every unit of a plan in cells works with: the rooms, the cuts, what is sent and received, what is published."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from anonlib.config import JobConfig
from anonlib.pipeline import tables
from anonlib.pipeline.cells.layout import Layout, Rooms
from anonlib.pipeline.cells.parcels import PORTRAITS, Parcels
from anonlib.pipeline.decoding import Painter
from anonlib.pipeline.lending import Lender
from anonlib.pipeline.places import Room, sha256
from anonlib.privacy.cuts import Cut
from anonlib.privacy.keys import Keyring

BARS = (0.03, 0.02, 0.01, 0.0, 0.0, 0.0)
"""How far above the plan's own the bar of each cut lies, so that the surest pairs are joined first.

Of 840 people of LFW in 8 cells 76 subjects held several people without that, 58 with it, 45 in the whole plan.
"""
CUTS = len(BARS) + 1
"""The last cut divides subjects among the rooms in which classes are formed."""
_CUTS_FILE = "cells/cuts.npz"


def name(number: int) -> str:
    """A unit's number as file names and markers have it."""
    return f"{number:05d}"


@dataclass
class Bench:
    """One job's; `published` is the digest of what the unit at work added to the plan."""

    job: JobConfig
    keyring: Keyring
    scan: Room
    room: Room
    painter: Painter | None
    lender: Lender | None
    published: hashlib._Hash = field(default_factory=hashlib.sha256)

    def begin(self) -> None:
        """The next unit has published nothing yet."""
        self.published = hashlib.sha256()

    @cached_property
    def layout(self) -> Layout:
        return Layout.load(self.room)

    @cached_property
    def rooms(self) -> Rooms:
        return Rooms.load(self.room)

    @cached_property
    def cuts(self) -> list[Cut]:
        return load_cuts(self.room)

    @property
    def parcels(self) -> Parcels:
        return Parcels(self.room)

    @property
    def crops(self) -> Parcels:
        """What surrogates are made of; it is needed after the plan is made."""
        return Parcels(self.room, PORTRAITS)

    def faces(self, shard: str, columns: Sequence[str]) -> pa.Table:
        """Columns of a scanned shard's faces."""
        return tables.from_bytes(self.scan.storage.read(self.scan.path("faces", f"{shard}.parquet")), columns)

    def publish(self, path: str, table: pa.Table) -> None:
        """A table of the plan."""
        data = tables.table_bytes(table)
        self.published.update(f"{path} {sha256(data)}\n".encode())
        self.room.storage.publish(self.room.path(f"{path}.parquet"), data)

    def keep(self, kind: str, number: int, table: pa.Table) -> None:
        """A table that a later step of the same number receives."""
        self.parcels.send(kind, "all", table, np.full(table.num_rows, number))


def save_cuts(room: Room, cuts: Sequence[Cut]) -> None:
    """Claimed: whoever cuts first has cut for all."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {f"centres{index}": one.centres for index, one in enumerate(cuts)}
    arrays |= {f"cell{index}": one.cell for index, one in enumerate(cuts)}
    np.savez(buffer, **arrays)
    room.storage.claim(room.path(_CUTS_FILE), buffer.getvalue())


def load_cuts(room: Room) -> list[Cut]:
    with np.load(io.BytesIO(room.storage.read(room.path(_CUTS_FILE)))) as arrays:
        return [Cut(arrays[f"centres{index}"], arrays[f"cell{index}"]) for index in range(CUTS)]
