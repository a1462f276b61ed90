"""A model of four kilobytes that goes the whole way of a real one: archive, members, repair, answer, cache.

It takes the place of fr-feature, and its wheel is written by hand, so that fetching is tested without network.
"""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from anonlib.models import cache
from anonlib.models.cache import sha256
from anonlib.models.catalog import MODELS, ModelSource
from anonlib.models.convert import to_onnx
from anonlib.models.runtime import load_engine

NAME = "fr-feature"
MEMBER = "toy/toy.onnx"


def toy_onnx() -> bytes:
    """fr-feature's interface and its fault: the batch is fixed, and a Reshape to (1, -1) ends the graph."""
    kernel = np.random.default_rng(0).normal(size=(512, 3, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
            helper.make_node("Conv", ["mean", "kernel"], ["features"], kernel_shape=[1, 1]),
            helper.make_node("Reshape", ["features", "shape"], ["output"]),
        ],
        "toy",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 512])],
        [
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(np.array([1, -1], dtype=np.int64), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def install(archives: Path) -> None:
    """Put the toy into the catalogue of this process, and its wheel into `archives`."""
    data = toy_onnx()
    source = ModelSource("pip", "anonlib-toy-model", "1.0", {MEMBER: sha256(data)})
    card = replace(MODELS[NAME], source=source)
    ready = to_onnx(card, {MEMBER: data})
    MODELS[NAME] = replace(card, sha256=sha256(ready))
    engine = load_engine(ready, backend="onnxruntime")
    cache.stored()[NAME] = cache.describe(engine(cache.probe(MODELS[NAME])))
    archives.mkdir(parents=True, exist_ok=True)
    if not (archives / source.archive).exists():
        with zipfile.ZipFile(archives / source.archive, "w") as wheel:
            wheel.writestr(MEMBER, data)
