"""A small mutable ONNX graph, because every model here is built or rewritten before it is used.

The protobuf that onnx offers is awkward to edit (a constant may be an initializer, a Constant node or a
graph input), and its serialisation depends on who wrote it. Here constants are numpy arrays in one dict,
nodes are in topological order, and `to_bytes` always writes the same bytes for the same graph, so that a
converted model has a sha256 that can be pinned in the catalogue.

`simplify` folds batch norms, paddings, and activations written as arithmetic. The fetched graphs were exported by four
different tools; half of their nodes are scale, shift, pad or clip, and not every runtime folds those by itself. All
folding is done in float64 and rounded once, which keeps it the same on every machine. Source of the batch-norm
identity: Jacob et al., "Quantization and Training of Neural Networks", 2018, section 3.2.
"""

from __future__ import annotations

from collections import Counter
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
_CONVS = ("Conv", "ConvTranspose")


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

    def rename_output(self, old: str, new: str) -> None:
        """Give a graph output the name that the catalogue uses."""
        node = next(node for node in self.nodes if old in node.outputs)
        node.outputs = [new if output == old else output for output in node.outputs]
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
    graph = model.graph
    constants: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    nodes: list[Node] = []
    for n in graph.node:
        attrs = {a.name: helper.get_attribute_value(a) for a in n.attribute}
        if n.op_type == "Constant":
            constants[n.output[0]] = numpy_helper.to_array(attrs["value"])
            continue
        nodes.append(Node(n.op_type, list(n.input), list(n.output), attrs))
    return Graph(
        name,
        [Value(v.name, _dims(v)) for v in graph.input if v.name not in constants],
        [Value(v.name, _dims(v)) for v in graph.output],
        nodes,
        constants,
        {entry.key: entry.value for entry in model.metadata_props},
    )


def _dims(value: Any) -> Dims:
    return tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)


def simplify(graph: Graph) -> Graph:
    """Rewrite the graph in place until nothing more folds, and return it. Outputs agree up to rounding."""
    _write_activations(graph)
    changed = True
    while changed:
        changed = _fold_affine(graph) or _fold_padding(graph)
        graph.prune()
    return graph


def _write_activations(graph: Graph) -> None:
    """max(0,x) + g*min(0,x) becomes PRelu; max(min(relu(x),6),0) becomes Clip."""
    for node in list(graph.nodes):
        if node.op == "Add":
            _write_prelu(graph, node)
        elif node.op == "Max":
            _write_clip(graph, node)
    graph.prune()


def _split(graph: Graph, node: Node | None, op: str) -> tuple[str, Array] | None:
    """(value, constant) if the node is `op` between exactly one value and one constant."""
    if node is None or node.op != op or len(node.inputs) != 2:
        return None
    a, b = node.inputs
    if b in graph.constants and a not in graph.constants:
        return a, graph.constants[b]
    if a in graph.constants and b not in graph.constants:
        return b, graph.constants[a]
    return None


def _write_prelu(graph: Graph, node: Node) -> None:
    sides = [graph.producer(i) for i in node.inputs]
    for up, down in (sides, sides[::-1]):
        positive = _split(graph, up, "Max")
        scaled = _split(graph, down, "Mul")
        negative = _split(graph, graph.producer(scaled[0]), "Min") if scaled else None
        if positive is None or scaled is None or negative is None:
            continue
        if positive[0] == negative[0] and not positive[1].any() and not negative[1].any():
            slope = graph.const(scaled[1].reshape(-1, 1, 1), f"{node.outputs[0]}_slope")
            node.op, node.inputs = "PRelu", [positive[0], slope]
            return


def _write_clip(graph: Graph, node: Node) -> None:
    low = _split(graph, node, "Max")
    high = _split(graph, graph.producer(low[0]), "Min") if low else None
    if low is None or high is None or low[1].size != 1 or high[1].size != 1:
        return
    value, floor = high[0], low[1]
    inner = graph.producer(value)
    if inner is not None and inner.op == "Relu":
        value, floor = inner.inputs[0], np.maximum(floor, 0)
    name = node.outputs[0]
    bounds = {f"{name}_low": floor, f"{name}_high": high[1]}
    node.op = "Clip"
    node.inputs = [
        value,
        *(graph.const(np.asarray(bound, np.float32).reshape(()), key) for key, bound in bounds.items()),
    ]


