"""TensorFlow -> ONNX: a graph is a list of operators in NHWC and its weights, which TF.js keeps as JSON and binary
files, and a frozen graph of TensorFlow itself as protobuf (`read_graph_def`).

Operators are written in NCHW, and weights are turned instead of activations, so the result holds no Transpose.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]

from anonlib.models.convert.graph import Array, Dims, Graph, simplify

Shape = tuple[int, ...]  # without the batch axis; (C, H, W) for images
_NAMES = {"AddV2": "Add", "BiasAdd": "Add", "Maximum": "Max", "Minimum": "Min", "Prelu": "PRelu"}
_POOLS = {"AvgPool": "AveragePool", "MaxPool": "MaxPool"}


def read_weights(manifest: Sequence[Mapping[str, Any]], files: Mapping[str, bytes]) -> dict[str, Array]:
    """Weights by name, as float32 or int32, from a TF.js manifest and its binary files (name -> bytes). uint8 values v
    mean v * scale + min; float16 values are widened."""
    weights: dict[str, Array] = {}
    for group in manifest:
        data = b"".join(files[path] for path in group["paths"])
        offset = 0
        for entry in group["weights"]:
            quantization = entry.get("quantization", {})
            stored = np.dtype(quantization.get("dtype", entry["dtype"])).newbyteorder("<")
            count = math.prod(entry["shape"])
            values: Array = np.frombuffer(data, stored, count, offset)
            if stored.kind == "u":
                values = values.astype(np.float64) * quantization["scale"] + quantization["min"]
            kind = np.int32 if entry["dtype"] == "int32" else np.float32
            weights[entry["name"]] = values.astype(kind).reshape(entry["shape"])
            offset += count * stored.itemsize
    return weights


def read_graph_model(model_json: bytes, files: Mapping[str, bytes]) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """The nodes and the weights of a TF.js graph model, from its JSON and its binary files (name -> bytes)."""
    document = json.loads(model_json)
    return document["modelTopology"]["node"], read_weights(document["weightsManifest"], files)


def convert_graph(
    name: str,
    nodes: Sequence[dict[str, Any]],
    weights: Mapping[str, Array],
    *,
    start: str,
    outputs: Mapping[str, tuple[str, Dims]],
) -> bytes:
    """TensorFlow nodes and weights -> ONNX bytes: input "image" (N, 3, H, W) from the TensorFlow value `start` on, free
    batch, opset 17. `outputs`: which TensorFlow values come out, under which name and shape (without N); of a shape
    with free sides the network, which then has convolutions alone, takes images of any sides that suit its strides."""
    placeholder = next(node for node in nodes if node["op"] == "Placeholder")
    _, height, width, channels = (int(d["size"]) for d in placeholder["attr"]["shape"]["shape"]["dim"])
    graph = Graph(name, {"image": ("N", channels, height, width)})
    writer = _GraphWriter(graph, weights, {start: ("image", (channels, height, width))})
    for node in nodes:
        inputs = [i for i in node.get("input", []) if not i.startswith("^")]
        known = all(i in writer.values or i in weights for i in inputs)  # else it lies before `start`
        if known and node["op"] not in ("Const", "Placeholder") and node["name"] != start:
            writer.values[node["name"]] = writer.write(node, inputs)
    for wanted, (public, shape) in outputs.items():
        value, converted = writer.values[wanted]
        if isinstance(shape[-1], str):
            graph.inputs = {"image": ("N", channels, "H", "W")}
        elif converted != shape:  # e.g. 1404 numbers as 468 points
            value = graph.add("Reshape", value, graph.const(np.array([-1, *shape], dtype=np.int64)))
        graph.outputs[value] = ("N", *shape)
        graph.rename(value, public)
    graph.prune()
    return simplify(graph).to_bytes()


class _GraphWriter:
    """Appends TensorFlow nodes to an ONNX graph; `values`: each TensorFlow value's ONNX name and shape."""

    def __init__(self, graph: Graph, weights: Mapping[str, Array], values: dict[str, tuple[str, Shape]]) -> None:
        self.graph, self.weights, self.values = graph, weights, values
        self.flattened: dict[str, Shape] = {}  # flat ONNX value -> the (C, H, W) it was

    def write(self, node: dict[str, Any], inputs: list[str]) -> tuple[str, Shape]:
        """One TensorFlow node -> ONNX nodes; returns the value and its shape."""
        op, graph = node["op"], self.graph
        value, shape = self.values.get(inputs[0], ("", ()))
        match op:
            case "Identity":
                return value, shape
            case "Conv2D" | "_FusedConv2D" | "DepthwiseConv2dNative" | "FusedDepthwiseConv2dNative":
                return self.conv(node, inputs, value, shape)
            case "MatMul" | "_FusedMatMul":
                return self.product(node, inputs, value)
            case "MaxPool" | "AvgPool":
                kernel, strides = _ints(node, "ksize")[1:3], _ints(node, "strides")[1:3]
                pads, sides = _padding(node, shape[1:], kernel, strides)
                out = graph.add(_POOLS[op], value, kernel_shape=kernel, strides=strides, pads=pads)
                return out, (shape[0], *sides)
            case "Mean" if node["attr"].get("keep_dims", {}).get("b"):
                return graph.add("GlobalAveragePool", value), (shape[0], 1, 1)
            case "Mean":
                return graph.add("Flatten", graph.add("GlobalAveragePool", value), axis=1), shape[:1]
            case "Pad":
                n, h, w, c = self.weights[inputs[1]].tolist()  # per axis [before, after], NHWC
                axes = (n, c, h, w)
                amounts = np.array([a[0] for a in axes] + [a[1] for a in axes], dtype=np.int64)
                grown = tuple(size + sum(a) for size, a in zip(shape, axes[1:], strict=True))
                return graph.add("Pad", value, graph.const(amounts)), grown
            case "FusedBatchNorm":
                names = [graph.const(self.weights[i]) for i in inputs[1:]]
                return graph.add("BatchNormalization", value, *names, epsilon=node["attr"]["epsilon"]["f"]), shape
            case "Reshape" if len(shape) == 1 and self.weights[inputs[1]].size == 4:  # a vector as an image of 1x1
                return value, shape
            case "Reshape":
                out = graph.add("Flatten", value, axis=1)
                if len(shape) == 3 and shape[1] * shape[2] > 1:
                    self.flattened[out] = shape
                return out, (math.prod(shape),)
            case "Relu" | "Sigmoid":
                return graph.add(op, value), shape
            case "Relu6":
                return graph.add("Clip", value, *(graph.const(np.array(side, np.float32)) for side in (0, 6))), shape
            case "ResizeBilinear":  # to sides that are a whole number of times as long
                sides = self.weights[inputs[1]].tolist()
                times = np.array([1, 1, sides[0] / shape[1], sides[1] / shape[2]], np.float32)
                places = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}
                return graph.add("Resize", value, "", graph.const(times), **places), (shape[0], *sides)
            case "Softmax":
                return graph.add(op, value, axis=-1), shape
        shape = max((self.values[i][1] for i in inputs if i in self.values), key=math.prod)
        names = [self.values[i][0] if i in self.values else self.channelwise(self.weights[i], shape) for i in inputs]
        if op == "ConcatV2":  # along TensorFlow's last axis, the channels, which is the last input
            channels = sum(self.values[i][1][0] for i in inputs[:-1])
            return graph.add("Concat", *names[:-1], axis=1), (channels, *shape[1:])
        return graph.add(_NAMES.get(op, op), *names), shape

    def channelwise(self, weight: Array, shape: Shape) -> str:
        """A scalar, or a vector over the last TensorFlow axis, so that it broadcasts over (C, H, W)."""
        if weight.size == 1:
            return self.graph.const(weight.reshape(()))
        return self.graph.const(weight.reshape(-1, *[1] * (len(shape) - 1)))

    def conv(self, node: dict[str, Any], inputs: list[str], value: str, shape: Shape) -> tuple[str, Shape]:
        """A convolution with its fused bias, PReLU and ReLU."""
        kernel = self.weights[inputs[1]]  # (kh, kw, in, out); depthwise (kh, kw, in, multiplier)
        depthwise = "Depthwise" in node["op"]
        weight = kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(3, 2, 0, 1)
        if depthwise:
            weight = weight.reshape(-1, 1, *kernel.shape[:2])
        strides, fused = _ints(node, "strides")[1:3], _fused(node)
        pads, sides = _padding(node, shape[1:], kernel.shape[:2], strides)
        bias = self.weights[inputs[2]].reshape(-1) if "BiasAdd" in fused else None
        out = self.graph.conv(value, weight, bias, strides[0], pads, shape[0] if depthwise else 1)
        shape = (weight.shape[0], *sides)
        if "Prelu" in fused:
            out = self.graph.add("PRelu", out, self.channelwise(self.weights[inputs[3]], shape))
        return self.graph.add("Relu", out) if "Relu" in fused else out, shape

    def product(self, node: dict[str, Any], inputs: list[str], value: str) -> tuple[str, Shape]:
        """A matrix product with its fused bias and ReLU."""
        weight, fused = self.weights[inputs[1]], _fused(node)
        if value in self.flattened:  # the rows are in H, W, C order; our activations are in C, H, W order
            c, h, w = self.flattened[value]
            weight = weight.reshape(h, w, c, -1).transpose(2, 0, 1, 3).reshape(c * h * w, -1)
        names = [value, self.graph.const(np.ascontiguousarray(weight))]
        if "BiasAdd" in fused:
            names.append(self.graph.const(self.weights[inputs[2]].reshape(-1)))
        out = self.graph.add("Gemm" if len(names) == 3 else "MatMul", *names)
        return self.graph.add("Relu", out) if "Relu" in fused else out, (weight.shape[1],)


