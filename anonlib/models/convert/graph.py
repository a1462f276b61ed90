"""A small mutable ONNX graph, because every model here is built or rewritten before it is used. The same graph is
always written as the same bytes, so that a converted model has a sha256 that can be pinned in the catalogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # the ir version that belongs to opset 17; newer ones are refused by older runtimes

Array = NDArray[Any]
Dims = tuple[int | str, ...]
"""A float32 shape; a string is a free dimension."""


@dataclass
class Node:
    """One operator: inputs and outputs by name ("" where an optional one is left out), plain attributes."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """Nodes in topological order, constants by name, shapes of inputs and outputs, and what the file says of itself."""

    name: str
    inputs: dict[str, Dims]
    outputs: dict[str, Dims] = field(default_factory=dict)
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

    def conv(self, value: str, kernel: Array, bias: Array | None, stride: int, pads: list[int], group: int = 1) -> str:
        """Append a convolution with a kernel (out, in / group, h, w); `pads` are top, left, bottom, right."""
        weights = [kernel] if bias is None else [kernel, bias]
        names = [self.const(np.ascontiguousarray(weight)) for weight in weights]
        shape = list(kernel.shape[2:])
        return self.add("Conv", value, *names, kernel_shape=shape, strides=[stride] * 2, pads=pads, group=group)

    def rename(self, old: str, new: str) -> None:
        """Give a value, made by a node or an input, another name everywhere."""
        for node in self.nodes:
            node.inputs = [new if name == old else name for name in node.inputs]
            node.outputs = [new if name == old else name for name in node.outputs]
        self.inputs = {new if name == old else name: shape for name, shape in self.inputs.items()}
        self.outputs = {new if name == old else name: shape for name, shape in self.outputs.items()}

    def prune(self) -> None:
        """Drop nodes and constants that no output depends on."""
        wanted = set(self.outputs)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.outputs):
                kept.append(node)
                wanted.update(i for i in node.inputs if i)
        self.nodes = kept[::-1]
        self.constants = {k: v for k, v in self.constants.items() if k in wanted}

    def to_bytes(self) -> bytes:
        """The graph as ONNX, opset 17; the same graph always gives the same bytes."""

        def typed(ends: Mapping[str, Dims]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ends.items()]

        nodes = [helper.make_node(n.op, n.inputs, n.outputs, **n.attrs) for n in self.nodes]
        weights = [numpy_helper.from_array(np.ascontiguousarray(a), k) for k, a in self.constants.items()]
        graph = helper.make_graph(nodes, self.name, typed(self.inputs), typed(self.outputs), weights)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="anonlib")
        helper.set_model_props(model, self.metadata)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


def read_onnx(data: bytes, name: str) -> Graph:
    """ONNX bytes -> Graph. Constants that are listed as graph inputs stop being inputs, so they fold."""
    model = onnx.load_model_from_string(data)
    constants: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = [
        Node(n.op_type, list(n.input), list(n.output), {a.name: helper.get_attribute_value(a) for a in n.attribute})
        for n in model.graph.node
    ]
    inputs, outputs = (
        {v.name: tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim) for v in ends}
        for ends in ([v for v in model.graph.input if v.name not in constants], model.graph.output)
    )
    return Graph(name, inputs, outputs, nodes, constants)


def simplify(graph: Graph) -> Graph:
    """Fold batch norms, paddings, and activations written as arithmetic, which not every runtime does; in place. All is
    done in float64 and rounded once, so it is the same on every machine."""
    makers = {output: node for node in graph.nodes for output in node.outputs}
    for node in graph.nodes:
        if node.op == "Add":
            _write_prelu(graph, node, makers)
        elif node.op == "Max":
            _write_clip(graph, node, makers)
    graph.prune()
    uses = Counter([*(i for node in graph.nodes for i in node.inputs), *graph.outputs])
    makers = {output: node for node in graph.nodes for output in node.outputs}
    for node in list(graph.nodes):
        before = makers.get(node.inputs[0])
        if before is not None and uses[node.inputs[0]] == 1 and before.op == "Pad" and node.op == "Conv":
            # a zero Pad of height and width becomes the padding of the convolution that alone reads it
            amounts = graph.constants[before.inputs[1]].reshape(2, -1)
            if amounts.shape[1] == 4 and not amounts[:, :2].any():
                node.attrs["pads"] = (np.array(node.attrs["pads"]) + amounts[:, 2:].reshape(-1)).tolist()
                node.inputs[0] = before.inputs[0]
        elif (affine := _affine(graph, node)) and uses[affine[0]] == 1:
            before = makers.get(affine[0])
            if before is not None and _absorb(graph, before, *affine[1:]):
                before.outputs = node.outputs
                makers[node.outputs[0]] = before
                graph.nodes.remove(node)
    graph.prune()
    return graph


def _split(graph: Graph, node: Node | None, op: str) -> tuple[str, Array] | None:
    """(value, constant) if the node is `op` between exactly one value and one constant."""
    if node is not None and node.op == op and len(node.inputs) == 2:
        for value, constant in (node.inputs, node.inputs[::-1]):
            if constant in graph.constants and value not in graph.constants:
                return value, graph.constants[constant]
    return None


def _write_prelu(graph: Graph, node: Node, makers: Mapping[str, Node]) -> None:
    """max(0, x) + g * min(0, x) becomes PRelu."""
    sides = [makers.get(i) for i in node.inputs]
    for up, down in (sides, sides[::-1]):
        positive, scaled = _split(graph, up, "Max"), _split(graph, down, "Mul")
        negative = _split(graph, makers.get(scaled[0]), "Min") if scaled else None
        if not positive or not scaled or not negative or positive[0] != negative[0]:
            continue
        if not positive[1].any() and not negative[1].any():
            slope = graph.const(scaled[1].reshape(-1, 1, 1), f"{node.outputs[0]}_slope")
            node.op, node.inputs = "PRelu", [positive[0], slope]
            return


def _write_clip(graph: Graph, node: Node, makers: Mapping[str, Node]) -> None:
    """max(min(relu(x), 6), 0) becomes Clip."""
    low = _split(graph, node, "Max")
    high = _split(graph, makers.get(low[0]), "Min") if low else None
    relu = makers.get(high[0]) if high else None
    if low and high and relu and relu.op == "Relu" and low[1].size == high[1].size == 1:
        bounds = {"low": np.maximum(low[1], 0), "high": high[1]}
        names = [
            graph.const(np.asarray(bound, np.float32).reshape(()), f"{node.outputs[0]}_{side}")
            for side, bound in bounds.items()
        ]
        node.op, node.inputs = "Clip", [relu.inputs[0], *names]


def _affine(graph: Graph, node: Node) -> tuple[str, Array, Array] | None:
    """(value, scale (C,), shift (C,)) in float64 of a node that is per-channel scale and shift (Jacob et al. 2018,
    3.2)."""
    if node.op == "BatchNormalization":
        gain, shift, mean, var = (graph.constants[i].astype(np.float64) for i in node.inputs[1:5])
        scale = gain / np.sqrt(var + node.attrs.get("epsilon", 1e-5))
        return node.inputs[0], scale, shift - mean * scale
    for op in ("Mul", "Add"):
        if split := _split(graph, node, op):
            vector = split[1].astype(np.float64).reshape(-1)
            return (split[0], vector, 0 * vector) if op == "Mul" else (split[0], np.ones_like(vector), vector)
    return None


def _absorb(graph: Graph, node: Node, scale: Array, shift: Array) -> bool:
    """Multiply a convolution's or product's output by scale and add shift, inside its constants, where that fits."""
    axis = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gemm": -1}.get(node.op)  # the output channels of the weight
    weight = graph.constants.get(node.inputs[1]) if axis is not None else None
    transposed = node.attrs.get("transB", 0) or (node.op == "ConvTranspose" and node.attrs.get("group", 1) > 1)
    if axis is None or weight is None or transposed or scale.size not in (1, weight.shape[axis]):
        return False
    channels = weight.shape[axis]
    along = [1] * weight.ndim
    along[axis] = channels
    scale, shift = np.broadcast_to(scale, channels), np.broadcast_to(shift, channels)
    bias = graph.constants[node.inputs[2]].astype(np.float64) if len(node.inputs) > 2 else np.zeros(channels)
    folded = {"w": weight.astype(np.float64) * scale.reshape(along), "b": bias.reshape(-1) * scale + shift}
    names = [graph.const(array.astype(np.float32), f"{node.outputs[0]}_{kind}") for kind, array in folded.items()]
    node.op, node.inputs = "Gemm" if node.op == "MatMul" else node.op, [node.inputs[0], *names]
    return True
