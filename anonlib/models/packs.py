"""Runs the recogniser of an InsightFace pack that the user owns, and a swapper made for it.

The packs (buffalo_l, antelopev2, ...) are the field's usual baseline, but their weights are for
non-commercial research, so anonlib neither ships nor downloads them: the user gives a path, and insightface
itself opens the file and knows its pre-processing. These classes put types around it and turn RGB to BGR.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from anonlib.errors import BackendMissing, ModelUnusable

RECOGNIZER_SIZE = 112
SWAPPER_SIZE, SWAPPER_DIMENSIONS = 128, 512
SWAPPER_SHIFT = 8.0
"""ArcFace's points lie so many px further right in a swapper's crop of 128 px than in one of 112."""


class PackRecognizer:
    """ArcFace from a pack, e.g. w600k_r50.onnx. Raises ModelUnusable; BackendMissing without insightface."""

    def __init__(self, path: str | Path, *, threads: int = 1, device: str = "cpu") -> None:
        self._model = _open(path, "recognition", threads, device)
        if tuple(self._model.input_size) != (RECOGNIZER_SIZE, RECOGNIZER_SIZE):
            raise ModelUnusable(f"{path} wants faces of {self._model.input_size} px; anonlib aligns to 112x112.")
        # some exports fix the batch at 1
        self._at_once = 1 if self._model.input_shape[0] == 1 else 64
        self.dimensions = int(self._model.output_shape[-1])

    def embed(self, aligned: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Faces aligned to ArcFace's points, RGB uint8 (N, 112, 112, 3) -> unit vectors float32 (N, D)."""
        if aligned.dtype != np.uint8 or aligned.shape[1:] != (RECOGNIZER_SIZE, RECOGNIZER_SIZE, 3):
            raise ValueError(f"Aligned faces are uint8 (N, 112, 112, 3), not {aligned.dtype} {aligned.shape}.")
        bgr = list(np.ascontiguousarray(aligned[..., ::-1]))
        step = self._at_once
        parts = [self._model.get_feat(bgr[i : i + step]) for i in range(0, len(bgr), step)]
        vectors = np.concatenate([np.zeros((0, self.dimensions), np.float32), *parts])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)


class PackSwapper:
    """A swapper with inswapper's interface, e.g. inswapper_128.onnx. Raises ModelUnusable; BackendMissing.

    Two inputs, target (1, 3, 128, 128) and source (1, 512), and the map from ArcFace's vectors to the source's, (512,
    512), as the last initializer.
    """

    def __init__(self, path: str | Path, *, threads: int = 1, device: str = "cpu") -> None:
        _check_swapper(Path(path))
        # insightface prints its shape
        with contextlib.redirect_stdout(io.StringIO()):
            self._model = _open(path, "swapping", threads, device)

    def swap(self, aligned: NDArray[np.uint8], source: NDArray[np.float32]) -> NDArray[np.uint8]:
        """A face aligned at 128 px, RGB (128, 128, 3), with the identity of an ArcFace vector (512,) of length one."""
        if aligned.shape != (SWAPPER_SIZE, SWAPPER_SIZE, 3) or source.shape != (SWAPPER_DIMENSIONS,):
            raise ValueError(
                f"A swap takes a face of {SWAPPER_SIZE} px and {SWAPPER_DIMENSIONS} numbers, "
                f"not {aligned.shape} and {source.shape}."
            )
        latent = source @ self._model.emap
        latent = latent / max(float(np.linalg.norm(latent)), float(np.finfo(np.float32).tiny))
        face = np.ascontiguousarray(aligned.transpose(2, 0, 1)[None], dtype=np.float32)
        swapped = self._model.forward(face, latent[None].astype(np.float32))[0]
        return np.asarray(np.clip(np.rint(255 * swapped.transpose(1, 2, 0)), 0, 255), np.uint8)


def _check_swapper(file: Path) -> None:
    """Raise ModelUnusable if an .onnx is no swapper; a missing one is found when it is opened."""
    if not file.is_file():
        return
    try:
        graph = onnx.load(file).graph
    except (DecodeError, ValueError, OSError) as error:
        raise ModelUnusable(f"{file} cannot be read as ONNX: {error}") from None
    known = {weight.name for weight in graph.initializer}
    inputs = [value.type.tensor_type.shape.dim for value in graph.input if value.name not in known]
    shapes = [[side.dim_value or None for side in sides] for sides in inputs]
    wanted = [[3, SWAPPER_SIZE, SWAPPER_SIZE], [SWAPPER_DIMENSIONS]]
    if [shape[1:] for shape in shapes] != wanted or any(shape[0] not in (1, None) for shape in shapes):
        raise ModelUnusable(
            f"{file} is no swapper: its inputs must be a face (1, 3, 128, 128) and an identity (1, 512), not {shapes}"
        )
    if not graph.initializer or list(graph.initializer[-1].dims) != [SWAPPER_DIMENSIONS] * 2:
        raise ModelUnusable(f"{file} is no swapper: its last initializer must be the map of identities (512, 512)")


def _open(path: str | Path, task: str, threads: int, device: str) -> Any:
    if not importlib.util.find_spec("insightface"):
        raise BackendMissing(
            "Packs are opened by insightface, which is not installed. Run `pip install anonlib[insightface]`."
        )
    file = Path(path)
    if not file.is_file() or file.suffix != ".onnx":
        # insightface takes a bare name for one of its own packs and would look elsewhere
        raise ModelUnusable(f"{file} is not an .onnx file. Give the path of one model inside the unpacked pack.")
    import onnxruntime
    from insightface.model_zoo import get_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.partition(":")[2] or "0"}))
    model = get_model(str(file), providers=providers, sess_options=options)
    # insightface gives its swapper no task
    found = None if model is None else getattr(model, "taskname", "swapping")
    if found != task:
        kind = "a model that insightface does not know" if model is None else f"a {found} model"
        raise ModelUnusable(f"{file} is {kind}; a {task} model was asked for.")
    return model
