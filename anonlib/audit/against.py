"""A release beside its originals: what lies away from every region must be as it was.

For whoever has both and no workspace, and only where keys were kept. The manifest's boxes say where regions are; a
method may paint past a box, so a box's own size around it is not looked at. Photos that were encoded anew are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.codes import Note
from anonlib.datasets import Dataset, Sample, open_dataset
from anonlib.errors import ImageProblem, NotFound, VerificationError
from anonlib.media.exact import as_stored
from anonlib.media.sandbox import changed_blocks_apart, decode_apart
from anonlib.storage import StorageOptions, join_uri, open_storage
from anonlib.verification.parsing import RunNote, parsed, rows_of
from anonlib.workspace.schemas import DATA, EXACT, MANIFEST, RUN_NOTE, manifest_path

_MAX_MPX, _SECONDS = 400.0, 120.0


@dataclass
class Comparison:
    """Photos of a release beside their originals: `same` outside their regions, `changed` there, `reencoded`."""

    same: int = 0
    reencoded: int = 0
    changed: int = 0
    first: str = ""


def compare_with_originals(release: str, originals: str, options: StorageOptions) -> Comparison:
    """Compare every released photo with its original, file by file; raises VerificationError where they do not belong
    together, and DatasetError and StorageError.
    """
    storage = open_storage(release, options)
    note = parsed(RunNote, storage.read(RUN_NOTE), RUN_NOTE)
    if note.rekeyed:
        raise VerificationError("the release has new keys, so only its audit can say which original a photo is of")
    before = open_dataset(originals, options=options)
    after = _samples(open_dataset(join_uri(release, DATA.rstrip("/")), format=before.format, options=options))
    found = Comparison()
    for shard in before.shards():
        try:
            data = storage.read(manifest_path(shard.shard_id))
        except NotFound:
            raise VerificationError(f"the release has no shard {shard.shard_id}, the originals have") from None
        rows = {row["key"]: row for row in rows_of(data, MANIFEST, f"the manifest of {shard.shard_id}", later="review")}
        for original in before.read(shard):
            row = rows.get(original.key)
            if row is None:
                raise VerificationError(f"the manifest of {shard.shard_id} has no row for {original.key!r}")
            if row["path"] is None:
                continue
            released = next(after, None)
            if released is None or released.key != original.key:
                raise VerificationError(f"the release does not have {original.key!r} where the originals have it")
            if row["outside"] != EXACT:
                found.reencoded += 1
            elif _is_same(original.image or b"", released.image or b"", row):
                found.same += 1
            else:
                found.changed += 1
                found.first = found.first or original.key
    return found


def _samples(dataset: Dataset) -> Iterator[Sample]:
    for shard in dataset.shards():
        yield from dataset.read(shard)


def _is_same(before: bytes, after: bytes, row: dict[str, Any]) -> bool:
    """Whether a photo is as it was, away from the regions of its manifest row."""
    allowed = np.zeros((row["height"], row["width"]), bool)
    for region in row["faces"]:
        _allow(allowed, np.array(region["box"]))
    try:
        if row["format"] == "JPEG":
            stored = as_stored(allowed, row["orientation"])
            return changed_blocks_apart(before, after, stored, max_mpx=_MAX_MPX, seconds=_SECONDS) == 0
        first, second = (decode_apart(file, max_mpx=_MAX_MPX, seconds=_SECONDS) for file in (before, after))
    except ImageProblem:
        return False
    if Note.EIGHT_BITS in first.notes and Note.EIGHT_BITS not in second.notes:
        return False
    return first.rgb.shape == second.rgb.shape and not (first.rgb != second.rgb).any(axis=2)[~allowed].any()


def _allow(allowed: NDArray[np.bool_], box: NDArray[np.int64]) -> None:
    """Mark a box (4,) of px and its own size around it."""
    size = box[2:] - box[:2]
    (x0, y0), (x1, y1) = np.maximum(box[:2] - size, 0), np.maximum(box[2:] + size, 0)
    allowed[y0:y1, x0:x1] = True
