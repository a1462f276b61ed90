"""The trained networks as ONNX files, their weights in half precision, notes and terms inside.

Written operator by operator with those that every backend here runs: it needs no exporter, and the bytes repeat.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from anonlib.models.convert.graph import Array, Graph
from anonlib.privacy.clustering import normalized
from anonlib.storage.local import LocalStorage
from anonlib.synthesis.base import DecoderNotes, PublicFaces
from anonlib.synthesis.feature_transfer import FLOW_SIDE, MOST_CHANGE, MOST_SHIFT, SIDE, FeatureTransferNetwork
from anonlib.synthesis.network_file import metadata_of
from anonlib.synthesis.textures.ksame_net import ASKED, DETAIL, LOOKS, SHAPE, NetworkDecoder
from anonlib.workspace.schemas import EMBEDDING_DIM, MESH_POINTS

from . import feature_transfer_network as transfer
from . import generator_network as ksame
from .data import APART, BANK
from .feature_transfer_network import FeatureTransferNet
from .generator_network import BOUND, START, Generator
from .trainer import CHECKPOINT, KSAME_NET, read_notes

IDENTITIES = 3000  # how many identities of people who do not exist a file brings

_AGE_UNIT, _AGES = 100.0, (18.0, 80.0)
_LARGE, _FLOAT = 1024, 1  # ONNX's number for float32


def export(folder: Path, output: Path, note: str = "") -> NetworkDecoder | FeatureTransferNetwork:
    """Write a run's averaged network as ONNX to `output` and its card beside it, with a `note` on the run.

    Raises ConfigError without a run.
    """
    notes = read_notes(folder)
    about = DecoderNotes(**notes["about"])
    state = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
    with np.load(folder / BANK, allow_pickle=False) as bank:
        centre = bank["centre"]
        donors = synthetic_identities(PublicFaces(bank["vectors"], bank["female"], bank["age"]))
    network: NetworkDecoder | FeatureTransferNetwork
    if notes["network"] == KSAME_NET:
        average = state["networks"]["average"]
        generator = Generator({name: average[name].numpy() for name in START}, notes["size"])
        generator.load_state_dict(average)
        data = generator_onnx(generator, about, donors)
        network = NetworkDecoder.from_bytes(data)
    else:
        net = FeatureTransferNet()
        net.load_state_dict(state["networks"]["average"])
        columns = {"donors": donors.vectors, "female": donors.female, "age": donors.age}
        data = feature_transfer_onnx(net, metadata_of(about, {"centre": centre}, columns))
        network = FeatureTransferNetwork.from_bytes(data)
    steps, minutes = notes["record"]["steps"], notes["record"]["seconds"] / 60
    card = [
        f"# {notes['network']}\n\nWritten by `python jobs/train_generator.py export`; sha256 `{network.digest}`.\n",
        f"- {IDENTITIES:,} identities of people who do not exist are in it, spread as the faces of the training are.",
        f"- {steps:,} steps in {minutes:.0f} minutes; what ships is the exponential moving average. {note}".rstrip(),
        "- dlib-resnet, mobileface and readers of looks judged while training; fr-feature and faceres took no part.",
        f"- Faces with a dlib cosine of {APART} or more to a person of the datasets to stay apart from were left out.",
        f"\nThe run, with its figures on faces kept from it:\n\n```json\n{json.dumps(notes, indent=1)}\n```\n",
    ]
    storage = LocalStorage(output.parent)
    storage.publish(output.name, data)
    storage.publish(f"{output.stem}.md", "\n".join(card).encode())
    return network


def synthetic_identities(bank: PublicFaces) -> PublicFaces:
    """IDENTITIES people, drawn from a normal distribution as wide as the faces of `bank`, so that no vector of a real
    person ships; vector and age together, by gender."""
    random, women = np.random.default_rng(0), bank.female >= 0.5
    known = np.concatenate([bank.vectors, bank.age[:, None] / _AGE_UNIT], axis=1).astype(np.float64)
    groups = [group for group in (women, ~women) if group.sum() > 1]  # else there is no spread to draw from
    drawn = np.concatenate(
        [
            random.multivariate_normal(known[rows].mean(axis=0), np.cov(known[rows].T), IDENTITIES // 2, method="eigh")
            for rows in groups
        ]
    ).astype(np.float32)
    female = np.repeat(np.array([group is women for group in groups], np.float32), IDENTITIES // 2)
    return PublicFaces(normalized(drawn[:, :-1]), female, np.clip(drawn[:, -1] * _AGE_UNIT, *_AGES))


class _NetworkWriter:
    """Appends layers, by their names in a network's state, to a graph.

    Weights of `large` numbers and more are stored in half precision and widened when the file is loaded.
    """

    def __init__(self, graph: Graph, network: nn.Module, slope: float, large: int = 0) -> None:
        self.graph, self.add, self.large = graph, graph.add, large
        self.weights = {name: value.detach().cpu().float().numpy() for name, value in network.state_dict().items()}
        self.slope = self.const([slope])

    def whole(self, *values: int) -> str:
        return self.graph.const(np.array(values, np.int64))

    def const(self, values: Any) -> str:
        array = np.ascontiguousarray(values, np.float32)
        if array.size < max(self.large, 2):
            return self.graph.const(array)
        return self.add("Cast", self.graph.const(array.astype(np.float16)), to=_FLOAT)

    def bent(self, x: str) -> str:
        return self.add("PRelu", x, self.slope)

    def scaled(self, x: str, factor: float, name: str | None = None) -> str:
        return self.add("Mul", x, self.const([factor]), name=name)

    def product(self, x: str, weight: Array, bias: Array | None = None) -> str:
        """x (N, i) by `weight` (o, i)."""
        return self.add("Gemm", x, self.const(weight), *([] if bias is None else [self.const(bias)]), transB=1)

    def linear(self, name: str, x: str) -> str:
        return self.product(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def modulated(self, name: str, x: str, style: str) -> str:
        """x (N, c, s, s) times one more than the first half of what a layer makes of `style`, plus the second half."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        half = len(bias) // 2
        place = self.whole(-1, half, 1, 1)
        scale = self.add("Reshape", self.product(style, weight[:half], bias[:half] + 1), place)
        shift = self.add("Reshape", self.product(style, weight[half:], bias[half:]), place)
        return self.add("Add", self.add("Mul", x, scale), shift)

    def conv(self, name: str, x: str, stride: int = 1, op: str = "Conv") -> str:
        return self.convolved(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride, op)

    def convolved(self, x: str, weight: Array, bias: Array | None, stride: int = 1, op: str = "Conv") -> str:
        """All are padded by one."""
        parts = [self.const(weight), *([] if bias is None else [self.const(bias)])]
        window: dict[str, Any] = {
            "kernel_shape": [weight.shape[-1]] * 2,
            "strides": [stride] * 2,
            "pads": [1] * 4,
            "group": 1,
        }
        return self.add(op, x, *parts, **window)

    def doubled(self, x: str, name: str | None = None) -> str:
        """Twice the side of 3 channels, linear in between."""
        line = np.array([0.25, 0.75, 0.75, 0.25])
        window: dict[str, Any] = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1] * 4, "group": 3}
        kernel = self.const(np.broadcast_to(line[:, None] * line, (3, 1, 4, 4)))
        return self.add("ConvTranspose", x, kernel, name=name, **window)

    def cut(self, x: str, starts: list[int], stops: list[int], axes: list[int]) -> str:
        return self.add("Slice", x, *(self.whole(*values) for values in (starts, stops, axes)))


