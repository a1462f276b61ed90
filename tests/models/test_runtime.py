"""Claims about running models: repeatable to the bit, whatever the batch around a face."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from anonlib.errors import BackendMissing, DeviceLost
from anonlib.models import cache
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import Batch, Engine, load_engine, prepare, rows_at_once

BAD = 13.0
FACES = [n for n, m in MODELS.items() if m.input.size and m.input.channels == 3]


def crops(name: str, count: int, seed: int = 0) -> np.ndarray:
    """Smooth random pictures; white noise would make every activation alike."""
    height, width = MODELS[name].input.size or (64, 96)
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return np.stack([np.kron(c, np.ones((29, 29, 1), dtype=np.uint8))[:height, :width] for c in coarse])


@pytest.mark.parametrize(
    ("name", "backend"), [*((name, "openvino") for name in (*FACES, "centerface")), ("mobileface", "onnxruntime")]
)
def test_a_row_has_the_same_bits_alone_in_any_batch_and_every_time(name: str, backend) -> None:
    engine = load_engine(model_bytes(name), backend=backend)
    batch = prepare(MODELS[name], crops(name, 6))
    first = engine(batch)
    for _ in range(2):
        assert all(np.array_equal(a, b) for a, b in zip(engine(batch), first, strict=True))
    for rows in (slice(0, 1), slice(5, 6), slice(2, 5)):
        for part, whole in zip(engine(batch[rows]), first, strict=True):
            assert np.array_equal(part, whole[rows])


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch"])
def test_an_empty_batch_gives_empty_outputs_of_the_right_shape(backend) -> None:
    engine = load_engine(model_bytes("faceres"), backend=backend)
    assert engine.backend == backend
    assert [o.shape for o in engine(np.zeros((0, 3, 224, 224), dtype=np.float32))] == [(0, 1024), (0, 100), (0, 1)]
    detector = load_engine(model_bytes("centerface"), backend=backend)
    assert detector(np.zeros((0, 3, 64, 96), dtype=np.float32))[3].shape == (0, 10, 16, 24)


def test_what_cannot_run_here_is_told_in_a_sentence(monkeypatch) -> None:
    data = model_bytes("mobileface")
    with monkeypatch.context() as patch, pytest.raises(BackendMissing, match="pip install openvino"):
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        load_engine(data)
    with pytest.raises(BackendMissing, match="OpenVINO runs on the CPU"):
        load_engine(data, backend="openvino", device="cuda")
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so nothing is missing")
    with pytest.raises(BackendMissing, match="torch sees no CUDA device"):
        load_engine(data, device="cuda:0")
    with pytest.raises(BackendMissing, match="has no CUDA provider"):
        load_engine(data, backend="onnxruntime", device="cuda")


def test_no_backend_reports_to_its_maker() -> None:
    """OpenVINO would send an event to Google Analytics when it is imported, onnxruntime its sessions to Microsoft."""
    code = "import os, sys; from anonlib.models import runtime; runtime._core()"
    code += "; print(sys.modules['openvino_telemetry'], os.environ['ORT_DISABLE_TELEMETRY'])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "None 1\n"


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_network_asked_by_four_threads_gives_the_bits_that_it_gives_to_one(backend: Any) -> None:
    engine = load_engine(model_bytes("mobileface"), backend=backend, threads=2)
    batch = np.random.default_rng(0).normal(size=(12, 3, 112, 112)).astype(np.float32)
    alone = [engine(batch[i : i + 3])[0] for i in range(0, 12, 3)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: engine(batch[i : i + 3])[0], range(0, 12, 3)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_a_size_that_is_compiled_apart_has_the_same_bits_on_any_number_of_threads() -> None:
    picture = prepare(MODELS["centerface"], crops("centerface", 1))
    one, two = (load_engine(model_bytes("centerface"), threads=n, sizes={picture.shape[2:]}) for n in (1, 2))
    answers = [engine(picture) for engine in (one, two, one, two)]
    assert all(np.array_equal(a, b) for answer in answers for a, b in zip(answer, answers[0], strict=True))
    assert np.allclose(answers[0][0], load_engine(model_bytes("centerface"))(picture)[0], atol=1e-4)


def on_gpu(run: Callable[[Batch], list[Batch]]) -> Engine:
    """The way of an engine to a GPU, which is played by `run`."""
    return Engine("cuda", [run], (3,), on_gpu=True)


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
    assert [rows_at_once(side * side * 3 * 4, on_gpu=True) for side in (9000, 640, 224, 112)] == [8, 8, 16, 32]


def test_a_gpu_that_computes_nothing_any_more_is_no_images_fault() -> None:
    def broken(piece: Batch) -> list[Batch]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def picky(piece: Batch) -> list[Batch]:
        if (piece == BAD).any():
            raise RuntimeError("no such row")
        return [piece]

    with pytest.raises(DeviceLost, match="computes nothing any more: CUDA error"):
        on_gpu(broken)(np.ones((1, 3), np.float32))
    with pytest.raises(RuntimeError, match="no such row"):
        on_gpu(picky)(np.full((1, 3), BAD, np.float32))


def test_on_a_gpu_a_row_has_the_same_bits_in_any_company_and_the_cpus_answer() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    for name in ("centerface", *FACES):
        engine, batch = load_engine(model_bytes(name), device="cuda"), prepare(MODELS[name], crops(name, 40))
        whole = engine(batch)
        for part in (slice(0, 1), slice(7, 8), slice(30, 40)):
            assert all(np.array_equal(a, b[part]) for a, b in zip(engine(batch[part]), whole, strict=True))
        for a, b in zip(whole, load_engine(model_bytes(name))(batch), strict=True):
            assert np.abs(a - b).max() <= 1e-3 * np.abs(b).max()


def test_threads_that_begin_together_do_not_wait_for_each_other_for_ever() -> None:
    """The first to ask sleeps while it looks for numpy, unless loading has asked already."""
    code = """
import threading, time
from anonlib.models.runtime import _core
_core()
import openvino
from numpy.lib import NumpyVersion
begin = NumpyVersion.__init__
NumpyVersion.__init__ = lambda self, version: (time.sleep(1), begin(self, version))[1]
threads = [threading.Thread(target=openvino.Type.f32.to_dtype) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_its_stored_answer_on_every_backend(name: str, backend) -> None:
    assert cache.disagreement(name, load_engine(model_bytes(name), backend=backend)) == ""


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda out: (out * np.float32(1.01),), "is off its stored answer by"),
        (lambda out: (out * np.float32("nan"),), "is off its stored answer by nan"),
        (lambda out: (out if len(out) == 2 else out[:, ::-1],), "mixes the images of a batch"),
    ],
    ids=["off", "nan", "mixed"],
)
def test_every_kind_of_wrong_answer_is_told_in_a_sentence(fault, sentence: str, monkeypatch) -> None:
    right = load_engine(model_bytes("mobileface"))
    whole = Engine.__call__

    def wrong(engine: Engine, batch: Batch) -> tuple[Batch, ...]:
        return fault(*whole(engine, batch))

    monkeypatch.setattr(Engine, "__call__", wrong)
    assert sentence in cache.disagreement("mobileface", right)
