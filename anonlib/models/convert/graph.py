"""A small mutable ONNX graph, because every model here is built or rewritten before it is used.

The protobuf that onnx offers is awkward to edit (a constant may be an initializer, a Constant node or a
graph input), and its serialisation depends on who wrote it. Here constants are numpy arrays in one dict,
nodes are in topological order, and `to_bytes` always writes the same bytes for the same graph, so that a
converted model has a sha256 that can be pinned in the catalogue.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from anonlib.errors import ModelError

OPSET = 17
IR_VERSION = 8  # the ir version that belongs to opset 17; newer ones are refused by older runtimes

# Operators whose meaning for our use did not change from opset 7 (or 13) to 17: a graph of these alone may be
# stamped with the newer number. Anything else must be looked at before it is added here.
STABLE_SINCE_7 = frozenset(
    (
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "MatMul",
        "MaxPool",
        "Mul",
        "PRelu",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Sub",
        "Tanh",
    )
)
STABLE_SINCE_13 = frozenset(("Cast", "Clip", "Div", "Max", "Min", "Pad", "Slice", "Softmax", "Sqrt"))

Array = NDArray[Any]
Dims = tuple[int | str, ...]


@dataclass
class Value:
    """A graph input or output: its name and its float32 shape, where a string is a free dimension."""

    name: str
    shape: Dims


@dataclass
class Node:
    """One operator: inputs and outputs by name ("" where an optional one is left out), plain attributes."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """Nodes in topological order, constants by name, the typed ends, and what the file says about itself."""

    name: str
    inputs: list[Value]
    outputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    def const(self, array: Array, name: str | None = None) -> str:
        """Keep an array as a constant; its name is counted when none is given."""
        name = name or f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def add(self, op: str, *inputs: str, name: str | None = None, **attrs: Any) -> str:
        """Append a node with one output and return that output's name."""
        name = name or f"t{len(self.nodes)}"
        self.nodes.append(Node(op, list(inputs), [name], attrs))
        return name

    def producer(self, name: str) -> Node | None:
        """The node that makes a value; None for inputs and constants."""
        return next((n for n in self.nodes if name in n.outputs), None)

    def uses(self) -> Counter[str]:
        """How many times each value is read, graph outputs included."""
        count = Counter(i for n in self.nodes for i in n.inputs if i)
        count.update(v.name for v in self.outputs)
        return count

    def replace(self, old: str, new: str) -> None:
        """Let every reader of `old` read `new`."""
        for node in self.nodes:
            node.inputs = [new if i == old else i for i in node.inputs]
        for value in self.outputs:
            if value.name == old:
                value.name = new

    def prune(self) -> None:
        """Drop nodes and constants that no output depends on."""
        wanted = {v.name for v in self.outputs}
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.outputs):
                kept.append(node)
                wanted.update(i for i in node.inputs if i)
        self.nodes = kept[::-1]
        self.constants = {k: v for k, v in self.constants.items() if k in wanted}

    def rename_outputs(self, names: dict[str, str]) -> None:
        """Give graph outputs the names that the catalogue uses."""
        for old, new in names.items():
            node = self.producer(old)
            if node is None:
                raise ModelError(f"The graph {self.name} has no value called {old!r} to hand out as {new!r}.")
            node.outputs = [new if o == old else o for o in node.outputs]
            self.replace(old, new)

    def to_bytes(self) -> bytes:
        """The graph as ONNX, opset 17; the same graph always gives the same bytes."""
        graph = helper.make_graph(
            [helper.make_node(n.op, n.inputs, n.outputs, **n.attrs) for n in self.nodes],
            self.name,
            [helper.make_tensor_value_info(v.name, onnx.TensorProto.FLOAT, v.shape) for v in self.inputs],
            [helper.make_tensor_value_info(v.name, onnx.TensorProto.FLOAT, v.shape) for v in self.outputs],
            [numpy_helper.from_array(np.ascontiguousarray(a), k) for k, a in self.constants.items()],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="anonlib",
        )
        helper.set_model_props(model, self.metadata)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


def read_onnx(data: bytes, name: str) -> Graph:
    """ONNX bytes -> Graph. Constants that are listed as graph inputs stop being inputs, so they fold."""
    model = onnx.load_model_from_string(data)
    opset = {o.domain: o.version for o in model.opset_import}.get("", 0)
    graph = model.graph
    constants: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    nodes: list[Node] = []
    for n in graph.node:
        attrs = {a.name: helper.get_attribute_value(a) for a in n.attribute}
        if n.op_type == "Constant":
            constants[n.output[0]] = numpy_helper.to_array(attrs["value"])
            continue
        if n.op_type not in STABLE_SINCE_7 and not (n.op_type in STABLE_SINCE_13 and opset >= 13):
            raise ModelError(
                f"The model {name} uses the operator {n.op_type} of opset {opset}, which is not converted."
            )
        nodes.append(Node(n.op_type, list(n.input), list(n.output), attrs))
    return Graph(
        name,
        [Value(v.name, _dims(v)) for v in graph.input if v.name not in constants],
        [Value(v.name, _dims(v)) for v in graph.output],
        nodes,
        constants,
        {one.key: one.value for one in model.metadata_props},
    )


def _dims(value: Any) -> Dims:
    return tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
