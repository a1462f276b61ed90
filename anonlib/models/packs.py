"""The recognizer of an InsightFace pack, and a swapper made for it.

Their weights are for non-commercial research, so anonlib has none. insightface opens them; RGB becomes BGR here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.errors import BackendMissing, ModelUnusable
from anonlib.models.requirements import read_graph
from anonlib.models.runtime import session_options
from anonlib.storage.scratch import scratch

RECOGNIZER_SIZE = 112
SWAPPER_SIZE, SWAPPER_DIMENSIONS = 128, 512
SWAPPER_SHIFT = 8.0
"""ArcFace's points lie so many px further right in a swapper's crop of 128 px than in one of 112."""
Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
Swap = Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.uint8]]
_TINY = float(np.finfo(np.float32).tiny)


def open_recognizer(data: bytes) -> Embed:
    """ArcFace from a pack's ONNX, e.g. w600k_r50. Raises ModelUnusable; BackendMissing without insightface. It takes
    faces aligned to ArcFace's points, RGB (N, 112, 112, 3), and returns unit vectors (N, 512)."""
    model = _open(data, "recognition")
    if tuple(model.input_size) != (RECOGNIZER_SIZE, RECOGNIZER_SIZE):
        raise ModelUnusable(f"it wants faces of {model.input_size} px; anonlib aligns to 112x112")
    size = model.output_shape[-1]
    if size != SWAPPER_DIMENSIONS:
        raise ModelUnusable(f"it answers with {size} numbers, and a swapper takes {SWAPPER_DIMENSIONS}")
    step = 1 if model.input_shape[0] == 1 else 64  # some exports fix the batch at 1

    def embed(aligned: NDArray[np.uint8]) -> NDArray[np.float32]:
        bgr = list(np.ascontiguousarray(aligned[..., ::-1]))
        vectors = np.concatenate([model.get_feat(bgr[i : i + step]) for i in range(0, len(bgr), step)])
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY), np.float32)

    return embed


def open_swapper(data: bytes) -> Swap:
    """A swapper with the interface of inswapper_128.onnx: of a face aligned at 128 px, RGB (128, 128, 3), and an
    ArcFace vector (512,) of length one it makes the face with that identity. Raises ModelUnusable; BackendMissing."""
    _check_swapper(data)
    with contextlib.redirect_stdout(io.StringIO()):  # insightface prints its shape
        model = _open(data, "swapping")

    def swap(aligned: NDArray[np.uint8], source: NDArray[np.float32]) -> NDArray[np.uint8]:
        latent = source @ model.emap
        latent = latent / max(float(np.linalg.norm(latent)), _TINY)
        face = np.ascontiguousarray(aligned.transpose(2, 0, 1)[None], dtype=np.float32)
        swapped = model.forward(face, latent[None].astype(np.float32))[0]
        return np.asarray(np.clip(np.rint(255 * swapped.transpose(1, 2, 0)), 0, 255), np.uint8)

    return swap


def _check_swapper(data: bytes) -> None:
    graph, shapes = read_graph(data)
    wanted = [[3, SWAPPER_SIZE, SWAPPER_SIZE], [SWAPPER_DIMENSIONS]]
    if [shape[1:] for shape in shapes] != wanted or any(shape[0] not in (1, None) for shape in shapes):
        raise ModelUnusable(
            f"it is no swapper: its inputs must be a face (1, 3, 128, 128) and an identity (1, 512), not {shapes}"
        )
    if not graph.initializer or list(graph.initializer[-1].dims) != [SWAPPER_DIMENSIONS] * 2:
        raise ModelUnusable("it is no swapper: its last initializer must be the map of identities (512, 512)")


def _open(data: bytes, task: str) -> Any:
    """insightface's model of ONNX bytes."""
    if not importlib.util.find_spec("insightface"):
        raise BackendMissing(
            "Packs are opened by insightface, which is not installed. Run `pip install anonlib[insightface]`."
        )
    from insightface.model_zoo import get_model

    with scratch() as folder:  # insightface reads files, and holds what it read
        path = folder / "model.onnx"
        path.write_bytes(data)
        model = get_model(str(path), providers=["CPUExecutionProvider"], sess_options=session_options())
    # insightface gives its swapper no task
    kind = None if model is None else getattr(model, "taskname", "swapping")
    if kind != task:
        kind = "a model that insightface does not know" if model is None else f"a {kind} model"
        raise ModelUnusable(f"it is {kind}; a {task} model was asked for")
    return model
