"""A small U-Net that paints clear faces where released ones were (Ronneberger et al. 2015, arXiv 1505.04597).

It is paid for pixels (L1) and for the vector that one recognizer, NETWORK, gives what it paints.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anonlib.audit.trained.data import SIDE, BatchDraw, Pixels, Points, Rows
from anonlib.audit.trained.linear import Restorer
from anonlib.audit.trained.recognizer import NETWORK
from anonlib.faces import align
from anonlib.models.catalog import MODELS
from anonlib.models.torch_graph import TorchGraph

_BATCH = 16
_RATE = 2e-3
_FEATURE = 0.1
"""What a recognizer's disagreement of 1 costs, beside an L1 of 1 in pictures of 0-1."""


class FaceUNet(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
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


def trained_painter(
    network: bytes, learn: BatchDraw, restorer: Restorer, random: np.random.Generator, steps: int, device: str
) -> FaceUNet:
    """A painter after `steps` of 16 pairs of `learn`; `network` are the bytes of NETWORK."""
    judge = TorchGraph(network).eval().to(device)
    painter: FaceUNet = FaceUNet().to(device)
    optimizer = torch.optim.AdamW(painter.parameters(), lr=_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps + 1)
    restored = restorer(learn.released, learn.boxes)
    for _ in range(steps):
        batch: Rows = random.integers(0, len(learn.rows), _BATCH)
        clear = _tensor(learn.clear[batch], device)
        painted = painter(_asked(learn.released[batch], restored[batch], device))
        views = judged(painted, learn.points[batch])
        with torch.no_grad():
            wanted = judge(judged(clear, learn.points[batch]))[0]
        likeness = F.cosine_similarity(judge(views)[0], wanted)
        loss = F.l1_loss(painted, clear) + _FEATURE * (1 - likeness).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(painter.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return painter


def paint(painter: FaceUNet, restorer: Restorer, released: Pixels, boxes: Points, device: str) -> Pixels:
    """Frames (n, SIDE, SIDE, 3) painted over released ones with boxes (n, 4)."""
    painted = np.empty_like(released)
    with torch.inference_mode():
        for start in range(0, len(painted), 64):
            some = slice(start, start + 64)
            restored = restorer(released[some], boxes[some])
            out = painter(_asked(released[some], restored, device)).cpu().numpy()
            painted[some] = np.rint(out.transpose(0, 2, 3, 1) * 255)
    return painted


def judged(frames: Tensor, points: Points) -> Tensor:
    """The recognizer's input (n, 3, 112, 112), cut out of frames (n, 3, SIDE, SIDE) in 0-1 so that gradients flow."""
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
