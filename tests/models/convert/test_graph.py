"""The mutable graph keeps its bytes, and folding gives fewer nodes and the same answer."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from anonlib.models.convert.graph import OPSET, Graph, Value, read_onnx, simplify
from anonlib.models.runtime import load_engine


def small() -> Graph:
    graph = Graph("small", [Value("image", ("N", 3, 4, 4))])
    weight = graph.const(np.ones((2, 3, 1, 1), dtype=np.float32))
    unused = graph.const(np.zeros(5, dtype=np.float32))
    graph.add("Add", graph.add("Conv", "image", weight, kernel_shape=[1, 1]), unused)
    out = graph.add("Relu", graph.nodes[0].outputs[0])
    graph.outputs.append(Value(out, ("N", 2, 4, 4)))
    return graph


def test_what_no_output_needs_is_pruned() -> None:
    graph = small()
    graph.prune()
    assert [n.op for n in graph.nodes] == ["Conv", "Relu"]
    assert len(graph.constants) == 1


def test_the_same_graph_gives_the_same_bytes_and_they_read_back() -> None:
    graph = small()
    graph.prune()
    data = graph.to_bytes()
    assert data == graph.to_bytes() == read_onnx(data, "small").to_bytes()
    assert onnx.load_model_from_string(data).opset_import[0].version == OPSET


def test_outputs_can_be_renamed_even_where_they_are_read_again() -> None:
    graph = small()
    graph.prune()
    graph.rename_output(graph.nodes[0].outputs[0], "features")
    assert graph.nodes[1].inputs == ["features"]


def foreign(op: str, opset: int, constant_is_input: bool) -> bytes:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])]
    if constant_is_input:
        inputs.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, [3]))
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "c"], ["y"])],
        "foreign",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(np.ones(3, dtype=np.float32), "c")],
    )
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]).SerializeToString())


def test_a_constant_listed_as_an_input_is_no_input() -> None:
    graph = read_onnx(foreign("Add", 9, constant_is_input=True), "foreign")
    assert [v.name for v in graph.inputs] == ["x"]
    (out,) = load_engine(graph.to_bytes())(np.zeros((1, 3), dtype=np.float32))
    assert out.tolist() == [[1, 1, 1]]


def start(channels: int = 4) -> Graph:
    return Graph("g", [Value("image", ("N", channels, 6, 6))])


def finish(graph: Graph, value: str, *shape: int) -> Graph:
    graph.outputs.append(Value(value, ("N", *shape)))
    return graph


def same_answer(graph: Graph, expected_ops: list[str]) -> None:
    before = copy.deepcopy(graph).to_bytes()
    after = simplify(graph)
    assert [n.op for n in after.nodes] == expected_ops
    x = np.random.default_rng(1).normal(size=(3, *graph.inputs[0].shape[1:])).astype(np.float32)
    (a,), (b,) = load_engine(before, backend="onnxruntime")(x), load_engine(after.to_bytes(), backend="onnxruntime")(x)
    assert np.allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(a).max())


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


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
    same_answer(finish(graph, value, 8, 6, 6), [op])


def test_scale_and_shift_fold_into_a_product() -> None:
    graph = Graph("g", [Value("image", ("N", 5))])
    value = graph.add("MatMul", "image", graph.const(normal(0, 5, 3)))
    value = graph.add("Mul", value, graph.const(normal(1, 3)))
    value = graph.add("Add", value, graph.const(normal(2, 3)))
    same_answer(finish(graph, value, 3), ["Gemm"])


def test_a_shift_that_is_not_per_channel_stays() -> None:
    graph = start()
    value = graph.add("Conv", "image", graph.const(normal(0, 8, 4, 1, 1)), kernel_shape=[1, 1])
    value = graph.add("Add", value, graph.const(normal(1, 1, 1, 6, 6)))
    same_answer(finish(graph, value, 8, 6, 6), ["Conv", "Add"])


def test_a_value_that_is_read_twice_keeps_its_own_convolution() -> None:
    graph = start()
    conv = graph.add("Conv", "image", graph.const(normal(0, 8, 4, 1, 1)), kernel_shape=[1, 1])
    scaled = graph.add("Mul", conv, graph.const(normal(1, 8, 1, 1)))
    same_answer(finish(graph, graph.add("Add", conv, scaled), 8, 6, 6), ["Conv", "Mul", "Add"])


def test_prelu_is_recognised_in_its_arithmetic() -> None:
    graph = start()
    zero = graph.const(np.zeros((), dtype=np.float32))
    down = graph.add("Mul", graph.const(normal(0, 4, 1, 1)), graph.add("Min", zero, "image"))
    value = graph.add("Add", graph.add("Max", zero, "image"), down)
    same_answer(finish(graph, value, 4, 6, 6), ["PRelu"])


def test_relu6_is_recognised_in_its_arithmetic() -> None:
    graph = start()
    value = graph.add("Min", graph.add("Relu", "image"), graph.const(np.float32(6).reshape(())))
    value = graph.add("Max", value, graph.const(np.float32(0).reshape(())))
    same_answer(finish(graph, value, 4, 6, 6), ["Clip"])


@pytest.mark.parametrize(
    ("amounts", "ops"),
    [([0, 0, 0, 1, 0, 0, 2, 1], ["Conv"]), ([0, 1, 0, 0, 0, 0, 1, 1], ["Pad", "Conv"])],
    ids=["of the image", "of the channels"],
)
def test_only_padding_of_the_image_folds_into_a_convolution(amounts: list[int], ops: list[str]) -> None:
    graph = start()
    value = graph.add("Pad", "image", graph.const(np.array(amounts, dtype=np.int64)))
    channels = 4 + amounts[1] + amounts[5]
    value = graph.add("Conv", value, graph.const(normal(0, 2, channels, 3, 3)), kernel_shape=[3, 3])
    rows, columns = (6 + amounts[i] + amounts[4 + i] - 2 for i in (2, 3))
    same_answer(finish(graph, value, 2, rows, columns), ops)
