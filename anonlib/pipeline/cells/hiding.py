"""Who hides with whom and wears what, in cells: the classes of a room, a deck of classes from all rooms, the outfits.

A class is dealt the surrogate of one far away. In its own room all are near, so each class goes to a deck by its name,
a keyed pseudonym: a deck is a random part of all classes, and dealing within it is what the whole plan does in blocks
where there are many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from anonlib.config import CLASS_METHODS
from anonlib.pipeline.cells import fragments as pieces
from anonlib.pipeline.cells.bench import Bench, name
from anonlib.pipeline.growing import hidden_persons
from anonlib.pipeline.label_check import check_labels
from anonlib.pipeline.outfits import (
    Hidden,
    Outfit,
    Wardrobe,
    crowd_outfit,
    deal,
    donors_of,
    draws_of,
    hidden_crowds,
    hidden_nowhere,
)
from anonlib.pipeline.people import People, column, matrix
from anonlib.pipeline.plan_rows import crowd_row, subject_row
from anonlib.pipeline.tables import of_rows
from anonlib.privacy.subjects import by_label
from anonlib.records import CLASSES, DEALT, DECK, DRAWS, FRAGMENTS, OUTFITS, SUBJECTS, WANTED

BLOCK = 1024
"""Classes whose surrogates are made as one unit of work: so many that their portraits make parcels of some size."""
_BLOCKS_A_ROOM = 100_000


def classes(bench: Bench, room: int) -> dict[str, Any]:
    """Subjects and classes of a room, as far as it knows; its classes also to their decks."""
    cells = bench.rooms.cells[room]
    found = pa.concat_tables([bench.parcels.received("subjects", cell, FRAGMENTS) for cell in cells]).combine_chunks()
    if found.num_rows == 0:
        return {"subjects": 0}
    people, found = _people(bench, found)
    if bench.job.method.name in CLASS_METHODS:
        hidden, portraits = _hidden(bench, people, found)
        _send_classes(bench, room, hidden, portraits)
        strata, is_donor, crowds = hidden.strata, hidden.is_donor, hidden.crowds
        outfits = [Outfit()] * len(people.ids)
    else:
        drawn = _drawn(bench, people)
        strata, is_donor, crowds, outfits = drawn.strata, drawn.is_donor, drawn.crowds, drawn.outfits
        draws = [{"surrogate": one, "draw": asdict(draw)} for one, draw in sorted(drawn.draws.items())]
        bench.keep("draws", room, of_rows(draws, DRAWS))
    home = {subject: crowd.class_id for crowd in crowds for subject in crowd.wearers}
    faces = [sorted(one) for one in found.column("faces").to_pylist()]
    rows = [
        subject_row(people, number, faces[number], bool(is_donor[number]), strata[number])
        | {"class_id": home.get(number), "surrogates": list(outfits[number].surrogates)}
        for number in range(len(people.ids))
    ]
    bench.keep("people", room, of_rows(rows, SUBJECTS))
    return {"subjects": len(rows)}


def deal_deck(bench: Bench, deck: int) -> dict[str, Any]:
    """Whose surrogate each class of a deck wears: back to its room."""
    table = bench.parcels.received("deck", deck, DECK)
    table = table.take(pa.array(np.argsort(np.array(table.column("class_id").to_pylist(), str), kind="stable")))
    ids = table.column("class_id").to_pylist()
    kinds = [tuple(kind) for kind in table.column("kind").to_pylist()]
    dealt = deal(bench.job, matrix(table, "centre"), kinds)
    rows = [
        {"class_id": one, "surrogates": [ids[other] for other in others]}
        for one, others in zip(ids, dealt, strict=True)
    ]
    bench.parcels.send("dealt", name(deck), of_rows(rows, DEALT), column(table, "room").astype(np.int64))
    return {"classes": len(ids)}


def dress(bench: Bench, room: int) -> dict[str, Any]:
    """subjects/ROOM and classes/BLOCK, and to each batch what its faces wear and which of them are portraits."""
    crowds = bench.parcels.received("classes", room, CLASSES).to_pylist()
    dealt = bench.parcels.received("dealt", room, DEALT).to_pylist()
    worn = {row["class_id"]: row["surrogates"] for row in dealt}
    for crowd in crowds:
        crowd["surrogates"] = worn[crowd["class_id"]]
    blocks = [room * _BLOCKS_A_ROOM + number for number in range(-(-len(crowds) // BLOCK))]
    for start, block in zip(range(0, len(crowds), BLOCK), blocks, strict=False):
        bench.publish(f"classes/{block_name(block)}", of_rows(crowds[start : start + BLOCK], CLASSES))
    wanted = [
        {"face_id": face, "block": blocks[number // BLOCK]}
        for number, crowd in enumerate(crowds)
        for faces in crowd["portraits"]
        for face in faces
    ]
    _send_by_shard(bench, "wanted", room, of_rows(wanted, WANTED))
    people = bench.parcels.received("people", room, SUBJECTS)
    if people.num_rows:
        people = _dressed(bench, room, people, crowds)
        bench.publish(f"subjects/{name(room)}", people)
    return {"blocks": [block_name(block) for block in blocks], "subjects": people.num_rows, "classes": len(crowds)}


def _dressed(bench: Bench, room: int, people: pa.Table, crowds: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The subjects with what they wear, which is also sent to the batches of their faces."""
    outfits = [Outfit(tuple(one)) for one in people.column("surrogates").to_pylist()]
    if bench.job.method.name in CLASS_METHODS:
        of = {one["class_id"]: crowd_outfit(one["class_id"], one["surrogates"], one["k"]) for one in crowds}
        outfits = [of.get(one, hidden_nowhere(bench.job)) for one in people.column("class_id").to_pylist()]
        surrogates = pa.array([list(one.surrogates) for one in outfits], pa.list_(pa.string()))
        people = people.set_column(SUBJECTS.names.index("surrogates"), SUBJECTS.field("surrogates"), surrogates)
    faces = people.column("faces").to_pylist()
    rows = [asdict(outfit) | {"face_id": face} for outfit, mine in zip(outfits, faces, strict=True) for face in mine]
    _send_by_shard(bench, "outfits", room, of_rows(rows, OUTFITS))
    draws = bench.parcels.received("draws", room, DRAWS)
    if draws.num_rows:
        row_of = {one: row for row, one in enumerate(draws.column("surrogate").to_pylist())}
        batch_of = bench.layout.batch_of
        pairs = {
            (batch_of[shard_of(face)], row_of[one])
            for outfit, mine in zip(outfits, faces, strict=True)
            for face in mine
            for one in outfit.surrogates
        }
        batch, row = np.array(sorted(pairs), np.int64).T
        bench.parcels.send("draws-of", name(room), draws.take(pa.array(row)), batch)
    return people


