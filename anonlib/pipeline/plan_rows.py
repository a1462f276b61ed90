"""Rows of the plan's tables, the same however the plan was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from anonlib.pipeline.outfits import Crowd
from anonlib.pipeline.people import People
from anonlib.privacy.classes import Stratum


def crowd_row(crowd: Crowd, face_ids: Sequence[str]) -> dict[str, Any]:
    """A class as CLASSES has it; `face_ids` of the numbers in its portraits."""
    return {
        "class_id": crowd.class_id,
        "members": crowd.members,
        "donors": crowd.donors,
        "portraits": [[face_ids[face] for face in faces] for faces in crowd.portraits],
        "k": len(crowd.members),
        "effective_k": crowd.effective_k,
        "stratum": list(crowd.stratum),
        "surrogates": list(crowd.surrogates),
        "draw": crowd.draw and asdict(crowd.draw),
    }


def subject_row(people: People, number: int, faces: Sequence[str], donor: bool, stratum: Stratum) -> dict[str, Any]:
    """A subject as SUBJECTS has it, but for its class and what it wears."""
    return {
        "subject_id": people.ids[number],
        "formed_by": "clustering" if people.labels[number] is None else "label",
        "donor": donor,
        "faces": faces,
        "template": people.template[number],
        "female": float(people.female[number]),
        "age": float(people.age[number]),
        "stratum": list(stratum),
    }
