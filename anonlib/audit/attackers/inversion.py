"""The inversion attack: paint the clear face anew, then ask recognizers that had no part in the painting.

A small U-Net (Ronneberger et al. 2015, arXiv 1505.04597) is trained on pairs of clear and released photos of the
attacker's own people. It starts from what a linear map restores, is paid for pixels (L1) and for the vector that one
recognizer gives the painted face, and other recognizers say who is in it. Not the sharpest painter, but every identity
that it brings back was in the release.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anonlib.audit.attackers.held import SIDE, Again, Drawn, Held, Pairs, Pixels, Points, Rows, split
from anonlib.audit.attackers.linear import Restorer, fit_restorer
from anonlib.audit.attackers.recovered import Recovered, recover
from anonlib.audit.attackers.student import NETWORK
from anonlib.faces import align
from anonlib.models.catalog import MODELS
from anonlib.models.torch_graph import TorchGraph

Embed = Callable[[Sequence[Pixels], Sequence[Points]], NDArray[np.float32]]
"""Pictures and their five points -> unit rows: Recognizer.embed."""

_BATCH, _MOVED = 16, 2
_RATE = 2e-3
_FEATURE = 0.1
"""What a recognizer's disagreement of 1 costs, beside an L1 of 1 in pictures of 0-1."""


@dataclass(frozen=True)
class Inversion:
    """What each recognizer recovers from the painted faces, which are `painted` (n, SIDE, SIDE, 3)."""

    recovered: Mapping[str, Recovered]
    painted: Pixels
    steps: int
    seconds: float


class Painter(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """Released and linearly restored frames (n, 6, SIDE, SIDE) in 0-1 -> clear ones (n, 3, SIDE, SIDE)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        widths = (width, width * 2, width * 3, width * 4)
        self.stem = nn.Conv2d(6, widths[0], 4, stride=2, padding=1)
        self.down = nn.ModuleList(_block(a, b, 2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(
            _block(a + b, b, 1) for a, b in zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True)
        )
        self.draw = nn.Conv2d(widths[0], 12, 3, padding=1)
        nn.init.zeros_(self.draw.weight)
        nn.init.zeros_(self.draw.bias)

    def forward(self, frames: Tensor) -> Tensor:
        levels = [F.relu(self.stem(frames))]
        for block in self.down:
            levels.append(block(levels[-1]))
        value = levels.pop()
        for block in self.up:
            level = levels.pop()
            value = block(torch.cat([F.interpolate(value, scale_factor=2.0), level], dim=1))
        return (frames[:, 3:] + F.pixel_shuffle(self.draw(value), 2)).clamp(0, 1)


def invert(
    held: Held,
    network: bytes,
    recognizers: Mapping[str, Embed],
    *,
    again: Again | None = None,
    steps: int = 500,
    threads: int = 2,
    device: str = "cpu",
    seed: int = 0,
) -> Inversion:
    """Train on some of the people of `held`, paint all, and attack the others by each of `recognizers`.

    `network` are the bytes of student.NETWORK, which helps to train and may not judge: raises ValueError if it is
    among the recognizers, or if there are fewer than eight people.
    """
    if NETWORK in recognizers:
        raise ValueError(f"{NETWORK} helps to train the painter and cannot judge what it paints")
    began, before = time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    parts, pairs = split(held.people, seed), Pairs(held, again)
    restorer = fit_restorer(pairs, parts, _MOVED, random)
    learn = pairs.many(parts.learn, _MOVED, random)
    painter = _trained(network, learn, restorer, random, steps, device)
    painted = _paint(painter, held, restorer, device)
    torch.set_num_threads(before)
    points = restorer.find(held.released, held.boxes)
    recovered = {
        name: recover(embed(list(painted), list(points)), held.vectors[name], held.people, parts)
        for name, embed in recognizers.items()
    }
    return Inversion(recovered, painted, steps, time.monotonic() - began)


def _trained(
    network: bytes, learn: Drawn, restorer: Restorer, random: np.random.Generator, steps: int, device: str
) -> Painter:
    judge = TorchGraph(network).eval().to(device)
    painter: Painter = Painter().to(device)
    optimizer = torch.optim.AdamW(painter.parameters(), lr=_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps + 1)
    restored = restorer(learn.released, learn.boxes)
    for _ in range(steps):
        batch: Rows = random.integers(0, len(learn.rows), _BATCH)
        clear = _tensor(learn.clear[batch], device)
        painted = painter(_asked(learn.released[batch], restored[batch], device))
        views = _views(painted, learn.points[batch])
        with torch.no_grad():
            wanted = judge(_views(clear, learn.points[batch]))[0]
        likeness = F.cosine_similarity(judge(views)[0], wanted)
        loss = F.l1_loss(painted, clear) + _FEATURE * (1 - likeness).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(painter.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return painter


def _paint(painter: Painter, held: Held, restorer: Restorer, device: str) -> Pixels:
    painted = np.empty_like(held.released)
    with torch.inference_mode():
        for start in range(0, len(painted), 64):
            some = slice(start, start + 64)
            restored = restorer(held.released[some], held.boxes[some])
            out = painter(_asked(held.released[some], restored, device)).cpu().numpy()
            painted[some] = np.rint(out.transpose(0, 2, 3, 1) * 255)
    return painted


def _views(frames: Tensor, points: Points) -> Tensor:
    """The judge's input (n, 3, 112, 112), cut out of frames (n, 3, SIDE, SIDE) in 0-1 so that gradients flow."""
    wanted = MODELS[NETWORK].input
    size, target = (wanted.size or (0, 0))[0], np.array(wanted.landmarks(), np.float32)
    whole = np.eye(3, dtype=np.float64)
    # Pixel centres to torch's -1..1 and back, at both ends of the transform.
    to_unit = np.array([[2 / SIDE, 0, 1 / SIDE - 1], [0, 2 / SIDE, 1 / SIDE - 1], [0, 0, 1]])
    to_pixel = np.array([[size / 2, 0, size / 2 - 0.5], [0, size / 2, size / 2 - 0.5], [0, 0, 1]])
    maps = []
    for five in points:
        whole[:2] = align.inverse(align.similarity(five, target))
        maps.append((to_unit @ whole @ to_pixel)[:2])
    grid = F.affine_grid(
        torch.tensor(np.array(maps), dtype=torch.float32, device=frames.device),
        [len(frames), 3, size, size],
        align_corners=False,
    )
    views = F.grid_sample(frames, grid, align_corners=False)
    mean = torch.tensor(wanted.mean, device=frames.device).reshape(1, 3, 1, 1)
    return (views * 255 - mean) * wanted.scale


def _asked(released: Pixels, restored: Pixels, device: str) -> Tensor:
    return torch.cat([_tensor(released, device), _tensor(restored, device)], dim=1)


def _tensor(frames: Pixels, device: str) -> Tensor:
    values = np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
    return torch.from_numpy(values).to(device)


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(),
    )
