"""Drawn people for attackers: each has a coarse pattern of colours where the face would be."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import SIDE
from anonlib.audit.trained.data import AttackerData, split
from anonlib.models.catalog import MODELS
from anonlib.synthesis.redact import redact

JUDGE = "fr-feature"
"""The name of the recognizer that knows the drawn people."""
CELLS = 4
"""Sides of a person's pattern; a blur leaves it to whoever can compute, a flat ellipse does not."""

Pixels = NDArray[np.uint8]


def look(pictures: Pixels) -> NDArray[np.float32]:
    """The vectors (n, 48) of a recognizer that knows these patterns: the face's mean colours, cell by cell."""
    faces = [picture[20:76, 20:76] for picture in pictures]
    small = np.array([cv2.resize(face, (CELLS, CELLS), interpolation=cv2.INTER_AREA) for face in faces], np.float32)
    vectors = small.reshape(len(small), -1) - 127
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def held(how: str, people: int = 40, photos: int = 5, seed: int = 0) -> AttackerData:
    """Photos of `people`, redacted; boxes differ, light and noise do, and the surroundings are those of nobody."""
    random = np.random.default_rng(seed)
    patterns = random.uniform(-60, 60, (people, CELLS, CELLS, 3)).astype(np.float32)
    who = np.repeat(np.arange(people), photos)
    clear, boxes = np.zeros((len(who), SIDE, SIDE, 3), np.uint8), np.zeros((len(who), 4), np.float32)
    points = np.zeros((len(who), 5, 2), np.float32)
    for row, person in enumerate(who):
        light = patterns[person] + 127 + random.normal(0, 10, 3)
        face = cv2.resize(light, (56, 56), interpolation=cv2.INTER_CUBIC)
        scene = cv2.resize(random.uniform(0, 255, (5, 5, 3)), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        scene[20:76, 20:76] = face
        clear[row] = np.clip(scene + random.normal(0, 2, scene.shape), 0, 255)
        half = np.array([random.uniform(24, 32), 32.0], np.float32)
        boxes[row] = np.concatenate([SIDE / 2 - half, SIDE / 2 + half])
        points[row] = np.array(MODELS["fr-feature"].input.landmarks()) * 0.5 + 20 + random.normal(0, 1, 2)
    released = clear.copy()
    for picture, box in zip(released, boxes, strict=True):
        redact(picture, box, how)
    again = partial(redact, how=how)
    nobody, vectors = np.full(len(who), -1), {JUDGE: look(clear)}
    return AttackerData(clear, released, boxes, points, who, vectors, nobody, *split(who, 0), anonymize=again)
