"""The network of `embedding`: a U-Net that tints and moves a face a little, so that recognizers read another person.

After Hanawa et al. 2024 (10.1186/s13640-024-00646-z), with three additions. Crops are aligned, so what the donor has
and the person has not is mostly a fixed picture for each direction of the identity space: a linear map proposes it (see
`begin`), and the U-Net corrects it; left alone it finds specks and grids that deceive its own recognizers and no
others. The direction modulates the bottleneck and the decoder (FiLM, Perez et al. 2018). Beside the tint stands a
coarse field of shifts. There is no normalization: a face's output must not depend on its batch.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anonlib.synthesis.feature_transfer import FLOW_SIDE, MOST_CHANGE, MOST_SHIFT, SIDE
from anonlib.workspace.schemas import EMBEDDING_DIM

from .generator_network import doubled

WIDTHS = (24, 40, 80, 128)  # channels at 64, 32, 16 and 8 px
RANK, DRAWN_SIDE = 80, SIDE // 2  # of the linear map, and the side of what it draws
SLOPE = 0.1
_STYLE, _QUIET, _RIDGE, _BLOCK = 128, 0.1, 30.0, 1000
_FINEST = 5.0  # standard deviation in px, of DRAWN_SIDE, of what is too smooth to be a feature
_COLOUR = 0.3  # how much of its colours is kept: a face is told by shades, and blue ones are seen at once
_STRETCH = 2.0  # regression answers fainter than faces are; more is stronger and shows more


class UNetBlock(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """Residual convolutions, modulated by a style where one is given."""

    def __init__(self, width: int, styled: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.film = nn.Linear(_STYLE, 2 * width) if styled else None
        with torch.no_grad():
            self.second.weight.mul_(_QUIET)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        inner = self.first(F.leaky_relu(x, SLOPE))
        if self.film is not None and style is not None:
            scale, shift = self.film(style)[..., None, None].chunk(2, dim=1)
            inner = inner * (1 + scale) + shift
        return x + self.second(F.leaky_relu(inner, SLOPE))


class FeatureTransferNet(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """Crops (n, 3, SIDE, SIDE) in 0-1 and directions (n, 128) -> tints like the crops, shifts (n, 2, 16, 16) px.

    A direction leads from the person to the donor, in the identity space.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rank = nn.Linear(EMBEDDING_DIM, RANK, bias=False)
        self.draw = nn.Linear(RANK, 3 * DRAWN_SIDE**2, bias=False)
        self.stem = nn.Conv2d(6, WIDTHS[0], 4, 2, 1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(WIDTHS))
        self.encoder = nn.ModuleList(UNetBlock(width, False) for width in WIDTHS[1:3])
        self.middle = nn.ModuleList(UNetBlock(WIDTHS[3], True) for _ in range(2))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 4, 2, 1) for a, b in reversed(list(pairwise(WIDTHS))))
        self.decoder = nn.ModuleList(UNetBlock(width, True) for width in reversed(WIDTHS[:3]))
        self.style = nn.Linear(EMBEDDING_DIM, _STYLE)
        self.flow = nn.Conv2d(WIDTHS[2], 2, 3, padding=1)
        self.out = nn.Conv2d(WIDTHS[0], 6, 3, padding=1)
        with torch.no_grad():
            for layer in (self.flow, self.out):
                layer.weight.mul_(_QUIET)
                layer.bias.zero_()

    def forward(self, crop: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        drawn = self.draw(self.rank(direction)).reshape(-1, 3, DRAWN_SIDE, DRAWN_SIDE)
        # A direction's numbers are about 1/sqrt(64) each.
        style = F.leaky_relu(self.style(direction * (EMBEDDING_DIM / 2) ** 0.5), SLOPE)
        x = self.stem(torch.cat([2 * crop - 1, 4 * doubled(drawn)], dim=1))
        skips = [x]
        for down, block in zip(self.down, self.encoder, strict=False):
            x = block(down(F.leaky_relu(x, SLOPE)))
            skips.append(x)
        x = self.down[-1](F.leaky_relu(x, SLOPE))
        for block in self.middle:
            x = block(x, style)
        shifts = x
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(up(F.leaky_relu(x, SLOPE)) + skips.pop(), style)
            if x.shape[-1] == FLOW_SIDE:
                shifts = MOST_SHIFT * torch.tanh(self.flow(F.leaky_relu(x, SLOPE)))
        added, kept = self.out(F.leaky_relu(x, SLOPE)).chunk(2, dim=1)
        tint = MOST_CHANGE * torch.tanh(2 / MOST_CHANGE * torch.sigmoid(kept) * drawn + added)
        return doubled(tint), shifts


def applied(crop: Tensor, alpha: Tensor, tints: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
    """What a change makes of crops (n, 3, s, s) where alpha (n, 1, s, s) lets it: the px, and the shifts (n, 2, s, s).

    The same as anonlib.synthesis.feature_transfer does to a photo.
    """
    side = crop.shape[-1]
    moved = alpha * F.interpolate(shifts, size=(side, side), mode="bilinear", align_corners=False)
    centres = (torch.arange(side, device=crop.device, dtype=crop.dtype) + 0.5) * 2 / side - 1
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    grid = torch.stack([columns + moved[:, 0] * 2 / side, rows + moved[:, 1] * 2 / side], dim=-1)
    warped = F.grid_sample(crop, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return (warped + alpha * tints).clamp(0, 1), moved


def moved_points(points: Tensor, shifts: Tensor) -> Tensor:
    """Where five points (n, 5, 2) px lie after px at q were fetched from q + shifts (n, 2, s, s)."""
    grid = ((points + 0.5) * 2 / shifts.shape[-1] - 1)[:, :, None, :]
    sampled = F.grid_sample(shifts, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return points - sampled[..., 0].transpose(1, 2)


def begin(net: FeatureTransferNet, crops: NDArray[np.uint8], points: NDArray[np.float32]) -> None:
    """Set the net's linear map to what a crop in 0-1 gains with each number of a centred identity vector.

    Ridge regression from points (n, d) to crops (n, s, s, 3), symmetric, since half of all light comes from the left.
    Only what is finer than a cheek is kept: tone and light stay the photo's.
    """
    products = np.zeros((points.shape[1], 3 * DRAWN_SIDE**2))
    for start in range(0, len(crops), _BLOCK):
        part = crops[start : start + _BLOCK]
        small = [cv2.resize(crop, (DRAWN_SIDE, DRAWN_SIDE), interpolation=cv2.INTER_AREA) for crop in part]
        pixels = np.stack(small).astype(np.float32)
        symmetric = (pixels + pixels[:, :, ::-1]) / (2 * 255)
        symmetric = (symmetric - symmetric.mean(axis=(1, 2, 3), keepdims=True)).reshape(len(part), -1)
        products += points[start : start + _BLOCK].T @ symmetric
    normal = points.T.astype(np.float64) @ points + _RIDGE * np.eye(points.shape[1])
    drawn = np.linalg.solve(normal, products).astype(np.float32).reshape(-1, DRAWN_SIDE, DRAWN_SIDE, 3)
    fine = np.stack([picture - cv2.GaussianBlur(picture, (0, 0), _FINEST) for picture in drawn]).astype(np.float32)
    grey = fine.mean(axis=3, keepdims=True)
    wanted = _STRETCH * (grey + _COLOUR * (fine - grey)).transpose(0, 3, 1, 2).reshape(len(fine), -1)
    left, strength, right = np.linalg.svd(wanted, full_matrices=False)
    spread = np.sqrt(strength[:RANK])
    with torch.no_grad():
        net.rank.weight.copy_(torch.from_numpy((left[:, :RANK] * spread).T.copy()))
        net.draw.weight.copy_(torch.from_numpy((right[:RANK].T * spread).copy()))
