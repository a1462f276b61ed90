"""The trained networks as ONNX files of plain operators, their weights in half precision, notes and terms inside.

Written operator by operator with those that every backend here runs, so that it needs no exporter, and the same weights
give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from anonlib.models.convert.graph import Array, Graph
from anonlib.privacy.clustering import normalized
from anonlib.synthesis.base import DecoderNotes, PublicFaces
from anonlib.synthesis.feature_transfer import FLOW_SIDE, MOST_CHANGE, MOST_SHIFT, SIDE
from anonlib.synthesis.network_file import metadata_of
from anonlib.synthesis.textures.ksame_net import ASKED, DETAIL, LOOKS, SHAPE
from anonlib.synthesis.textures.linear import BOUND, Decoder
from anonlib.training.objectives import feature_transfer_network as transfer
from anonlib.training.objectives import generator_network as ksame
from anonlib.training.objectives.feature_transfer_network import FeatureTransferNet
from anonlib.training.objectives.generator_network import Generator
from anonlib.workspace.schemas import EMBEDDING_DIM, MESH_POINTS

IDENTITIES = 3000
"""How many identities of people who do not exist a file brings."""

_AGE_UNIT, _AGES = 100.0, (18.0, 80.0)
_LARGE = 1024
_FLOAT = 1
"""ONNX's number for float32."""


