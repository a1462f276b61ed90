"""What the plan says of each face, by face id: who it is, where it hides, whose surrogate it helped to make."""

from __future__ import annotations

from dataclasses import dataclass

from anonlib.pipeline import tables
from anonlib.pipeline.places import Room


@dataclass(frozen=True)
class Planned:
    """Who a face is and where it hides, by face id; who was averaged, by face id; which class has a digest."""

    person: dict[str, int]
    class_of: dict[str, int]
    donor_class: dict[str, int]
    by_digest: dict[str, int]


def planned_faces(room: Room) -> Planned:
    """The plan of a synthesis; a redaction has no people and no classes, so everything is empty."""
    blocks = (room.committed("plan") or {})["blocks"]
    if not blocks:
        return Planned({}, {}, {}, {})
    rows = [
        row
        for block in blocks
        for row in tables.from_bytes(
            room.storage.read(room.path("classes", f"{block}.parquet")), ["class_id", "portraits"]
        ).to_pylist()
    ]
    number = {row["class_id"]: index for index, row in enumerate(rows)}
    donor_class = {
        face: number[row["class_id"]] for row in rows for portraits in row["portraits"] for face in portraits
    }
    digests = {
        digest: number[class_id]
        for block in blocks
        for class_id, digest in (room.committed(f"surrogates/{block}") or {"digests": {}})["digests"].items()
    }
    subjects = tables.from_bytes(room.storage.read(room.path("subjects.parquet")), ["faces", "class_id"]).to_pylist()
    person = {face: index for index, row in enumerate(subjects) for face in row["faces"]}
    class_of = {face: number.get(row["class_id"], -1) for row in subjects for face in row["faces"]}
    return Planned(person, class_of, donor_class, digests)
