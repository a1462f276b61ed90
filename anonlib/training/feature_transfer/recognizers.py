"""How recognizers look at a changed face, with gradients: the worse their view, the less they can be gamed.

One recognizer is easily deceived by noise that no other minds, so two are asked, each through a view of its own:
turned, scaled and moved a little, sharp or coarse, brighter or darker, noisy, quantized as by a JPEG. A view is aligned
anew to the points of the face as they lie after the change, or a shift of the whole face would count as a new identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anonlib.models.catalog import MODELS

JITTER_SCALE, JITTER_TURN, JITTER_SHIFT = 0.05, 0.06, 0.025
"""Standard deviations of a view: log scale, radians, shares of its side."""
_COARSEST = 48
_NOISE, _BRIGHTER, _CONTRAST, _QUANTUM = 0.02, 0.06, 0.12, 0.04


@dataclass(frozen=True)
class Reader:
    """A recognizer that gradients pass through; `centre` (d,) is taken off its unit vectors."""

    name: str
    graph: nn.Module
    centre: Tensor

    def embed(self, images: Tensor, points: Tensor, rng: np.random.Generator | None) -> Tensor:
        """Unit vectors (n, d) of crops (n, 3, s, s), 0-1, with five points (n, 5, 2) px; seen as jittered by `rng`."""
        card = MODELS[self.name].input
        side = card.size[0] if card.size else 0
        target = torch.tensor(card.landmarks(), dtype=points.dtype, device=points.device)
        seen = view(images, points, target, side, rng)
        if rng is not None:
            seen = worsened(seen, rng)
        mean = torch.tensor(card.mean, device=images.device).reshape(1, 3, 1, 1)
        vectors = self.graph(((255 * seen - mean) * card.scale).contiguous(memory_format=torch.channels_last))[0]
        return F.normalize(F.normalize(vectors.float(), dim=1) - self.centre, dim=1)


def view(images: Tensor, points: Tensor, target: Tensor, side: int, rng: np.random.Generator | None) -> Tensor:
    """Images (n, 3, s, s) seen (n, 3, side, side) so that `points` (n, 5, 2) px fall on `target` (5, 2) px."""
    # A similarity is a complex number and an offset: least squares from target to points.
    to, of = torch.view_as_complex(target.contiguous()), torch.view_as_complex(points.contiguous())
    to_mean, of_mean = to.mean(), of.mean(dim=1, keepdim=True)
    spread = (to - to_mean).abs().square().sum()
    turn = ((to - to_mean).conj() * (of - of_mean)).sum(dim=1, keepdim=True) / spread
    if rng is not None:
        count = len(images)
        scale = np.exp(JITTER_SCALE * rng.standard_normal(count)) * np.exp(
            1j * JITTER_TURN * rng.standard_normal(count)
        )
        shift = JITTER_SHIFT * side * (rng.standard_normal(count) + 1j * rng.standard_normal(count))
        turn = turn * torch.from_numpy(scale[:, None]).to(turn)
        of_mean = of_mean + torch.from_numpy(shift[:, None]).to(turn) * turn
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    pixels = torch.complex(columns.float(), rows.float()).reshape(1, -1).to(turn)
    source = (torch.view_as_real((pixels - to_mean) * turn + of_mean) + 0.5) * 2 / images.shape[-1] - 1
    grid = source.reshape(len(images), side, side, 2)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def worsened(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images (n, 3, s, s) as a worse camera and a JPEG would leave them; each fault for about half of the batches."""
    side = images.shape[-1]
    if rng.random() < 0.5:
        coarse = int(rng.integers(_COARSEST, side))
        images = F.interpolate(images, size=(coarse, coarse), mode="bilinear", align_corners=False, antialias=True)
        images = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
    count = len(images)

    def each(spread: float) -> Tensor:
        return torch.from_numpy(spread * rng.standard_normal((count, 1, 1, 1))).to(images)

    if rng.random() < 0.5:
        images = (images - 0.5) * (1 + each(_CONTRAST)) + 0.5 + each(_BRIGHTER)
    if rng.random() < 0.5:
        images = images + torch.from_numpy(_NOISE * rng.standard_normal(images.shape, np.float32)).to(images)
    if rng.random() < 0.5:
        step = _QUANTUM
        images = images + (torch.round(images / step) * step - images).detach()
    return images.clamp(0, 1)


def moved_points(points: Tensor, shifts: Tensor) -> Tensor:
    """Where five points (n, 5, 2) px lie after px at q were fetched from q + shifts (n, 2, s, s)."""
    grid = ((points + 0.5) * 2 / shifts.shape[-1] - 1)[:, :, None, :]
    found = F.grid_sample(shifts, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return points - found[..., 0].transpose(1, 2)
