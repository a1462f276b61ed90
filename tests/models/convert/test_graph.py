"""The mutable graph keeps its bytes, and folding gives fewer nodes and the same answer."""

from __future__ import annotations

import copy

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.models.convert.graph import OPSET, Graph, read_onnx, simplify
from anonlib.models.runtime import load_engine


def start(*shape: int) -> Graph:
    return Graph("g", {"image": ("N", *(shape or (4, 6, 6)))})


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def same_answer(graph: Graph, value: str, shape: tuple[int, ...], expected_ops: list[str]) -> None:
    graph.outputs[value] = ("N", *shape)
    before = copy.deepcopy(graph).to_bytes()
    after = simplify(graph)
    assert [n.op for n in after.nodes] == expected_ops
    x = np.random.default_rng(1).normal(size=(3, *graph.inputs["image"][1:])).astype(np.float32)
    (a,), (b,) = load_engine(before, backend="onnxruntime")(x), load_engine(after.to_bytes(), backend="onnxruntime")(x)
    assert np.allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(a).max())


def test_a_pruned_graph_gives_the_same_bytes_and_they_read_back() -> None:
    graph = start()
    conv = graph.conv("image", normal(0, 2, 4, 1, 1), None, 1, [0] * 4)
    graph.add("Add", conv, graph.const(np.zeros(5, dtype=np.float32)))
    graph.outputs[graph.add("Relu", conv)] = ("N", 2, 6, 6)
    graph.rename(conv, "features")
    graph.prune()
    assert [n.op for n in graph.nodes] == ["Conv", "Relu"] and graph.nodes[1].inputs == ["features"]
    assert len(graph.constants) == 1
    data = graph.to_bytes()
    assert data == graph.to_bytes() == read_onnx(data, "g").to_bytes()
    assert onnx.load_model_from_string(data).opset_import[0].version == OPSET


@settings(max_examples=15, deadline=None)
@given(group=st.sampled_from([1, 2, 4]), transposed=st.booleans(), bias=st.booleans(), seed=st.integers(0, 99))
def test_a_batch_norm_folds_into_any_convolution(group: int, transposed: bool, bias: bool, seed: int) -> None:
    graph = start()
    shape = (4, 8 // group, 3, 3) if transposed else (8, 4 // group, 3, 3)
    names = [graph.const(normal(seed, *shape))] + ([graph.const(normal(seed + 1, 8))] if bias else [])
    op = "ConvTranspose" if transposed else "Conv"
    value = graph.add(op, "image", *names, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1], group=group)
    parts = [normal(seed + i, 8) for i in (2, 3, 4)] + [np.abs(normal(seed + 5, 8)) + 0.1]
    value = graph.add("BatchNormalization", value, *(graph.const(p) for p in parts), epsilon=1e-3)
    same_answer(graph, value, (8, 6, 6), [op, "BatchNormalization"] if transposed and group > 1 else [op])


def test_a_shift_that_is_not_per_channel_and_a_value_that_is_read_twice_stay() -> None:
    graph = start()
    conv = graph.conv("image", normal(0, 8, 4, 1, 1), None, 1, [0] * 4)
    scaled = graph.add("Mul", conv, graph.const(normal(1, 8, 1, 1)))
    value = graph.add("Add", graph.add("Add", conv, scaled), graph.const(normal(1, 1, 1, 6, 6)))
    same_answer(graph, value, (8, 6, 6), ["Conv", "Mul", "Add", "Add"])
