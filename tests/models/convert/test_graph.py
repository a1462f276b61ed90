"""Claims about the mutable graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from anonlib.errors import ModelError
from anonlib.models.convert.graph import OPSET, Graph, Value, read_onnx
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
    graph.rename_outputs({graph.nodes[0].outputs[0]: "features"})
    assert graph.nodes[1].inputs == ["features"]
    with pytest.raises(ModelError, match="no value called 'nothing'"):
        graph.rename_outputs({"nothing": "x"})


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


@pytest.mark.parametrize(("op", "opset"), [("Pow", 17), ("Max", 8)])
def test_an_operator_whose_meaning_may_have_changed_is_refused(op: str, opset: int) -> None:
    with pytest.raises(ModelError, match=f"foreign uses the operator {op} of opset {opset}"):
        read_onnx(foreign(op, opset, constant_is_input=False), "foreign")
