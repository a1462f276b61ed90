"""Parts of the photos that an attack is also reported on: an average may hide those whom it fails."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import Evidence

By = Literal["gender", "age", "pose", "size"]

AGES = (30.0, 50.0)
YAWS = (15.0, 30.0)
_SIZES = (1 / 3, 2 / 3)


def groups_of(evidence: Evidence) -> list[tuple[By, str, NDArray[np.bool_]]]:
    """What photos have in common, its name, and which (n,) they are, judged by the originals.

    Gender and age as the attribute networks see them, the head's turn, and thirds by the distance of the eyes. A photo
    of which a value is not known is in no group.
    """
    clear, size = evidence.clear, evidence.eye_distance
    with np.errstate(invalid="ignore"):
        turned = np.abs(clear.pose[:, 0])
        parts: list[tuple[By, str, NDArray[np.bool_]]] = [
            ("gender", "female", clear.female >= 0.5),
            ("gender", "male", clear.female < 0.5),
            ("age", "under 30", clear.age < AGES[0]),
            ("age", "30 to 50", (clear.age >= AGES[0]) & (clear.age <= AGES[1])),
            ("age", "over 50", clear.age > AGES[1]),
            ("pose", "frontal", turned < YAWS[0]),
            ("pose", "turned 15 to 30 degrees", (turned >= YAWS[0]) & (turned <= YAWS[1])),
            ("pose", "turned over 30 degrees", turned > YAWS[1]),
        ]
        if np.isfinite(size).any():
            small, large = np.nanquantile(size, _SIZES)
            parts += [
                ("size", f"eyes under {small:.0f} px apart", size < small),
                ("size", f"eyes {small:.0f} to {large:.0f} px apart", (size >= small) & (size <= large)),
                ("size", f"eyes over {large:.0f} px apart", size > large),
            ]
    return parts
