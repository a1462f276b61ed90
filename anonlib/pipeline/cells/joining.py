"""Who is who, in cells: faces become fragments, fragments grow from cut to cut, and what is left are subjects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.config import CLASS_METHODS
from anonlib.pipeline.cells import fragments as pieces
from anonlib.pipeline.cells.bench import BARS, Bench, name
from anonlib.pipeline.label_check import check_labels
from anonlib.pipeline.people import APART, FEATURES, LABEL_MARGIN, column, matrix, same_person
from anonlib.privacy.joining import Bank, most_like
from anonlib.privacy.subjects import agglomerate, by_label, cluster
from anonlib.records import BANKED, FACES, FRAGMENTS

_CELLS_ASKED = 4
"""Cells in which a labelled subject can be joined: 95 % of a person's photos have the person's cell among their four
nearest of 32 (LFW)."""
_LABELLED = pa.schema([FACES.field(one) for one in FEATURES])


def scatter(bench: Bench, batch: int) -> dict[str, Any]:
    """The faces of a batch, each on its own: to the first cut, or to the bucket of its label."""
    loose, named = [FRAGMENTS.empty_table()], [_LABELLED.empty_table()]
    for shard in bench.layout.batches[batch]:
        faces = bench.faces(shard, FEATURES).select(FEATURES)
        labelled = np.array([one is not None for one in faces.column("label").to_pylist()], bool)
        named.append(faces.filter(pa.array(labelled)))
        loose.append(pieces.of_faces(faces.filter(pa.array(~labelled))))
    others, known = pa.concat_tables(loose).combine_chunks(), pa.concat_tables(named).combine_chunks()
    bench.parcels.send("cut-0", name(batch), others, bench.cuts[0].of(pieces.sums(others)))
    of_face = known.column("label").to_pylist()
    bucket = {label: _bucket(bench, label) for label in set(of_face)}
    bench.parcels.send("labels", name(batch), known, np.array([bucket[label] for label in of_face], np.int64))
    return {"faces": others.num_rows + known.num_rows, "labelled": known.num_rows}


def labels(bench: Bench, bucket: int) -> dict[str, Any]:
    """The labelled subjects of a bucket: to their room, and to the cells in which others may join them."""
    faces = bench.parcels.received("labels", bucket, _LABELLED)
    names, ids = faces.column("label").to_pylist(), faces.column("face_id").to_pylist()
    known = pieces.merged(pieces.of_faces(faces), by_label(names)[0])
    template = pieces.template(known)
    home = bench.cuts[-1].of(template)
    bench.parcels.send("subjects", f"label-{name(bucket)}", known, home)
    nearest = bench.cuts[len(BARS) - 1].nearest(template, _CELLS_ASKED)
    row, place = np.nonzero(nearest >= 0)
    columns = [known.column("label"), known.column("sum"), pa.array(pieces.sizes(known)), pa.array(home)]
    bench.parcels.send("bank", name(bucket), pa.table(columns, schema=BANKED).take(pa.array(row)), nearest[row, place])
    near = same_person(bench.layout.faces) + LABEL_MARGIN
    doubts = check_labels(matrix(faces, "embedding"), names, ids, near=near, apart=APART).sentences() if names else []
    text = "".join(f"{one}\n" for one in doubts)
    bench.room.storage.publish(bench.room.path("doubts", f"{name(bucket)}.txt"), text.encode())
    return {"disagreements": len(doubts), "donors": _donors(bench, known, home)}


def cut(bench: Bench, number: int, cell: int) -> dict[str, Any]:
    """The fragments of a cell, joined: to the next cut, or as subjects to their rooms."""
    found = bench.parcels.received(f"cut-{number}", cell, FRAGMENTS)
    threshold = same_person(bench.layout.faces)
    bar, sums = threshold + BARS[number], pieces.sums(found)
    # Faces that are still alone may be copies of one another, which would all tie.
    joined = agglomerate(sums, pieces.sizes(found), threshold=bar) if number else cluster(sums, threshold=bar)
    found = pieces.merged(found, joined)
    if number + 1 < len(BARS):
        bench.parcels.send(f"cut-{number + 1}", name(cell), found, bench.cuts[number + 1].of(pieces.template(found)))
        return {"fragments": found.num_rows}
    bank = bench.parcels.received("bank", cell, BANKED)
    like = most_like(_bank(found, pieces.sizes(found)), _bank(bank, column(bank, "faces").astype(np.int64)), threshold)
    home, known = bench.cuts[-1].of(pieces.template(found)), like >= 0
    home[known] = column(bank, "home")[like[known]].astype(np.int64)
    label = bank.column("label").take(pa.array(np.where(known, like, 0), mask=~known))
    found = found.set_column(0, FRAGMENTS.field("label"), label)
    bench.parcels.send("subjects", f"cut-{name(cell)}", found, home)
    return {"fragments": found.num_rows, "donors": _donors(bench, found, home)}


def _bucket(bench: Bench, label: str) -> int:
    return int.from_bytes(bench.keyring.digest("bucket", label)[:8], "big") % bench.layout.cells


def _bank(rows: pa.Table, faces: NDArray[np.int64]) -> Bank:
    return Bank(np.asarray(pieces.sums(rows) / np.maximum(faces, 1)[:, None], np.float32), faces)


def _donors(bench: Bench, found: pa.Table, home: NDArray[np.int64]) -> list[int]:
    """How many of those who are sent to each cell can be members of a class."""
    averaged = bench.job.method.name in CLASS_METHODS and bench.painter is None
    lending = pieces.can_lend(found) if averaged else np.ones(found.num_rows, bool)
    return [int(count) for count in np.bincount(home[lending], minlength=bench.layout.cells)]
