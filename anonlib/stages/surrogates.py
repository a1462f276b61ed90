"""Surrogates: the textures that classes wear, a block at a time, and where a renderer finds them.

A texture is averaged from the crops that scan kept, or decoded from the mean of its donors. Part of planning, but it
touches pixels, so it is a unit of work like a shard: run anywhere, committed once. A single person's draw is not stored
as a texture, which would be larger than the photos: the renderer decodes it.
"""

from __future__ import annotations

import io
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.errors import NotFound
from anonlib.execution.base import UnitResult
from anonlib.execution.stopwatch import current
from anonlib.faces import align
from anonlib.methods.decoders import FaceDecoderSet, IdentityDraw, draw_of, face_decoders_of
from anonlib.methods.feature_transfer import FeatureSource, SourceIdentity
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.synthesis.base import FaceTexture
from anonlib.synthesis.textures.average import Portrait, Texture, average, member_texture, portrait
from anonlib.synthesis.textures.ksame_net import MOODS, MoodTexture
from anonlib.workspace import tables
from anonlib.workspace.layout import JobStores, StageStore, plan_store, scan_store, sha256
from anonlib.workspace.schemas import EXPRESSIONS, MESH_POINTS
from anonlib.workspace.schemas import PORTRAITS as PORTRAIT_ROWS

_HELD = 64


@dataclass(frozen=True)
class Surrogate:
    """A texture and the digest that the manifest shows for it (see `released_digest`)."""

    texture: FaceTexture
    digest: str


class SurrogateStage:
    """`run(block)` makes surrogates/SURROGATE.npz for the surrogates of a block."""

    name = "surrogates"

    def __init__(self, job: JobConfig, stores: JobStores, scan_key: str, key: str, models: Mapping[str, bytes]) -> None:
        cv2.setNumThreads(1)
        self.scan: StageStore = scan_store(stores, scan_key)
        self.store: StageStore = plan_store(stores, key)
        self.painter = face_decoders_of(models, job)

    def run(self, block: str) -> UnitResult:
        """Make one block's surrogates."""
        planned = surrogate_plans(self.store, [block])
        wanted = {face for row in planned for faces in row["portraits"] for face in faces}
        watch = current()
        with watch.timed("read"):
            photos = PORTRAIT_ROWS.empty_table() if self.painter else self._photos(wanted)
        row_of = {face: row for row, face in enumerate(photos.column("face_id").to_pylist())}
        digests = {}
        for row in planned:
            with watch.timed("replace"):
                # Portraits are large, a hundred times a crop: those of one surrogate at a time.
                mine = [[_portrait(photos, row_of[face]) for face in faces] for faces in row["portraits"]]
                data = to_bytes(self._texture(row, mine))
            digests[row["surrogate_id"]] = sha256(data)
            with watch.timed("publish"):
                self.store.storage.publish(self.store.path("surrogates", f"{row['surrogate_id']}.npz"), data)
            watch.written += len(data)
        self.store.commit(f"surrogates/{block}", {"block": block, "digests": digests})
        return UnitResult(block, faces=len(wanted))

    def _texture(self, row: Mapping[str, Any], portraits: Sequence[Sequence[Portrait]]) -> FaceTexture:
        """The face of a SURROGATES row, of which these are its donors' portraits."""
        if self.painter:
            return self.painter.texture(draw_of(row["draw"]))
        return average([member_texture(one) for one in portraits])

    def _photos(self, wanted: set[str]) -> pa.Table:
        """Crops and meshes of the wanted faces; only the row groups of the scan that hold one are opened."""
        by_shard: dict[str, set[str]] = {}
        for face in wanted:
            by_shard.setdefault(face.partition("/")[0], set()).add(face)
        found = [PORTRAIT_ROWS.empty_table()]
        for shard, faces in sorted(by_shard.items()):
            data = self.scan.storage.read(self.scan.path("faces", f"{shard}.parquet"))
            current().read += len(data)
            file = pq.ParquetFile(io.BytesIO(data))
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, columns=["face_id"]).column(0).to_pylist()
                if not faces.isdisjoint(ids):
                    rows = file.read_row_group(group, columns=PORTRAIT_ROWS.names)
                    found.append(rows.filter(pa.array([one in faces for one in ids])))
        return pa.concat_tables(found).combine_chunks()


