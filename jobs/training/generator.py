"""What ksame-net is trained for, and how well it does on people it does not learn from.

Of a real person: the canonical texture (L1), what the recognizer's activations make of it in a photo, the identity by
two recognizers, the look by readers of age, gender and expression, and a critic that knows photographs. Of a free
identity (a random one, or the mean of a class, since jobs draw those): all but the texture. Each face is painted into a
scene: the photo of another person of the same gender and a similar expression, as it is when a job runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anonlib.errors import ConfigError
from anonlib.faces import topology
from anonlib.models.catalog import PIPELINE_RECOGNIZER
from anonlib.privacy.clustering import normalized
from anonlib.synthesis.base import DecoderNotes
from anonlib.synthesis.canonical import SIZE, canonical_frame
from anonlib.synthesis.compositor import place
from anonlib.workspace.schemas import EXPRESSIONS, MESH_POINTS

from .data import (
    TRAINING_RECOGNIZER,
    VIEW_SIDE,
    Floats,
    Pixels,
    PreparedFaces,
    Rows,
    keep_identities,
    load,
)
from .generator_network import Generator, linear_start, looks_of, painted, zone_of
from .recognizers import PaintingJudges, random_view
from .trainer import CHECKPOINT, KSAME_NET, Critic, Objective, TrainingSettings, read_notes

NO_PERSON = -1
HELD_OUT = 200  # faces that are kept from training, to measure on; of few faces a fifth

_FREE, _CLASS = 0.25, 5
"""Share of the faces with a second scene without a real person: a random identity or the mean of _CLASS, in turns."""
_OPEN = 0.12  # how open a mouth must be to show an inside that can be learned
_LIGHT_STEP, _CRITIC_FROM, _MARKED, _PIECE = 2, 0.04, 2.5, 20


def train_ksame_net(
    faces: Path,
    folder: Path,
    settings: TrainingSettings,
    about: DecoderNotes,
    *,
    size: int = 128,
    grown_from: Path | None = None,
    batch: int = 16,
) -> dict[str, Any]:
    """Train in `folder` on prepared `faces` until the settings' seconds are spent, all pieces together; the record.

    The linear face that the network starts from is fitted on the same faces first. A network of 256 px is
    `grown_from` the run of one of 128 px: it starts as that one, its last block drawing nothing.
    """
    learned = load(faces)
    about = replace(about, faces=len(learned))
    keep_identities(learned, folder)
    objective = GeneratorObjective(learned, settings, size, batch)
    smaller = None
    if grown_from is not None:
        smaller = read_notes(grown_from)["record"]
        if not (folder / CHECKPOINT).exists():
            objective.grow(grown_from)
    return objective.train(folder, about, network=KSAME_NET, size=size, batch=batch, grown_from=smaller)


@dataclass(frozen=True)
class Scenes:
    """Columns of m scenes: `face` (m,): which face is drawn, or NO_PERSON, and `into` (m,): the face of the photo.

    `z` (m, d), `look` (m, LOOKS); `grid` (m, V, V, 2): where in the canonical frame, -1 to 1, each px of the view
    lies; `alpha` (m, V, V) 0-255; `light` (m, V / 2, V / 2, 3), log; `ground` (m, V, V, 3): the photo without its face.
    """

    face: Rows
    into: Rows
    z: Floats
    look: Floats
    grid: NDArray[np.float16]
    alpha: Pixels
    light: NDArray[np.float16]
    ground: Pixels

    def __len__(self) -> int:
        return len(self.face)


def scenes_of(faces: PreparedFaces, rows: Rows, z: Floats, generator: Generator, seed: int) -> Scenes:
    """A scene for each of `rows`, and the free ones; `z` (n, d) are the faces in the identity space."""
    random = np.random.default_rng(seed)
    women, looks = faces.female[rows] > 0.5, looks_of(faces)
    # The photo's person: the next one by gender, mouth and smile.
    happy = faces.expression[rows, EXPRESSIONS.index("happy")]
    order = np.lexsort((random.random(len(rows)), np.rint(2 * happy), np.rint(5 * faces.mouth[rows]), women))
    into = np.empty(len(rows), np.int64)
    into[order] = rows[np.roll(order, 1)]
    free = random.choice(len(rows), int(_FREE * len(rows)), replace=False)
    points = np.zeros((len(free), z.shape[1]), np.float32)
    for number, row in enumerate(free):
        if number % 2:
            points[number] = random.standard_normal(z.shape[1])
        else:
            points[number] = z[random.choice(rows[women == women[row]], _CLASS)].mean(axis=0)
    identities = np.concatenate([z[rows], normalized(points)])
    look = np.concatenate([looks[rows], looks[rows[free]]])
    face = np.concatenate([rows, np.full(len(free), NO_PERSON)])
    into = np.concatenate([into, into[free]])
    # The texture has the expression of the identity's own photo, the geometry that of the other person's.
    with torch.no_grad():
        shapes = generator.shapes(torch.from_numpy(identities), torch.from_numpy(look)).numpy()
    placed = [
        _placed(faces.view[host], faces.mesh[host], shape.reshape(MESH_POINTS, 3))
        for host, shape in zip(into, shapes, strict=True)
    ]
    return Scenes(face, into, identities, look, *(np.stack(column) for column in zip(*placed, strict=True)))


def _placed(
    view: Pixels, mesh: Floats, shape: Floats
) -> tuple[NDArray[np.float16], Pixels, NDArray[np.float16], Pixels]:
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
class SceneBatch:
    """Scenes on the device; `known` (n,): whether a real person is drawn; `scene`: grid, alpha, light and ground.

    `real` (n, 3, s, s): the person's texture, `weight` (n, 1, s, s): how much each px of it counts, `mouth`
    (n, 1, 1, 1): how far its mouth shows an inside, `second` (n, d): its vector by the second recognizer.
    """

    known: Tensor
    z: Tensor
    look: Tensor
    scene: tuple[Tensor, Tensor, Tensor, Tensor]
    real: Tensor
    weight: Tensor
    mouth: Tensor
    second: Tensor


class GeneratorObjective(Objective):
    """Of `faces`, some of which are kept from training, and a Generator that begins as their `linear_start`."""

    weights: ClassVar = {
        "texture": 4.0, "features": 1.0, "identity": 1.5, "second": 1.0, "gender": 0.1, "age": 0.01, "mood": 0.05,
        "critic": 0.2,
    }  # fmt: skip

    def __init__(self, faces: PreparedFaces, settings: TrainingSettings, size: int = 128, batch: int = 16) -> None:
        self.faces, self.size, self.batch = faces, size, batch
        torch.manual_seed(settings.seed)
        generator = Generator(linear_start(faces), size)
        order = np.random.default_rng(0).permutation(len(faces))
        z = normalized(faces.vector - generator.centre.numpy())
        held_out = min(HELD_OUT, len(faces) // 5)
        self.held_out = scenes_of(faces, np.sort(order[:held_out]), z, generator, 1)
        self.scenes = scenes_of(faces, np.sort(order[held_out:]), z, generator, settings.seed + 2)
        super().__init__(settings, generator, Critic(), generator.parameters(), 0.5)
        self.judges = PaintingJudges().to(settings.device)
        frame = canonical_frame()
        parts = (topology.LEFT_EYE, topology.RIGHT_EYE, topology.LEFT_BROW, topology.RIGHT_BROW, topology.LIPS_OUTER)
        marked = self._map(np.max([frame.polygon(part, 1.3) for part in parts], axis=0), 2.0)
        self._lips = self._map(frame.polygon(topology.LIPS_INNER, 1.1), 1.5)
        self._zone = torch.from_numpy(zone_of(size))[None, None].to(settings.device)
        # How much a px of a texture counts: eyes, brows and lips more than skin.
        self._telling = self._zone * (1 + (_MARKED - 1) * marked)
        self._centre = generator.centre.to(settings.device)
        self._mean = self._sized(generator.mean[None].to(settings.device))

    def grow(self, smaller: Path) -> None:
        """Begin with the weights of a run of half the size; what it lacks stays as it was initialized."""
        state = torch.load(smaller / CHECKPOINT, map_location="cpu", weights_only=True)
        for name, source in (("generator", "average"), ("average", "average"), ("critic", "critic")):
            lacking = self.networks[name].load_state_dict(state["networks"][source], strict=False)
            if lacking.unexpected_keys:
                raise ConfigError(f"{smaller} holds a network that does not fit: {lacking.unexpected_keys[0]}")

    def step(self, random: np.random.Generator, progress: float) -> dict[str, float]:
        batch = self._batch(self.scenes, np.sort(random.choice(len(self.scenes), self.batch, replace=False)))
        with self.autocast():
            drawn = self.networks["generator"](batch.z, batch.look).float()
        # A shut mouth has no inside; the drawing's stands there, so that it costs nothing.
        real = batch.real + self._lips * (1 - batch.mouth) * (drawn.detach() - batch.real)
        losses = self._losses(batch, drawn, real, random)
        if progress >= _CRITIC_FROM:
            losses["critic"] = self.unreal(drawn * self._zone)
        self.descend(sum(self.weights[name] * loss for name, loss in losses.items()), 5.0)
        figures = {name: float(loss.detach()) for name, loss in losses.items()}
        if progress >= _CRITIC_FROM / 2:
            photo = self.criticized((real * self._zone)[batch.known])
            figures["hinge"] = self.teach_critic(photo, self.criticized(drawn.detach() * self._zone))
        return figures

    def _losses(self, batch: SceneBatch, drawn: Tensor, real: Tensor, random: np.random.Generator) -> dict[str, Tensor]:
        """The losses of a drawing that need no critic, by the names of the weights."""
        known = batch.known
        view = painted(drawn, *batch.scene)
        seen_at_random = random_view(view, random)
        photo = seen_at_random(painted(real, *batch.scene))
        with torch.no_grad(), self.autocast():
            wanted = self.judges.features(photo)
        with self.autocast():
            seen, drawn_features = self.judges(seen_at_random(view))
        weight = batch.weight * known[:, None, None, None]
        features = sum(
            (a.float() - b.float()).abs().mean(dim=(1, 2, 3)) / b.float().abs().mean(dim=(1, 2, 3)).clamp(min=1e-3)
            for a, b in zip(drawn_features, wanted, strict=True)
        )
        female, age = batch.look[:, :1], batch.look[:, 1]
        expression = batch.look[:, 2 : 2 + len(EXPRESSIONS)]
        gender = torch.cat([female, 1 - female], dim=1)
        to_second = (seen[TRAINING_RECOGNIZER] * batch.second).sum(dim=1)
        return {
            "texture": (weight * (drawn - real).abs()).sum() / (3 * weight.sum()).clamp(min=1),
            "features": features[known].mean(),
            "identity": (1 - (self._points(seen) * batch.z).sum(dim=1)).mean(),
            "second": (1 - to_second)[known].mean(),
            "gender": -(gender * (seen["gender"] + 1e-4).log()).sum(dim=1).mean(),
            "age": (seen["age"] - age).abs().mean(),
            "mood": -(expression * seen["expression"]).sum(dim=1)[known].mean(),
        }

    def measure(self, generator: nn.Module) -> dict[str, float]:
        """On held-out people: mean `cosine` to the identity, `rank1` among them, and the texture's `l1`."""
        known = np.flatnonzero(self.held_out.face != NO_PERSON)
        points, errors, random = list[Tensor](), list[Tensor](), np.random.default_rng(0)
        for start in range(0, len(known), _PIECE):
            batch = self._batch(self.held_out, known[start : start + _PIECE])
            detail = generator(batch.z, batch.look).float()
            seen, _ = self.judges(random_view(batch.scene[-1], random)(painted(detail, *batch.scene)))
            points.append(self._points(seen))
            error = (batch.weight * (detail - batch.real).abs()).sum(dim=(1, 2, 3))
            errors.append(error / (3 * batch.weight.sum((1, 2, 3))))
        cosines = torch.cat(points) @ torch.from_numpy(self.held_out.z[known]).to(self.settings.device).T
        figures = {"cosine": cosines.diagonal(), "l1": torch.cat(errors)}
        figures["rank1"] = (cosines.argmax(1) == torch.arange(len(cosines), device=cosines.device)).float()
        return {name: float(values.mean()) for name, values in figures.items()}

    def _points(self, readings: dict[str, Tensor]) -> Tensor:
        """What the pipeline's recognizer sees (n, d), in the identity space."""
        return F.normalize(readings[PIPELINE_RECOGNIZER] - self._centre, dim=1)

    def _batch(self, scenes: Scenes, rows: Rows) -> SceneBatch:
        def on_device(values: NDArray[Any]) -> Tensor:
            return torch.from_numpy(values).to(self.settings.device)

        faces, face = self.faces, np.maximum(scenes.face[rows], 0)
        detail = self._sized(on_device(faces.detail[face]).float().permute(0, 3, 1, 2))
        seen = self._sized(on_device(faces.seen[face]).float()[:, None] / 255)
        mouth = on_device((faces.mouth[face] / _OPEN).clip(0, 1).astype(np.float32))[:, None, None, None]
        light, ground = (on_device(array[rows]).float().permute(0, 3, 1, 2) for array in (scenes.light, scenes.ground))
        alpha = on_device(scenes.alpha[rows]).float()[:, None] / 255
        return SceneBatch(
            known=on_device(scenes.face[rows] != NO_PERSON),
            z=on_device(scenes.z[rows]),
            look=on_device(scenes.look[rows]),
            scene=(on_device(scenes.grid[rows]).float(), alpha, light, ground),
            real=self._mean + self._zone * seen * (detail - self._mean),
            weight=self._telling * seen * (1 - self._lips * (1 - mouth)),
            mouth=mouth,
            second=on_device(faces.second[face]),
        )

    def _sized(self, pictures: Tensor) -> Tensor:
        """Pictures (n, c, s, s) at the size of the textures."""
        return F.interpolate(pictures, size=(self.size, self.size), mode="bilinear", antialias=True)

    def _map(self, inside: NDArray[Any], soft: float) -> Tensor:
        """A polygon of the canonical frame with soft edges, (1, 1, size, size)."""
        blurred = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), soft)
        small = cv2.resize(blurred, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return torch.from_numpy(np.asarray(small, np.float32))[None, None].to(self.settings.device)
