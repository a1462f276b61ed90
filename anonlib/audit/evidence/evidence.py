"""What an audit judges: people's faces before and after, and as redactions would have left them, as plain arrays."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.faces import align
from anonlib.synthesis.redact import Redaction

CLEAR, RELEASED = "clear", "released"
REDACTIONS: tuple[Redaction, ...] = ("blur", "pixelate", "solid")
ONE_FACE, ONE_FACE_ALL = "one-face", "one-face-all"
CONTROLS = (ONE_FACE, ONE_FACE_ALL)
BASELINES: tuple[str, ...] = (*REDACTIONS, *CONTROLS)
"""What a release is compared with, made of the same originals: redactions of all faces, and new faces that many share
(Controls in gather.py)."""
HIDDEN: Redaction = "solid"
"""The redaction that leaves nothing of a face."""
JUDGES = ("antispoof", "liveness")
"""Networks that tell a face before a camera from a picture of one or an edited one; nothing here was tuned to them."""
CROP, SIDE = 64, 96
"""Sides of `Look.crops` and `Look.frames` in px."""
REACH = 1.5
"""Side of a frame in longer sides of the box: the ellipse of a redaction takes nine tenths of it."""


@dataclass(frozen=True)
class Look:
    """n faces as one kind of photo shows them; a value is NaN where nothing could be read.

    `vectors`: recognizer -> unit rows (n, d); `found` (n,): the detector finds the face again. Of faces that a mesh
    fits: `female` (n,) probability, `age` (n,) years, `expression` (n, 7) in the order of EXPRESSIONS, `pose` (n, 3)
    yaw, pitch and roll in degrees, `mesh` (n, 468, 2) px of the photo, `sharpness` of the face at 96 px and `crispness`
    of its skin at the photo's own px (n,) grey levels, `real` (n, 2) probabilities by JUDGES that the face is real,
    `eyes` (n, 8) as of faces/gaze.py.
    `crops` (n, 64, 64) grey, aligned by five points; `frames` (n, 96, 96, 3) RGB around the original's box.
    """

    vectors: Mapping[str, NDArray[np.float32]]
    found: NDArray[np.bool_]
    female: NDArray[np.float32]
    age: NDArray[np.float32]
    expression: NDArray[np.float32]
    pose: NDArray[np.float32]
    mesh: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    crispness: NDArray[np.float32]
    real: NDArray[np.float32]
    eyes: NDArray[np.float32]
    crops: NDArray[np.uint8]
    frames: NDArray[np.uint8]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its arrays by name; `vectors/NAME` of each recognizer."""
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "vectors"}
        return plain | {f"vectors/{name}": array for name, array in self.vectors.items()}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Look:
        """The inverse of `arrays`."""
        vectors = {name.partition("/")[2]: array for name, array in arrays.items() if "/" in name}
        return cls(vectors=vectors, **{name: array for name, array in arrays.items() if "/" not in name})

    def taken(self, rows: NDArray[np.bool_]) -> Look:
        """The look at some of the faces (n,)."""
        return Look.of_arrays({name: array[rows] for name, array in self.arrays().items()})

    @classmethod
    def joined(cls, looks: Sequence[Look]) -> Look:
        """One look at all the faces of one look or more, in order."""
        several = [look.arrays() for look in looks]
        return cls.of_arrays(
            {name: np.concatenate([arrays.pop(name) for arrays in several]) for name in list(several[0])}
        )


def to_bytes(faces: Sequence[str], looks: Mapping[str, Look]) -> bytes:
    """Looks by kind at the faces with these ids, as one .npz file."""
    arrays = {f"{kind}/{name}": array for kind, look in looks.items() for name, array in look.arrays().items()}
    sink = io.BytesIO()
    np.savez(sink, faces=np.array(faces, np.str_), **arrays)  # type: ignore[arg-type]
    return sink.getvalue()


def from_bytes(data: bytes, kinds: Sequence[str]) -> tuple[list[str], dict[str, Look]]:
    """The inverse of `to_bytes`."""
    arrays: dict[str, dict[str, NDArray[Any]]] = {kind: {} for kind in kinds}
    with np.load(io.BytesIO(data)) as stored:
        faces = stored["faces"].tolist()
        for path in stored.files:
            kind, _, name = path.partition("/")
            if kind in arrays:
                arrays[kind][name] = stored[path]
    return faces, {kind: Look.of_arrays(named) for kind, named in arrays.items()}


def frame(box: NDArray[np.float32]) -> align.Affine:
    """Image px -> px of the frame around a box (4,) px, which the outline of what was painted over gives away."""
    centre = np.asarray((box[:2] + box[2:]) / 2, np.float32)
    return align.square(centre, REACH * float((box[2:] - box[:2]).max()), 0.0, SIDE)


@dataclass(frozen=True)
class Evidence:
    """n faces whose photo was released, at most one a photo, in the order of the dataset, and m portraits of donors.

    `faces` (n,) are the scan's ids. `subjects` (n,) number the people `names` (n,): the dataset's labels, or, where
    `labelled` is False, what the plan clustered. `people`, `classes` and `worn` (n,) number the plan's subjects, their
    classes and the surrogates that are shown, -1 for none; surrogates as subjects where each was drawn for one.
    `averaged` (n,): the original is part of a surrogate; `replaced` (n,): not an ellipse in the place of another
    method; `eye_distance` (n,) and `boxes` (n, 4) px of the original. `looks`: CLEAR, RELEASED and BASELINES -> Look.
    `donors`: recognizer -> (m, d), of the person `donor_people` (m,) in the class `donor_classes` (m,).
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

    @property
    def clear(self) -> Look:
        return self.looks[CLEAR]

    @property
    def released(self) -> Look:
        return self.looks[RELEASED]