def _affine(graph: Graph, node: Node) -> tuple[str, Array, Array] | None:
    """(value, scale (C,), shift (C,)) of a node that is per-channel scale and shift, in float64."""
    if node.op == "BatchNormalization":
        gain, shift, mean, var = (graph.constants[i].astype(np.float64) for i in node.inputs[1:5])
        scale = gain / np.sqrt(var + node.attrs.get("epsilon", 1e-5))
        return node.inputs[0], scale, shift - mean * scale
    split = _split(graph, node, node.op) if node.op in ("Mul", "Add") else None
    if split is None:
        return None
    vector = split[1].astype(np.float64).reshape(-1)
    if node.op == "Mul":
        return split[0], vector, np.zeros_like(vector)
    return split[0], np.ones_like(vector), vector


def _fold_affine(graph: Graph) -> bool:
    uses = graph.uses()
    for node in graph.nodes:
        affine = _affine(graph, node)
        if affine is None or uses[affine[0]] != 1:
            continue
        before = graph.producer(affine[0])
        if before is None or before.op not in (*_CONVS, "MatMul", "Gemm"):
            continue
        weight = graph.constants.get(before.inputs[1])
        if weight is None or (before.op == "Gemm" and before.attrs.get("transB", 0)):
            continue
        if affine[1].size not in (1, _channels(before, weight)):
            continue
        _absorb(graph, before, weight, affine[1], affine[2])
        before.outputs = list(node.outputs)
        graph.nodes.remove(node)
        return True
    return False


def _channels(node: Node, weight: Array) -> int:
    """How many channels a convolution or product puts out."""
    if node.op == "Conv":
        return int(weight.shape[0])
    if node.op == "ConvTranspose":
        return int(weight.shape[1]) * int(node.attrs.get("group", 1))
    return int(weight.shape[-1])


def _absorb(graph: Graph, node: Node, weight: Array, scale: Array, shift: Array) -> None:
    """Multiply a convolution's or product's output by scale and add shift, inside its constants."""
    group = node.attrs.get("group", 1)
    channels = _channels(node, weight)
    scale, shift = np.broadcast_to(scale, channels), np.broadcast_to(shift, channels)
    if node.op == "Conv":
        factor = scale.reshape(-1, *[1] * (weight.ndim - 1))
    elif node.op == "ConvTranspose":  # (in, out/group, h, w): the input channel tells the group
        rows = scale.reshape(group, 1, -1).repeat(weight.shape[0] // group, axis=1)
        factor = rows.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))
    else:
        factor = scale
    bias = graph.constants[node.inputs[2]].astype(np.float64) if len(node.inputs) > 2 else np.zeros(channels)
    name = node.outputs[0]
    node.inputs = [
        node.inputs[0],
        graph.const((weight.astype(np.float64) * factor).astype(np.float32), f"{name}_w"),
        graph.const((bias.reshape(-1) * scale + shift).astype(np.float32), f"{name}_b"),
    ]
    if node.op == "MatMul":
        node.op = "Gemm"


def _fold_padding(graph: Graph) -> bool:
    """A zero Pad of height and width that only one Conv reads becomes that Conv's own padding."""
    uses = graph.uses()
    for node in graph.nodes:
        if node.op != "Conv" or uses[node.inputs[0]] != 1:
            continue
        pad = graph.producer(node.inputs[0])
        if pad is None or pad.op != "Pad" or pad.attrs.get("mode", b"constant") != b"constant":
            continue
        amounts = graph.constants[pad.inputs[1]].reshape(2, -1)
        value = graph.constants[pad.inputs[2]] if len(pad.inputs) > 2 and pad.inputs[2] else np.zeros(())
        if amounts.shape[1] != 4 or amounts[:, :2].any() or (amounts < 0).any() or value.any():
            continue
        padding = np.array(node.attrs.get("pads", [0, 0, 0, 0])) + amounts[:, 2:].reshape(-1)
        node.attrs["pads"] = padding.tolist()
        node.inputs[0] = pad.inputs[0]
        return True
    return False
