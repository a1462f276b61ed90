"""Runs a model's ONNX with the same numbers every time: by OpenVINO on a CPU (CenterFace by onnxruntime where
there is no AVX-512), by onnxruntime or torch on a GPU.

Precision and the one thread of a call are fixed, and a row's output does not depend on the batch around it. A GPU's
libraries choose another algorithm for another number of rows, so there every piece is filled up to the same number.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property, wraps
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from anonlib.errors import BackendMissing, DeviceLost
from anonlib.models.catalog import MODELS, ModelCard

Precision = Literal["f32", "bf16"]
Backend = Literal["auto", "openvino", "onnxruntime", "torch"]
Batch = NDArray[np.float32]
_Run = Callable[[Batch], list[Batch]]
_T = TypeVar("_T")

_PIECE_BYTES = 3 << 20  # of input; larger pieces fall out of a core's cache and get slower
_PIECE_ROWS = 8
_GPU_BYTES = 16 << 20  # of input: what fits, as a power of two from 8 to 32 rows, keeps a GPU busy in under 2 GiB
_GPU_LEAST, _GPU_MOST = 8, 32

# onnxruntime asks for it when it is imported, and would else report to its maker; so does insightface's.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
_CUDA = "CUDAExecutionProvider"
_torch_flags = threading.Lock()
_loading = threading.RLock()


@dataclass(frozen=True)
class Placement:
    """Where networks compute: `device` as load_engine has it, `precision`, and how many `threads` of a CPU they use."""

    device: str = "cpu"
    precision: Precision = "f32"
    threads: int = 1

    def of(self, name: str) -> Self:
        """That of a network by name: in bf16 only if the catalogue says that its answers hold."""
        return self if name in MODELS and MODELS[name].bf16 else replace(self, precision="f32")


ON_ONE_CORE = Placement()


class Engine:
    """A loaded model, which several threads may call at once; pieces of their batches go to `runs`, to each one at a
    time. `backend`: openvino, onnxruntime or torch. `row_shape`: of the input without the batch axis, None is free."""

    def __init__(self, backend: str, runs: Sequence[_Run], row_shape: tuple[int | None, ...], on_gpu: bool) -> None:
        self.backend, self.row_shape, self.on_gpu = backend, row_shape, on_gpu
        self._idle: SimpleQueue[_Run] = SimpleQueue()
        for run in runs:
            self._idle.put(run)
        self._map: Callable[..., Any] = ThreadPoolExecutor(len(runs)).map if len(runs) > 1 else map

    def __call__(self, batch: Batch) -> tuple[Batch, ...]:
        """float32 (N, C, H, W) -> the outputs in the ONNX's order, each (N, ...). N may be 0. Raises DeviceLost."""
        sides = list(zip(self.row_shape, batch.shape[1:], strict=False))
        fits = batch.ndim == len(self.row_shape) + 1 and all(want in (None, side) for want, side in sides)
        if batch.dtype != np.float32 or not fits:
            wanted = ", ".join(str(side or "any") for side in self.row_shape)
            raise ValueError(f"The model wants float32 (N, {wanted}), not {batch.dtype} {batch.shape}.")
        if len(batch) == 0:  # the shapes of an empty answer are those of a full one
            sizes = [d or 32 for d in self.row_shape] if 0 in batch.shape[1:] else batch.shape[1:]
            return tuple(output[:0] for output in self(np.zeros((1, *sizes), dtype=np.float32)))
        batch = np.ascontiguousarray(batch)
        rows = rows_at_once(batch[0].nbytes, self.on_gpu)
        run = self._on_gpu if self.on_gpu else self.run
        pieces = self._map(run, [batch[start : start + rows] for start in range(0, len(batch), rows)])
        return tuple(np.concatenate(column) for column in zip(*pieces, strict=True))

    def run(self, piece: Batch) -> list[Batch]:
        """The outputs of a piece, as soon as one of the `runs` is idle."""
        run = self._idle.get()
        try:
            return run(piece)
        finally:
            self._idle.put(run)

    def _on_gpu(self, piece: Batch) -> list[Batch]:
        """The answer to a piece, filled up to the one size that this network is ever called with."""
        full = np.zeros((rows_at_once(piece[0].nbytes, True), *piece.shape[1:]), np.float32)
        full[: len(piece)] = piece
        try:
            return [output[: len(piece)] for output in self.run(full)]
        except Exception as error:
            alive = False
            with suppress(Exception):
                alive = bool(self.run(np.zeros(full.shape, np.float32)))
            if alive:
                raise
            kept = "What is finished is kept, and the same command continues."
            raise DeviceLost(f"The GPU computes nothing any more: {error} {kept}") from error


