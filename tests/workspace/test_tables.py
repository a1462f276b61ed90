"""A table is written in memory that grows little faster than what it holds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from anonlib.faces.track import Track
from anonlib.workspace import tables
from anonlib.workspace.schemas import FACES


def test_the_places_of_a_face_in_a_long_clip_take_few_times_their_bytes_while_they_are_written() -> None:
    random, frames = np.random.default_rng(0), 20_000
    track = Track(0, *(random.random((frames, *shape), np.float32) for shape in ((4,), (5, 2), ())))
    usual, counted = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(counted)
    try:
        data = tables.to_bytes([{"face_id": "f", "key": "k", "index": 0, "track": track.columns}], FACES)
    finally:
        pa.set_memory_pool(usual)
    assert counted.max_memory() < 5 * 15 * 4 * frames
    (row,) = tables.rows_of(tables.from_bytes(data))
    again = Track.of(row["track"])
    for name in ("boxes", "landmarks", "scores"):
        np.testing.assert_array_equal(getattr(again, name), getattr(track, name))
