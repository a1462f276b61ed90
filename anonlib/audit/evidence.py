"""What an evaluation judges: labelled faces before and after, as arrays, with who wore whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Evidence:
    """n labelled faces whose photo was released, in the order of the dataset, and m portraits of donors.

    `subjects` (n,) number the labels, which are `names` (n,); `people` (n,), `classes` (n,) and `worn` (n,) number the
    plan's subjects and classes, -1 for none; `worn` numbers subjects where each was drawn for. `averaged` (n,): the
    original is part of a surrogate; `replaced` (n,): not a flat ellipse; `found` (n,): by the detector. `clear`,
    `released` and `context` (the face under the ellipse): recognizer -> unit vectors (n, d). Attributes (n,) and (n, 7)
    are those of the attribute networks and `mesh_error` is in eye distances; NaN where no face was found. `donors`:
    recognizer -> (m, d), of the person `donor_people` (m,) in the class `donor_classes` (m,). The fallbacks hold, for
    each face, why it fell back, or None.
    """

    subjects: NDArray[np.int64]
    names: NDArray[np.str_]
    people: NDArray[np.int64]
    classes: NDArray[np.int64]
    worn: NDArray[np.int64]
    averaged: NDArray[np.bool_]
    replaced: NDArray[np.bool_]
    found: NDArray[np.bool_]
    clear: Mapping[str, NDArray[np.float32]]
    released: Mapping[str, NDArray[np.float32]]
    context: Mapping[str, NDArray[np.float32]] | None
    female_before: NDArray[np.float32]
    female_after: NDArray[np.float32]
    expression_before: NDArray[np.float32]
    expression_after: NDArray[np.float32]
    mesh_error: NDArray[np.float64]
    donors: Mapping[str, NDArray[np.float32]]
    donor_people: NDArray[np.int64]
    donor_classes: NDArray[np.int64]
    labelled_fallbacks: Sequence[str | None]
    fallbacks: Sequence[str | None]
    images: int
    quarantined: int
