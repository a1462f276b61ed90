"""Were people of an evaluation among those a generator learned from? By likeness, since training faces have no names.

A person is left out of the evaluation where any photo of the person resembles any face of the training. The bar is far
below certainty, so it leaves out some strangers too, and misses people whose two photos look less alike than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.privacy.clustering import normalized
from anonlib.synthesis.base import FaceDecoder
from anonlib.synthesis.textures.linear import Decoder
from anonlib.workspace.tables import matrix

RESEMBLES = 0.945
"""dlib cosine: above it lie half of the pairs of photos of one person of LFW, and one in 11,000 pairs of strangers."""

_ROWS = 1024

Vectors = NDArray[np.float32]


def learned_from(
    faces: pa.Table, decoders: Sequence[FaceDecoder], prepared: Mapping[str, Vectors]
) -> tuple[frozenset[str], list[str]]:
    """Labels of FACES rows whose people may have been learned from, and in words what was checked.

    Checked are the banks of linear `decoders`, which hold part of what those were fitted on, and the unit vectors
    (m, d) of faces `prepared` for training, by where they lie. A network holds nobody that it learned from.
    """
    said = [f"a decoder says that it was fitted on {one.about.fitted_on}" for one in decoders]
    fitted = [one for one in decoders if isinstance(one, Decoder)]
    learned = {f"{len(one.bank):,} of a decoder's {one.about.faces:,} faces": bank_faces(one) for one in fitted}
    learned |= {f"the faces prepared in {folder}": vectors for folder, vectors in prepared.items()}
    embeddings, labels = matrix(faces, "embedding"), np.array(faces.column("label").to_pylist())
    without: set[str] = set()
    for what, vectors in learned.items():
        alike = set(labels[resembling(embeddings, vectors)].tolist())
        said.append(f"{len(alike)} people who resemble any of {what} take no part (dlib cosine {RESEMBLES:g} or more)")
        without |= alike
    return frozenset(without), said or ["no source says what it was trained on, and no faces of a training were given"]


def resembling(photos: Vectors, faces: Vectors) -> NDArray[np.bool_]:
    """(n,) Whether each of `photos` (n, d) resembles any of `faces` (m, d), unit rows."""
    if len(faces) == 0:
        return np.zeros(len(photos), bool)
    nearest = [(photos[start : start + _ROWS] @ faces.T).max(axis=1) for start in range(0, len(photos), _ROWS)]
    return np.asarray(np.concatenate([np.zeros(0, np.float32), *nearest]) >= RESEMBLES, np.bool_)


def bank_faces(decoder: Decoder) -> Vectors:
    """The recognizer's unit vectors (m, d) of the faces in a decoder's bank, out of its identity space.

    A point u of that space is normalize(v - c), so v = c + s u with the s > 0 that makes v a unit vector.
    """
    points, centre = decoder.bank.vectors, decoder.centre
    along = points @ centre
    reach = np.sqrt(np.maximum(along**2 + 1 - float(centre @ centre), 0)) - along
    return normalized(centre + reach[:, None] * points)
