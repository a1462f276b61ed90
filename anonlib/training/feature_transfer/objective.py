"""What the network is trained for: a step of it, what it has come to, and a sheet to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anonlib.models.catalog import MODELS
from anonlib.models.convert.graph import Value, read_onnx
from anonlib.models.requirements import PIPELINE_RECOGNIZER
from anonlib.models.torch_graph import TorchGraph
from anonlib.training.feature_transfer.data import Batch, Batches, CropSet
from anonlib.training.feature_transfer.network import FeatureTransferNet, applied
from anonlib.training.feature_transfer.recognizers import Reader, moved_points, view
from anonlib.training.feature_transfer.warm_start import begin
from anonlib.training.generator.faces import SECOND_RECOGNIZER
from anonlib.training.generator.network import Critic
from anonlib.training.loop import Settings, autocast, grid_of

READERS = (PIPELINE_RECOGNIZER, SECOND_RECOGNIZER)
"""Recognizers that the network learns to deceive; those that judge it are never among them."""
LOOKS = "expression"
HELD_OUT = 128
"""Faces at the end of the data that are measured and shown, and not trained on."""

_LAYERS = ("t16", "t31")
"""Of the expression network, the ends of its first two stages."""
_LOOKS_SHARE = 0.25
"""Share of the steps that ask it: it costs as much as a recognizer."""
_FIRST_SHARE = 0.5
"""Share of the steps that ask the first recognizer, which costs three times the second."""
_LINEAR_RATE = 0.1
"""How fast the linear map learns, which begins where it may stay, beside the rest."""
_HARD = 10.0
"""How much faster than in proportion a tint costs."""
_CRITIC_FROM = 0.02
"""Share of the run after which the critic is heard: before, the outputs are the photos."""
_SHOWN = 8
_SHEET_SEED = 5


@dataclass(frozen=True)
class FeatureTransferLossWeights:
    """How much each part of the loss counts."""

    donor: float = 0.8
    source: float = 3.0
    change: float = 2.0
    tint: float = 3.0
    colour: float = 10.0
    shift: float = 0.015
    looks: float = 0.3
    critic: float = 0.8


class FeatureTransferTraining:
    """A task of anonlib.training.loop: `models` are the bytes of READERS and LOOKS."""

    def __init__(
        self,
        faces: CropSet,
        models: Mapping[str, bytes],
        settings: Settings,
        *,
        weights: FeatureTransferLossWeights = FeatureTransferLossWeights(),
        batch: int = 8,
    ) -> None:
        self.settings, self.weights = settings, weights
        self.batches = Batches(faces, batch, len(faces) - HELD_OUT, settings.device)
        torch.manual_seed(settings.seed)
        net = FeatureTransferNet()
        begin(net, faces)
        self.net = net.to(settings.device, memory_format=torch.channels_last)
        linear = [*net.wish.parameters(), *net.draw.parameters()]
        rest = [one for one in net.parameters() if all(one is not other for other in linear)]
        self.critic = Critic(told=1).to(settings.device, memory_format=torch.channels_last)
        self.networks: Mapping[str, nn.Module] = {"generator": self.net, "critic": self.critic}
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            "generator": torch.optim.Adam(
                [{"params": rest}, {"params": linear, "scale": _LINEAR_RATE}], betas=(0.9, 0.99)
            ),
            "critic": torch.optim.Adam(self.critic.parameters(), betas=(0.5, 0.99)),
        }
        centres = faces.centres()
        self.readers = [
            Reader(name, self._frozen(models[name]), torch.from_numpy(centres[name]).to(settings.device))
            for name in READERS
        ]
        self.looks = self._frozen(_up_to(models[LOOKS], _LAYERS))

    def step(self, random: np.random.Generator, progress: float) -> dict[str, float]:
        """One batch; returns the parts of the loss and how near the outputs are to donor and source."""
        batch = self.batches.draw(random)
        out, moved, tints = self._changed(self.net, batch)
        parts = self._price(batch, out, moved, tints, random.random() < _LOOKS_SHARE)
        if progress >= _CRITIC_FROM:
            self.critic.requires_grad_(False)
            parts["critic"] = -self._believed(out, batch).mean()
            self.critic.requires_grad_(True)
        figures = {name: float(value.detach()) for name, value in parts.items()}
        counts = asdict(self.weights)
        loss = torch.stack([counts[name] * value for name, value in parts.items()]).sum()
        points = moved_points(batch.points, moved)
        for reader in self.readers if random.random() < _FIRST_SHARE else self.readers[1:]:
            with autocast(self.settings):
                vectors = reader.embed(out, points, random)
            to_donor = (vectors * batch.donor[reader.name]).sum(dim=1)
            to_source = (vectors * batch.own[reader.name]).sum(dim=1)
            loss = loss + self.weights.donor * (1 - to_donor).mean() + self.weights.source * F.relu(to_source).mean()
            figures |= {f"{reader.name} to donor": float(to_donor.detach().mean())}
            figures |= {f"{reader.name} to source": float(to_source.detach().mean())}
        optimizer = self.optimizers["generator"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        optimizer.step()
        return figures | {"hinge": self._taught(out.detach(), batch)}

    def _taught(self, out: Tensor, batch: Batch) -> float:
        """A step of the critic, which tells outputs from photos; its loss, 2 for one that is lost."""
        optimizer = self.optimizers["critic"]
        hinge = F.relu(1 - self._believed(batch.crop, batch)).mean() + F.relu(1 + self._believed(out, batch)).mean()
        optimizer.zero_grad(set_to_none=True)
        hinge.backward()
        optimizer.step()
        return float(hinge.detach())

    def _believed(self, crops: Tensor, batch: Batch) -> Tensor:
        """How far the critic takes patches for a photo of somebody of that gender."""
        with autocast(self.settings):
            answer = self.critic((crops - 0.5).contiguous(memory_format=torch.channels_last), batch.female)
        return answer.float()

    def measure(self, generator: nn.Module) -> dict[str, float]:
        """Cosines to source and donor, each about the recognizer's centre, and how much of the photo is kept."""
        batch = self._held_out(HELD_OUT)
        figures: dict[str, list[float]] = {}
        bounds = [*range(0, HELD_OUT, self.batches.size), HELD_OUT]
        for part in (batch.part(slice(*ends)) for ends in pairwise(bounds)):
            out, moved, _ = self._changed(generator, part)
            points = moved_points(part.points, moved)
            inside = part.alpha.mean(dim=(1, 2, 3))
            error = (part.alpha * (out - part.crop).square()).mean(dim=(1, 2, 3)) / inside
            figures.setdefault("dB", []).extend((-10 * error.clamp(min=1e-8).log10()).tolist())
            for reader in self.readers:
                vectors = reader.embed(out, points, None)
                for end, known in (("source", part.own), ("donor", part.donor)):
                    cosines = (vectors * known[reader.name]).sum(dim=1).tolist()
                    figures.setdefault(f"{reader.name} to {end}", []).extend(cosines)
        return {name: float(np.mean(values)) for name, values in figures.items()}

    def sheet(self, generator: nn.Module) -> NDArray[np.uint8]:
        """Held-out faces, each above what became of it."""
        batch = self._held_out(2 * _SHOWN)
        pictures = []
        for images in (batch.crop, self._changed(generator, batch)[0]):
            pictures.append((images.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy())
        return grid_of(one[start : start + _SHOWN] for start in (0, _SHOWN) for one in pictures)

    def _changed(self, generator: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs, where their px were moved, and how they were tinted."""
        with autocast(self.settings):
            tints, shifts = generator(batch.crop.contiguous(memory_format=torch.channels_last), batch.direction)
        out, moved = applied(batch.crop, batch.alpha, tints.float(), shifts.float())
        return out, moved, batch.alpha * tints.float()

    def _price(self, batch: Batch, out: Tensor, moved: Tensor, tints: Tensor, looked_at: bool) -> dict[str, Tensor]:
        """What a change costs, by the names of Weights."""
        share = batch.alpha.mean()
        parts = {
            "change": (tints.abs() + _HARD * tints.square()).mean() / share,
            "colour": (tints - tints.mean(dim=1, keepdim=True)).abs().mean() / share,
            "tint": F.avg_pool2d(tints, 16).abs().mean() / share,
            "shift": moved.square().sum(dim=1).mean() / share,
        }
        if not looked_at:
            return parts
        card = MODELS[LOOKS].input
        target, side = torch.tensor(card.landmarks(), device=out.device), card.size[0] if card.size else 0
        mean = torch.tensor(card.mean, device=out.device).reshape(1, 3, 1, 1)
        with autocast(self.settings):
            before, after = (
                self.looks((view(image, batch.points, target, side, None) * 255 - mean) * card.scale)
                for image in (batch.crop, out)
            )
        looks = [(a - b).abs().mean() / b.abs().mean() for a, b in zip(after, before, strict=True)]
        return parts | {"looks": torch.stack(looks).sum() / _LOOKS_SHARE}

    def _held_out(self, count: int) -> Batch:
        rows = np.arange(len(self.batches.faces) - count, len(self.batches.faces))
        donors = self.batches.donors(rows, np.random.default_rng(_SHEET_SEED))
        return self.batches.of(rows, donors, np.zeros(count, np.bool_))

    def _frozen(self, model: bytes) -> nn.Module:
        graph = TorchGraph(model).eval().requires_grad_(False)
        return graph.to(self.settings.device, memory_format=torch.channels_last)


def _up_to(model: bytes, layers: tuple[str, ...]) -> bytes:
    """The same ONNX, answering with `layers` instead."""
    graph = read_onnx(model, "features")
    graph.outputs = [Value(name, ("n", "c", "h", "w")) for name in layers]
    graph.prune()
    return graph.to_bytes()
