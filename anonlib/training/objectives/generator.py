"""What ksame-net is trained for, and how well it does on people it does not learn from.

Of a real person: the canonical texture (L1), what the recognizer's activations make of it in a photo, the identity by
two recognizers, the look by readers of age, gender and expression, and a critic that knows photographs. Of a free
identity: all but the texture. The residual on the linear decoder starts at none, so a run moves away from it only if
that pays.

Each face is painted into a scene: the photo of another person of the same gender and a similar expression, as it is
when a job runs. Some scenes show no real person: a random identity or the mean of a class, since jobs draw those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anonlib.faces import topology
from anonlib.models.catalog import PIPELINE_RECOGNIZER
from anonlib.privacy.clustering import normalized
from anonlib.synthesis.canonical import SIZE, canonical_frame
from anonlib.synthesis.compositor import place
from anonlib.synthesis.textures.face_space import SIDE as STORED
from anonlib.synthesis.textures.face_space import region
from anonlib.synthesis.textures.linear import Decoder
from anonlib.training.data import TRAINING_RECOGNIZER, VIEW_SIDE, PreparedFaces
from anonlib.training.objectives.base import Critic, Objective, TrainingSettings, grid_of
from anonlib.training.objectives.generator_network import Generator, Linear, painted, zone_of
from anonlib.training.recognizers import PaintingJudges, random_view
from anonlib.workspace.schemas import EXPRESSIONS

NO_PERSON = -1
_FREE = 0.25
"""Share of the faces that get a second scene without a real person: every other one a random identity, else the mean
of _CLASS."""
_CLASS = 5
_LIGHT_STEP = 2
HELD_OUT = 200
"""Faces that are kept from training, to measure on; of few faces a fifth."""

_OPEN = 0.12
"""How open a mouth must be to show an inside that can be learned."""
_CRITIC_FROM = 0.04
_MARKED = 2.5
_SHOWN, _TILE = 8, 160
_PIECE = 20


@dataclass(frozen=True)
class Scenes:
    """Columns of m scenes: `face` (m,): which face is drawn, or NO_PERSON, and `into` (m,): the face of the photo.

    `z` (m, d), `look` (m, LOOKS); `grid` (m, V, V, 2): where in the canonical frame, -1 to 1, each px of the view
    lies; `alpha` (m, V, V) 0-255; `light` (m, V / 2, V / 2, 3), log; `ground` (m, V, V, 3): the photo without its face.
    """

    face: NDArray[np.int64]
    into: NDArray[np.int64]
    z: NDArray[np.float32]
    look: NDArray[np.float32]
    grid: NDArray[np.float16]
    alpha: NDArray[np.uint8]
    light: NDArray[np.float16]
    ground: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.face)


def looks_of(faces: PreparedFaces) -> NDArray[np.float32]:
    """(n, LOOKS) of the faces as they are."""
    columns = [faces.female, faces.age, *faces.expression.T, faces.mouth, faces.eyes, faces.yaw]
    return np.stack(columns, axis=1).astype(np.float32)


def scenes_of(
    faces: PreparedFaces, rows: NDArray[np.int64], z: NDArray[np.float32], linear: Linear, seed: int
) -> Scenes:
    """A scene for each of `rows`, and the free ones; `z` (n, d) are the faces in the identity space."""
    random = np.random.default_rng(seed)
    looks = looks_of(faces)
    into = _partners(faces, rows, random)
    free = random.choice(len(rows), int(_FREE * len(rows)), replace=False)
    identities = np.concatenate([z[rows], _free_identities(faces, rows, z, free, random)])
    look = np.concatenate([looks[rows], looks[rows[free]]])
    face = np.concatenate([rows, np.full(len(free), NO_PERSON)])
    into = np.concatenate([into, into[free]])
    # The texture has the expression of the identity's own photo, the geometry that of the other person's.
    shapes = linear.shapes(identities, look[:, 0], look[:, 1])
    placed = [_placed(faces.view[host], faces.mesh[host], shape) for host, shape in zip(into, shapes, strict=True)]
    return Scenes(face, into, identities, look, *(np.stack(column) for column in zip(*placed, strict=True)))


def _partners(faces: PreparedFaces, rows: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """For each row another one, of the same gender and with a similar mouth and smile."""
    happy = faces.expression[rows, EXPRESSIONS.index("happy")]
    keys = (random.random(len(rows)), np.rint(2 * happy), np.rint(5 * faces.mouth[rows]), faces.female[rows] > 0.5)
    order = np.lexsort(keys)
    into = np.empty(len(rows), np.int64)
    into[order] = rows[np.roll(order, 1)]
    return into


def _free_identities(
    faces: PreparedFaces,
    rows: NDArray[np.int64],
    z: NDArray[np.float32],
    free: NDArray[np.int64],
    random: np.random.Generator,
) -> NDArray[np.float32]:
    """Identities (f, d) of the free scenes; a class has the gender of the look."""
    women = faces.female[rows] > 0.5
    points = np.zeros((len(free), z.shape[1]), np.float32)
    for number, row in enumerate(free):
        if number % 2:
            points[number] = random.standard_normal(z.shape[1])
        else:
            points[number] = z[random.choice(rows[women == women[row]], _CLASS)].mean(axis=0)
    return normalized(points)


def _placed(
    view: NDArray[np.uint8], mesh: NDArray[np.float32], shape: NDArray[np.float32]
) -> tuple[NDArray[np.float16], NDArray[np.uint8], NDArray[np.float16], NDArray[np.uint8]]:
    """`grid`, `alpha`, `light` and `ground` of a scene."""
    placed = place(view, mesh, shape)
    (x, y), (height, width) = placed.origin, placed.alpha.shape
    inside = (slice(y, y + height), slice(x, x + width))
    grid = np.full((VIEW_SIDE, VIEW_SIDE, 2), -2, np.float16)
    # A canonical px is a point for the warp and a square for the sampler.
    grid[inside] = np.clip((2 * placed.grid + 1) / SIZE - 1, -2, 2)
    alpha = np.zeros((VIEW_SIDE, VIEW_SIDE), np.uint8)
    alpha[inside] = np.rint(255 * placed.alpha)
    light = np.zeros((VIEW_SIDE, VIEW_SIDE, 3), np.float32)
    light[inside] = placed.light
    ground = view.copy()
    ground[inside] = placed.ground
    coarse = cv2.resize(light, (VIEW_SIDE // _LIGHT_STEP, VIEW_SIDE // _LIGHT_STEP), interpolation=cv2.INTER_AREA)
    return grid, alpha, coarse.astype(np.float16), ground


@dataclass(frozen=True)
class GeneratorLossWeights:
    """How much each part of the objective counts."""

    texture: float = 4.0
    features: float = 1.0
    identity: float = 1.5
    second: float = 1.0
    gender: float = 0.1
    age: float = 0.01
    mood: float = 0.05
    critic: float = 0.2


@dataclass(frozen=True)
class SceneBatch:
    """Rows of scenes on the device; `known` (n,): whether a real person is drawn.

    `real` (n, 3, s, s): the person's texture, `weight` (n, 1, s, s): how much each px of it counts, `mouth` (n,): how
    far its mouth shows an inside, `second` (n, d): its vector by the second recognizer.
    """

    rows: NDArray[np.int64]
    known: Tensor
    z: Tensor
    look: Tensor
    scene: tuple[Tensor, Tensor, Tensor, Tensor]
    real: Tensor
    weight: Tensor
    mouth: Tensor
    second: Tensor

    def painted(self, detail: Tensor) -> Tensor:
        """Details (n, 3, s, s) in the photos of the scenes: (n, 3, V, V), 0-255."""
        return painted(detail, *self.scene)


class GeneratorObjective(Objective):
    """Of `faces` and the linear `decoder` that was fitted on them."""

    def __init__(
        self,
        faces: PreparedFaces,
        decoder: Decoder,
        settings: TrainingSettings,
        size: int = 128,
        batch: int = 16,
        weights: GeneratorLossWeights = GeneratorLossWeights(),
    ) -> None:
        self.faces, self.size, self.batch, self.weights = faces, size, batch, weights
        order = np.random.default_rng(0).permutation(len(faces))
        held_out = min(HELD_OUT, len(faces) // 5)
        z, linear, look = decoder.identity(faces.vector), Linear.of(decoder), looks_of(faces)
        self.held_out = scenes_of(faces, np.sort(order[:held_out]), z, linear, 1)
        self.scenes = scenes_of(faces, np.sort(order[held_out:]), z, linear, settings.seed + 2)
        generator = Generator(linear, look.mean(axis=0), look.std(axis=0) + 1e-3, size)
        super().__init__(settings, generator, Critic(), generator.parameters(), 0.5)
        self.judges = PaintingJudges().to(settings.device)
        lips = cv2.GaussianBlur(canonical_frame().polygon(topology.LIPS_INNER, 1.1).astype(np.float32), (0, 0), 1.5)
        self._lips = self._on_device(cv2.resize(lips, (size, size), interpolation=cv2.INTER_AREA))
        self._zone, self._telling = self._on_device(zone_of(size)), self._on_device(_telling(size))
        self._centre = torch.from_numpy(decoder.centre).to(settings.device)
        self._mean = self._spread_out(torch.from_numpy(decoder.space.detail_mean)[None])

    def step(self, random: np.random.Generator, progress: float) -> dict[str, float]:
        batch = self._batch(self.scenes, np.sort(random.choice(len(self.scenes), self.batch, replace=False)))
        with self.autocast():
            drawn = self.networks["generator"](batch.z, batch.look).float()
        # A shut mouth has no inside; the drawing's stands there, so that it costs nothing.
        shut = self._lips * (1 - batch.mouth[:, None, None, None])
        real = batch.real + shut * (drawn.detach() - batch.real)
        losses = self._losses(batch, drawn, real, random)
        if progress >= _CRITIC_FROM:
            losses["critic"] = self.unreal(drawn * self._zone)
        self.descend(sum(getattr(self.weights, name) * loss for name, loss in losses.items()), 5.0)
        figures = {name: float(loss.detach()) for name, loss in losses.items()}
        if progress >= _CRITIC_FROM / 2:
            photo = self.criticized((real * self._zone)[batch.known])
            figures["hinge"] = self.teach_critic(photo, self.criticized(drawn.detach() * self._zone))
        return figures

    def _losses(self, batch: SceneBatch, drawn: Tensor, real: Tensor, random: np.random.Generator) -> dict[str, Tensor]:
        """The losses of a drawing that need no critic, by the names of the weights."""
        known = batch.known
        view = batch.painted(drawn)
        seen_at_random = random_view(view, random)
        photo = seen_at_random(batch.painted(real))
        with torch.no_grad(), self.autocast():
            wanted = self.judges.features(photo)
        with self.autocast():
            seen = self.judges(seen_at_random(view))
        weight = batch.weight * known[:, None, None, None]
        features = sum(
            (a.float() - b.float()).abs().mean(dim=(1, 2, 3)) / b.float().abs().mean(dim=(1, 2, 3)).clamp(min=1e-3)
            for a, b in zip(seen.features, wanted, strict=True)
        )
        female, age = batch.look[:, :1], batch.look[:, 1]
        expression = batch.look[:, 2 : 2 + len(EXPRESSIONS)]
        gender = torch.cat([female, 1 - female], dim=1)
        to_second = (seen.vectors[TRAINING_RECOGNIZER] * batch.second).sum(dim=1)
        return {
            "texture": (weight * (drawn - real).abs()).sum() / (3 * weight.sum()).clamp(min=1),
            "features": features[known].mean(),
            "identity": (1 - (self._points(seen.vectors) * batch.z).sum(dim=1)).mean(),
            "second": (1 - to_second)[known].mean(),
            "gender": -(gender * (seen.gender + 1e-4).log()).sum(dim=1).mean(),
            "age": (seen.age - age).abs().mean(),
            "mood": -(expression * seen.expression).sum(dim=1)[known].mean(),
        }

    def measure(self, generator: nn.Module) -> dict[str, float]:
        """On held-out faces: mean `cosine` to the identity, `rank1` among them, texture `l1`; the same of `linear`."""
        known = np.flatnonzero(self.held_out.face != NO_PERSON)
        points, errors = ({"": list[Tensor](), "linear_": list[Tensor]()} for _ in range(2))
        random = np.random.default_rng(0)
        for start in range(0, len(known), _PIECE):
            batch = self._batch(self.held_out, known[start : start + _PIECE])
            seen_at_random = random_view(batch.scene[-1], random)
            for name, detail in (("", generator(batch.z, batch.look)), ("linear_", self._linear(generator, batch))):
                seen = self.judges(seen_at_random(batch.painted(detail.float())))
                points[name].append(self._points(seen.vectors))
                error = (batch.weight * (detail - batch.real).abs()).sum(dim=(1, 2, 3))
                errors[name].append(error / (3 * batch.weight.sum((1, 2, 3))))
        z = torch.from_numpy(self.held_out.z[known]).to(self.settings.device)
        figures = {}
        for name in points:
            cosines = torch.cat(points[name]) @ z.T
            nearest = cosines.argmax(1) == torch.arange(len(z), device=z.device)
            figures[f"{name}cosine"] = float(cosines.diagonal().mean())
            figures[f"{name}rank1"] = float(nearest.float().mean())
            figures[f"{name}l1"] = float(torch.cat(errors[name]).mean())
        return figures

    def sheet(self, generator: nn.Module) -> NDArray[np.uint8]:
        """Held-out photos; their texture, the linear one, ours; ours in its photo, and that photo; then free scenes."""
        known = np.flatnonzero(self.held_out.face != NO_PERSON)
        known = known[:: max(1, len(known) // _SHOWN)][:_SHOWN]
        free = np.flatnonzero(self.held_out.face == NO_PERSON)[: _SHOWN // 2]
        batch = self._batch(self.held_out, np.concatenate([known, free]))
        drawn = generator(batch.z, batch.look)
        photo, host = (
            torch.from_numpy(self.faces.view[np.maximum(rows[batch.rows], 0)]).permute(0, 3, 1, 2)
            for rows in (self.held_out.face, self.held_out.into)
        )
        photo[len(known) :] = 0
        skin = torch.tensor([205.0, 160.0, 140.0], device=drawn.device).reshape(1, 3, 1, 1)
        textures = [skin * detail.exp() for detail in (batch.real, self._linear(generator, batch), drawn)]
        cells = []
        for pictures in (photo, *textures, batch.painted(drawn), host):
            tiles = F.interpolate(pictures.float().cpu(), size=(_TILE, _TILE), mode="bilinear", align_corners=False)
            cells.append(tiles.clamp(0, 255).permute(0, 2, 3, 1).byte().numpy())
        return grid_of([column[row] for column in cells] for row in range(len(batch.rows)))

    def _linear(self, generator: nn.Module, batch: SceneBatch) -> Tensor:
        """The linear faces (n, 3, size, size)."""
        base = generator.base(generator.identity(batch.z), batch.look)
        return F.interpolate(base, size=(self.size, self.size), mode="bilinear", align_corners=False)

    def _points(self, vectors: dict[str, Tensor]) -> Tensor:
        """What the pipeline's recognizer sees (n, d), in the identity space."""
        return F.normalize(vectors[PIPELINE_RECOGNIZER] - self._centre, dim=1)

    def _batch(self, scenes: Scenes, rows: NDArray[np.int64]) -> SceneBatch:
        device, faces = self.settings.device, self.faces
        face = np.maximum(scenes.face[rows], 0)
        detail = self._spread_out(torch.from_numpy(faces.detail[face]).float().to(device))
        seen = torch.from_numpy(faces.seen[face]).float().to(device)[:, None] / 255
        seen = F.interpolate(seen, size=(self.size, self.size), mode="bilinear", align_corners=False)
        mouth = torch.from_numpy((faces.mouth[face] / _OPEN).clip(0, 1).astype(np.float32)).to(device)
        light, ground = (
            torch.from_numpy(array[rows]).to(device).float().permute(0, 3, 1, 2)
            for array in (scenes.light, scenes.ground)
        )
        return SceneBatch(
            rows=rows,
            known=torch.from_numpy(scenes.face[rows] != NO_PERSON).to(device),
            z=torch.from_numpy(scenes.z[rows]).to(device),
            look=torch.from_numpy(scenes.look[rows]).to(device),
            scene=(
                torch.from_numpy(scenes.grid[rows]).to(device).float(),
                torch.from_numpy(scenes.alpha[rows]).to(device).float()[:, None] / 255,
                light,
                ground,
            ),
            real=self._mean + self._zone * seen * (detail - self._mean),
            weight=self._telling * seen * (1 - self._lips * (1 - mouth[:, None, None, None])),
            mouth=mouth,
            second=torch.from_numpy(faces.second[face]).to(device),
        )

    def _spread_out(self, packed: Tensor) -> Tensor:
        """(n, p) -> (n, 3, size, size), zero outside the region."""
        full = torch.zeros(len(packed), STORED * STORED, 3, device=packed.device)
        full[:, torch.from_numpy(region().ravel()).to(packed.device)] = packed.reshape(len(packed), -1, 3)
        square = full.reshape(-1, STORED, STORED, 3).permute(0, 3, 1, 2)
        spread = F.interpolate(square, size=(self.size, self.size), mode="bilinear", antialias=True)
        return spread.to(self.settings.device)

    def _on_device(self, values: NDArray[Any]) -> Tensor:
        """A map (s, s) as (1, 1, s, s)."""
        return torch.from_numpy(np.asarray(values, np.float32))[None, None].to(self.settings.device)


def _telling(side: int) -> NDArray[np.float32]:
    """How much a texture's px (side, side) count: eyes, brows and lips more than skin."""
    frame = canonical_frame()
    parts = (topology.LEFT_EYE, topology.RIGHT_EYE, topology.LEFT_BROW, topology.RIGHT_BROW, topology.LIPS_OUTER)
    marked = np.max([frame.polygon(part, 1.3) for part in parts], axis=0).astype(np.float32)
    marked = np.asarray(cv2.GaussianBlur(marked, (0, 0), 2), np.float32)
    return zone_of(side) * (1 + (_MARKED - 1) * cv2.resize(marked, (side, side), interpolation=cv2.INTER_AREA))
