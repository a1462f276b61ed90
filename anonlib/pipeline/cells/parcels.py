"""What units of one step leave for units of the next: a file for each receiver and sender.

A unit that is run again, or raced, writes the same files again. Who receives reads them in the order of their senders.
They stay until the workspace is purged: who makes a plan has no right to delete there.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.pipeline import tables
from anonlib.pipeline.places import Room

PORTRAITS = "portraits"
_AT_ONCE = 16


@dataclass(frozen=True)
class Parcels:
    """The parcels of a plan's room; `kind` says from which step they come and what is in them."""

    room: Room
    folder: str = "parcels"

    def send(self, kind: str, sender: str, table: pa.Table, to: NDArray[np.int64]) -> None:
        """The rows of `table` to the units numbered in `to` (rows,), in their order; nothing goes where no row does."""
        order = np.argsort(to, kind="stable")
        receivers, starts = np.unique(to[order], return_index=True)

        def put(receiver: int, rows: NDArray[np.int64]) -> None:
            data = tables.table_bytes(table.take(pa.array(rows)))
            self.room.storage.publish(self._path(kind, receiver, sender), data)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(put, receivers.tolist(), np.split(order, starts[1:])))

    def received(self, kind: str, number: int, schema: pa.Schema) -> pa.Table:
        """Everything that was sent to a unit."""
        storage = self.room.storage
        paths = [entry.path for entry in storage.list(self._path(kind, number, ""))]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            parts = list(pool.map(lambda path: tables.from_bytes(storage.read(path)), paths))
        return pa.concat_tables([schema.empty_table(), *parts]).combine_chunks()

    def _path(self, kind: str, number: int, sender: str) -> str:
        return self.room.path(self.folder, kind, f"{number:05d}", f"{sender}.parquet" if sender else "")
