"""Recognizers and readers of attributes that gradients pass through, and the views through which they see a face.

A recognizer alone can be pleased by a pattern that nobody sees: forty steps on the pixels moved one from a cosine of
1.0 to -.49 while another stayed at .78. Two must agree, and each sees a view that is shifted, turned, dimmed, blurred
and noisy at random. The recognizers that judge the finished networks are not among them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS, PIPELINE_RECOGNIZER, InputSpec
from anonlib.models.convert.graph import read_onnx
from anonlib.models.torch_graph import TorchGraph
from anonlib.training.data import RECOGNIZERS, VIEW, VIEW_SIDE

_FEATURES = (0, 6, 12, 18)
"""Which of the recognizer's activations stand for what a face looks like: edges, parts, wholes."""
_TURN, _ZOOM, _SHIFT = 0.05, 0.05, 0.025
_DIM, _TINT, _NOISE, _BLUR = 0.15, 0.04, 4.0, 0.5

_LAYERS = ("t16", "t31")
"""Of the expression network, the ends of its first two stages."""
_JITTER_SCALE, _JITTER_TURN, _JITTER_SHIFT = 0.05, 0.06, 0.025
"""Standard deviations of a view of an aligned crop: log scale, radians, shares of its side."""
_COARSEST = 48
_CROP_NOISE, _BRIGHTER, _CONTRAST, _QUANTUM = 0.02, 0.06, 0.12, 0.04


def scaled(name: str, crops: Tensor) -> Tensor:
    """Crops (n, 3, h, w), 0-255 RGB, as the card of the model `name` wants them."""
    wanted = MODELS[name].input
    if wanted.colour == "BGR":
        crops = crops.flip(1)
    return (crops - torch.tensor(wanted.mean, device=crops.device).reshape(1, 3, 1, 1)) * wanted.scale


def side_of(name: str) -> int:
    """Side in px of the square crop that a model wants."""
    size = MODELS[name].input.size
    assert size is not None
    return size[0]


# ---- faces painted into photos (ksame-net) --------------------------------------------------------------------


@dataclass(frozen=True)
class Assessment:
    """Of n views: unit `vectors` by recognizer, `features` at several heights, and readings of looks.

    `gender` (n, 2) probabilities of female and male, `age` (n,) years, `expression` (n, 7) log probabilities.
    """

    vectors: dict[str, Tensor]
    features: list[Tensor]
    gender: Tensor
    age: Tensor
    expression: Tensor


