"""Surrogates: the textures of classes, a block at a time.

A texture is averaged from the crops that scan kept, or decoded from the mean of its donors. Part of planning, but it
touches pixels, so it is a unit of work like a shard: run anywhere, committed once. A single person's draw is not stored
as a texture, which would be larger than the photos: the renderer decodes it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import cv2
import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.config import JobConfig
from anonlib.execution.base import UnitResult, current
from anonlib.methods import method_of
from anonlib.models.requirements import device_of
from anonlib.synthesis.base import IdentityDraw
from anonlib.synthesis.describe import crop_and_mesh, happiness
from anonlib.synthesis.textures.average import Portrait, member_texture, portrait
from anonlib.workspace.layout import JobStores, plan_store, scan_store, sha256
from anonlib.workspace.schemas import PORTRAITS as PORTRAIT_ROWS


class SurrogateStage:
    """`run(block)` makes surrogates/SURROGATE.npz for the surrogates of a block."""

    name = "surrogates"

    def __init__(self, job: JobConfig, stores: JobStores, scan_key: str, key: str, models: Mapping[str, bytes]) -> None:
        cv2.setNumThreads(1)
        self.scan = scan_store(stores, scan_key)
        self.store = plan_store(stores, key)
        self.method = method_of(job.method, models, device_of(job))

    def run(self, block: str) -> UnitResult:
        """Make one block's surrogates."""
        planned = self.store.surrogate_plans([block])
        wanted = {face for row in planned for faces in row["portraits"] for face in faces}
        watch = current()
        with watch.timed("read"):
            photos = self._photos(wanted)
        row_of = {face: row for row, face in enumerate(photos.column("face_id").to_pylist())}
        digests = {}
        for row in planned:
            with watch.timed("replace"):
                # Portraits are large, a hundred times a crop: those of one surrogate at a time.
                members = [
                    member_texture([_portrait(photos, row_of[face]) for face in faces])
                    for faces in row["portraits"]
                    if faces
                ]
                draw = row["draw"] and IdentityDraw.of_row(row["draw"])
                data = self.method.texture(draw, members).to_bytes()
            digests[row["surrogate_id"]] = sha256(data)
            with watch.timed("publish"):
                self.store.write_surrogate(row["surrogate_id"], data)
            watch.written += len(data)
        self.store.commit_block(block, digests)
        return UnitResult(block, faces=len(wanted))

    def _photos(self, wanted: set[str]) -> pa.Table:
        """Crops and meshes of the wanted faces; only the row groups of the scan that hold one are opened."""
        by_shard: dict[str, set[str]] = {}
        for face in wanted:
            by_shard.setdefault(face.partition("/")[0], set()).add(face)
        found = [PORTRAIT_ROWS.empty_table()]
        for shard, faces in sorted(by_shard.items()):
            data = self.scan.face_bytes(shard)
            current().read += len(data)
            file = pq.ParquetFile(io.BytesIO(data))
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, columns=["face_id"]).column(0).to_pylist()
                if not faces.isdisjoint(ids):
                    rows = file.read_row_group(group, columns=PORTRAIT_ROWS.names)
                    found.append(rows.filter(pa.array([face in faces for face in ids])))
        return pa.concat_tables(found).combine_chunks()


def _portrait(photos: pa.Table, row: int) -> Portrait:
    photo = photos.slice(row, 1).to_pylist()[0]
    return portrait(*crop_and_mesh(photo), happiness(photo["expression"]))
