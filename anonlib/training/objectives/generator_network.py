"""The network of ksame-net: six up-sampling blocks from an identity and a look to a canonical texture.

After k-Same-Net (Meden et al. 2018). Here the identity is a vector instead of a one-hot, and what the blocks draw is
added to what the linear decoder draws, so that an untrained network is the linear decoder. Each block gets the wanted
look (FiLM, Perez et al. 2018) and the linear face at its own size.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anonlib.faces import topology
from anonlib.synthesis.canonical import canonical_frame
from anonlib.synthesis.textures.face_space import unpacked
from anonlib.synthesis.textures.ksame_net import LOOKS
from anonlib.synthesis.textures.linear import BOUND, Decoder
from anonlib.training.data import Floats

BASE = 128  # side in px at which the linear face is kept
WIDTHS = {4: 256, 8: 256, 16: 192, 32: 96, 64: 48, 128: 24, 256: 12}  # channels of the blocks by side
STYLE = 192
SLOPE = 0.2

_REACH, _FADE = 0.84, 8.0
_FLOOR = 4.0


class Generator(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """z (n, d) unit and look (n, LOOKS) -> detail (n, 3, size, size), log.

    The linear decoder is in it as products: face = [identity (r,), female, age, 1] @ `detail` (r + 3, 3 * BASE ** 2),
    and `shape` (r + 3, 1404) likewise. The identity is read by `axes` (r, d) and `offset` (r,), then scaled so that
    `codes` (r, c) of it has the length `stretch`.
    """

    def __init__(self, decoder: Decoder, look_mean: Floats, look_spread: Floats, size: int) -> None:
        super().__init__()
        sides = [side for side in WIDTHS if side <= size]
        if sides[-1] != size:
            raise ValueError(f"a texture is {', '.join(str(side) for side in WIDTHS)} px wide, not {size}")
        self.size, self.stretch = size, decoder.stretch
        count = len(decoder.space.detail)
        codes = np.concatenate([decoder.weights, decoder.intercept[None]])
        detail = np.stack([_small(row) for row in codes[:, :count] @ decoder.space.detail])
        shape = codes[:, count:] @ decoder.space.shape
        detail[-1] += _small(decoder.space.detail_mean)
        shape[-1] += decoder.space.shape_mean
        buffers = {"axes": decoder.axes, "offset": decoder.offset, "codes": decoder.weights[:-2], "detail": detail}
        buffers |= {"shape": shape, "look_mean": look_mean, "look_spread": look_spread}
        for name, values in buffers.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values)))
        self.register_buffer("zone", torch.from_numpy(zone_of(size))[None, None], persistent=False)
        self.mapping = nn.ModuleList([nn.Linear(len(decoder.axes) + len(LOOKS), STYLE), nn.Linear(STYLE, STYLE)])
        self.start = nn.Linear(STYLE, WIDTHS[4] * 16)
        self.blocks = nn.ModuleList([UpsamplingBlock(WIDTHS[a], WIDTHS[b], b) for a, b in pairwise(sides)])

    def identity(self, z: Tensor) -> Tensor:
        """The identity (n, r) as the linear decoder scales it."""
        identity = BOUND * torch.tanh((z @ self.axes.T - self.offset) / BOUND)
        codes = identity @ self.codes
        return identity * (self.stretch / (codes * codes).sum(dim=1, keepdim=True).sqrt())

    def base(self, identity: Tensor, look: Tensor) -> Tensor:
        """The linear face (n, 3, BASE, BASE)."""
        return _product(self.detail, identity, look).reshape(-1, 3, BASE, BASE)

    def shapes(self, z: Tensor, look: Tensor) -> Tensor:
        """Neutral shapes (n, 1404)."""
        return _product(self.shape, self.identity(z), look)

    def forward(self, z: Tensor, look: Tensor) -> Tensor:
        identity = self.identity(z)
        base = self.base(identity, look)
        style = torch.cat([identity, (look - self.look_mean) / self.look_spread], dim=1)
        for layer in self.mapping:
            style = F.leaky_relu(layer(style), SLOPE)
        x = F.leaky_relu(self.start(style), SLOPE).reshape(-1, WIDTHS[4], 4, 4)
        drawn: Tensor | None = None
        for block in self.blocks:
            shown = F.avg_pool2d(base, BASE // block.side) if block.side <= BASE else doubled(base)
            x, more = block(x, style, shown)
            drawn = more if drawn is None else doubled(drawn) + more
        assert drawn is not None
        return (base if self.size <= BASE else doubled(base)) + self.zone * drawn.float()


class UpsamplingBlock(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """Doubles the side to `side`; adds its own (n, 3, side, side) to the picture, nothing before it is trained."""

    def __init__(self, before: int, after: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.first = nn.Conv2d(before, after, 3, padding=1)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.shown = nn.Conv2d(3, after, 3, padding=1)
        self.film = nn.ModuleList([nn.Linear(STYLE, 2 * after) for _ in range(2)])
        self.draw = nn.Conv2d(after, 3, 3, padding=1)
        for layer in (*self.film, self.draw):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, style: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = F.leaky_relu(_modulated(self.first(x) + self.shown(shown), self.film[0](style)), SLOPE)
        x = F.leaky_relu(_modulated(self.second(x), self.film[1](style)), SLOPE)
        return x, self.draw(x)


def zone_of(side: int) -> Floats:
    """Where the network may add to the linear face (side, side), 0-1: from brows to chin.

    Further out a pattern could please a recognizer unseen, and a critic teaches it the strands of hair of its photos.
    """
    inside = cv2.GaussianBlur(canonical_frame().polygon(topology.OVAL, _REACH).astype(np.float32), (0, 0), _FADE)
    return np.asarray(cv2.resize(inside, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def doubled(picture: Tensor) -> Tensor:
    """(n, c, s, s) -> (n, c, 2s, 2s), linear in between; beyond the border lies zero."""
    channels = picture.shape[1]
    line = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=picture.dtype, device=picture.device)
    kernel = (line[:, None] * line).expand(channels, 1, 4, 4)
    return F.conv_transpose2d(picture, kernel, stride=2, padding=1, groups=channels)


def painted(detail: Tensor, grid: Tensor, alpha: Tensor, light: Tensor, ground: Tensor) -> Tensor:
    """Details (n, 3, s, s), log, painted into scenes as the renderer does: views (n, 3, V, V), 0-255.

    `grid` (n, V, V, 2) -1 to 1, `alpha` (n, 1, V, V) 0-1, `light` (n, 3, v, v) log, `ground` (n, 3, V, V) 0-255.
    """
    laid = F.grid_sample(detail, grid, mode="bilinear", padding_mode="border", align_corners=False)
    lit = F.interpolate(light, size=ground.shape[2:], mode="bilinear", align_corners=False)
    face = ((laid + lit).clamp(max=6.0).exp() - _FLOOR).clamp(0, 255)
    return ground + alpha * (face - ground)


def _product(rows: Tensor, identity: Tensor, look: Tensor) -> Tensor:
    """The linear decoder: identity (n, r), gender and age of look (n, LOOKS), and 1, times `rows` (r + 3, p)."""
    return identity @ rows[:-3] + look[:, :2] @ rows[-3:-1] + rows[-1]


def _modulated(x: Tensor, film: Tensor) -> Tensor:
    scale, shift = film[:, :, None, None].chunk(2, dim=1)
    return x * (1 + scale) + shift


def _small(values: Floats) -> Floats:
    """A packed detail (p,) -> (3 * BASE ** 2,), channels first."""
    full = cv2.resize(unpacked(values), (BASE, BASE), interpolation=cv2.INTER_AREA)
    return np.asarray(full.transpose(2, 0, 1).ravel(), np.float32)
