"""The trained network as one ONNX file: identity and look in, texture and shape out, half precision, terms inside.

Written operator by operator with those that every backend here runs, so that it needs no exporter, and the same weights
give the same bytes.
"""

from __future__ import annotations

import numpy as np

from anonlib.models.convert.graph import Array, Graph, Value
from anonlib.synthesis.base import DecoderNotes
from anonlib.synthesis.textures.ksame_net import ASKED, DETAIL, LOOKS, SHAPE, metadata
from anonlib.synthesis.textures.linear import BOUND, Decoder
from anonlib.training.generator.network import BASE, SLOPE, WIDTHS, Generator, UpsamplingBlock, zone_of
from anonlib.training.synthetic_identities import nobodies
from anonlib.workspace.schemas import MESH_POINTS

_LARGE = 1024


def to_onnx(generator: Generator, about: DecoderNotes, decoder: Decoder) -> bytes:
    """The network's file; its identity space is that of the linear decoder that it started from."""
    weights = {name: value.detach().cpu().float().numpy() for name, value in generator.state_dict().items()}
    dimension = weights["axes"].shape[1]
    graph = Graph("ksame-net", [Value(ASKED, ("N", dimension + len(LOOKS)))])
    writer = _GeneratorGraph(graph, weights)
    own = writer.identity(generator.stretch)
    kind = writer.part(dimension, 2)
    base = graph.add(
        "Reshape", writer.linear("detail", own, kind), graph.const(np.array([-1, 3, BASE, BASE], np.int64))
    )
    style = writer.style(own, writer.part(dimension, len(LOOKS)))
    x = graph.add("PRelu", writer.gemm("start", style), writer.slope)
    x = graph.add("Reshape", x, graph.const(np.array([-1, WIDTHS[4], 4, 4], np.int64)))
    drawn = ""
    for number, block in enumerate(generator.blocks):
        x, more = writer.block(f"blocks.{number}", block, x, style, writer.shown(base, block.side))
        drawn = graph.add("Add", writer.doubled(drawn, 3), more) if drawn else more
    whole = base if generator.size <= BASE else writer.doubled(base, 3)
    zone = graph.const(zone_of(generator.size)[None, None])
    detail = graph.add("Add", whole, graph.add("Mul", drawn, zone))
    shape = writer.linear("shape", own, kind)
    graph.outputs = [
        Value(detail, ("N", 3, generator.size, generator.size)),
        Value(shape, ("N", 3 * MESH_POINTS)),
    ]
    graph.rename_outputs({detail: DETAIL, shape: SHAPE})
    eyes = float(weights["look_mean"][LOOKS.index("eyes")])
    graph.metadata = metadata(about, decoder.centre, nobodies(decoder.bank), eyes)
    graph.prune()
    return graph.to_bytes()


