"""The scenes of ksame-net's training: each face is painted into another person's photo, as it is when a job runs.

A scene pairs an identity and a look with the photo of another person of the same gender and a similar expression. Some
scenes show no real person: a random identity or the mean of a class, since jobs draw those.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.clustering import normalized
from anonlib.synthesis.canonical import SIZE
from anonlib.synthesis.compositor import place
from anonlib.training.data import VIEW_SIDE, PreparedFaces
from anonlib.training.objectives.generator_network import Linear
from anonlib.workspace.schemas import EXPRESSIONS

NO_PERSON = -1
FREE = 0.25
"""Share of the faces that get a second scene without a real person: every other one a random identity, else the mean
of CLASS."""
CLASS = 5
LIGHT_STEP = 2


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
    free = random.choice(len(rows), int(FREE * len(rows)), replace=False)
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
            points[number] = z[random.choice(rows[women == women[row]], CLASS)].mean(axis=0)
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
    coarse = cv2.resize(light, (VIEW_SIDE // LIGHT_STEP, VIEW_SIDE // LIGHT_STEP), interpolation=cv2.INTER_AREA)
    return grid, alpha, coarse.astype(np.float16), ground
