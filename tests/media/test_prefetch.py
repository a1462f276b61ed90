"""A shard's photos come in order, in chunks that follow from the photos alone, and no more is held than allowed."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.config import LimitsConfig, no_job
from anonlib.datasets import Sample
from anonlib.execution.base import current, watching
from anonlib.media.codec import decode, decoded_bytes
from anonlib.media.prefetch import chunks_ahead, on_threads, sample_bytes
from anonlib.media.sandbox.process import header_bytes_apart
from tests.support import bombs, photos


class Pixels:
    """Something made of an item, which knows how much of its kind is alive."""

    def __init__(self, item: int, alive: dict[int, int]) -> None:
        self.item = item
        alive[id(self)] = item
        weakref.finalize(self, alive.pop, id(self))


@settings(max_examples=60)
@given(st.lists(st.integers(0, 120), max_size=30), st.integers(1, 8), st.integers(20, 200))
def test_no_more_is_held_than_allowed_but_one_item_alone(sizes: list[int], most: int, budget: int) -> None:
    alive: dict[int, int] = {}
    beyond: list[list[int]] = []

    def make(item: int) -> Pixels:
        made = Pixels(item, alive)
        held = list(alive.values())
        if sum(held) > budget and [one for one in held if one] != [item]:
            beyond.append(held)
        return made

    seen = []
    for chunk in chunks_ahead(make, sizes, lambda item: item, most=most, budget=budget):
        assert 1 <= len(chunk) <= most
        seen += [(item, made.item) for item, made in chunk]
        time.sleep(0.0005)  # the thread makes what comes next meanwhile
    assert seen == [(size, size) for size in sizes]
    assert beyond == []


def test_what_reading_and_making_raise_is_raised_at_its_turn() -> None:
    def cut() -> Iterator[int]:
        yield from (3, 2)
        raise OSError("cut")

    made = chunks_ahead(lambda item: 6 // item, cut(), lambda item: 1, most=1, budget=10)
    assert next(made) == [(3, 2)]
    assert next(made) == [(2, 3)]
    with pytest.raises(OSError, match="cut"):
        next(made)
    made = chunks_ahead(lambda item: 6 // item, [3, 0, 1], lambda item: 1, most=1, budget=10)
    assert next(made) == [(3, 2)]
    with pytest.raises(ZeroDivisionError):
        next(made)
    assert list(chunks_ahead(str, [], len, most=3, budget=10)) == []


def grey() -> np.ndarray:
    return np.kron(np.arange(24, dtype=np.uint8).reshape(4, 6) * 10, np.ones((75, 78), np.uint8))


ENCODED = {
    kind: photos.encoded(np.dstack([grey()] * 3), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
} | {
    "grey JPEG": photos.encoded(grey(), "JPEG"),
    "lossless WEBP": photos.encoded(np.dstack([grey()] * 3), "WEBP", lossless=True),
    "WEBP with alpha": photos.encoded(np.dstack([grey()] * 4), "WEBP"),
    "turned JPEG": photos.encoded(
        np.dstack([grey()] * 3), "JPEG", exif=b"MM\0*\0\0\0\b\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    ),
}


@pytest.mark.parametrize("side", [None, 128])
@pytest.mark.parametrize("kind", ENCODED)
def test_what_a_photo_will_cost_is_known_from_its_header(kind: str, side: int | None) -> None:
    picture = decode(ENCODED[kind], max_mpx=100, least_side=side)
    assert (picture.rgb.shape != (468, 300, 3)) or kind == "turned JPEG"
    held = picture.rgb.nbytes + (0 if picture.alpha is None else picture.alpha.nbytes)
    cost = decoded_bytes(ENCODED[kind], least_side=side)
    assert held <= cost <= 1.4 * held
    # A decoder process says the same, also with so much behind the header that its beginning alone is sent.
    for data in (ENCODED[kind], ENCODED[kind] + bytes(1 << 17)):
        assert header_bytes_apart(data, LimitsConfig(), least_side=side) == cost
        assert sample_bytes(Sample("a", data, "jpg"), no_job(), copies=2, least_side=side) == len(data) + 2 * cost


@pytest.mark.parametrize("data", [b"", b"text", b"RIFF0000WEBP", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_photo_costs_its_file(data: bytes) -> None:
    assert decoded_bytes(data) in (0, 4)
    assert sample_bytes(Sample("a", data, "jpg", {"json": b"12", "age": 7}), no_job()) <= len(data) + 6
    assert sample_bytes(Sample("a", None, "jpg", {}, "no image"), no_job()) == 0


def test_a_header_behind_much_else_is_found() -> None:
    late = photos.with_segments(ENCODED["JPEG"], *[photos.jpeg_segment(0xEF, bytes(60_000))] * 3)
    assert sample_bytes(Sample("a", late, "jpg"), no_job()) == len(late) + decoded_bytes(late)


BOMBS = {"JPEG of 4 million segments": bombs.crowded_jpeg, "GIF of 4 million comments": bombs.chatty_gif}


@pytest.mark.parametrize("what", BOMBS)
def test_a_header_of_millions_of_parts_is_read_by_no_worker(what: str, tmp_path: Path) -> None:
    path = tmp_path / "photo"
    path.write_bytes(BOMBS[what]())
    code = (
        "from pathlib import Path; from anonlib.config import no_job; from anonlib.datasets import Sample\n"
        "from anonlib.media.prefetch import sample_bytes\n"
        "sample = Sample('a', Path(sys.argv[1]).read_bytes(), 'jpg'); before = peak()\n"
        "sample_bytes(sample, no_job()); print(int(peak() - before)); print(sample.problem)"
    )
    said, _ = bombs.peak_of(code, path)
    grown, problem = said.splitlines()
    assert int(grown) < 64
    # Which allocation fails is the machine's affair, and so is whether Python survives it to say so.
    assert problem.startswith(("decoding it needs more memory than a photo", "decoding it ended the decoder"))


def test_a_header_that_stalls_its_reader_is_given_up_and_not_tried_again() -> None:
    job = no_job().model_copy(update={"limits": LimitsConfig(image_seconds=0.05)})
    sample = Sample("a", bombs.chatty_gif(400_000), "gif")
    assert sample_bytes(sample, job) == len(sample.image or b"")
    assert str(sample.problem) == "decoding it took longer than 0.05 s (limits.image_seconds)"
    assert sample_bytes(sample, job) == len(sample.image or b"")


def test_calls_on_threads_run_at_once_in_order_and_on_the_stopwatch_of_their_caller() -> None:
    together = threading.Barrier(2, timeout=20)

    def work(number: int) -> int:
        with current().timed("replace"):
            together.wait()
        return number

    with watching() as watch:
        assert list(on_threads(2)(work, range(6))) == [*range(6)]
    assert watch.parts["replace"] > 0