def synthetic_identities(bank: PublicFaces) -> PublicFaces:
    """IDENTITIES people, drawn from a normal distribution as wide as the faces of `bank`, so that no vector of a real
    person ships; vector and age together, by gender."""
    random = np.random.default_rng(0)
    women = bank.female >= 0.5
    points, female = [], []
    for group in (women, ~women):
        if group.sum() > 1:  # else there is no spread to draw from
            known = np.concatenate([bank.vectors, bank.age[:, None] / _AGE_UNIT], axis=1)[group].astype(np.float64)
            mean, covariance = known.mean(axis=0), np.cov(known.T)
            points.append(random.multivariate_normal(mean, covariance, IDENTITIES // 2, method="eigh"))
            female.append(np.full(IDENTITIES // 2, float(group is women)))
    drawn = np.concatenate(points).astype(np.float32)
    age = np.clip(drawn[:, -1] * _AGE_UNIT, *_AGES)
    return PublicFaces(normalized(drawn[:, :-1]), np.concatenate(female).astype(np.float32), age)


class _Writer:
    """Appends layers, by their names in a network's state, to a graph.

    Weights of `large` numbers and more are stored in half precision and widened when the file is loaded. `conv`: more
    attributes of every convolution.
    """

    def __init__(self, graph: Graph, network: nn.Module, slope: float, *, large: int = 0, **conv: Any) -> None:
        self.graph, self.add, self.large, self.attributes = graph, graph.add, large, conv
        self.weights = {name: value.detach().cpu().float().numpy() for name, value in network.state_dict().items()}
        self.slope = self.numbers(slope)

    def numbers(self, *values: float) -> str:
        return self.graph.const(np.array(values, np.float32))

    def whole(self, *values: int) -> str:
        return self.graph.const(np.array(values, np.int64))

    def const(self, array: Array) -> str:
        values = np.ascontiguousarray(array, np.float32)
        if values.size < self.large:
            return self.graph.const(values)
        return self.add("Cast", self.graph.const(values.astype(np.float16)), to=_FLOAT)

    def bent(self, x: str) -> str:
        return self.add("PRelu", x, self.slope)

    def scaled(self, x: str, factor: float) -> str:
        return self.add("Mul", x, self.numbers(factor))

    def bounded(self, x: str, most: float, name: str | None = None) -> str:
        return self.add("Mul", self.add("Tanh", x), self.numbers(most), name=name)

    def affine(self, x: str, weight: Array, bias: Array) -> str:
        return self.add("Add", self.add("MatMul", x, self.const(weight.T)), self.const(bias))

    def linear(self, name: str, x: str) -> str:
        return self.affine(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def gemm(self, x: str, weight: Array, bias: Array | None = None) -> str:
        return self.add("Gemm", x, self.const(weight), *([] if bias is None else [self.const(bias)]), transB=1)

    def conv(self, name: str, x: str, stride: int = 1, op: str = "Conv") -> str:
        weight, bias = (self.weights[f"{name}.{part}"] for part in ("weight", "bias"))
        return self.convolved(x, weight, bias, stride, op)

    def convolved(self, x: str, weight: Array, bias: Array | None, stride: int, op: str = "Conv") -> str:
        """All are padded by one."""
        parts = [self.const(weight), *([] if bias is None else [self.const(bias)])]
        window: dict[str, Any] = {"kernel_shape": [weight.shape[-1]] * 2, "strides": [stride] * 2, "pads": [1] * 4}
        return self.add(op, x, *parts, **window, **self.attributes)

    def enlarged(self, x: str, kernel: str, name: str | None = None) -> str:
        """Twice the side of 3 channels, linear in between."""
        return self.add(
            "ConvTranspose", x, kernel, name=name, kernel_shape=[4, 4], strides=[2, 2], pads=[1] * 4, group=3
        )

    def cut(self, x: str, starts: list[int], stops: list[int], axes: list[int]) -> str:
        return self.add("Slice", x, *(self.whole(*values) for values in (starts, stops, axes)))


def generator_onnx(generator: Generator, about: DecoderNotes, decoder: Decoder) -> bytes:
    """The file of ksame-net: identity and look in, texture and shape out; its identity space is the decoder's."""
    axes = len(decoder.centre)
    inputs = axes + len(LOOKS)
    graph = Graph("ksame-net", {ASKED: ("N", inputs)})
    writer = _Writer(graph, generator, ksame.SLOPE, large=_LARGE, group=1)
    add, const, weights = graph.add, writer.const, writer.weights

    def part(start: int, count: int) -> str:
        """`count` numbers (N, count) of what is asked."""
        return add("MatMul", ASKED, const(np.eye(inputs)[:, start : start + count]))

    def doubled(x: str) -> str:
        line = np.array([0.25, 0.75, 0.75, 0.25])
        return writer.enlarged(x, const(np.broadcast_to(line[:, None] * line, (3, 1, 4, 4))))

    def linear_face(name: str) -> str:
        rows = weights[name]
        face = add("MatMul", identity, const(rows[:-3]))
        return add("Add", add("Add", face, add("MatMul", kind, const(rows[-3:-1]))), const(rows[-1]))

    def modulated(name: str, x: str) -> str:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        half = len(bias) // 2
        place = writer.whole(-1, half, 1, 1)
        scale, shift = (
            add("Reshape", writer.affine(style, weight[rows], bias[rows] + offset), place)
            for rows, offset in ((slice(0, half), 1.0), (slice(half, None), 0.0))
        )
        return add("Add", add("Mul", x, scale), shift)

    # The identity (N, r) as the linear decoder reads and scales it, and its face.
    read = add("MatMul", part(0, axes), const(weights["axes"].T / BOUND))
    read = add("Tanh", add("Sub", read, const(weights["offset"] / BOUND)))
    identity = add("Mul", read, const(np.array([BOUND])))
    codes = add("MatMul", identity, const(weights["codes"]))
    square = add("MatMul", add("Mul", codes, codes), const(np.ones((weights["codes"].shape[1], 1))))
    identity = add("Mul", identity, add("Div", const(np.array([generator.stretch])), add("Sqrt", square)))
    kind = part(axes, 2)
    base = add("Reshape", linear_face("detail"), writer.whole(-1, 3, ksame.BASE, ksame.BASE))

    # The style (N, STYLE) of every block; how looks are scaled is multiplied into the first layer.
    looks = part(axes, len(LOOKS))
    first, count = weights["mapping.0.weight"], len(weights["axes"])
    look = first[:, count:] / weights["look_spread"]
    style = add("MatMul", identity, const(first[:, :count].T))
    style = add("Add", style, add("MatMul", looks, const(look.T)))
    style = writer.bent(add("Add", style, const(weights["mapping.0.bias"] - look @ weights["look_mean"])))
    style = writer.bent(writer.linear("mapping.1", style))

    x = writer.bent(writer.linear("start", style))
    x = add("Reshape", x, writer.whole(-1, ksame.WIDTHS[4], 4, 4))
    drawn = ""
    for number, block in enumerate(generator.blocks):
        name, width, factor = f"blocks.{number}", block.first.in_channels, ksame.BASE // block.side
        if factor > 1:
            shown = add("AveragePool", base, kernel_shape=[factor] * 2, strides=[factor] * 2, pads=[0] * 4)
        else:
            shown = base if factor else doubled(base)
        repeat = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0] * 4, "group": width}
        x = add("ConvTranspose", x, const(np.ones((width, 1, 2, 2))), **repeat)
        x = add("Add", writer.conv(f"{name}.first", x), writer.conv(f"{name}.shown", shown))
        x = writer.bent(modulated(f"{name}.film.0", x))
        x = writer.bent(modulated(f"{name}.film.1", writer.conv(f"{name}.second", x)))
        more = writer.conv(f"{name}.draw", x)
        drawn = add("Add", doubled(drawn), more) if drawn else more
    whole = base if generator.size <= ksame.BASE else doubled(base)
    zone = graph.const(ksame.zone_of(generator.size)[None, None])
    detail = add("Add", whole, add("Mul", drawn, zone))
    shape = linear_face("shape")

    sides = (generator.size, generator.size)
    graph.outputs = {detail: ("N", 3, *sides), shape: ("N", 3 * MESH_POINTS)}
    graph.rename(detail, DETAIL)
    graph.rename(shape, SHAPE)
    single = {"centre": decoder.centre, "eyes": np.array(weights["look_mean"][LOOKS.index("eyes")], np.float32)}
    graph.metadata = metadata_of(about, single, vars(synthetic_identities(decoder.bank)))
    graph.prune()
    return graph.to_bytes()


def feature_transfer_onnx(net: FeatureTransferNet, notes: Mapping[str, str]) -> bytes:
    """The file of `embedding`: crop and direction in, tint and shifts out, and `notes` (synthesis' `metadata_of`)."""
    graph = Graph("embedding", {"face": ("n", 3, SIDE + 1, SIDE)})
    writer = _Writer(graph, net, transfer.SLOPE)
    add, scaled, weights = graph.add, writer.scaled, writer.weights

    def block(name: str, x: str, style: str | None = None) -> str:
        inner = writer.conv(f"{name}.first", writer.bent(x))
        if style is not None:
            weight, bias = weights[f"{name}.film.weight"], weights[f"{name}.film.bias"]
            width = len(bias) // 2
            scale = writer.gemm(style, weight[:width], bias[:width] + 1)
            shift = writer.gemm(style, weight[width:], bias[width:])
            place = writer.whole(-1, width, 1, 1)
            inner = add("Mul", inner, add("Reshape", scale, place))
            inner = add("Add", inner, add("Reshape", shift, place))
        return add("Add", x, writer.conv(f"{name}.second", writer.bent(inner)))

    crop = writer.cut("face", [0], [SIDE], [2])
    row = writer.cut("face", [0, SIDE], [1, SIDE + 1], [1, 2])
    direction = add("Reshape", row, writer.whole(-1, EMBEDDING_DIM))
    drawn = writer.gemm(writer.gemm(direction, weights["rank.weight"]), weights["draw.weight"])
    drawn = add("Reshape", drawn, writer.whole(-1, 3, transfer.DRAWN_SIDE, transfer.DRAWN_SIDE))
    kernel = writer.const(weights["enlarge"])
    length = scaled(direction, (EMBEDDING_DIM / 2) ** 0.5)
    style = writer.bent(writer.gemm(length, weights["style.weight"], weights["style.bias"]))
    # The stem looks at both together; a sum of two convolutions needs no joining.
    stem = weights["stem.weight"]
    centred = add("Add", scaled(crop, 2.0), writer.numbers(-1.0))
    seen = writer.convolved(centred, stem[:, :3], weights["stem.bias"], stride=2)
    proposed = scaled(writer.enlarged(drawn, kernel), 4.0)
    x = add("Add", seen, writer.convolved(proposed, stem[:, 3:], None, stride=2))
    skips = [x]
    for number in range(len(net.encoder)):
        x = block(f"encoder.{number}", writer.conv(f"down.{number}", writer.bent(x), stride=2))
        skips.append(x)
    x = writer.conv(f"down.{len(net.encoder)}", writer.bent(x), stride=2)
    for number in range(len(net.middle)):
        x = block(f"middle.{number}", x, style)
    side, shifts = SIDE >> len(net.down) + 1, ""
    for number in range(len(net.up)):
        side *= 2
        up = writer.conv(f"up.{number}", writer.bent(x), stride=2, op="ConvTranspose")
        x = block(f"decoder.{number}", add("Add", up, skips.pop()), style)
        if side == FLOW_SIDE:
            shifts = writer.conv("flow", writer.bent(x))
    out = writer.conv("out", writer.bent(x))
    kept = add("Sigmoid", writer.cut(out, [3], [6], [1]))
    tint = add("Mul", scaled(kept, 2.0 / MOST_CHANGE), drawn)
    tint = writer.bounded(add("Add", tint, writer.cut(out, [0], [3], [1])), MOST_CHANGE)
    writer.enlarged(tint, kernel, "tint")
    writer.bounded(shifts, MOST_SHIFT, "shift")
    graph.outputs = {"tint": ("n", 3, SIDE, SIDE), "shift": ("n", 2, FLOW_SIDE, FLOW_SIDE)}
    graph.metadata = dict(notes)
    return graph.to_bytes()
