"""A torch module that executes our ONNX graphs, so that gradients flow and a bare GPU is enough.

Only the operators that occur in the catalogue are written; the graphs are converted ones (see repair.py and
tfjs.py), so all of them are plain. Weights are buffers: they move with the module and are never trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anonlib.errors import ModelError
from anonlib.models.convert.graph import Node, read_onnx

_Values = dict[str, Tensor]


class TorchGraph(torch.nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """ONNX bytes -> module: float32 (N, C, H, W) -> the outputs in ONNX order. Differentiable in its input.

    Raises ModelError for an operator that no catalogued model uses.
    """

    def __init__(self, model_bytes: bytes) -> None:
        super().__init__()
        graph = read_onnx(model_bytes, "model")
        unknown = sorted({n.op for n in graph.nodes} - set(_OPERATORS))
        if unknown:
            raise ModelError(f"The torch backend does not know the operator {unknown[0]}; use openvino or onnxruntime.")
        self.nodes = graph.nodes
        self.input_name = graph.inputs[0].name
        self.output_names = tuple(v.name for v in graph.outputs)
        self.numbers: dict[str, list[int]] = {}  # shapes and paddings are Python numbers, not tensors
        self.buffer_of: dict[str, str] = {}
        for number, (name, array) in enumerate(graph.constants.items()):
            if array.dtype == np.int64:
                self.numbers[name] = array.reshape(-1).tolist()
                continue
            self.buffer_of[name] = f"weight{number}"
            self.register_buffer(f"weight{number}", torch.from_numpy(np.array(array)))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        values: _Values = {name: getattr(self, buffer) for name, buffer in self.buffer_of.items()}
        values[self.input_name] = image
        for node in self.nodes:
            operands = [values[i] for i in node.inputs if i and i not in self.numbers]
            integers = [self.numbers[i] for i in node.inputs if i in self.numbers]
            values[node.outputs[0]] = _OPERATORS[node.op](node, operands, integers)
        return tuple(values[name] for name in self.output_names)


_Numbers = list[list[int]]


def _padded(node: Node, value: Tensor, fill: float = 0.0) -> tuple[Tensor, tuple[int, int]]:
    """Torch pads both ends alike; where ONNX asks for more after than before, pad by hand first."""
    top, left, bottom, right = node.attrs.get("pads", [0, 0, 0, 0])
    if (top, left) == (bottom, right):
        return value, (top, left)
    return F.pad(value, (left, right, top, bottom), value=fill), (0, 0)


def _conv(node: Node, x: list[Tensor], _: _Numbers) -> Tensor:
    value, padding = _padded(node, x[0])
    attrs = node.attrs
    return F.conv2d(
        value,
        x[1],
        x[2] if len(x) > 2 else None,
        stride=tuple(attrs.get("strides", [1, 1])),
        padding=padding,
        dilation=tuple(attrs.get("dilations", [1, 1])),
        groups=attrs.get("group", 1),
    )


def _conv_transpose(node: Node, x: list[Tensor], _: _Numbers) -> Tensor:
    top, left, bottom, right = node.attrs.get("pads", [0, 0, 0, 0])
    if (top, left) != (bottom, right) or "output_shape" in node.attrs:
        raise ModelError("The torch backend runs only transposed convolutions that are padded alike at both ends.")
    attrs = node.attrs
    return F.conv_transpose2d(
        x[0],
        x[1],
        x[2] if len(x) > 2 else None,
        stride=tuple(attrs.get("strides", [1, 1])),
        padding=(top, left),
        output_padding=tuple(attrs.get("output_padding", [0, 0])),
        groups=attrs.get("group", 1),
        dilation=tuple(attrs.get("dilations", [1, 1])),
    )


def _max_pool(node: Node, x: list[Tensor], _: _Numbers) -> Tensor:
    value, padding = _padded(node, x[0], float("-inf"))
    return F.max_pool2d(value, tuple(node.attrs["kernel_shape"]), tuple(node.attrs["strides"]), padding)


def _average_pool(node: Node, x: list[Tensor], _: _Numbers) -> Tensor:
    if any(node.attrs.get("pads", [0, 0, 0, 0])):
        raise ModelError("The torch backend runs only average pools without padding.")
    return F.avg_pool2d(x[0], tuple(node.attrs["kernel_shape"]), tuple(node.attrs["strides"]))


def _pad(node: Node, x: list[Tensor], numbers: _Numbers) -> Tensor:
    half = len(numbers[0]) // 2
    before, after = numbers[0][:half], numbers[0][half:]
    # torch counts from the last axis
    pairs = [p for axis in reversed(range(half)) for p in (before[axis], after[axis])]
    return F.pad(x[0], pairs, value=float(x[1]) if len(x) > 1 else 0.0)


def _gemm(node: Node, x: list[Tensor], _: _Numbers) -> Tensor:
    a = x[0].T if node.attrs.get("transA", 0) else x[0]
    b = x[1].T if node.attrs.get("transB", 0) else x[1]
    out = node.attrs.get("alpha", 1.0) * (a @ b)
    return out + node.attrs.get("beta", 1.0) * x[2] if len(x) > 2 else out


def _prelu(node: Node, x: list[Tensor], _: _Numbers) -> Tensor:
    return F.prelu(x[0], x[1].reshape(-1))


def _slice(node: Node, x: list[Tensor], numbers: _Numbers) -> Tensor:
    value = x[0]
    for start, stop, axis in zip(*numbers, strict=True):
        value = value.narrow(axis, start, stop - start)
    return value


def _simple(function: Callable[..., Tensor]) -> Callable[[Node, list[Tensor], _Numbers], Tensor]:
    return lambda node, x, numbers: function(*x)


_OPERATORS: dict[str, Callable[[Node, list[Tensor], Any], Tensor]] = {
    "Add": _simple(torch.add),
    "AveragePool": _average_pool,
    "Cast": lambda node, x, numbers: x[0].float(),
    "Clip": _simple(torch.clamp),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": _simple(torch.div),
    "Flatten": lambda node, x, numbers: torch.flatten(x[0], node.attrs.get("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, x, numbers: x[0].mean(dim=(2, 3), keepdim=True),
    "MatMul": _simple(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _simple(torch.mul),
    "PRelu": _prelu,
    "Pad": _pad,
    "Relu": _simple(torch.relu),
    "Reshape": lambda node, x, numbers: x[0].reshape(numbers[0]),
    "Sigmoid": _simple(torch.sigmoid),
    "Slice": _slice,
    "Sqrt": _simple(torch.sqrt),
    "Softmax": lambda node, x, numbers: torch.softmax(x[0], node.attrs.get("axis", -1)),
    "Sub": _simple(torch.sub),
    "Tanh": _simple(torch.tanh),
}
