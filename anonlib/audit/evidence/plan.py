"""What the plan says of each face, by face id: its person, its class, and the surrogate that it helped to make.

A vector method has no classes: its surrogates are numbered by the subjects that were drawn for, and nobody is averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

from anonlib.methods.base import released_digest
from anonlib.privacy.keys import Keyring
from anonlib.workspace.layout import PlanStore


@dataclass(frozen=True)
class PlanRecord:
    """Numbers of each face's `person` and `class_of`, of the surrogate it was averaged into, and of each digest's.

    A surrogate's number is that of the person it was drawn for where each person has one. `sizes`: of each class, its
    persons and the effective k that the plan gives it.
    """

    person: dict[str, int]
    class_of: dict[str, int]
    donated: dict[str, int]
    by_digest: dict[str, int]
    sizes: list[tuple[int, int]]


def planned_faces(store: PlanStore, keyring: Keyring) -> PlanRecord:
    """The plan of a synthesis; a redaction has no people and no classes, so everything is empty."""
    plan = store.committed("plan") or {}
    if not plan["subjects"]:
        return PlanRecord({}, {}, {}, {}, [])
    subjects = store.subjects(["person_id", "faces", "class_id", "surrogates"]).to_pylist()
    persons: dict[str, int] = {}
    person = {face: persons.setdefault(row["person_id"], len(persons)) for row in subjects for face in row["faces"]}
    blocks = plan["blocks"]
    if not blocks:
        drawn = {
            released_digest(keyring, name): persons[row["person_id"]] for row in subjects for name in row["surrogates"]
        }
        return PlanRecord(person, {}, {}, drawn, [])
    classes = store.classes()
    class_number = {row["class_id"]: number for number, row in enumerate(classes)}
    class_of = {face: class_number.get(row["class_id"], -1) for row in subjects for face in row["faces"]}
    made = store.surrogate_plans(blocks, ["surrogate_id", "donors", "portraits"])
    number = {row["surrogate_id"]: index for index, row in enumerate(made)}
    # A decoded surrogate has no portraits; one photo of each donor stands for what its mean was made of.
    shown = {row["person_id"]: row["faces"][:1] for row in reversed(subjects)}
    donated = {
        face: number[row["surrogate_id"]]
        for row in made
        for donor, portraits in zip(row["donors"], row["portraits"], strict=True)
        for face in portraits or shown.get(donor, ())
    }
    digests = {
        released_digest(keyring, digest): number[name]
        for block in blocks
        for name, digest in (store.committed(f"surrogates/{block}") or {"digests": {}})["digests"].items()
    }
    sizes = [(len(row["members"]), int(row["effective_k"])) for row in classes]
    return PlanRecord(person, class_of, donated, digests, sizes)
