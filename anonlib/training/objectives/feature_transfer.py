"""What the network of `embedding` is trained for: that recognizers read the donor, while the photo is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anonlib.faces import align
from anonlib.faces.mesh import five_points
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import PIPELINE_RECOGNIZER
from anonlib.models.torch_graph import TorchGraph
from anonlib.privacy.clustering import normalized
from anonlib.privacy.sphere import cosine_beyond
from anonlib.synthesis.crops import alpha_in_crop
from anonlib.synthesis.feature_transfer import POINTS, SIDE
from anonlib.training.data import RECOGNIZERS, VIEW, PreparedFaces
from anonlib.training.objectives.base import Critic, Objective, TrainingSettings, grid_of
from anonlib.training.objectives.feature_transfer_network import FeatureTransferNet, applied, begin, moved_points
from anonlib.training.recognizers import CropRecognizer, ExpressionFeatures

HELD_OUT = 128
"""Faces at the end of the data that are measured and shown, and not trained on; of few faces a fifth."""
OTHER_ANGLE = 75.0
"""Degrees that a donor keeps from the face, as in a job."""

_TRIES = 8
_MASK = 64
_MIRRORED = (1, 0, 2, 4, 3)
_LOOKS_SHARE = 0.25
"""Share of the steps that ask the expression network: it costs as much as a recognizer."""
_FIRST_SHARE = 0.5
"""Share of the steps that ask the first recognizer, which costs three times the second."""
_LINEAR_RATE = 0.1
"""How fast the linear map learns, which begins where it may stay, beside the rest."""
_HARD = 10.0
"""How much faster than in proportion a tint costs."""
_CRITIC_FROM = 0.02
"""Share of the run after which the critic counts: before, the outputs are the photos."""
_SHOWN = 8
_SHEET_SEED = 5


@dataclass(frozen=True)
class CropSet:
    """n aligned faces, each of another person as far as known.

    `crops` (n, s, s, 3) RGB; `masks` (n, m, m) 0-255: how far a px may change; `points` (n, 5, 2) px of the crop;
    `vectors`: of each recognizer (n, d) unit rows, the pipeline's first; `female` 0-1 and `age` years (n,).
    """

    crops: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    points: NDArray[np.float32]
    vectors: Mapping[str, NDArray[np.float32]]
    female: NDArray[np.float32]
    age: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.crops)

    @classmethod
    def of(cls, faces: PreparedFaces) -> CropSet:
        """Prepared faces, cut as the method cuts them."""
        matrix = align.similarity(np.array(VIEW.landmarks(), np.float32), POINTS)
        depth = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        meshes = [
            np.concatenate([align.apply(matrix, mesh[:, :2]), depth * mesh[:, 2:]], axis=1) for mesh in faces.mesh
        ]
        masks = [cv2.resize(alpha_in_crop(mesh), (_MASK, _MASK), interpolation=cv2.INTER_AREA) for mesh in meshes]
        return cls(
            np.stack([align.crop(view, matrix, SIDE) for view in faces.view]),
            np.rint(255 * np.stack(masks)).astype(np.uint8),
            np.stack([five_points(mesh) for mesh in meshes]),
            dict(zip(RECOGNIZERS, (faces.vector, faces.second), strict=True)),
            faces.female,
            faces.age,
        )

    @cached_property
    def centred(self) -> dict[str, NDArray[np.float32]]:
        """Each recognizer's vectors (n, d) as points about their mean, unit rows."""
        return {name: normalized(vectors - vectors.mean(axis=0)) for name, vectors in self.vectors.items()}

    def donors(self, rows: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        """A random donor for each face: of its gender, and far enough away where a few tries find one."""
        points, women = self.centred[PIPELINE_RECOGNIZER], self.female >= 0.5
        of_gender = {gender: np.flatnonzero(women == gender) for gender in (False, True)}
        donors = np.empty(len(rows), np.int64)
        for number, row in enumerate(rows):
            candidates = of_gender[bool(women[row])]
            tried = candidates[random.integers(0, len(candidates), _TRIES)]
            far = tried[points[tried] @ points[row] <= cosine_beyond(OTHER_ANGLE)]
            donors[number] = far[0] if len(far) else tried[0]
        return donors

    def batch(
        self, rows: NDArray[np.int64], donors: NDArray[np.int64], flipped: NDArray[np.bool_], device: str
    ) -> CropBatch:
        """These rows with these donors, mirrored where `flipped`."""
        side = self.crops.shape[1]
        crops = torch.from_numpy(self.crops[rows]).to(device).permute(0, 3, 1, 2).float() / 255
        masks = torch.from_numpy(self.masks[rows]).to(device)[:, None].float() / 255
        alpha = F.interpolate(masks, size=(side, side), mode="bilinear", align_corners=False)
        points = self.points[rows].copy()
        points[flipped] = points[flipped][:, _MIRRORED] * np.array([-1, 1]) + np.array([side - 1, 0])
        turn = torch.from_numpy(flipped).to(device)[:, None, None, None]
        return CropBatch(
            torch.where(turn, crops.flip(3), crops),
            torch.where(turn, alpha.flip(3), alpha),
            torch.from_numpy(points.astype(np.float32)).to(device),
            torch.from_numpy(2 * self.female[rows, None] - 1).to(device),
            {name: torch.from_numpy(points[rows]).to(device) for name, points in self.centred.items()},
            {name: torch.from_numpy(points[donors]).to(device) for name, points in self.centred.items()},
        )


@dataclass(frozen=True)
class CropBatch:
    """`crop` (n, 3, s, s) 0-1, `alpha` (n, 1, s, s), `points` (n, 5, 2) px, `female` (n, 1) -1 to 1.

    `source` and `donor`: (n, d) a recognizer.
    """

    crop: Tensor
    alpha: Tensor
    points: Tensor
    female: Tensor
    source: dict[str, Tensor]
    donor: dict[str, Tensor]

    @property
    def direction(self) -> Tensor:
        """(n, d) From each face to its donor, as the pipeline's recognizer sees them."""
        return self.donor[PIPELINE_RECOGNIZER] - self.source[PIPELINE_RECOGNIZER]


@dataclass(frozen=True)
class FeatureTransferLossWeights:
    """How much each part of the loss counts."""

    donor: float = 0.8
    source: float = 3.0
    change: float = 2.0
    tint: float = 3.0
    colour: float = 10.0
    shift: float = 0.015
    looks: float = 0.3
    critic: float = 0.8


class FeatureTransferObjective(Objective):
    """Of aligned faces, the last of which are not trained on."""

    def __init__(
        self,
        faces: CropSet,
        settings: TrainingSettings,
        batch: int = 8,
        weights: FeatureTransferLossWeights = FeatureTransferLossWeights(),
    ) -> None:
        self.faces, self.batch, self.weights = faces, batch, weights
        self.held_out = min(HELD_OUT, len(faces) // 5)
        torch.manual_seed(settings.seed)
        net = FeatureTransferNet()
        begin(net, faces.crops, faces.centred[PIPELINE_RECOGNIZER])
        linear = [*net.rank.parameters(), *net.draw.parameters()]
        rest = [parameter for parameter in net.parameters() if all(parameter is not other for other in linear)]
        groups = [{"params": rest}, {"params": linear, "scale": _LINEAR_RATE}]
        super().__init__(settings, net, Critic(claims=1), groups, 0.9)
        self.looks = self._frozen(ExpressionFeatures())
        self.recognizers = []
        for name, vectors in faces.vectors.items():
            centre = torch.from_numpy(vectors.mean(axis=0)).to(settings.device)
            self.recognizers.append(CropRecognizer(name, self._frozen(TorchGraph(model_bytes(name))), centre))

    def step(self, random: np.random.Generator, progress: float) -> dict[str, float]:
        """One batch; returns the parts of the loss and how near the outputs are to donor and source."""
        rows = random.integers(0, len(self.faces) - self.held_out, self.batch)
        donors = self.faces.donors(rows, random)
        batch = self.faces.batch(rows, donors, random.random(self.batch) < 0.5, self.settings.device)
        out, moved, tints = self._changed(self.networks["generator"], batch)
        parts = self._costs(batch, out, moved, tints, random.random() < _LOOKS_SHARE)
        if progress >= _CRITIC_FROM:
            parts["critic"] = self.unreal(_for_critic(out), batch.female)
        figures = {name: float(value.detach()) for name, value in parts.items()}
        counts = asdict(self.weights)
        loss = torch.stack([counts[name] * value for name, value in parts.items()]).sum()
        points = moved_points(batch.points, moved)
        for recognizer in self.recognizers if random.random() < _FIRST_SHARE else self.recognizers[1:]:
            name = recognizer.name
            with self.autocast():
                vectors = recognizer.embed(out, points, random)
            to_donor, to_source = ((vectors * end[name]).sum(dim=1) for end in (batch.donor, batch.source))
            loss = loss + self.weights.donor * (1 - to_donor).mean() + self.weights.source * F.relu(to_source).mean()
            figures |= {f"{name} to donor": float(to_donor.detach().mean())}
            figures |= {f"{name} to source": float(to_source.detach().mean())}
        self.descend(loss, 1.0)
        photo, drawn = (self.criticized(_for_critic(images), batch.female) for images in (batch.crop, out.detach()))
        return figures | {"hinge": self.teach_critic(photo, drawn)}

    def measure(self, generator: nn.Module) -> dict[str, float]:
        """Cosines to source and donor, each about the recognizer's centre, and how much of the photo is kept."""
        figures: dict[str, list[float]] = {}
        rows, donors = self._last(self.held_out)
        for start, stop in pairwise([*range(0, self.held_out, self.batch), self.held_out]):
            batch = self._upright(rows[start:stop], donors[start:stop])
            out, moved, _ = self._changed(generator, batch)
            points = moved_points(batch.points, moved)
            inside = batch.alpha.mean(dim=(1, 2, 3))
            error = (batch.alpha * (out - batch.crop).square()).mean(dim=(1, 2, 3)) / inside
            figures.setdefault("dB", []).extend((-10 * error.clamp(min=1e-8).log10()).tolist())
            for recognizer in self.recognizers:
                vectors = recognizer.embed(out, points, None)
                for end, known in (("source", batch.source), ("donor", batch.donor)):
                    cosines = (vectors * known[recognizer.name]).sum(dim=1).tolist()
                    figures.setdefault(f"{recognizer.name} to {end}", []).extend(cosines)
        return {name: float(np.mean(values)) for name, values in figures.items()}

    def sheet(self, generator: nn.Module) -> NDArray[np.uint8]:
        """Held-out faces, each above what became of it."""
        batch = self._upright(*self._last(2 * _SHOWN))
        pictures = [
            (images.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
            for images in (batch.crop, self._changed(generator, batch)[0])
        ]
        return grid_of(images[start : start + _SHOWN] for start in (0, _SHOWN) for images in pictures)

    def _changed(self, generator: nn.Module, batch: CropBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs, where their px were moved, and how they were tinted."""
        with self.autocast():
            tints, shifts = generator(batch.crop.contiguous(memory_format=torch.channels_last), batch.direction)
        out, moved = applied(batch.crop, batch.alpha, tints.float(), shifts.float())
        return out, moved, batch.alpha * tints.float()

    def _costs(
        self, batch: CropBatch, out: Tensor, moved: Tensor, tints: Tensor, with_looks: bool
    ) -> dict[str, Tensor]:
        """What a change costs, by the names of the weights."""
        share = batch.alpha.mean()
        costs = {
            "change": (tints.abs() + _HARD * tints.square()).mean() / share,
            "colour": (tints - tints.mean(dim=1, keepdim=True)).abs().mean() / share,
            "tint": F.avg_pool2d(tints, 16).abs().mean() / share,
            "shift": moved.square().sum(dim=1).mean() / share,
        }
        if with_looks:
            with self.autocast():
                before, after = (self.looks(image, batch.points) for image in (batch.crop, out))
            looks = [(a - b).abs().mean() / b.abs().mean() for a, b in zip(after, before, strict=True)]
            costs["looks"] = torch.stack(looks).sum() / _LOOKS_SHARE
        return costs

    def _last(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The last rows (count,) and their donors, the same each time."""
        rows = np.arange(len(self.faces) - count, len(self.faces))
        return rows, self.faces.donors(rows, np.random.default_rng(_SHEET_SEED))

    def _upright(self, rows: NDArray[np.int64], donors: NDArray[np.int64]) -> CropBatch:
        return self.faces.batch(rows, donors, np.zeros(len(rows), np.bool_), self.settings.device)

    def _frozen(self, network: nn.Module) -> nn.Module:
        frozen = network.eval().requires_grad_(False)
        return frozen.to(self.settings.device, memory_format=torch.channels_last)


def _for_critic(crops: Tensor) -> Tensor:
    return (crops - 0.5).contiguous(memory_format=torch.channels_last)