def _portrait(photos: pa.Table, row: int) -> Portrait:
    photo = photos.slice(row, 1).to_pylist()[0]
    return portrait(*crop_and_mesh(photo), happiness(photo["expression"]))


def surrogate_plans(
    plan: StageStore, blocks: Iterable[str], columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """The SURROGATES rows of a plan's blocks."""
    return [
        row
        for block in blocks
        for row in tables.from_bytes(
            plan.storage.read(plan.path("surrogate_plans", f"{block}.parquet")), columns
        ).to_pylist()
    ]


def released_digest(keyring: Keyring, name: str) -> str:
    """64 hex digits that stand for a surrogate in a release; `name`: of its draw, or sha256 of its texture.

    Keyed, because a plain hash of a vector or a texture would let anybody with the photos test a guess.
    """
    return keyring.digest(Purpose.SURROGATE_DIGEST, name).hex()


class Surrogates:
    """What a renderer wears: the plan's textures by id, the last few held for all its threads, and shards' draws."""

    def __init__(
        self, plan: StageStore, keyring: Keyring, painter: FaceDecoderSet | None, lender: FeatureSource | None = None
    ) -> None:
        self.plan, self.keyring, self.painter, self.lender = plan, keyring, painter, lender
        self._held: OrderedDict[str, Surrogate | SourceIdentity] = OrderedDict()
        self._holding = threading.Lock()

    def of(self, shard_id: str) -> Worn:
        """What the faces of a shard wear."""
        drawn = self.painter is not None or self.lender is not None
        if not (drawn and self.plan.storage.exists(path := self.plan.path("draws", f"{shard_id}.parquet"))):
            return Worn(self, {})
        rows = tables.from_bytes(self.plan.storage.read(path)).to_pylist()
        return Worn(self, {row["surrogate"]: draw_of(row["draw"]) for row in rows})

    def get(self, name: str, draw: IdentityDraw | None) -> Surrogate | SourceIdentity:
        """By surrogate id, or a draw's name and the draw; raises LookupError if the workspace has none."""
        with self._holding:
            if name in self._held:
                self._held.move_to_end(name)
                return self._held[name]
        found = self._read(name, draw)
        with self._holding:
            self._held[name] = found
            if len(self._held) > _HELD:
                self._held.popitem(last=False)
        return found

    def _read(self, name: str, draw: IdentityDraw | None) -> Surrogate | SourceIdentity:
        if self.lender and draw:
            return SourceIdentity(self.lender, draw, released_digest(self.keyring, name))
        if self.painter and draw:
            return Surrogate(self.painter.texture(draw), released_digest(self.keyring, name))
        try:
            data = self.plan.storage.read(self.plan.path("surrogates", f"{name}.npz"))
        except NotFound:
            raise LookupError("its surrogate is missing from the workspace") from None
        return Surrogate(from_bytes(data), released_digest(self.keyring, sha256(data)))


@dataclass(frozen=True)
class Worn:
    """Surrogates as one shard wears them, its `draws` by name."""

    surrogates: Surrogates
    draws: Mapping[str, IdentityDraw]

    def __getitem__(self, name: str) -> Surrogate | SourceIdentity:
        """By surrogate id or draw; raises LookupError if the workspace has none."""
        return self.surrogates.get(name, self.draws.get(name))


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


def to_bytes(texture: FaceTexture) -> bytes:
    """A texture as npz, with all its moods: half precision, the same bytes for the same texture."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"shape": texture.shape}
    if isinstance(texture, MoodTexture):
        arrays["moods"] = np.stack([texture.of(mood) for mood in MOODS]).astype(np.float16)
    elif isinstance(texture, Texture):
        arrays |= {"detail": texture.detail.astype(np.float16), "happy": np.array(texture.happy, np.float32)}
    else:
        raise TypeError(f"a {type(texture).__name__} cannot be kept")
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def from_bytes(data: bytes) -> FaceTexture:
    """A texture as `to_bytes` wrote it; raises ValueError if the bytes are damaged."""
    try:
        with np.load(io.BytesIO(data)) as arrays:
            shape = arrays["shape"].astype(np.float32)
            if "moods" in arrays:
                drawn = dict(zip(MOODS, arrays["moods"].astype(np.float32), strict=True))
                return MoodTexture(shape, drawn.__getitem__)
            return Texture(arrays["detail"].astype(np.float32), shape, float(arrays["happy"]))
    except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError("a surrogate in the workspace is damaged") from error