def rows_at_once(row_bytes: int, on_gpu: bool) -> int:
    """How many rows of so many bytes a network takes in one call: at most, or on a GPU always."""
    if on_gpu:
        fit = 1 << (max(_GPU_BYTES // max(row_bytes, 1), 1).bit_length() - 1)
        return min(max(fit, _GPU_LEAST), _GPU_MOST)
    return min(max(_PIECE_BYTES // max(row_bytes, 1), 1), _PIECE_ROWS)


def load_engine(
    model_bytes: bytes,
    *,
    backend: Backend = "auto",
    device: str = "cpu",
    precision: Precision = "f32",
    threads: int = 1,
    sizes: Collection[tuple[int, int]] = (),
) -> Engine:
    """ONNX bytes -> an engine on `device` "cpu", "cuda" or "cuda:1"; "auto" takes OpenVINO on a CPU, and on a GPU
    onnxruntime if it has CUDA, else torch. `threads`: pieces of batches that a CPU computes at once, each on one.
    `sizes`: (H, W) for which it is compiled apart, which is a tenth faster, takes .4 s and changes the last bits.
    Raises BackendMissing if a backend or precision cannot run here."""
    on_gpu = device.startswith("cuda")
    if backend == "auto" and on_gpu:
        import onnxruntime

        backend = "onnxruntime" if _CUDA in onnxruntime.get_available_providers() else "torch"
    elif backend == "auto":
        backend = "openvino"
    if not importlib.util.find_spec(backend):
        raise BackendMissing(f"The backend {backend} is not installed. Run `pip install {backend}`.")
    if precision == "bf16" and (backend != "openvino" or not has_bf16()):
        raise BackendMissing("bf16 needs OpenVINO on a CPU that computes in bfloat16; ask for f32 here.")
    if backend == "openvino" and on_gpu:
        raise BackendMissing(f"OpenVINO runs on the CPU here; ask for another backend on {device}.")
    if backend == "openvino":
        runs = _openvino(model_bytes, precision, threads, sizes)
    else:
        call = _torch(model_bytes, device) if backend == "torch" else onnxruntime_call(model_bytes, device)
        runs = [call] * (threads if backend == "onnxruntime" and not on_gpu else 1)
    return Engine(backend, runs, _row_shape(model_bytes, backend), on_gpu)


def _row_shape(model_bytes: bytes, backend: str) -> tuple[int | None, ...]:
    """The sides of the input without the batch axis, None for a free one."""
    if backend == "openvino":
        shape = _core().read_model(model_bytes).input(0).partial_shape
        return tuple(side.get_length() if side.is_static else None for side in list(shape)[1:])
    import onnx

    sides = onnx.load_model_from_string(model_bytes).graph.input[0].type.tensor_type.shape.dim[1:]
    return tuple(side.dim_value or None for side in sides)


def prepare(model: ModelCard, crops: NDArray[np.uint8]) -> Batch:
    """RGB crops uint8 (N, H, W, 3) -> float32 (N, 3, H, W) in the model's colour order, mean and scale. Raises
    ValueError if the crops have another size than the model's."""
    height, width = model.input.size or crops.shape[1:3]
    if crops.ndim != 4 or crops.shape[1:] != (height, width, model.input.channels):
        wanted = f"(N, {height}, {width}, {model.input.channels})"
        raise ValueError(f"The model {model.name} wants crops of shape {wanted}, but got {crops.shape}.")
    if model.input.colour == "BGR":
        crops = crops[..., ::-1]
    batch = np.array(crops.transpose(0, 3, 1, 2), dtype=np.float32, order="C")
    if any(model.input.mean):
        batch -= np.array(model.input.mean, dtype=np.float32).reshape(1, -1, 1, 1)
    if model.input.scale != 1:
        batch *= np.float32(model.input.scale)
    return batch


def has_bf16() -> bool:
    """Whether OpenVINO is here and this CPU has instructions for bfloat16, which others emulate slowly."""
    return bool(_cpu_flags() & _BF16_FLAGS) and importlib.util.find_spec("openvino") is not None


def is_narrow() -> bool:
    """Whether this is a CPU of x86 without AVX-512."""
    flags = _cpu_flags()
    return "avx2" in flags and "avx512f" not in flags


def _cpu_flags() -> set[str]:
    about = Path("/proc/cpuinfo")
    return set(about.read_text().split()) if about.exists() else set()


@cache
def _core() -> Any:
    """OpenVINO's Core, without openvino_telemetry, by which its import would report itself to Google Analytics."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    # Two threads that first ask for an array's type at the same time wait for each other for ever: pybind11 is then
    # looking for numpy behind a lock of C++ that knows nothing of Python's.
    openvino.Type.f32.to_dtype()
    return openvino.Core()


def _openvino(model_bytes: bytes, precision: Precision, threads: int, sizes: Collection[tuple[int, int]]) -> list[_Run]:
    """As many callables as may run at once, of one model for any input and one for a single row of each of `sizes`.

    Which one answers depends on the piece alone, since their last bits differ.
    """
    compiled: dict[tuple[int, ...] | None, Any] = {}
    compiling = threading.Lock()

    def caller() -> _Run:
        requests: dict[tuple[int, ...] | None, Any] = {}

        def run(piece: Batch) -> list[Batch]:
            shape = piece.shape if len(piece) == 1 and piece.shape[2:] in sizes else None
            if shape not in requests:
                with compiling:
                    if shape not in compiled:
                        compiled[shape] = _compiled(model_bytes, precision, threads, shape)
                    requests[shape] = compiled[shape].create_infer_request()
            requests[shape].infer([piece], share_inputs=True)
            # copied, because the next call writes into the same memory
            return [np.array(output.data) for output in requests[shape].output_tensors]

        return run

    return [caller() for _ in range(threads)]


def _compiled(model_bytes: bytes, precision: Precision, threads: int, shape: tuple[int, ...] | None) -> Any:
    """OpenVINO's CompiledModel for inputs of one shape (N, C, H, W), or of any."""
    core = _core()
    graph = core.read_model(model_bytes)
    if shape is not None:
        graph.reshape(list(shape))
    # one thread a stream; pinned, every process of a machine would sit on the same first cores
    settings = {"NUM_STREAMS": str(threads), "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    return core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": precision, **settings})


def session_options() -> Any:
    """onnxruntime's SessionOptions: one thread, and the same numbers every time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    # threads that spin while they wait take the cores of the other workers on the machine
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def onnxruntime_call(model_bytes: bytes, device: str) -> _Run:
    """A model's call on one thread, or on a GPU; raises BackendMissing where the GPU cannot be used."""
    import onnxruntime

    providers: list[Any] = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        if _CUDA not in onnxruntime.get_available_providers():
            raise BackendMissing("The installed onnxruntime has no CUDA provider. Install `anonlib[gpu]` or use torch.")
        number = device.partition(":")[2] or "0"
        choice = {"device_id": number, "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
        providers.insert(0, (_CUDA, choice))
    session = onnxruntime.InferenceSession(model_bytes, session_options(), providers=providers)
    if device.startswith("cuda") and session.get_providers()[0] != _CUDA:
        raise BackendMissing(f"onnxruntime could not use {device}: its CUDA libraries did not load.")
    name = session.get_inputs()[0].name
    return lambda piece: list(session.run(None, {name: piece}))


def _torch(model_bytes: bytes, device: str) -> _Run:
    import torch

    from anonlib.models.torch_graph import TorchGraph

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BackendMissing(f"torch sees no CUDA device, so nothing can run on {device}.")
    if device == "cpu":
        torch.set_num_threads(1)
    module = TorchGraph(model_bytes).to(device)

    def run(piece: Batch) -> list[Batch]:
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        # The flags are the process's: the thread that leaves first would take them from the others.
        with _torch_flags, torch.inference_mode(), exact:
            outputs = module(torch.from_numpy(piece).to(device))
        return [o.cpu().numpy() for o in outputs]

    return run


def locked_cached_property(make: Callable[[Any], _T]) -> cached_property[_T]:
    """functools.cached_property for what several threads share: a network is not loaded by two of them at once."""

    @wraps(make)
    def locked(owner: Any) -> _T:
        with _loading:
            if make.__name__ not in owner.__dict__:
                owner.__dict__[make.__name__] = make(owner)
            value: _T = owner.__dict__[make.__name__]
            return value

    return cached_property(locked)