class PaintingJudges(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """Frozen networks that see views (n, 3, V, V), 0-255 RGB."""

    def __init__(self) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(
            {name: TorchGraph(model_bytes(name)) for name in (*RECOGNIZERS, "age-gender", "expression")}
        )
        first = self.networks[PIPELINE_RECOGNIZER]
        activations = [node.outputs[0] for node in first.nodes if node.op == "Relu"]
        first.output_names += tuple(activations[height] for height in _FEATURES)
        self.eval().requires_grad_(False)

    def forward(self, views: Tensor) -> Assessment:
        first, *features = self._outputs(PIPELINE_RECOGNIZER, views)
        vectors = {PIPELINE_RECOGNIZER: F.normalize(first.float(), dim=1)}
        for name in RECOGNIZERS[1:]:
            vectors[name] = F.normalize(self._outputs(name, views)[0].float(), dim=1)
        ages, gender, *_ = self._outputs("age-gender", views)
        expression, *_ = self._outputs("expression", views)
        years = torch.arange(ages.shape[1], device=views.device, dtype=torch.float32)
        return Assessment(vectors, features, gender.float(), ages.float() @ years, (expression.float() + 1e-4).log())

    def features(self, views: Tensor) -> list[Tensor]:
        """The features of an Assessment alone."""
        return list(self._outputs(PIPELINE_RECOGNIZER, views)[1:])

    def _outputs(self, name: str, views: Tensor) -> tuple[Tensor, ...]:
        grid = crop_grid(MODELS[name].input, views)
        crops = F.grid_sample(views, grid, mode="bilinear", padding_mode="border", align_corners=False)
        outputs: tuple[Tensor, ...] = self.networks[name](scaled(name, crops))
        return outputs


def crop_grid(wanted: InputSpec, views: Tensor) -> Tensor:
    """The sampling grid (n, h, w, 2) of a model's crop in views (n, 3, V, V) that lie as VIEW says."""
    assert wanted.size is not None
    inner, outer = (np.array(spec.landmarks(), np.float64) for spec in (wanted, VIEW))
    # Both are scaled and shifted versions of the same five points.
    scale = np.ptp(outer[:, 0]) / np.ptp(inner[:, 0])
    shift = (outer - inner * scale).mean(axis=0)
    height, width = wanted.size
    theta = torch.tensor(
        [
            [scale * width / VIEW_SIDE, 0.0, (scale * width + 2 * shift[0]) / VIEW_SIDE - 1],
            [0.0, scale * height / VIEW_SIDE, (scale * height + 2 * shift[1]) / VIEW_SIDE - 1],
        ],
        dtype=torch.float32,
        device=views.device,
    )
    return F.affine_grid(theta.expand(len(views), 2, 3), [len(views), 3, height, width], align_corners=False)


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


# ---- aligned crops that were changed (embedding) --------------------------------------------------------------


@dataclass(frozen=True)
class CropRecognizer:
    """A frozen recognizer of aligned crops; `centre` (d,) is subtracted from its unit vectors."""

    name: str
    graph: nn.Module
    centre: Tensor

    def embed(self, crops: Tensor, points: Tensor, random: np.random.Generator | None) -> Tensor:
        """Unit vectors (n, d) of crops (n, 3, s, s), 0-1, with five points (n, 5, 2) px, as jittered by `random`."""
        target = torch.tensor(MODELS[self.name].input.landmarks(), dtype=points.dtype, device=points.device)
        seen = aligned(crops, points, target, side_of(self.name), random)
        if random is not None:
            seen = _worsened(seen, random)
        vectors = self.graph(scaled(self.name, 255 * seen).contiguous(memory_format=torch.channels_last))[0]
        return F.normalize(F.normalize(vectors.float(), dim=1) - self.centre, dim=1)


class ExpressionFeatures(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """The expression network's early features of crops (n, 3, s, s), 0-1, with five points (n, 5, 2) px."""

    def __init__(self) -> None:
        super().__init__()
        graph = read_onnx(model_bytes("expression"), "features")
        graph.outputs = dict.fromkeys(_LAYERS, ("n", "c", "h", "w"))
        graph.prune()
        self.graph = TorchGraph(graph.to_bytes())
        self.eval().requires_grad_(False)

    def forward(self, crops: Tensor, points: Tensor) -> tuple[Tensor, ...]:
        target = torch.tensor(MODELS["expression"].input.landmarks(), device=crops.device)
        seen = aligned(crops, points, target, side_of("expression"), None)
        outputs: tuple[Tensor, ...] = self.graph(scaled("expression", 255 * seen))
        return outputs


def aligned(crops: Tensor, points: Tensor, target: Tensor, side: int, random: np.random.Generator | None) -> Tensor:
    """Crops (n, 3, s, s) seen (n, 3, side, side) so that `points` (n, 5, 2) px fall on `target` (5, 2) px.

    Points are those after the change, or a shift of the whole face would count as a new identity.
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

    def a_face(spread: float) -> Tensor:
        return torch.from_numpy(spread * random.standard_normal((len(images), 1, 1, 1))).to(images)

    if random.random() < 0.5:
        images = (images - 0.5) * (1 + a_face(_CONTRAST)) + 0.5 + a_face(_BRIGHTER)
    if random.random() < 0.5:
        images = images + torch.from_numpy(_CROP_NOISE * random.standard_normal(images.shape, np.float32)).to(images)
    if random.random() < 0.5:
        images = images + (torch.round(images / _QUANTUM) * _QUANTUM - images).detach()
    return images.clamp(0, 1)
