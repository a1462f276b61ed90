"""Repaired networks have one input with a free batch; what all networks compute is held in test_golden_outputs.py."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS
from anonlib.models.convert import to_onnx
from anonlib.models.runtime import load_engine
from tests.models.toy_model import MEMBER, toy_onnx


def test_a_reshape_that_mixed_the_batch_keeps_one_row_per_face(toy: object) -> None:
    engine = load_engine(to_onnx(MODELS["fr-feature"], {MEMBER: toy_onnx()}), backend="onnxruntime")
    x = np.random.default_rng(0).normal(size=(2, 3, 112, 112)).astype(np.float32)
    (both,) = engine(x)
    assert both.shape == (2, 512)
    assert np.array_equal(both, np.concatenate([engine(x[:1])[0], engine(x[1:])[0]]))


@pytest.mark.parametrize("name", ["centerface", "facenet", "fr-feature", "age-gender"])
def test_a_repaired_graph_has_one_free_input_and_nothing_left_to_fold(name: str) -> None:
    graph = onnx.load_model_from_string(model_bytes(name)).graph
    assert [v.name for v in graph.input] == ["image"]
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "N"
    assert all(n.op_type != "Mul" or n.input[0].startswith("gender") for n in graph.node)
    assert "BatchNormalization" not in [n.op_type for n in graph.node]


def test_centerface_takes_every_multiple_of_32() -> None:
    engine = load_engine(model_bytes("centerface"))
    for height, width in ((64, 96), (32, 160)):
        maps = engine(np.zeros((2, 3, height, width), dtype=np.float32))
        assert [m.shape for m in maps] == [(2, channels, height // 4, width // 4) for channels in (1, 2, 2, 10)]
