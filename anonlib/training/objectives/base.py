"""What the objectives share: a generator that is trained against a critic, and how both take a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

SLOPE = 0.2
"""Of the critic's leaky activations."""


@dataclass(frozen=True)
class TrainingSettings:
    """`seconds`: how long a run may take, all its pieces together; `rate` of learning falls to none at the end.

    `bf16`: half the bits for convolutions and products.
    """

    seconds: float
    rate: float = 6e-4
    device: str = "cpu"
    bf16: bool = True
    threads: int = 2
    seed: int = 0


class Objective(ABC):
    """Of the two `networks`, generator and critic, the generator's moving average is measured, shown and shipped."""

    def __init__(
        self, settings: TrainingSettings, generator: nn.Module, critic: nn.Module, groups: Iterable[Any], beta: float
    ) -> None:
        self.settings = settings
        self.networks: Mapping[str, nn.Module] = {
            name: network.to(settings.device, memory_format=torch.channels_last)
            for name, network in (("generator", generator), ("critic", critic))
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

    @abstractmethod
    def sheet(self, generator: nn.Module) -> NDArray[np.uint8]:
        """A picture (H, W, 3) of what a generator draws."""

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
            x = F.leaky_relu(layer(x), SLOPE)
        answer = self.answer(x)
        if self.claimed is not None and claim is not None:
            answer = answer + (self.claimed(claim)[:, :, None, None] * x).sum(dim=1, keepdim=True)
        return answer


def grid_of(rows: Iterable[Iterable[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Pictures of one size as one picture."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
