"""The trained network as ONNX of plain operators, its weights in half precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from anonlib.models.convert.graph import Graph, Value
from anonlib.synthesis.feature_transfer import FLOW_SIDE, MOST_CHANGE, MOST_SHIFT, SIDE
from anonlib.training.feature_transfer.network import DRAWN_SIDE, SLOPE, FeatureTransferNet, UNetBlock
from anonlib.workspace.schemas import EMBEDDING_DIM

_FLOAT = 1
"""ONNX's number for float32."""


def to_onnx(net: FeatureTransferNet, notes: Mapping[str, str]) -> bytes:
    """The file of an Embedding: the network, and `notes` (see anonlib.synthesis.feature_transfer.notes_of)."""
    graph = _FeatureTransferGraph(net).graph
    graph.metadata = dict(notes)
    return graph.to_bytes()


class _FeatureTransferGraph:
    def __init__(self, net: FeatureTransferNet) -> None:
        self.graph = Graph("embedding", [Value("face", ("n", 3, SIDE + 1, SIDE))])
        self.slope = self.graph.const(np.array([SLOPE], np.float32))
        crop = self._cut("face", [0], [SIDE], [2])
        row = self._cut("face", [0, SIDE], [1, SIDE + 1], [1, 2])
        direction = self.graph.add("Reshape", row, self._shape(-1, EMBEDDING_DIM))
        drawn = self._gemm(net.draw.weight, None, self._gemm(net.wish.weight, None, direction))
        drawn = self.graph.add("Reshape", drawn, self._shape(-1, 3, DRAWN_SIDE, DRAWN_SIDE))
        self.enlarge = self._weight(net.enlarge)
        scaled = self._scaled(direction, (EMBEDDING_DIM / 2) ** 0.5)
        style = self._bent(self._gemm(net.style.weight, net.style.bias, scaled))
        # the stem looks at both together; a sum of two convolutions needs no joining
        weight, bias = net.stem.weight, net.stem.bias
        centred = self.graph.add("Add", self._scaled(crop, 2.0), self._number(-1.0))
        seen = self._conv("Conv", centred, weight[:, :3], bias, stride=2)
        x = self.graph.add(
            "Add", seen, self._conv("Conv", self._scaled(self._enlarged(drawn), 4.0), weight[:, 3:], None, stride=2)
        )
        skips = [x]
        for down, block in zip(net.down, net.seen, strict=False):
            x = self._block(block, self._layer(down, self._bent(x)))
            skips.append(x)
        x = self._layer(net.down[-1], self._bent(x))
        for block in net.middle:
            x = self._block(block, x, style)
        side = SIDE >> len(net.down) + 1
        for up, block in zip(net.up, net.made, strict=True):
            side *= 2
            x = self._block(block, self.graph.add("Add", self._layer(up, self._bent(x)), skips.pop()), style)
            if side == FLOW_SIDE:
                shifts = self._layer(net.flow, self._bent(x))
        out = self._layer(net.out, self._bent(x))
        kept = self.graph.add("Sigmoid", self._cut(out, [3], [6], [1]))
        tint = self.graph.add("Mul", self._scaled(kept, 2.0 / MOST_CHANGE), drawn)
        tint = self._bounded(self.graph.add("Add", tint, self._cut(out, [0], [3], [1])), MOST_CHANGE)
        self._enlarged(tint, "tint")
        self._bounded(shifts, MOST_SHIFT, "shift")
        self.graph.outputs += [Value("tint", ("n", 3, SIDE, SIDE)), Value("shift", ("n", 2, FLOW_SIDE, FLOW_SIDE))]

    def _bounded(self, x: str, most: float, name: str | None = None) -> str:
        return self.graph.add("Mul", self.graph.add("Tanh", x), self._number(most), name=name)

    def _enlarged(self, x: str, name: str | None = None) -> str:
        window: dict[str, Any] = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1], "group": 3}
        return self.graph.add("ConvTranspose", x, self.enlarge, name=name, **window)

    def _block(self, block: UNetBlock, x: str, style: str | None = None) -> str:
        inner = self._layer(block.first, self._bent(x))
        if style is not None and block.film is not None:
            width = block.first.out_channels
            weight, bias = block.film.weight, block.film.bias
            scale = self._gemm(weight[:width], bias[:width] + 1, style)
            shift = self._gemm(weight[width:], bias[width:], style)
            per_channel = self._shape(-1, width, 1, 1)
            inner = self.graph.add("Mul", inner, self.graph.add("Reshape", scale, per_channel))
            inner = self.graph.add("Add", inner, self.graph.add("Reshape", shift, per_channel))
        return self.graph.add("Add", x, self._layer(block.second, self._bent(inner)))

    def _layer(self, layer: nn.Module, x: str) -> str:
        op = "ConvTranspose" if isinstance(layer, nn.ConvTranspose2d) else "Conv"
        return self._conv(op, x, layer.weight, layer.bias, stride=layer.stride[0])

    def _conv(self, op: str, x: str, weight: Tensor, bias: Tensor | None, stride: int = 1) -> str:
        """All are padded by one."""
        weights = [self._weight(weight), *([] if bias is None else [self._weight(bias)])]
        side = int(weight.shape[-1])
        return self.graph.add(op, x, *weights, kernel_shape=[side] * 2, strides=[stride] * 2, pads=[1] * 4)

    def _gemm(self, weight: Tensor, bias: Tensor | None, x: str) -> str:
        weights = [self._weight(weight), *([] if bias is None else [self._weight(bias)])]
        return self.graph.add("Gemm", x, *weights, transB=1)

    def _weight(self, tensor: Tensor) -> str:
        half = self.graph.const(tensor.detach().cpu().numpy().astype(np.float16))
        return self.graph.add("Cast", half, to=_FLOAT)

    def _bent(self, x: str) -> str:
        return self.graph.add("PRelu", x, self.slope)

    def _scaled(self, x: str, factor: float) -> str:
        return self.graph.add("Mul", x, self._number(factor))

    def _number(self, value: float) -> str:
        return self.graph.const(np.array([value], np.float32))

    def _shape(self, *sides: int) -> str:
        return self.graph.const(np.array(sides, np.int64))

    def _cut(self, x: str, starts: list[int], stops: list[int], axes: list[int]) -> str:
        constants: list[NDArray[np.int64]] = [np.array(one, np.int64) for one in (starts, stops, axes)]
        return self.graph.add("Slice", x, *(self.graph.const(one) for one in constants))
