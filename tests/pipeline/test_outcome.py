"""Chunks are bounded, and reasons are sentences that give no name away."""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from itertools import chain

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anonlib.pipeline.outcome import FAILURES, in_chunks, sentence, without_names
from anonlib.storage import StorageError


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


def test_a_sentence_is_one_short_line() -> None:
    said = sentence(ValueError("first line\n  second\tline " + "x" * 500))
    assert said.startswith("ValueError: first line second line x") and said.isprintable() and len(said) < 230


@pytest.mark.parametrize(
    "error", [struct.error, zlib.error, zipfile.BadZipFile, EOFError, AttributeError, AssertionError, cv2.error]
)
def test_what_a_library_raises_on_one_image_ends_that_image_alone(error: type[Exception]) -> None:
    assert issubclass(error, FAILURES)


def test_an_interrupt_and_a_storages_sentence_are_no_failure_of_an_image() -> None:
    for error in (KeyboardInterrupt, SystemExit, StorageError):
        assert not issubclass(error, FAILURES)


@pytest.mark.parametrize(
    ("reason", "key"),
    [
        ("the member 'Ada Quill.jpg' is a link", "Ada Quill"),
        ("/photos/Ada Quill/1.jpg is a link that leads out of /photos", "Ada Quill/1.jpg"),
        ("damaged after member 3 (\"Ada's Quill\"): 'Ada' and everything after it is lost", "00000#truncated"),
        ("the key 'Ada' is in this shard already", "Ada#2"),
    ],
)
def test_names_go_from_a_reason(reason: str, key: str) -> None:
    said = without_names(reason, [key])
    assert "Ada" not in said and "Quill" not in said and "…" in said


def test_a_reason_without_a_name_stays_as_it_is() -> None:
    reason = "30000x30000 px is over the limit of 100 megapixels (limits.image_mpx)"
    assert without_names(reason, ["img-000", "a/b.jpg"]) == reason


@given(st.text(min_size=1).filter(str.strip), st.text(), st.text())
def test_a_key_of_any_signs_is_no_pattern(key: str, before: str, after: str) -> None:
    without_names(f"{before} {key} {after}", [key])
    assert "…" in without_names(f"the file {key} is lost", [key])
