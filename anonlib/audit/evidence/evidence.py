"""What an audit judges: people's faces before and after, and as redactions would have left them, as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.synthesis.redact import Redaction

CLEAR, RELEASED = "clear", "released"
BASELINES: tuple[Redaction, ...] = ("blur", "pixelate", "solid")
"""Redactions that a release is compared with, on all faces of the same originals."""
HIDDEN: Redaction = "solid"
"""The one of them that leaves nothing of a face."""
CROP = 112
"""Side of `Look.crops` in px."""


@dataclass(frozen=True)
class Look:
    """n faces as one kind of photo shows them; a value is NaN where nothing could be read.

    `vectors`: recognizer -> unit rows (n, d), taken at the original's points where no face is found, so that a hidden
    face is not counted as a safe one; `found` (n,): the detector finds the face again. The others belong to faces that
    a mesh fits: `female` (n,) probability, `age` (n,) years, `expression` (n, 7) in the order of EXPRESSIONS, `pose`
    (n, 3) yaw, pitch and roll in degrees, `mesh` (n, 468, 2) px of the photo, `sharpness` (n,) grey levels. `crops`
    (n, 112, 112, 3) RGB, aligned by the five points that the vectors were taken at; `frames` (n, 96, 96, 3) RGB around
    the original's box (attackers.held.frame).
    """

    vectors: Mapping[str, NDArray[np.float32]]
    found: NDArray[np.bool_]
    female: NDArray[np.float32]
    age: NDArray[np.float32]
    expression: NDArray[np.float32]
    pose: NDArray[np.float32]
    mesh: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    crops: NDArray[np.uint8]
    frames: NDArray[np.uint8]


@dataclass(frozen=True)
class Evidence:
    """n faces whose photo was released, at most one a photo, in the order of the dataset, and m portraits of donors.

    `faces` (n,) are the scan's ids. `subjects` (n,) number the people, who are `names` (n,): the dataset's labels, or,
    where `labelled` is False, the subjects that the plan formed by clustering, which are no ground truth. `people`
    (n,), `classes` (n,) and `worn` (n,) number the plan's subjects and classes, -1 for none; `worn` numbers subjects
    where each was drawn for. `averaged` (n,): the original is part of a surrogate; `replaced` (n,): not a flat ellipse
    in the place of another method. `eye_distance` (n,) px of the original, `boxes` (n, 4) px where the job found it.
    `looks`: CLEAR, RELEASED and BASELINES -> Look. `donors`: recognizer -> (m, d), of the person `donor_people` (m,) in
    the class `donor_classes` (m,).
    """

    faces: Sequence[str]
    subjects: NDArray[np.int64]
    names: NDArray[np.str_]
    labelled: bool
    people: NDArray[np.int64]
    classes: NDArray[np.int64]
    worn: NDArray[np.int64]
    averaged: NDArray[np.bool_]
    replaced: NDArray[np.bool_]
    eye_distance: NDArray[np.float32]
    boxes: NDArray[np.float32]
    looks: Mapping[str, Look]
    donors: Mapping[str, NDArray[np.float32]]
    donor_people: NDArray[np.int64]
    donor_classes: NDArray[np.int64]
    images: int
    quarantined: int

    @property
    def clear(self) -> Look:
        return self.looks[CLEAR]

    @property
    def released(self) -> Look:
        return self.looks[RELEASED]