def generator_onnx(generator: Generator, about: DecoderNotes, bank: PublicFaces) -> bytes:
    """The file of ksame-net: identity and look in, texture and shape out, and people who may lend an identity."""
    axes = len(generator.centre)
    graph = Graph("ksame-net", {ASKED: ("N", axes + len(LOOKS))})
    writer = _NetworkWriter(graph, generator, ksame.SLOPE, _LARGE)
    add, weights = graph.add, writer.weights

    def linear_face(name: str) -> str:
        rows = weights[name]
        return add("Add", writer.product(identity, rows[:-3].T), writer.product(kind, rows[-3:-1].T, rows[-1]))

    # The identity (N, r), read and scaled, and its linear face.
    z, kind, looks = (
        writer.cut(ASKED, [start], [stop], [1])
        for start, stop in ((0, axes), (axes, axes + 2), (axes, axes + len(LOOKS)))
    )
    read = writer.product(z, weights["axes"] / BOUND, -weights["offset"] / BOUND)
    identity = writer.scaled(add("Tanh", read), BOUND)
    codes = writer.product(identity, weights["codes"].T)
    square = writer.product(add("Mul", codes, codes), np.ones((1, weights["codes"].shape[1])))
    identity = add("Mul", identity, add("Div", writer.const([weights["stretch"]]), add("Sqrt", square)))
    base = add("Reshape", linear_face("detail"), writer.whole(-1, 3, ksame.BASE, ksame.BASE))

    # The style (N, STYLE) of every block; how looks are scaled is multiplied into the first layer.
    first, count = weights["mapping.0.weight"], len(weights["axes"])
    look = first[:, count:] / weights["look_spread"]
    bias = weights["mapping.0.bias"] - look @ weights["look_mean"]
    style = add("Add", writer.product(identity, first[:, :count]), writer.product(looks, look, bias))
    style = writer.bent(writer.linear("mapping.1", writer.bent(style)))

    x = add("Reshape", writer.bent(writer.linear("start", style)), writer.whole(-1, ksame.WIDTHS[4], 4, 4))
    drawn = ""
    for number, block in enumerate(generator.blocks):
        name, width, factor = f"blocks.{number}", block.first.in_channels, ksame.BASE // block.side
        shown = base if factor else writer.doubled(base)
        if factor > 1:
            shown = add("AveragePool", base, kernel_shape=[factor] * 2, strides=[factor] * 2, pads=[0] * 4)
        repeat = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0] * 4, "group": width}
        x = add("ConvTranspose", x, writer.const(np.ones((width, 1, 2, 2))), **repeat)
        x = add("Add", writer.conv(f"{name}.first", x), writer.conv(f"{name}.shown", shown))
        x = writer.bent(writer.modulated(f"{name}.film.0", x, style))
        x = writer.bent(writer.modulated(f"{name}.film.1", writer.conv(f"{name}.second", x), style))
        more = writer.conv(f"{name}.draw", x)
        drawn = add("Add", writer.doubled(drawn), more) if drawn else more
    whole = base if generator.size <= ksame.BASE else writer.doubled(base)
    zone = graph.const(ksame.zone_of(generator.size)[None, None])
    add("Add", whole, add("Mul", drawn, zone), name=DETAIL)
    graph.rename(linear_face("shape"), SHAPE)
    graph.outputs = {DETAIL: ("N", 3, generator.size, generator.size), SHAPE: ("N", 3 * MESH_POINTS)}
    single = {"centre": weights["centre"], "eyes": np.array(weights["look_mean"][LOOKS.index("eyes")], np.float32)}
    graph.metadata = metadata_of(about, single, vars(bank))
    graph.prune()
    return graph.to_bytes()


