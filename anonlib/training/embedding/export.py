"""The trained network as ONNX of plain operators, its weights in half precision."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from anonlib.models.graph import Graph, Value
from anonlib.records import EMBEDDING_DIM
from anonlib.synthesis.embedding import FLOW_SIDE, MOST_CHANGE, MOST_SHIFT, SIDE
from anonlib.training.embedding.network import SLOPE, Block, EmbeddingNet

_FLOAT = 1
"""ONNX's number for float32."""


def to_onnx(net: EmbeddingNet, notes: Mapping[str, str]) -> bytes:
    """The file of an Embedding: the network, and `notes` (see anonlib.synthesis.embedding.notes_of)."""
    graph = _Writer(net).graph
    graph.metadata = dict(notes)
    return graph.to_bytes()


class _Writer:
    def __init__(self, net: EmbeddingNet) -> None:
        self.graph = Graph("embedding", [Value("face", ("n", 3, SIDE + 1, SIDE))])
        self.slope = self.graph.const(np.array([SLOPE], np.float32))
        crop = self._cut([0], [SIDE], [2])
        donor = self.graph.add("Reshape", self._cut([0, SIDE], [1, SIDE + 1], [1, 2]), self._shape(-1, EMBEDDING_DIM))
        style = self._bent(self._linear(net.style, self._scaled(donor, EMBEDDING_DIM**0.5)))
        x = self._conv(net.stem, self.graph.add("Add", self._scaled(crop, 2.0), self._number(-1.0)))
        skips = [x]
        for number, down in enumerate(net.down):
            x = self._conv(down, self._bent(x))
            if number < len(net.seen):
                x = self._block(net.seen[number], x)
                skips.append(x)
        for block in net.middle:
            x = self._block(block, x, style)
        side = SIDE >> len(net.down) + 1
        for up, block in zip(net.up, net.made, strict=True):
            side *= 2
            x = self._block(block, self.graph.add("Add", self._conv(up, self._bent(x)), skips.pop()), style)
            if side == FLOW_SIDE:
                shifts = self.graph.add("Tanh", self._conv(net.flow, self._bent(x)))
        self._answer("tint", self.graph.add("Tanh", self._conv(net.out, self._bent(x))), MOST_CHANGE, 3, SIDE)
        self._answer("shift", shifts, MOST_SHIFT, 2, FLOW_SIDE)

    def _answer(self, name: str, value: str, most: float, channels: int, side: int) -> None:
        self.graph.add("Mul", value, self._number(most), name=name)
        self.graph.outputs.append(Value(name, ("n", channels, side, side)))

    def _block(self, block: Block, x: str, style: str | None = None) -> str:
        inner = self._conv(block.first, self._bent(x))
        if style is not None and block.film is not None:
            width = block.first.out_channels
            weight, bias = block.film.weight, block.film.bias
            scale = self._gemm(weight[:width], bias[:width] + 1, style)
            shift = self._gemm(weight[width:], bias[width:], style)
            per_channel = self._shape(-1, width, 1, 1)
            inner = self.graph.add("Mul", inner, self.graph.add("Reshape", scale, per_channel))
            inner = self.graph.add("Add", inner, self.graph.add("Reshape", shift, per_channel))
        return self.graph.add("Add", x, self._conv(block.second, self._bent(inner)))

    def _conv(self, layer: nn.Module, x: str) -> str:
        op = "ConvTranspose" if isinstance(layer, nn.ConvTranspose2d) else "Conv"
        return self.graph.add(
            op,
            x,
            self._weight(layer.weight),
            self._weight(layer.bias),
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=[*layer.padding, *layer.padding],
        )

    def _linear(self, layer: nn.Linear, x: str) -> str:
        return self._gemm(layer.weight, layer.bias, x)

    def _gemm(self, weight: Tensor, bias: Tensor, x: str) -> str:
        return self.graph.add("Gemm", x, self._weight(weight), self._weight(bias), transB=1)

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

    def _cut(self, starts: list[int], stops: list[int], axes: list[int]) -> str:
        constants: list[NDArray[np.int64]] = [np.array(one, np.int64) for one in (starts, stops, axes)]
        return self.graph.add("Slice", "face", *(self.graph.const(one) for one in constants))