class _GeneratorGraph:
    """Appends the parts of a Generator to a graph."""

    def __init__(self, graph: Graph, weights: dict[str, Array]) -> None:
        self.graph, self.weights = graph, weights
        self.slope = graph.const(np.array([SLOPE], np.float32))

    def part(self, start: int, count: int) -> str:
        """`count` numbers (N, count) of what is asked."""
        size = int(self.graph.inputs[0].shape[1])
        return self.graph.add("MatMul", ASKED, self._const(np.eye(size)[:, start : start + count]))

    def identity(self, stretch: float) -> str:
        """The identity (N, r) as the linear decoder reads and scales it."""
        add, weights = self.graph.add, self.weights
        vector = self.part(0, weights["axes"].shape[1])
        read = add("MatMul", vector, self._const(weights["axes"].T / BOUND))
        read = add("Tanh", add("Sub", read, self._const(weights["offset"] / BOUND)))
        own = add("Mul", read, self._const(np.array([BOUND])))
        codes = add("MatMul", own, self._const(weights["codes"]))
        square = add("MatMul", add("Mul", codes, codes), self._const(np.ones((weights["codes"].shape[1], 1))))
        return add("Mul", own, add("Div", self._const(np.array([stretch])), add("Sqrt", square)))

    def linear(self, name: str, own: str, kind: str) -> str:
        """`detail` or `shape` (N, p) of the linear decoder."""
        add, rows = self.graph.add, self.weights[name]
        face = add("MatMul", own, self._const(rows[:-3]))
        return add("Add", add("Add", face, add("MatMul", kind, self._const(rows[-3:-1]))), self._const(rows[-1]))

    def style(self, own: str, asked: str) -> str:
        """What every block is told (N, STYLE)."""
        add, weights = self.graph.add, self.weights
        first, count = weights["mapping.0.weight"], len(weights["axes"])
        look = first[:, count:] / weights["look_spread"]
        bias = weights["mapping.0.bias"] - look @ weights["look_mean"]
        told = add("MatMul", own, self._const(first[:, :count].T))
        told = add("Add", add("Add", told, add("MatMul", asked, self._const(look.T))), self._const(bias))
        return add("PRelu", self.gemm("mapping.1", add("PRelu", told, self.slope)), self.slope)

    def gemm(self, name: str, value: str) -> str:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return self.graph.add("Add", self.graph.add("MatMul", value, self._const(weight.T)), self._const(bias))

    def shown(self, base: str, side: int) -> str:
        """The linear face at a block's side."""
        if side > BASE:
            return self.doubled(base, 3)
        factor = BASE // side
        if factor == 1:
            return base
        return self.graph.add("AveragePool", base, kernel_shape=[factor] * 2, strides=[factor] * 2, pads=[0] * 4)

    def block(self, name: str, block: UpsamplingBlock, x: str, style: str, shown: str) -> tuple[str, str]:
        """What goes on, and what is added to the picture."""
        add = self.graph.add
        before = block.first.in_channels
        x = add(
            "ConvTranspose", x, self._const(np.ones((before, 1, 2, 2))), kernel_shape=[2, 2], strides=[2, 2],
            pads=[0] * 4, group=before,
        )  # fmt: skip
        x = add("Add", self._conv(f"{name}.first", x), self._conv(f"{name}.shown", shown))
        x = add("PRelu", self._film(f"{name}.film.0", x, style), self.slope)
        x = add("PRelu", self._film(f"{name}.film.1", self._conv(f"{name}.second", x), style), self.slope)
        return x, self._conv(f"{name}.draw", x)

    def doubled(self, value: str, channels: int) -> str:
        line = np.array([0.25, 0.75, 0.75, 0.25])
        kernel = np.broadcast_to(line[:, None] * line, (channels, 1, 4, 4))
        return self.graph.add(
            "ConvTranspose", value, self._const(kernel), kernel_shape=[4, 4], strides=[2, 2], pads=[1] * 4,
            group=channels,
        )  # fmt: skip

    def _conv(self, name: str, value: str) -> str:
        names = [self._const(self.weights[f"{name}.{part}"]) for part in ("weight", "bias")]
        return self.graph.add("Conv", value, *names, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4, group=1)

    def _film(self, name: str, value: str, style: str) -> str:
        add, weight, bias = self.graph.add, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        half = len(bias) // 2
        place = self.graph.const(np.array([-1, half, 1, 1], np.int64))
        told = []
        for part, one in ((slice(0, half), 1.0), (slice(half, None), 0.0)):
            product = add("MatMul", style, self._const(weight[part].T))
            told.append(add("Reshape", add("Add", product, self._const(bias[part] + one)), place))
        return add("Add", add("Mul", value, told[0]), told[1])

    def _const(self, array: Array) -> str:
        """A constant; large ones are stored in half precision and widened when the file is loaded."""
        values = np.ascontiguousarray(array, np.float32)
        if values.size < _LARGE:
            return self.graph.const(values)
        return self.graph.add("Cast", self.graph.const(values.astype(np.float16)), to=1)