def shard_of(face_id: str) -> str:
    """The shard in which a face was found."""
    return face_id.partition("/")[0]


def block_name(block: int) -> str:
    """A block of classes, as its table and its marker are named."""
    return f"{block:010d}"


def _people(bench: Bench, found: pa.Table) -> tuple[People, pa.Table]:
    """The subjects of a room in the order of their ids, and a fragment each: what joined a label is one with it."""
    label = found.column("label").to_pylist()
    number, names = by_label([one for one in label if one is not None])
    group = np.full(found.num_rows, -1, np.int64)
    named = np.array([one is not None for one in label], bool)
    group[named] = number
    group[~named] = len(names) + np.arange(np.count_nonzero(~named))
    found = pieces.merged(found, group)
    first = [min(faces) for faces in found.column("faces").to_pylist()]
    ids = [bench.keyring.pseudonym("subject", "label", one) for one in names]
    ids += [bench.keyring.pseudonym("subject", "cluster", one) for one in first[len(names) :]]
    order = np.argsort(np.array(ids, str), kind="stable")
    found = found.take(pa.array(order)).combine_chunks()
    size = pieces.sizes(found)
    nothing = check_labels(np.zeros((0, 1), np.float32), [], [], near=1.0, apart=0.0)
    return (
        People(
            np.repeat(np.arange(len(ids)), size),
            [ids[row] for row in order],
            found.column("label").to_pylist(),
            pieces.template(found),
            np.asarray(column(found, "female") / size, np.float32),
            np.asarray(column(found, "age") / size, np.float32),
            nothing,
        ),
        found,
    )


def _hidden(bench: Bench, people: People, found: pa.Table) -> tuple[Hidden, list[str]]:
    """The classes of a room, and the face ids that its portraits number."""
    if bench.painter is not None:
        return hidden_persons(bench.job, people, bench.keyring, bench.painter)[0], []
    faces: list[str] = []
    portraits: dict[int, list[int]] = {}
    for subject, ids in enumerate(found.column("portraits").to_pylist()):
        if ids:
            portraits[subject] = list(range(len(faces), len(faces) + len(ids)))
            faces += ids
    return hidden_crowds(bench.job, people, portraits, bench.keyring), faces


def _send_classes(bench: Bench, room: int, hidden: Hidden, faces: Sequence[str]) -> None:
    rows = [crowd_row(crowd, faces) for crowd in hidden.crowds]
    bench.keep("classes", room, of_rows(rows, CLASSES))
    deck = [
        {"class_id": crowd.class_id, "centre": centre, "kind": list(kind), "room": room}
        for crowd, centre, kind in zip(hidden.crowds, hidden.centres, hidden.kinds, strict=True)
    ]
    decks = np.array([int(crowd.class_id[:12], 16) % bench.rooms.decks for crowd in hidden.crowds], np.int64)
    bench.parcels.send("deck", name(room), of_rows(deck, DECK), decks)


def _drawn(bench: Bench, people: People) -> Wardrobe:
    if bench.lender is not None:
        return donors_of(bench.job, people, bench.keyring, bench.lender, [], {})
    if bench.painter is None:
        raise ValueError(f"{bench.job.method.name} draws identities, and no file to draw them by came with the job")
    return draws_of(bench.job, people, bench.keyring, bench.painter, [], {})


def _send_by_shard(bench: Bench, kind: str, room: int, rows: pa.Table) -> None:
    """Rows with a face_id to the batches that read their shards."""
    batch_of = bench.layout.batch_of
    to = [batch_of[shard_of(face)] for face in rows.column("face_id").to_pylist()]
    bench.parcels.send(kind, name(room), rows, np.array(to, np.int64))
