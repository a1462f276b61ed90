"""A release beside its originals: what lies away from every region must be as it was.

It needs both and no workspace, and works where keys were kept. The manifest's boxes say where regions are; a method may
paint past a box, so a box's own size around it is not looked at. Photos that were encoded anew are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from anonlib.audit.leaks.images import changed_in_exact, may_change
from anonlib.config import LimitsConfig
from anonlib.datasets import Dataset, Sample, open_dataset
from anonlib.errors import NotFound, VerificationError
from anonlib.storage import StorageOptions, join_uri, open_storage
from anonlib.verification.parsing import MANIFEST_OF, RunNote, parsed, rows_of
from anonlib.workspace.schemas import DATA, EXACT, RUN_NOTE, manifest_path

_LIMITS = LimitsConfig(image_mpx=400.0, image_seconds=120.0)
_SINCE = 3
"""The schema version from which a manifest says of each photo whether it kept its own data."""


def compare_with_originals(release: str, originals: str, options: StorageOptions) -> tuple[Counter[str], str]:
    """Compare every released photo with its original, file by file.

    Returns how many are the `same` outside their regions, `changed` there, or `reencoded`, and the key of the first
    that changed. Raises VerificationError where the two do not belong together, DatasetError and StorageError.
    """
    storage = open_storage(release, options)
    note = parsed(RunNote, storage.read(RUN_NOTE), RUN_NOTE)
    if note.schema_version < _SINCE:
        raise VerificationError(
            f"the release is of schema version {note.schema_version}, whose manifest does not say which photos kept "
            f"their own data; releases from version {_SINCE} on can be compared with their originals"
        )
    if note.rekeyed:
        raise VerificationError("the release has new keys, so only its audit can say which original a photo is of")
    before = open_dataset(originals, options=options)
    after = _samples(open_dataset(join_uri(release, DATA.rstrip("/")), format=before.format, options=options))
    found, first = Counter[str](), ""
    for shard in before.shards():
        try:
            data = storage.read(manifest_path(shard.shard_id))
        except NotFound:
            raise VerificationError(f"the release has no shard {shard.shard_id}, the originals have") from None
        schema, manifest = MANIFEST_OF[note.schema_version], f"the manifest of {shard.shard_id}"
        rows = {row["key"]: row for row in rows_of(data, schema, manifest, later="review")}
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
                found["reencoded"] += 1
            elif _is_same(original.image or b"", released.image or b"", row):
                found["same"] += 1
            else:
                found["changed"] += 1
                first = first or original.key
    return found, first


def _samples(dataset: Dataset) -> Iterator[Sample]:
    for shard in dataset.shards():
        yield from dataset.read(shard)


def _is_same(before: bytes, after: bytes, row: dict[str, Any]) -> bool:
    """Whether a photo is as it was, away from the regions of its manifest row."""
    allowed = np.zeros((row["height"], row["width"]), bool)
    for region in row["faces"]:
        allowed |= may_change((row["height"], row["width"]), np.array(region["box"]), rounded=True)
    return changed_in_exact((before, after), allowed, row, _LIMITS) == 0
