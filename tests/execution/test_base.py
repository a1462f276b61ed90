"""Chunks of photos are bounded by count and by pixels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anonlib.execution.base import in_chunks


@dataclass(frozen=True)
class Photo:
    rgb: NDArray[np.uint8]


def photo(megapixels: float) -> Photo:
    return Photo(np.broadcast_to(np.uint8(0), (1000, round(megapixels * 1000), 3)))


@given(st.lists(st.integers(1, 90), max_size=40), st.integers(1, 10))
def test_chunks_hold_everything_in_order_and_are_bounded_by_count_and_px(sizes: list[int], most: int) -> None:
    items = [photo(size) for size in sizes]
    chunks = list(in_chunks(items, most))
    assert [id(one) for one in chain.from_iterable(chunks)] == [id(one) for one in items]
    for chunk in chunks:
        assert 1 <= len(chunk) <= most
        assert sum(one.rgb.shape[0] * one.rgb.shape[1] for one in chunk[:-1]) < 64_000_000