def feature_transfer_onnx(net: FeatureTransferNet, notes: Mapping[str, str]) -> bytes:
    """The file of `embedding`: crop and direction in, tint and shifts out, and `notes` (synthesis' `metadata_of`)."""
    graph = Graph("embedding", {"face": ("n", 3, SIDE + 1, SIDE)})
    writer = _NetworkWriter(graph, net, transfer.SLOPE)
    add, scaled, weights = graph.add, writer.scaled, writer.weights

    def block(name: str, x: str, style: str | None = None) -> str:
        inner = writer.conv(f"{name}.first", writer.bent(x))
        if style is not None:
            inner = writer.modulated(f"{name}.film", inner, style)
        return add("Add", x, writer.conv(f"{name}.second", writer.bent(inner)))

    crop = writer.cut("face", [0], [SIDE], [2])
    row = writer.cut("face", [0, SIDE], [1, SIDE + 1], [1, 2])
    direction = add("Reshape", row, writer.whole(-1, EMBEDDING_DIM))
    drawn = writer.product(writer.product(direction, weights["rank.weight"]), weights["draw.weight"])
    drawn = add("Reshape", drawn, writer.whole(-1, 3, transfer.DRAWN_SIDE, transfer.DRAWN_SIDE))
    style = writer.bent(writer.linear("style", scaled(direction, (EMBEDDING_DIM / 2) ** 0.5)))
    # The stem looks at both together; a sum of two convolutions needs no joining.
    stem = weights["stem.weight"]
    centred = add("Add", scaled(crop, 2.0), writer.const([-1.0]))
    seen = writer.convolved(centred, stem[:, :3], weights["stem.bias"], stride=2)
    x = add("Add", seen, writer.convolved(scaled(writer.doubled(drawn), 4.0), stem[:, 3:], None, stride=2))
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
    kept = scaled(add("Sigmoid", writer.cut(out, [3], [6], [1])), 2.0 / MOST_CHANGE)
    tint = add("Add", add("Mul", kept, drawn), writer.cut(out, [0], [3], [1]))
    writer.doubled(scaled(add("Tanh", tint), MOST_CHANGE), "tint")
    scaled(add("Tanh", shifts), MOST_SHIFT, "shift")
    graph.outputs = {"tint": ("n", 3, SIDE, SIDE), "shift": ("n", 2, FLOW_SIDE, FLOW_SIDE)}
    graph.metadata = dict(notes)
    return graph.to_bytes()
