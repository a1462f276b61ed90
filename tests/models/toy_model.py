"""A model of four kilobytes that goes the whole way of a real one: archive, members, repair, answer, cache.

It takes the place of fr-feature, and its wheel is written by hand, so that fetching is tested without network.
"""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from anonlib.models import cache
from anonlib.models.cache import sha256
from anonlib.models.catalog import MODELS
from anonlib.models.convert import to_onnx
from anonlib.models.convert.graph import Graph
from anonlib.models.runtime import load_engine

NAME = "fr-feature"
MEMBER = "toy/toy.onnx"


def toy_onnx() -> bytes:
    """fr-feature's interface and its fault: the batch is fixed, and a Reshape to (1, -1) ends the graph."""
    kernel = np.random.default_rng(0).normal(size=(512, 3, 1, 1)).astype(np.float32)
    graph = Graph("toy", {"input": (1, 3, 112, 112)})
    features = graph.conv(graph.add("GlobalAveragePool", "input"), kernel, None, 1, [0] * 4)
    graph.outputs[graph.add("Reshape", features, graph.const(np.array([1, -1])), name="output")] = (1, 512)
    return graph.to_bytes()


def install(archives: Path) -> None:
    """Put the toy into the catalogue of this process, and its wheel into `archives`."""
    data = toy_onnx()
    package = {"package": "anonlib-toy-model", "version": "1.0", "members": {MEMBER: sha256(data)}}
    card = replace(MODELS[NAME], client="pip", **package)
    ready = to_onnx(card, {MEMBER: data})
    MODELS[NAME] = replace(card, sha256=sha256(ready))
    engine = load_engine(ready, backend="onnxruntime")
    cache.stored()[NAME] = cache.describe(engine(cache.probe(MODELS[NAME])))
    archives.mkdir(parents=True, exist_ok=True)
    if not (archives / card.archive).exists():
        with zipfile.ZipFile(archives / card.archive, "w") as wheel:
            wheel.writestr(MEMBER, data)
