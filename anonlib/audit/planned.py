"""What the plan says of each face, by face id: who it is, where it hides, whose surrogate it helped to make.

A vector method has no classes: its surrogates are numbered by the subjects that were drawn for, and nobody is averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

from anonlib.pipeline import tables
from anonlib.pipeline.places import Room
from anonlib.pipeline.plan import subjects_of


@dataclass(frozen=True)
class Planned:
    """Who a face is and where it hides, by face id; who was averaged, by face id; whose surrogate has a digest.

    `sizes`: of each class, k and the effective k that the plan gives it.
    """

    person: dict[str, int]
    class_of: dict[str, int]
    donor_class: dict[str, int]
    by_digest: dict[str, int]
    sizes: list[tuple[int, int]]


def planned_faces(room: Room) -> Planned:
    """The plan of a synthesis; a redaction has no people and no classes, so everything is empty."""
    plan = room.committed("plan") or {}
    if not plan["subjects"]:
        return Planned({}, {}, {}, {}, [])
    columns = ["subject_id", "faces", "class_id", "surrogates"]
    subjects = subjects_of(room, columns).to_pylist()
    person = {face: index for index, row in enumerate(subjects) for face in row["faces"]}
    blocks = plan["blocks"]
    if not blocks:
        drawn = {digest: index for index, row in enumerate(subjects) for digest in row["surrogates"]}
        return Planned(person, {}, {}, drawn, [])
    wanted = ["class_id", "donors", "portraits", "k", "effective_k"]
    rows = [
        row
        for block in blocks
        for row in tables.from_bytes(room.storage.read(room.path("classes", f"{block}.parquet")), wanted).to_pylist()
    ]
    # A decoded class has no portraits; one photo of each member stands for what its centre was made of.
    shown = {row["subject_id"]: row["faces"][:1] for row in subjects}
    number = {row["class_id"]: index for index, row in enumerate(rows)}
    donor_class = {
        face: number[row["class_id"]]
        for row in rows
        for donor, portraits in zip(row["donors"], row["portraits"], strict=True)
        for face in portraits or shown.get(donor, ())
    }
    digests = {
        digest: number[class_id]
        for block in blocks
        for class_id, digest in (room.committed(f"surrogates/{block}") or {"digests": {}})["digests"].items()
    }
    class_of = {face: number.get(row["class_id"], -1) for row in subjects for face in row["faces"]}
    sizes = [(int(row["k"]), int(row["effective_k"])) for row in rows]
    return Planned(person, class_of, donor_class, digests, sizes)
