"""What each face of a shard wears, as a table: column by column, since a mesh as Python numbers costs 40 KiB a face.

Which faces get the flat ellipse is decided here, from what the scan saw, and not while rendering: so the plan knows
exactly whose faces will show a surrogate, and counts nobody else towards k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from anonlib.config import CROP_METHODS, JobConfig
from anonlib.faces.mesh import MIN_PRESENCE
from anonlib.methods.planning import SurrogateAssignment
from anonlib.stages.people import column, eye_distance
from anonlib.workspace.schemas import ASSIGNMENTS

MAX_YAW = 60.0
"""Degrees beyond which a face is redacted, not replaced."""
LEAST_BARE = 0.5
"""Share of the skin that nothing may cover, else the face is redacted."""
ASSIGNED = ("face_id", "key", "index", "box", "landmarks", "mesh", "expression", "presence", "yaw", "bare")
"""Columns of FACES that an assignment needs."""
_LEAST_EYES = 16.0


@dataclass(frozen=True)
class Assigned:
    """ASSIGNMENTS of a shard, how many faces are redacted in it, and the surrogates that the others wear, sorted."""

    table: pa.Table
    redacted: int
    worn: list[str]


def assignments(job: JobConfig, faces: pa.Table, outfits: Sequence[SurrogateAssignment] | None = None) -> Assigned:
    """Assign the faces of a shard (its ASSIGNED columns) their `outfits`, one each; None: the job's redaction."""
    if outfits is None:
        return Assigned(
            _table(faces, [job.method.name] * faces.num_rows, [SurrogateAssignment()] * faces.num_rows), 0, []
        )
    reasons = [
        outfit.reason if reason is None else reason
        for outfit, reason in zip(outfits, why_redacted(faces, job.method.name), strict=True)
    ]
    worn = [
        outfit if reason is None else SurrogateAssignment(reason=reason)
        for outfit, reason in zip(outfits, reasons, strict=True)
    ]
    methods = [job.method.name if reason is None else "solid" for reason in reasons]
    names = sorted({name for outfit in worn for name in outfit.surrogates})
    return Assigned(_table(faces, methods, worn), sum(reason is not None for reason in reasons), names)


def _table(faces: pa.Table, methods: Sequence[str], outfits: Sequence[SurrogateAssignment]) -> pa.Table:
    decided = {
        "method": methods,
        "class_id": [one.class_id for one in outfits],
        "surrogates": [list(one.surrogates) or None for one in outfits],
        "reason": [one.reason for one in outfits],
    }
    columns = [
        pa.array(decided[field.name], field.type) if field.name in decided else faces.column(field.name)
        for field in ASSIGNMENTS
    ]
    return pa.table(columns, schema=ASSIGNMENTS)


def why_redacted(faces: pa.Table, method: str) -> list[str | None]:
    """Of each face (n,) why no synthesis can replace it, None where one can; from its columns of FACES."""
    presence, yaw, bare = (column(faces, name) for name in ("presence", "yaw", "bare"))
    eyes = eye_distance(faces) if method in CROP_METHODS else np.full(len(yaw), np.inf)
    return [
        _why(*row) for row in zip(presence.tolist(), np.abs(yaw).tolist(), bare.tolist(), eyes.tolist(), strict=True)
    ]


def _why(presence: float, yaw: float, bare: float, eyes: float) -> str | None:
    if presence < MIN_PRESENCE:
        return "the mesh does not fit: hidden, cut off, too small or no face"
    if yaw > MAX_YAW:
        return f"turned away by more than {MAX_YAW:g} degrees"
    if bare < LEAST_BARE:
        return f"something covers the face: less than {LEAST_BARE:.0%} of it is bare skin"
    if eyes < _LEAST_EYES:
        return f"fewer than {_LEAST_EYES:g} px between the eyes, too few to change"
    return None
