"""Surrogates: the texture of every class, a block of classes at a time, from the crops that scan kept.

Part of planning, but it touches pixels, so it is a unit of work like a shard: run anywhere, committed once.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import simplejpeg
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.faces import align
from anonlib.pipeline import tables
from anonlib.pipeline.outcome import FAILURES, Outcome
from anonlib.pipeline.places import Places, Room, plan_room, scan_room, sha256
from anonlib.records import EXPRESSIONS, MESH_POINTS
from anonlib.synthesis.textures.average import Portrait, Texture, average, member_texture, portrait

_COLUMNS = ["face_id", "mesh", "crop", "crop_from_image", "expression"]


@dataclass(frozen=True)
class Surrogate:
    """A class's texture and the digest that the manifest shows for it."""

    texture: Texture
    digest: str


class SurrogateStage:
    """`run(block)` makes surrogates/CLASS.npz for the classes of a block."""

    name = "surrogates"

    def __init__(self, job: JobConfig, places: Places, scan_key: str, key: str) -> None:
        cv2.setNumThreads(1)
        self.scan: Room = scan_room(places, scan_key)
        self.room: Room = plan_room(places, key)

    def run(self, block: str) -> Outcome:
        """Make one block's surrogates."""
        classes = tables.from_bytes(self.room.storage.read(self.room.path("classes", f"{block}.parquet"))).to_pylist()
        wanted = {face for row in classes for faces in row["portraits"] for face in faces}
        portraits = self._portraits(wanted)
        digests = {}
        for row in classes:
            members = [member_texture([portraits[face] for face in faces]) for faces in row["portraits"]]
            data = to_bytes(average(members))
            digests[row["class_id"]] = sha256(data)
            self.room.storage.publish(self.room.path("surrogates", f"{row['class_id']}.npz"), data)
        self.room.commit(f"surrogates/{block}", {"block": block, "digests": digests})
        return Outcome(block, faces=len(wanted))

    def _portraits(self, wanted: Iterable[str]) -> dict[str, Portrait]:
        """Canonical portraits of the wanted faces, read shard by shard, only the row groups that hold one."""
        by_shard: dict[str, set[str]] = {}
        for face in wanted:
            by_shard.setdefault(face.partition("/")[0], set()).add(face)
        portraits: dict[str, Portrait] = {}
        for shard, faces in sorted(by_shard.items()):
            data = self.scan.storage.read(self.scan.path("faces", f"{shard}.parquet"))
            file = pq.ParquetFile(io.BytesIO(data))
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, columns=["face_id"]).column(0).to_pylist()
                if faces.isdisjoint(ids):
                    continue
                for row in file.read_row_group(group, columns=_COLUMNS).to_pylist():
                    if row["face_id"] in faces:
                        portraits[row["face_id"]] = portrait(*crop_and_mesh(row), happiness(row["expression"]))
        return portraits


def happiness(expression: Sequence[float]) -> float:
    """How much of a smile a face's expression probabilities (7,) hold."""
    return float(expression[EXPRESSIONS.index("happy")])


def crop_and_mesh(row: Mapping[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The crop (h, w, 3) of a FACES row and its mesh (468, 3) in the crop's px."""
    matrix = np.array(row["crop_from_image"], np.float32).reshape(2, 3)
    mesh = np.array(row["mesh"], np.float32).reshape(MESH_POINTS, 3)
    flat = align.apply(matrix, mesh[:, :2])
    depth = mesh[:, 2:] * np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    crop = np.asarray(simplejpeg.decode_jpeg(row["crop"], colorspace="RGB"))
    return crop, np.concatenate([flat, depth], axis=1).astype(np.float32)


def to_bytes(texture: Texture) -> bytes:
    """A texture as npz: half precision, the same bytes for the same texture."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, detail=texture.detail.astype(np.float16), shape=texture.shape, happy=np.float32(texture.happy)
    )
    return buffer.getvalue()


def from_bytes(data: bytes) -> Surrogate:
    """A surrogate as `to_bytes` wrote it; raises ValueError if the bytes are damaged."""
    try:
        with np.load(io.BytesIO(data)) as arrays:
            texture = Texture(
                arrays["detail"].astype(np.float32), arrays["shape"].astype(np.float32), float(arrays["happy"])
            )
    except FAILURES as error:
        raise ValueError("a surrogate in the workspace is damaged") from error
    return Surrogate(texture, hashlib.sha256(data).hexdigest())
