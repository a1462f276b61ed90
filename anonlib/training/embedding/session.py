"""One training of the network: a step, a sheet to look at, and the weights it has come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anonlib.models.catalog import MODELS
from anonlib.models.graph import read_onnx
from anonlib.models.torch_graph import TorchGraph
from anonlib.training.embedding.data import Batch, Batches, Faces
from anonlib.training.embedding.losses import Reader, moved_points, view
from anonlib.training.embedding.network import EmbeddingNet, applied
from anonlib.training.embedding.start import begin

READERS = ("dlib-resnet", "mobileface")
"""Recognizers that the network learns to deceive; those that judge it are never among them."""
LOOKS = "expression"
_LINEAR_RATE = 0.1
"""How fast the linear map learns, which begins where it may stay, beside the rest."""
_HARD = 10.0
"""How much faster than in proportion a tint costs."""
_LOOKS_SHARE = 0.25
_LAYERS = ("t16", "t31")
"""Of the expression network, the ends of its first two stages."""


@dataclass(frozen=True)
class Weights:
    """How much each part of the loss counts."""

    donor: float = 1.0
    source: float = 1.0
    change: float = 6.0
    tint: float = 6.0
    shift: float = 0.03
    looks: float = 0.5


class Session:
    """`modules` and `optimizers` are what a checkpoint holds; `step` changes them."""

    def __init__(
        self, faces: Faces, models: Mapping[str, bytes], *, weights: Weights = Weights(), batch: int = 16
    ) -> None:
        self.batches = Batches(faces, batch)
        self.weights = weights
        self.net = EmbeddingNet().to(memory_format=torch.channels_last)
        begin(self.net, faces)
        linear = [*self.net.wish.parameters(), *self.net.draw.parameters()]
        rest = [one for one in self.net.parameters() if all(one is not other for other in linear)]
        self.optimizer = torch.optim.Adam(
            [{"params": rest}, {"params": linear, "scale": _LINEAR_RATE}], lr=1e-3, betas=(0.9, 0.99)
        )
        self.modules: dict[str, nn.Module] = {"net": self.net}
        self.optimizers: dict[str, torch.optim.Optimizer] = {"net": self.optimizer}
        centres = faces.centres()
        self.readers = [
            Reader(name, _frozen(TorchGraph(models[name])), torch.from_numpy(centres[name]), name == READERS[0])
            for name in READERS
        ]
        self.looks = _frozen(TorchGraph(_up_to(models[LOOKS], _LAYERS)))

    def step(self, rng: np.random.Generator) -> dict[str, float]:
        """One batch; returns the parts of the loss and how near the outputs are to donor and source."""
        batch = self.batches.draw(rng)
        with torch.autocast("cpu", torch.bfloat16):
            residual, shifts = self.net(batch.crop.contiguous(memory_format=torch.channels_last), batch.direction)
        out, moved = applied(batch.crop, batch.alpha, residual.float(), shifts.float())
        parts = self._image_loss(batch, out, moved, residual.float(), rng.random() < _LOOKS_SHARE)
        metrics = {name: float(value.detach()) for name, value in parts.items()}
        loss = sum(getattr(self.weights, name) * value for name, value in parts.items())
        points = moved_points(batch.points, moved)
        # The first recognizer costs half of a step, so every other one goes without it.
        asked = self.readers if rng.random() < 0.5 else self.readers[1:]
        for reader in asked:
            vectors = reader.embed(out, points, rng)
            to_donor = (vectors * batch.donor[reader.name]).sum(dim=1)
            to_source = (vectors * batch.own[reader.name]).sum(dim=1)
            loss = loss + self.weights.donor * (1 - to_donor).mean() + self.weights.source * F.relu(to_source).mean()
            metrics[f"{reader.name} donor"] = float(to_donor.mean())
            metrics[f"{reader.name} source"] = float(to_source.mean())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        return metrics | {"loss": float(loss)}

    def _image_loss(
        self, batch: Batch, out: Tensor, moved: Tensor, residual: Tensor, looked_at: bool
    ) -> dict[str, Tensor]:
        share = batch.alpha.mean()
        change = batch.alpha * residual
        parts = {
            "change": (change.abs() + _HARD * change.square()).mean() / share,
            "tint": F.avg_pool2d(change, 16).abs().mean() / share,
            "shift": moved.square().sum(dim=1).mean() / share,
        }
        if not looked_at:
            return parts
        target = torch.tensor(MODELS[LOOKS].input.landmarks())
        before, after = (
            self.looks(view(image, batch.points, target, 112, None) * 255 * MODELS[LOOKS].input.scale)
            for image in (batch.crop, out)
        )
        looks = sum((a - b).abs().mean() / b.abs().mean() for a, b in zip(after, before, strict=True))
        return parts | {"looks": looks / _LOOKS_SHARE}


def _frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _up_to(model: bytes, layers: tuple[str, ...]) -> bytes:
    """The same ONNX, answering with `layers` instead."""
    graph = read_onnx(model, "features")
    value = graph.outputs[0]
    graph.outputs = [type(value)(name, ("n", "c", "h", "w")) for name in layers]
    graph.prune()
    return graph.to_bytes()


def picture(batch: Batch, out: Tensor) -> NDArray[np.uint8]:
    """Crops and outputs one under the other, as an image."""
    rows = torch.cat([batch.crop, out], dim=2).permute(2, 0, 3, 1)
    return np.asarray((rows.reshape(rows.shape[0], -1, 3) * 255).round().byte().cpu())