def _ints(node: dict[str, Any], attribute: str) -> list[int]:
    return [int(i) for i in node["attr"][attribute]["list"]["i"]]


def _fused(node: dict[str, Any]) -> list[str]:
    listed = node["attr"].get("fused_ops", {}).get("list", {}).get("s", [])
    return [base64.b64decode(s).decode() for s in listed]


def _padding(
    node: dict[str, Any], size: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """([top, left, bottom, right], [height, width]) of a TensorFlow window operation."""
    windows = list(zip(size, kernel, strides, strict=True))
    if base64.b64decode(node["attr"]["padding"]["s"]) == b"VALID":
        return [0, 0, 0, 0], [(s - k) // d + 1 for s, k, d in windows]
    sides = [-(-s // d) for s, _, d in windows]
    missing = [max((out - 1) * d + k - s, 0) for out, (s, k, d) in zip(sides, windows, strict=True)]
    before = [m // 2 for m in missing]
    return [*before, *(m - b for m, b in zip(missing, before, strict=True))], sides


# ---- frozen graphs of TensorFlow ----------------------------------------------------------------------------------


_MESSAGES = {  # message -> field -> its number and type; "*" after a type: repeated
    "Dim": {"size": (1, "int64")},
    "Shape": {"dim": (2, "Dim*")},
    "Tensor": {"dtype": (1, "int32"), "shape": (2, "Shape"), "content": (4, "bytes"), "floats": (5, "float*"),
               "ints": (7, "int32*")},
    "List": {"i": (3, "int64*")},
    "Value": {"list": (1, "List"), "s": (2, "bytes"), "f": (4, "float"), "shape": (7, "Shape"),
              "tensor": (8, "Tensor")},
    "Attr": {"key": (1, "string"), "value": (2, "Value")},
    "Node": {"name": (1, "string"), "op": (2, "string"), "input": (3, "string*"), "attr": (5, "Attr*")},
    "Graph": {"node": (1, "Node*")},
}  # fmt: skip
_KINDS = {1: np.float32, 3: np.int32}
"""TensorFlow's DT_FLOAT and DT_INT32."""


def read_graph_def(data: bytes) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """The bytes of a frozen graph (.pb) -> its nodes but constants, each after its inputs and as in TF.js's JSON, and
    its constants by name. Raises protobuf's DecodeError for other bytes, KeyError for a constant that is neither
    float32 nor int32."""
    graph = _graph_class()()
    graph.ParseFromString(data)
    by_name = {node.name: node for node in graph.node}
    inputs_of = {name: [i.removesuffix(":0").removeprefix("^") for i in node.input] for name, node in by_name.items()}
    nodes, weights = [], {}
    for node in map(by_name.__getitem__, TopologicalSorter(inputs_of).static_order()):
        values = {attr.key: attr.value for attr in node.attr}
        if node.op == "Const":
            weights[node.name] = _array(values["value"].tensor)
            continue
        attributes = {key: MessageToDict(value) for key, value in values.items()}
        nodes.append({"name": node.name, "op": node.op, "input": inputs_of[node.name], "attr": attributes})
    return nodes, weights


def _array(tensor: Any) -> Array:
    """The numbers of a TensorProto; where fewer are listed than its shape has, the last one is repeated."""
    kind, shape = np.dtype(_KINDS[tensor.dtype]), [dim.size for dim in tensor.shape.dim]
    if tensor.content:
        return np.frombuffer(tensor.content, kind.newbyteorder("<")).astype(kind).reshape(shape)
    listed = np.array(tensor.floats or tensor.ints, kind)
    return np.pad(listed, (0, int(np.prod(shape)) - len(listed)), mode="edge").reshape(shape)


def _graph_class() -> Any:
    """The class of the message Graph."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="anonlib/graph_def.proto", package="graph_def", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for key, (number, kind) in fields.items():
            plain = kind.removesuffix("*")
            label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            if plain in _MESSAGES:
                of = {"type": field.TYPE_MESSAGE, "type_name": f".graph_def.{plain}"}
            else:
                of = {"type": getattr(field, f"TYPE_{plain.upper()}")}
            message.field.add(name=key, number=number, label=label, **of)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("graph_def.Graph"))
