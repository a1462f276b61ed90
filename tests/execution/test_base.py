"""Chunks are bounded, and what a log is told of an error names nobody."""

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

from anonlib.execution.base import FAILURES, in_chunks, in_full, sentence, traced
from anonlib.storage import StorageError, open_storage


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


def raised(error: Exception) -> Exception:
    """The error with a traceback."""
    try:
        raise error
    except type(error) as caught:
        return caught


@given(st.text(), st.sampled_from([ValueError, KeyError, OSError, RuntimeError]))
def test_a_sentence_for_logs_is_kind_and_place_and_no_word_of_the_error(words: str, kind: type[Exception]) -> None:
    line = raised.__code__.co_firstlineno + 3
    assert sentence(raised(kind(words))) == f"{kind.__name__} at test_base.py:{line}"
    assert sentence(kind(words)) == kind.__name__


def test_the_place_is_that_of_our_code_and_not_of_a_library() -> None:
    with pytest.raises(StorageError) as caught:
        open_storage("no-such-folder").read("Ada_Quill/at_sea.jpg")
    assert sentence(caught.value).startswith("NotFound at local.py:")


def test_the_workspace_is_told_everything_in_one_line_and_in_a_trace() -> None:
    error = raised(ValueError("first line\n  second\tline " + "x" * 500))
    said = in_full(error)
    assert said.startswith("ValueError: first line second line x") and said.isprintable() and len(said) < 230
    assert "second" in traced(error) and "test_base.py" in traced(error)
    assert traced(raised(StorageError("gone", path="Ada/1.jpg"))).endswith("path: Ada/1.jpg\n")


@pytest.mark.parametrize(
    "error", [struct.error, zlib.error, zipfile.BadZipFile, EOFError, AttributeError, AssertionError, cv2.error]
)
def test_what_a_library_raises_on_one_image_ends_that_image_alone(error: type[Exception]) -> None:
    assert issubclass(error, FAILURES)


def test_an_interrupt_and_a_storages_sentence_are_no_failure_of_an_image() -> None:
    for error in (KeyboardInterrupt, SystemExit, StorageError):
        assert not issubclass(error, FAILURES)
