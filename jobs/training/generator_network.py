"""The network of ksame-net: six up-sampling blocks from an identity and a look to a canonical texture.

After k-Same-Net (Meden et al. 2018). Here the identity is a vector instead of a one-hot, and what the blocks draw is
added to a face by linear regression (Turk & Pentland 1991), which an untrained network draws alone. Each block gets the
wanted look (FiLM, Perez et al. 2018) and the linear face at its own size.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anonlib.faces import topology
from anonlib.privacy.clustering import normalized
from anonlib.synthesis.canonical import canonical_frame, shape_model
from anonlib.synthesis.describe import happiness
from anonlib.synthesis.textures.ksame_net import LOOKS

from .data import Floats, PreparedFaces

START = ("centre", "mean", "axes", "offset", "codes", "stretch", "detail", "shape", "look_mean", "look_spread")
"""What `linear_start` gives."""
BASE = 128  # side in px at which the linear face is kept
WIDTHS = {4: 256, 8: 256, 16: 192, 32: 96, 64: 48, 128: 24, 256: 12}  # channels of the blocks by side
STYLE = 192
SLOPE = 0.2
BOUND = 1.5
"""Vectors of faces fill an ellipsoid; a number of one counts up to so many standard deviations."""

_REACH, _FADE = 0.84, 8.0
_FLOOR = 4.0
_RIDGE, _PRIOR, _LEAST_VARIANCE, _BLOCK = 100.0, 0.02, 0.01, 256
# Both undo what regression shrinks. Measured on faces rendered into photos of strangers: a stretch of 1.2 or 2 costs a
# few points of rank-1; a contrast of 1 leaves 10 % of the faces with the other gender, 2 hardens women's and men's.
_STRETCH, _CONTRAST = 1.5, 1.5


class Generator(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """z (n, d) unit and look (n, LOOKS) -> detail (n, 3, size, size), log.

    It begins as the linear face of `linear_start`: [identity (r,), female, age, 1] @ `detail` (r + 3, 3 * BASE ** 2),
    and `shape` (r + 3, 1404) likewise. The identity is read by `axes` (r, d) and `offset` (r,), then scaled so that
    `codes` (r, r) of it has the length `stretch`, so that faces near the centre are drawn as clearly as others.
    """

    def __init__(self, start: Mapping[str, Floats], size: int) -> None:
        super().__init__()
        sides = [side for side in WIDTHS if side <= size]
        if sides[-1] != size:
            raise ValueError(f"a texture is {', '.join(str(side) for side in WIDTHS)} px wide, not {size}")
        self.size = size
        for name, values in start.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values, np.float32)))
        self.register_buffer("zone", torch.from_numpy(zone_of(size))[None, None], persistent=False)
        self.mapping = nn.ModuleList([nn.Linear(len(start["axes"]) + len(LOOKS), STYLE), nn.Linear(STYLE, STYLE)])
        self.start = nn.Linear(STYLE, WIDTHS[4] * 16)
        self.blocks = nn.ModuleList([UpsamplingBlock(WIDTHS[a], WIDTHS[b], b) for a, b in pairwise(sides)])

    def identity(self, z: Tensor) -> Tensor:
        """The identity (n, r), read and scaled."""
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


def looks_of(faces: PreparedFaces) -> Floats:
    """(n, LOOKS) of the faces as they are."""
    columns = [faces.female, faces.age, *faces.expression.T, faces.mouth, faces.eyes, faces.yaw]
    return np.stack(columns, axis=1).astype(np.float32)


def linear_start(faces: PreparedFaces) -> dict[str, Floats]:
    """What a Generator begins with: ridge regression from identity, gender and age to textures and shapes.

    `centre` (d,) of the identity space, the `mean` texture (3, BASE, BASE), `look_mean` and `look_spread` (LOOKS,), and
    what the class names. Happiness is regressed too, and then left at none. Beyond the oval all fades to the mean.
    """
    points, look = normalized(faces.vector - faces.vector.mean(axis=0)), looks_of(faces)
    known = np.stack([faces.female, faces.age, [happiness(row) for row in faces.expression]], axis=1).astype(np.float64)
    axes = directions(points, known)
    offset = axes @ points.mean(axis=0)
    identity = BOUND * np.tanh((points @ axes.T - offset) / BOUND)
    inputs = np.concatenate([identity, known], axis=1).astype(np.float64)
    centred = inputs - inputs.mean(axis=0)
    mean, gained = _textures(faces, centred)
    # Numbers of the identity have about unit variance; the others are penalized as if they had.
    penalty = _RIDGE * np.concatenate([np.ones(len(axes)), known.var(axis=0)])
    answers = np.concatenate([gained, centred.T @ faces.shape], axis=1)
    solved = np.linalg.solve(centred.T @ centred + np.diag(penalty), answers)
    average = np.concatenate([mean.ravel(), faces.shape.mean(axis=0)])
    rows = np.concatenate([solved[:-1], (average - inputs.mean(axis=0) @ solved)[None]])
    rows[-1] += 0.5 * (1 - _CONTRAST) * rows[-3]
    rows[-3] *= _CONTRAST
    detail, shape = np.split(rows, [mean.size], axis=1)
    # The length of `codes` of an identity is how far its face is from the mean face.
    codes = np.linalg.cholesky(detail[:-3] @ detail[:-3].T + 1e-9 * np.eye(len(axes)))
    lengths = np.linalg.norm(identity @ codes, axis=1, keepdims=True)
    stretch = _STRETCH * np.sqrt((lengths**2).mean())
    drawn = (identity * (stretch / lengths)) @ shape[:-3] + known[:, :2] @ shape[-3:-1] + shape[-1]
    # The fitted mean shape says how these photos were cut and how much they smiled.
    shape[-1] += shape_model().mean.ravel() - drawn.mean(axis=0)
    return {
        "centre": faces.vector.mean(axis=0), "mean": mean, "axes": axes, "offset": offset, "codes": codes,
        "stretch": np.array(stretch), "detail": detail, "shape": shape,
        "look_mean": look.mean(axis=0), "look_spread": look.std(axis=0) + 1e-3,
    }  # fmt: skip


def directions(points: Floats, known: NDArray[np.float64]) -> Floats:
    """Directions (r, d) in which points (n, d) vary beyond the first two of what is `known` of them (n, 3), gender and
    age, in their standard deviations."""
    offsets = (points - points.mean(axis=0)).astype(np.float64)
    along = np.linalg.lstsq(known - known.mean(axis=0), offsets, rcond=None)[0][:2]
    basis = np.linalg.qr(along.T)[0]
    rest = offsets - offsets @ basis @ basis.T
    values, vectors = np.linalg.eigh(rest.T @ rest / len(rest))
    kept = values > _LEAST_VARIANCE * values[-1]
    return np.asarray((vectors[:, kept] / np.sqrt(values[kept])).T[::-1], np.float32)


def _textures(faces: PreparedFaces, inputs: NDArray[np.float64]) -> tuple[Floats, NDArray[np.float64]]:
    """The mean texture (3, BASE, BASE) of the photos that show a place, and the products (i, 3 * BASE ** 2) of `inputs`
    (n, i) with what each face has beyond it."""
    side = (BASE, BASE)

    def shown(start: int) -> tuple[Floats, Floats]:
        part = slice(start, start + _BLOCK)
        details = faces.detail[part].astype(np.float32)
        small = [cv2.resize(detail, side, interpolation=cv2.INTER_AREA) for detail in details]
        seen = [cv2.resize(seen, side, interpolation=cv2.INTER_AREA) / np.float32(255) for seen in faces.seen[part]]
        return np.stack(small).transpose(0, 3, 1, 2), np.stack(seen)[:, None]

    starts = range(0, len(faces), _BLOCK)
    total, weight = np.zeros((3, BASE, BASE)), np.zeros((1, BASE, BASE))
    for detail, seen in map(shown, starts):
        total += (detail * seen).sum(axis=0)
        weight += seen.sum(axis=0)
    # What hardly any photo shows is plain skin.
    mean = (total / (weight + _PRIOR * len(faces))).astype(np.float32)
    oval = cv2.GaussianBlur(canonical_frame().polygon(topology.OVAL, 0.96).astype(np.float32), (0, 0), 8)
    zone = cv2.resize(oval, side, interpolation=cv2.INTER_AREA)
    products = np.zeros((inputs.shape[1], mean.size))
    for start in starts:
        detail, seen = shown(start)
        products += inputs[start : start + _BLOCK].T @ (zone * seen * (detail - mean)).reshape(len(detail), -1)
    return mean, products


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
    """Linear faces: identity (n, r), gender and age of look (n, LOOKS), and 1, times `rows` (r + 3, p)."""
    return identity @ rows[:-3] + look[:, :2] @ rows[-3:-1] + rows[-1]


def _modulated(x: Tensor, film: Tensor) -> Tensor:
    scale, shift = film[:, :, None, None].chunk(2, dim=1)
    return x * (1 + scale) + shift
