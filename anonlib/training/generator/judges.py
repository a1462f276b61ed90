"""What a drawn face is judged by: recognizers and readers of attributes that look at it as they look at a photo.

A recognizer alone can be pleased by a pattern that nobody sees: forty steps on the pixels moved one from a cosine of
1.0 to -.49 while another stayed at .78. Two must agree, and each looks through a view that is shifted, turned, dimmed,
blurred and noisy at random. Those that judge the finished network are not among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anonlib.models.card import InputSpec
from anonlib.models.catalog import MODELS
from anonlib.models.fetch import model_bytes
from anonlib.models.requirements import PIPELINE_RECOGNIZER
from anonlib.models.torch_graph import TorchGraph
from anonlib.training.generator.faces import SECOND_RECOGNIZER, VIEW

_TURN, _ZOOM, _SHIFT = 0.05, 0.05, 0.025
_DIM, _TINT, _NOISE, _BLUR = 0.15, 0.04, 4.0, 0.5
_FLOOR = 4.0
_HEIGHTS = (0, 6, 12, 18)
"""Which of the recognizer's activations stand for what a face looks like: edges, parts, wholes."""


@dataclass(frozen=True)
class Opinion:
    """Of n views: unit `vectors` by recognizer, `features` at several heights, `gender` and `age` readings, log `mood`.

    `gender` (n, 2) probabilities of female and male, `age` (n,) years, `mood` (n, 7) log probabilities.
    """

    vectors: dict[str, Tensor]
    features: list[Tensor]
    gender: Tensor
    age: Tensor
    mood: Tensor


class TrainingJudges(nn.Module):  # type: ignore[misc]  # mypy is not shown torch
    """Views (n, 3, V, V), 0-255 RGB, through the eyes of the frozen networks."""

    def __init__(self) -> None:
        super().__init__()
        names = (PIPELINE_RECOGNIZER, SECOND_RECOGNIZER, "age-gender", "expression")
        self.networks = nn.ModuleDict({name: TorchGraph(model_bytes(name)) for name in names})
        relus = [node.outputs[0] for node in self.networks[PIPELINE_RECOGNIZER].nodes if node.op == "Relu"]
        self.networks[PIPELINE_RECOGNIZER].output_names += tuple(relus[height] for height in _HEIGHTS)
        self.eval().requires_grad_(False)

    def forward(self, views: Tensor) -> Opinion:
        first, *features = self._of(PIPELINE_RECOGNIZER, views)
        (second,) = self._of(SECOND_RECOGNIZER, views)
        ages, gender, *_ = self._of("age-gender", views)
        mood, *_ = self._of("expression", views)
        years = torch.arange(ages.shape[1], device=views.device, dtype=torch.float32)
        vectors = {
            PIPELINE_RECOGNIZER: F.normalize(first.float(), dim=1),
            SECOND_RECOGNIZER: F.normalize(second.float(), dim=1),
        }
        return Opinion(vectors, features, gender.float(), ages.float() @ years, (mood.float() + 1e-4).log())

    def features(self, views: Tensor) -> list[Tensor]:
        """What an Opinion has of them, alone."""
        return list(self._of(PIPELINE_RECOGNIZER, views)[1:])

    def _of(self, name: str, views: Tensor) -> tuple[Tensor, ...]:
        wanted = MODELS[name].input
        crops = F.grid_sample(views, cut(wanted, views), mode="bilinear", padding_mode="border", align_corners=False)
        if wanted.colour == "BGR":
            crops = crops.flip(1)
        mean = torch.tensor(wanted.mean, device=views.device).reshape(1, 3, 1, 1)
        answers: tuple[Tensor, ...] = self.networks[name]((crops - mean) * wanted.scale)
        return answers


def cut(wanted: InputSpec, views: Tensor) -> Tensor:
    """The sampling grid (n, h, w, 2) of a model's crop in views (n, 3, V, V) that lie as VIEW says."""
    assert wanted.size is not None and VIEW.size is not None
    inner, outer = (np.array(one.landmarks(), np.float64) for one in (wanted, VIEW))
    # Both are scaled and shifted versions of the same five points.
    scale = np.ptp(outer[:, 0]) / np.ptp(inner[:, 0])
    shift = (outer - inner * scale).mean(axis=0)
    (height, width), side = wanted.size, VIEW.size[0]
    theta = torch.tensor(
        [
            [scale * width / side, 0.0, (scale * width + 2 * shift[0]) / side - 1],
            [0.0, scale * height / side, (scale * height + 2 * shift[1]) / side - 1],
        ],
        dtype=torch.float32,
        device=views.device,
    )
    return F.affine_grid(theta.expand(len(views), 2, 3), [len(views), 3, height, width], align_corners=False)


@dataclass(frozen=True)
class Glance:
    """How n views are looked at this time; the same glance at a photo and at a drawing makes them comparable."""

    theta: Tensor
    gain: Tensor
    soft: Tensor
    noise: Tensor

    @classmethod
    def at_random(cls, views: Tensor, random: np.random.Generator) -> Glance:
        """For views (n, 3, V, V)."""
        count, device = len(views), views.device
        turn, zoom = random.normal(0, _TURN, count), 1 + random.normal(0, _ZOOM, count)
        cosine, sine = zoom * np.cos(turn), zoom * np.sin(turn)
        shift = random.normal(0, _SHIFT, (2, count))
        theta = np.stack([np.stack([cosine, -sine, shift[0]], 1), np.stack([sine, cosine, shift[1]], 1)], 1)
        gain = np.exp(random.normal(0, _DIM, (count, 1)) + random.normal(0, _TINT, (count, 3)))[..., None, None]
        seed = torch.Generator().manual_seed(int(random.integers(1 << 62)))
        spread = torch.from_numpy(random.uniform(0, _NOISE, (count, 1, 1, 1))).float()
        noise = torch.randn(views.shape, generator=seed) * spread
        soft = random.uniform(0, _BLUR, (count, 1, 1, 1))
        made = [torch.from_numpy(part).float().to(device) for part in (theta, gain, soft)]
        return cls(made[0], made[1], made[2], noise.to(device))

    def __call__(self, views: Tensor) -> Tensor:
        """The views (n, 3, V, V), 0-255, so looked at."""
        grid = F.affine_grid(self.theta, list(views.shape), align_corners=False)
        seen = F.grid_sample(views, grid, mode="bilinear", padding_mode="border", align_corners=False)
        coarse = F.interpolate(F.avg_pool2d(seen, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
        return ((seen + self.soft * (coarse - seen)) * self.gain + self.noise).clamp(0, 255)


def painted(detail: Tensor, grid: Tensor, alpha: Tensor, light: Tensor, ground: Tensor) -> Tensor:
    """Details (n, 3, s, s), log, painted into scenes as the renderer does: views (n, 3, V, V), 0-255.

    `grid` (n, V, V, 2) -1 to 1, `alpha` (n, 1, V, V) 0-1, `light` (n, 3, v, v) log, `ground` (n, 3, V, V) 0-255.
    """
    laid = F.grid_sample(detail, grid, mode="bilinear", padding_mode="border", align_corners=False)
    lit = F.interpolate(light, size=ground.shape[2:], mode="bilinear", align_corners=False)
    face = ((laid + lit).clamp(max=6.0).exp() - _FLOOR).clamp(0, 255)
    return ground + alpha * (face - ground)
