"""The trainer of every network: a generator against a critic, resumable, the same on a CPU and a GPU.

A run has a folder: checkpoint.pt (weights, their moving average, optimizers, random state, record), run.json, and
metrics.jsonl with a line every few minutes. A run that is killed at any moment continues from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anonlib.errors import ConfigError
from anonlib.storage.local import LocalStorage
from anonlib.synthesis.base import DecoderNotes

CHECKPOINT, METRICS, NOTES = "checkpoint.pt", "metrics.jsonl", "run.json"
KSAME_NET, EMBEDDING = "ksame-net", "embedding"

_PAUSE_SECONDS = 300.0  # after which a run is measured and saved
_SLOPE, _WARM_STEPS = 0.2, 200
_KEPT = 0.999  # share of the old weights that the average keeps each step; less at first, when they are of no use


@dataclass(frozen=True)
class TrainingSettings:
    """`seconds`: how long a run may take in all; `rate` of learning at first; `bf16`: half the bits for products."""

    seconds: float
    rate: float = 6e-4
    device: str = "cpu"
    bf16: bool = True
    threads: int = 2
    seed: int = 0


class Objective(ABC):
    """Of the `networks` generator, critic and average, the generator's moving average is measured and shipped.

    `weights`: how much each part of the loss counts.
    """

    weights: ClassVar[Mapping[str, float]]

    def __init__(
        self, settings: TrainingSettings, generator: nn.Module, critic: nn.Module, groups: Iterable[Any], beta: float
    ) -> None:
        self.settings = settings
        networks = {
            "generator": generator,
            "critic": critic,
            "average": deepcopy(generator).eval().requires_grad_(False),
        }
        self.networks: Mapping[str, nn.Module] = {
            name: network.to(settings.device, memory_format=torch.channels_last) for name, network in networks.items()
        }
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            "generator": torch.optim.Adam(groups, settings.rate, betas=(beta, 0.99)),
            "critic": torch.optim.Adam(critic.parameters(), settings.rate, betas=(0.5, 0.99)),
        }

    @abstractmethod
    def step(self, random: np.random.Generator, progress: float) -> dict[str, float]:
        """One step of every optimizer, `progress` 0-1 of the run; returns what to record."""

    @abstractmethod
    def measure(self, generator: nn.Module) -> dict[str, float]:
        """Figures on faces that are not trained on."""

    def train(self, folder: Path, about: DecoderNotes, **notes: Any) -> dict[str, Any]:
        """Go on in `folder` until the settings' seconds are spent; what is known of the run is in run.json.

        Returns the record: `steps`, `seconds` spent in all pieces, the `machine` it ran on last, its last `figures`.
        """
        settings, random = self.settings, np.random.default_rng(self.settings.seed)
        torch.set_num_threads(settings.threads)
        record: dict[str, Any] = {"steps": 0, "seconds": 0.0, "figures": {}}
        if (folder / CHECKPOINT).exists():
            state = torch.load(folder / CHECKPOINT, map_location=settings.device, weights_only=True)
            for parts in ("networks", "optimizers"):
                for name, part in getattr(self, parts).items():
                    part.load_state_dict(state[parts][name])
            random.bit_generator.state = json.loads(state["random"])
            record = dict(state["record"])
        cpu = f"{settings.threads} threads of {platform.machine()} CPU"
        record["machine"] = torch.cuda.get_device_name(settings.device) if settings.device.startswith("cuda") else cpu
        began, before = time.monotonic(), record["seconds"]
        paused, losses = began, list[dict[str, float]]()
        while True:
            over = record["seconds"] >= settings.seconds
            if over or time.monotonic() - paused >= _PAUSE_SECONDS:
                self._pause(folder, random, record, losses)
                paused, losses = time.monotonic(), []
            if over:
                break
            losses.append(self._stepped(random, record))
            record["seconds"] = before + time.monotonic() - began
        facts = {"about": asdict(about), "weights": self.weights, "settings": asdict(settings), "record": record}
        LocalStorage(folder).publish(NOTES, json.dumps({**notes, **facts}, indent=1).encode())
        return record

    def _stepped(self, random: np.random.Generator, record: dict[str, Any]) -> dict[str, float]:
        """One more step at the learning rate of the moment; the average moves towards the weights."""
        progress = record["seconds"] / self.settings.seconds
        rate = self.settings.rate * min(1.0, record["steps"] / _WARM_STEPS) * 0.5 * (1 + math.cos(math.pi * progress))
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("scale", 1.0)
        losses = self.step(random, progress)
        record["steps"] += 1
        kept = min(_KEPT, (1 + record["steps"]) / (10 + record["steps"]))
        new = self.networks["generator"].state_dict()
        for name, old in self.networks["average"].state_dict().items():
            if old.dtype.is_floating_point:
                old.lerp_(new[name].to(old.dtype), 1 - kept)
            else:
                old.copy_(new[name])
        return losses

    def _pause(
        self, folder: Path, random: np.random.Generator, record: dict[str, Any], losses: Sequence[Mapping[str, float]]
    ) -> None:
        """Measure the average, append to metrics.jsonl, and save all."""
        if losses:
            with torch.inference_mode():
                record["figures"] = self.measure(self.networks["average"])
            means = {name: sum(row.get(name, 0.0) for row in losses) / len(losses) for name in losses[-1]}
            with (folder / METRICS).open("a") as file:
                file.write(json.dumps(means | record) + "\n")
        state: dict[str, Any] = {
            parts: {name: part.state_dict() for name, part in getattr(self, parts).items()}
            for parts in ("networks", "optimizers")
        }
        part = folder / f"{CHECKPOINT}.part"
        torch.save(state | {"random": json.dumps(random.bit_generator.state), "record": dict(record)}, part)
        part.replace(folder / CHECKPOINT)

    def autocast(self) -> AbstractContextManager[Any]:
        """Half the bits for convolutions and products, where the settings say so."""
        device = self.settings.device.partition(":")[0]
        context: AbstractContextManager[Any] = torch.autocast(device, dtype=torch.bfloat16, enabled=self.settings.bf16)
        return context

    def descend(self, loss: Tensor, longest: float) -> None:
        """A step of the generator, along a gradient of at most that length."""
        optimizer = self.optimizers["generator"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.networks["generator"].parameters(), longest)
        optimizer.step()

    def criticized(self, *inputs: Tensor) -> Tensor:
        """How far the critic takes patches for those of a photo."""
        with self.autocast():
            answer = self.networks["critic"](*inputs)
        return answer.float()

    def unreal(self, *inputs: Tensor) -> Tensor:
        """The generator's loss by the critic, which does not learn from it."""
        self.networks["critic"].requires_grad_(False)
        loss = -self.criticized(*inputs).mean()
        self.networks["critic"].requires_grad_(True)
        return loss

    def teach_critic(self, real: Tensor, drawn: Tensor) -> float:
        """A step of the critic by its answers to both; its hinge loss, which is 2 where it cannot tell them apart."""
        optimizer = self.optimizers["critic"]
        hinge = F.relu(1 - real).mean() + F.relu(1 + drawn).mean()
        optimizer.zero_grad(set_to_none=True)
        hinge.backward()
        optimizer.step()
        return float(hinge.detach())


