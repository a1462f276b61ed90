"""Recognizers and readers of attributes that gradients pass through, and the views through which they see a face.

A recognizer alone can be pleased by a pattern that nobody sees: forty steps on the pixels moved one from a cosine of
1.0 to -.49 while another stayed at .78. Two must agree, and each sees a view that is shifted, turned, dimmed, blurred
and noisy at random. The recognizers that judge the finished networks are not among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS, PIPELINE_RECOGNIZER
from anonlib.models.torch_graph import TorchGraph

from .data import RECOGNIZERS, VIEW

EARLY_LAYERS = ("t16", "t31")  # of the expression network, the ends of its first two stages

_FEATURES = (0, 6, 12, 18)
"""Which of the recognizer's activations stand for what a face looks like: edges, parts, wholes."""
_TURN, _ZOOM, _SHIFT = 0.05, 0.05, 0.025
_DIM, _TINT, _NOISE, _BLUR = 0.15, 0.04, 4.0, 0.5
_JITTER_SCALE, _JITTER_TURN, _JITTER_SHIFT = 0.05, 0.06, 0.025
"""Standard deviations of a view of an aligned crop: log scale, radians, shares of its side."""
_COARSEST = 48
_CROP_NOISE, _BRIGHTER, _CONTRAST, _QUANTUM = 0.02, 0.06, 0.12, 0.04


