"""Threads that share a network: one call answers those who wait together, and nobody pays for another's rows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from anonlib.errors import DeviceLost
from anonlib.models.catalog import MODELS
from anonlib.models.fetch import model_bytes
from anonlib.models.microbatch import Batch, MicroBatcher, _Request, locked_cached_property
from anonlib.models.runtime import _Pieces, load_engine, rows_at_once

BAD = 13.0
ENOUGH_S = 30


def rows(*values: float, width: int = 3) -> Batch:
    return np.repeat(np.array(values, np.float32)[:, None], width, axis=1)


class Network:
    """Doubles every row. The first call lasts until `go` is set, so that others gather; notes the size of each call."""

    def __init__(self, error: Callable[[], BaseException] = lambda: ValueError("a bad row")) -> None:
        self.calls: list[int] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self.error = error

    def __call__(self, batch: Batch) -> tuple[Batch, ...]:
        self.calls.append(len(batch))
        if len(self.calls) == 1:
            self.begun.set()
            assert self.go.wait(ENOUGH_S)
        if (batch == BAD).any():
            raise self.error()
        return 2 * batch, batch.sum(axis=1)


def gathered(network: Network, together: MicroBatcher, *batches: Batch) -> list[Future[tuple[Batch, ...]]]:
    """What becomes of batches that came, in this order, while the network was busy with a row of ones."""
    with ThreadPoolExecutor(len(batches) + 1) as pool:
        first = pool.submit(together, rows(1))
        assert network.begun.wait(ENOUGH_S)
        futures = []
        for number, batch in enumerate(batches, start=1):
            futures.append(pool.submit(together, batch))
            until = time.monotonic() + ENOUGH_S
            while len(together._waiting) < number and time.monotonic() < until:
                time.sleep(0.001)
        network.go.set()
    assert np.array_equal(first.result()[0], rows(2))
    return futures


def test_whoever_waits_together_is_answered_by_one_call_and_gets_its_own_rows() -> None:
    network = Network()
    asked = [rows(2), rows(3, 4, 5), rows(6), rows(7, 8)]
    for batch, future in zip(asked, gathered(network, MicroBatcher(network), *asked), strict=True):
        doubled, total = future.result()
        assert np.array_equal(doubled, 2 * batch) and np.array_equal(total, 3 * batch[:, 0])
    assert network.calls == [1, 7]


def test_who_asks_alone_is_answered_at_once_and_alone() -> None:
    network = Network()
    network.go.set()
    together = MicroBatcher(network)
    assert np.array_equal(together(rows(2))[0], rows(4)) and np.array_equal(together(rows(3, 4))[0], rows(6, 8))
    assert network.calls == [1, 2]


def test_rows_of_another_shape_and_too_many_bytes_make_calls_of_their_own() -> None:
    network = Network()
    asked = [rows(2), rows(3, width=4), rows(4), rows(5), rows(6, width=4)]
    together = MicroBatcher(network, most_bytes=2 * rows(1).nbytes)
    for batch, future in zip(asked, gathered(network, together, *asked), strict=True):
        assert np.array_equal(future.result()[0], 2 * batch)
    assert sorted(network.calls) == [1, 1, 1, 1, 2]


def test_one_bad_request_fails_alone() -> None:
    network = Network()
    good, bad, other = gathered(network, MicroBatcher(network), rows(2), rows(3, BAD), rows(4, 5))
    assert np.array_equal(good.result()[0], rows(4)) and np.array_equal(other.result()[0], rows(8, 10))
    with pytest.raises(ValueError, match="a bad row"):
        bad.result()
    assert network.calls[:2] == [1, 5] and sorted(network.calls[2:]) == [1, 2, 2]


def test_after_an_error_or_an_interrupt_the_network_still_answers() -> None:
    for error in (ValueError, KeyboardInterrupt):
        network = Network(error)
        together = MicroBatcher(network)
        good, bad, other = gathered(network, together, rows(2), rows(BAD), rows(4))
        with pytest.raises(error):
            bad.result()
        # An interrupt belongs to the thread that it reached, which asks no more; the others ask again.
        answers = [one.result() for one in (good, other) if not isinstance(one.exception(), KeyboardInterrupt)]
        assert len(answers) >= (2 if error is ValueError else 1)
        assert np.array_equal(together(rows(9))[0], rows(18)) and together._waiting == []


def test_who_was_in_a_failed_call_takes_nobody_along() -> None:
    together = MicroBatcher(lambda batch: (batch,))
    newcomer, again = _Request(rows(2)), _Request(rows(BAD))
    together._waiting = [newcomer]
    assert together._take(again) == [again] and together._waiting == [newcomer]


def test_many_threads_get_their_own_answers_and_nobody_is_left_waiting() -> None:
    inside = threading.Lock()

    def run(batch: Batch) -> tuple[Batch, ...]:
        assert inside.acquire(blocking=False), "two threads are in the network"
        time.sleep(0.0002)
        failed = bool((batch == BAD).any())
        inside.release()
        if failed:
            raise ValueError("a bad row")
        return (batch + 1,)

    together = MicroBatcher(run)

    def ask(seed: int) -> int:
        generator, failed = np.random.default_rng(seed), 0
        for _ in range(60):
            batch = generator.integers(0, 40, (generator.integers(1, 5), generator.integers(1, 3))).astype(np.float32)
            try:
                assert np.array_equal(together(batch)[0], batch + 1)
            except ValueError:
                assert (batch == BAD).any()
                failed += 1
            else:
                assert not (batch == BAD).any()
        return failed

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8), timeout=ENOUGH_S)) > 0
    assert together._waiting == []


def test_what_threads_share_is_loaded_by_one_of_them() -> None:
    class Holder:
        loaded = 0

        @locked_cached_property
        def network(self) -> str:
            Holder.loaded += 1
            time.sleep(0.05)
            return "network"

    holder = Holder()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: holder.network, range(4))) == ["network"] * 4
    assert Holder.loaded == 1


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_network_asked_by_four_threads_gives_the_bits_that_it_gives_to_one(backend: Any) -> None:
    engine = load_engine(model_bytes("mobileface"), backend=backend)
    height, width = MODELS["mobileface"].input.size or (112, 112)
    asked = np.random.default_rng(0).normal(size=(12, 3, height, width)).astype(np.float32)
    alone = [engine(asked[i : i + 3])[0] for i in range(0, 12, 3)]
    with ThreadPoolExecutor(4) as pool:
        beside = list(pool.map(lambda i: engine(asked[i : i + 3])[0], range(0, 12, 3)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, beside, strict=True))


def on_gpu(run: Callable[[Batch], list[Batch]], width: int = 3) -> _Pieces:
    """The way of an engine to a GPU, which is played by `run`."""
    return _Pieces("cuda", run, (width,), on_gpu=True)


@pytest.mark.parametrize("count", [1, 5, 32, 33, 80])
def test_a_gpu_is_always_asked_about_the_same_number_of_rows(count: int) -> None:
    sizes: list[int] = []

    def run(piece: Batch) -> list[Batch]:
        sizes.append(len(piece))
        return [piece + 1, piece.sum(axis=1)]

    batch = np.arange(3 * count, dtype=np.float32).reshape(count, 3)
    more, total = on_gpu(run)(batch)
    assert np.array_equal(more, batch + 1) and np.array_equal(total, batch.sum(axis=1))
    assert set(sizes) == {32} and len(sizes) == -(-count // 32)


def test_large_rows_go_to_a_gpu_in_smaller_pieces_that_depend_on_the_row_alone() -> None:
    assert [rows_at_once(side * side * 3 * 4, on_gpu=True) for side in (640, 224, 192, 112)] == [8, 16, 32, 32]
    assert rows_at_once(1 << 30, on_gpu=True) == 8


def test_on_a_real_network_filled_up_pieces_change_no_bit() -> None:
    """The way to a GPU with a CPU at its end."""
    inner = load_engine(model_bytes("mobileface"), backend="onnxruntime")
    assert isinstance(inner, _Pieces)
    engine = _Pieces("cuda", inner.run, inner.row_shape, on_gpu=True)
    batch = np.random.default_rng(0).normal(size=(5, 3, 112, 112)).astype(np.float32)
    assert np.array_equal(engine(batch)[0], inner(batch)[0])
    assert np.array_equal(engine(batch[3:4])[0], engine(batch)[0][3:4])


def test_a_gpu_that_computes_nothing_any_more_is_no_images_fault() -> None:
    def broken(piece: Batch) -> list[Batch]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def picky(piece: Batch) -> list[Batch]:
        if (piece == BAD).any():
            raise RuntimeError("no such row")
        return [piece]

    with pytest.raises(DeviceLost, match="computes nothing any more: CUDA error"):
        on_gpu(broken)(rows(1))
    with pytest.raises(RuntimeError, match="no such row"):
        on_gpu(picky)(rows(BAD))
    assert not issubclass(DeviceLost, RuntimeError)


def test_on_a_gpu_a_row_has_the_same_bits_in_any_company() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    engine = load_engine(model_bytes("mobileface"), device="cuda")
    batch = np.random.default_rng(0).normal(size=(40, 3, 112, 112)).astype(np.float32)
    whole = engine(batch)[0]
    for part in (slice(0, 1), slice(7, 8), slice(30, 40)):
        assert np.array_equal(engine(batch[part])[0], whole[part])