class Critic(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """Says of patches whether they come from a photo: images (n, 3, s, s) -> (n, 1, s / 16, s / 16).

    It sees where a patch lies, since faces are aligned, and with `claims` numbers (n, claims) what the face claims to
    be (projection, Miyato and Koyama 2018).
    """

    def __init__(self, width: int = 32, claims: int = 0) -> None:
        super().__init__()
        widths = (5, width, 2 * width, 4 * width, 4 * width)
        normed = nn.utils.parametrizations.spectral_norm
        self.layers = nn.ModuleList([normed(nn.Conv2d(a, b, 4, 2, 1)) for a, b in pairwise(widths)])
        self.answer = normed(nn.Conv2d(widths[-1], 1, 3, padding=1))
        self.claimed = normed(nn.Linear(claims, widths[-1])) if claims else None

    def forward(self, images: Tensor, claim: Tensor | None = None) -> Tensor:
        count, _, side, _ = images.shape
        line = torch.linspace(-1, 1, side, device=images.device, dtype=images.dtype)
        where = torch.stack(torch.meshgrid(line, line, indexing="xy")).expand(count, 2, side, side)
        x = torch.cat([4 * images, where], dim=1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), _SLOPE)
        answer = self.answer(x)
        if self.claimed is not None and claim is not None:
            answer = answer + (self.claimed(claim)[:, :, None, None] * x).sum(dim=1, keepdim=True)
        return answer


def read_notes(folder: Path) -> dict[str, Any]:
    """What run.json says of a run; raises ConfigError if no piece of it is done."""
    try:
        notes: dict[str, Any] = json.loads((folder / NOTES).read_text())
    except FileNotFoundError:
        raise ConfigError(f"{folder} holds no finished piece of a training run; train there first") from None
    return notes