class CropReader(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """A frozen network of the catalog that sees crops (n, 3, s, s), 0-1, with five points (n, 5, 2) px.

    Without `layers` it answers as the model does, else with these of its values.
    """

    def __init__(self, name: str, layers: Sequence[str] = ()) -> None:
        super().__init__()
        self.wanted, self.graph = MODELS[name].input, TorchGraph(model_bytes(name))
        if layers:
            names = [node.outputs[0] for node in self.graph.nodes]
            self.graph.nodes = self.graph.nodes[: 1 + max(names.index(layer) for layer in layers)]
            self.graph.output_names = tuple(layers)
        self.eval().requires_grad_(False)

    def forward(self, crops: Tensor, points: Tensor, random: np.random.Generator | None = None) -> tuple[Tensor, ...]:
        assert self.wanted.size is not None
        target = torch.tensor(self.wanted.landmarks(), dtype=points.dtype, device=points.device)
        seen = aligned(crops, points, target, self.wanted.size[0], random)
        seen = 255 * (seen if random is None else _worsened(seen, random))
        if self.wanted.colour == "BGR":
            seen = seen.flip(1)
        mean = torch.tensor(self.wanted.mean, device=crops.device).reshape(1, 3, 1, 1)
        scaled = ((seen - mean) * self.wanted.scale).contiguous(memory_format=torch.channels_last)
        outputs: tuple[Tensor, ...] = self.graph(scaled)
        return outputs


class PaintingJudges(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """Frozen networks that see views (n, 3, V, V), 0-255 RGB, that lie as VIEW says."""

    def __init__(self) -> None:
        super().__init__()
        self.readers = nn.ModuleDict({name: CropReader(name) for name in (*RECOGNIZERS, "age-gender", "expression")})
        first = self.readers[PIPELINE_RECOGNIZER].graph
        activations = [node.outputs[0] for node in first.nodes if node.op == "Relu"]
        first.output_names += tuple(activations[height] for height in _FEATURES)

    def forward(self, views: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Readings by name, and the first recognizer's features at several heights.

        Unit vectors (n, d) of RECOGNIZERS, `gender` (n, 2) probabilities of female and male, `age` (n,) years,
        `expression` (n, 7) log probabilities.
        """
        first, *features = self._outputs(PIPELINE_RECOGNIZER, views)
        vectors = [first, *(self._outputs(name, views)[0] for name in RECOGNIZERS[1:])]
        readings = {name: F.normalize(v.float(), dim=1) for name, v in zip(RECOGNIZERS, vectors, strict=True)}
        ages, gender, *_ = self._outputs("age-gender", views)
        years = torch.arange(ages.shape[1], device=views.device, dtype=torch.float32)
        expression = (self._outputs("expression", views)[0].float() + 1e-4).log()
        return readings | {"gender": gender.float(), "age": ages.float() @ years, "expression": expression}, features

    def features(self, views: Tensor) -> list[Tensor]:
        """The first recognizer's features alone."""
        return list(self._outputs(PIPELINE_RECOGNIZER, views)[1:])

    def _outputs(self, name: str, views: Tensor) -> tuple[Tensor, ...]:
        points = torch.tensor(VIEW.landmarks(), device=views.device).expand(len(views), 5, 2)
        outputs: tuple[Tensor, ...] = self.readers[name](views / 255, points)
        return outputs


def random_view(views: Tensor, random: np.random.Generator) -> Callable[[Tensor], Tensor]:
    """A random way to see views (n, 3, V, V), 0-255; the same one for a photo and a drawing makes them comparable."""
    count, device = len(views), views.device
    turn, zoom = random.normal(0, _TURN, count), 1 + random.normal(0, _ZOOM, count)
    cosine, sine = zoom * np.cos(turn), zoom * np.sin(turn)
    shift = random.normal(0, _SHIFT, (2, count))
    matrix = np.stack([np.stack([cosine, -sine, shift[0]], 1), np.stack([sine, cosine, shift[1]], 1)], 1)
    brightness = np.exp(random.normal(0, _DIM, (count, 1)) + random.normal(0, _TINT, (count, 3)))[..., None, None]
    seed = torch.Generator().manual_seed(int(random.integers(1 << 62)))
    spread = torch.from_numpy(random.uniform(0, _NOISE, (count, 1, 1, 1))).float()
    noise = (torch.randn(views.shape, generator=seed) * spread).to(device)
    blur = random.uniform(0, _BLUR, (count, 1, 1, 1))
    theta, gain, soft = (torch.from_numpy(part).float().to(device) for part in (matrix, brightness, blur))

    def seen(views: Tensor) -> Tensor:
        grid = F.affine_grid(theta, list(views.shape), align_corners=False)
        moved = F.grid_sample(views, grid, mode="bilinear", padding_mode="border", align_corners=False)
        coarse = F.interpolate(F.avg_pool2d(moved, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
        return ((moved + soft * (coarse - moved)) * gain + noise).clamp(0, 255)

    return seen


def aligned(crops: Tensor, points: Tensor, target: Tensor, side: int, random: np.random.Generator | None) -> Tensor:
    """Crops (n, 3, s, s) seen (n, 3, side, side) so that `points` (n, 5, 2) px fall on `target` (5, 2) px.

    Points are those after the change, or a shift of the whole face would count as a new identity. `random` jitters.
    """
    # A similarity is a complex number and an offset: least squares from target to points.
    to, of = torch.view_as_complex(target.contiguous()), torch.view_as_complex(points.contiguous())
    to_mean, of_mean = to.mean(), of.mean(dim=1, keepdim=True)
    spread = (to - to_mean).abs().square().sum()
    turn = ((to - to_mean).conj() * (of - of_mean)).sum(dim=1, keepdim=True) / spread
    if random is not None:
        count = len(crops)
        log_scale, angle = _JITTER_SCALE * random.standard_normal(count), _JITTER_TURN * random.standard_normal(count)
        shift = _JITTER_SHIFT * side * (random.standard_normal(count) + 1j * random.standard_normal(count))
        turn = turn * torch.from_numpy(np.exp(log_scale + 1j * angle)[:, None]).to(turn)
        of_mean = of_mean + torch.from_numpy(shift[:, None]).to(turn) * turn
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    pixels = torch.complex(columns.float(), rows.float()).reshape(1, -1).to(turn)
    source = (torch.view_as_real((pixels - to_mean) * turn + of_mean) + 0.5) * 2 / crops.shape[-1] - 1
    grid = source.reshape(len(crops), side, side, 2)
    return F.grid_sample(crops, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _worsened(images: Tensor, random: np.random.Generator) -> Tensor:
    """Images (n, 3, s, s) as a worse camera and a JPEG would leave them; each fault in about half of the batches."""
    side = images.shape[-1]
    if random.random() < 0.5:
        coarse = int(random.integers(_COARSEST, side))
        images = F.interpolate(images, size=(coarse, coarse), mode="bilinear", align_corners=False, antialias=True)
        images = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
    if random.random() < 0.5:
        contrast, brighter = (
            torch.from_numpy(spread * random.standard_normal((len(images), 1, 1, 1))).to(images)
            for spread in (_CONTRAST, _BRIGHTER)
        )
        images = (images - 0.5) * (1 + contrast) + 0.5 + brighter
    if random.random() < 0.5:
        images = images + torch.from_numpy(_CROP_NOISE * random.standard_normal(images.shape, np.float32)).to(images)
    if random.random() < 0.5:
        images = images + (torch.round(images / _QUANTUM) * _QUANTUM - images).detach()
    return images.clamp(0, 1)
