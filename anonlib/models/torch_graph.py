"""A torch module that executes our ONNX graphs, so that gradients flow and a bare GPU is enough.

Only operators and attributes that occur in our networks are written. Weights are buffers: they are never trained.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anonlib.errors import ModelError
from anonlib.models.convert.graph import Node, read_onnx


class TorchGraph(torch.nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """ONNX bytes -> module: float32 (N, C, H, W) -> the outputs in ONNX order. Differentiable in its input. Raises
    ModelError for an operator that no catalogued model uses."""

    def __init__(self, model_bytes: bytes) -> None:
        super().__init__()
        graph = read_onnx(model_bytes, "model")
        unknown = sorted({n.op for n in graph.nodes} - set(_OPERATORS))
        if unknown:
            raise ModelError(f"The torch backend does not know the operator {unknown[0]}; use openvino or onnxruntime.")
        self.nodes = graph.nodes
        self.input_name = next(iter(graph.inputs))
        self.output_names = tuple(graph.outputs)
        self.numbers: dict[str, list[int]] = {}  # shapes and paddings are Python numbers, not tensors
        self.buffer_of: dict[str, str] = {}
        for number, (name, array) in enumerate(graph.constants.items()):
            if array.dtype == np.int64:
                self.numbers[name] = array.reshape(-1).tolist()
                continue
            self.buffer_of[name] = f"weight{number}"
            self.register_buffer(f"weight{number}", torch.from_numpy(np.array(array)))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        values: dict[str, Tensor] = {name: getattr(self, buffer) for name, buffer in self.buffer_of.items()}
        values[self.input_name] = image
        for node in self.nodes:
            operands = [values[i] for i in node.inputs if i and i not in self.numbers]
            integers = [self.numbers[i] for i in node.inputs if i in self.numbers]
            values[node.outputs[0]] = _OPERATORS[node.op](node, *operands, *integers)
        return tuple(values[name] for name in self.output_names)


def _conv(node: Node, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    top, left, bottom, right = node.attrs.get("pads", [0, 0, 0, 0])
    # Torch pads both ends alike; where ONNX asks for more after than before, the value is padded first.
    even = (top, left) == (bottom, right)
    value = value if even else F.pad(value, (left, right, top, bottom))
    stride, group = node.attrs.get("strides", [1, 1]), node.attrs.get("group", 1)
    return F.conv2d(value, weight, bias, stride, (top, left) if even else 0, groups=group)


def _conv_transpose(node: Node, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    padding, stride = node.attrs.get("pads", [0, 0])[:2], node.attrs.get("strides", [1, 1])
    return F.conv_transpose2d(value, weight, bias, stride, padding, groups=node.attrs.get("group", 1))


def _pad(node: Node, value: Tensor, amounts: list[int]) -> Tensor:
    before_after = np.array(amounts).reshape(2, -1)
    return F.pad(value, before_after[:, ::-1].T.ravel().tolist())  # torch counts from the last axis


def _gemm(node: Node, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    out = value @ (weight.T if node.attrs.get("transB", 0) else weight)
    return out if bias is None else out + bias


def _slice(node: Node, value: Tensor, starts: list[int], stops: list[int], axes: list[int]) -> Tensor:
    for start, stop, axis in zip(starts, stops, axes, strict=True):
        value = value.narrow(axis, start, stop - start)
    return value


def _simple(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda node, *values: function(*values)


def _resize(node: Node, value: Tensor, *sizes: Tensor) -> Tensor:
    """To twice the sides with what is between two px in their middle, or to whole multiples by the nearest px."""
    if node.attrs["mode"] == b"nearest":
        return F.interpolate(value, scale_factor=tuple(sizes[-1][2:].tolist()), mode="nearest")
    for axis in (2, 3):
        after = torch.cat([value.narrow(axis, 1, value.shape[axis] - 1), value.narrow(axis, -1, 1)], axis)
        value = torch.stack([value, (value + after) / 2], axis + 1).flatten(axis, axis + 1)
    return value


def _pool(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda node, value: function(value, node.attrs["kernel_shape"], node.attrs["strides"])


_OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Add": _simple(torch.add),
    "AveragePool": _pool(F.avg_pool2d),
    "Cast": _simple(Tensor.float),
    "Clip": _simple(torch.clamp),
    "Concat": lambda node, *values: torch.cat(values, dim=node.attrs["axis"]),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": _simple(torch.div),
    "Flatten": lambda node, value: value.flatten(node.attrs.get("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, value: value.mean(dim=(2, 3), keepdim=True),
    "HardSigmoid": lambda node, value: (value * node.attrs["alpha"] + node.attrs["beta"]).clamp(0, 1),
    "MatMul": _simple(torch.matmul),
    "MaxPool": _pool(F.max_pool2d),
    "Mul": _simple(torch.mul),
    "PRelu": lambda node, value, slope: F.prelu(value, slope.reshape(-1)),
    "Pad": _pad,
    "Relu": _simple(torch.relu),
    "Reshape": _simple(torch.reshape),
    "Resize": _resize,
    "Sigmoid": _simple(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda node, value: value.softmax(node.attrs.get("axis", -1)),
    "Sqrt": _simple(torch.sqrt),
    "Sub": _simple(torch.sub),
    "Tanh": _simple(torch.tanh),
}
