"""Rows of the plan's tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from anonlib.methods.planning import ClassPlan, SurrogateAssignment, SurrogatePlan
from anonlib.stages.people import People, Persons


def class_row(one: ClassPlan) -> dict[str, Any]:
    """A class as CLASSES has it."""
    return asdict(one) | {"stratum": list(one.stratum)}


def surrogate_row(one: SurrogatePlan, face_ids: Sequence[str]) -> dict[str, Any]:
    """A surrogate as SURROGATES has it; `face_ids` of the numbers in its portraits."""
    return {
        "surrogate_id": one.surrogate_id,
        "donors": one.donors,
        "portraits": [[face_ids[face] for face in faces] for faces in one.portraits],
        "stratum": list(one.stratum),
        "draw": one.draw and asdict(one.draw),
    }


def subject_row(
    people: People,
    persons: Persons,
    number: int,
    faces: Sequence[int],
    outfit: SurrogateAssignment,
    face_ids: Sequence[str],
) -> dict[str, Any]:
    """A subject as SUBJECTS has it; `faces` are its face numbers."""
    person = persons.of_face[faces[0]]
    return {
        "subject_id": people.ids[number],
        "person_id": persons.ids[person],
        "formed_by": "clustering" if people.labels[number] is None else "label",
        "faces": [face_ids[face] for face in faces],
        "template": people.template[number],
        "female": float(people.female[number]),
        "age": float(people.age[number]),
        "stratum": list(persons.strata[person]),
        "class_id": outfit.class_id,
        "surrogates": list(outfit.surrogates),
    }
