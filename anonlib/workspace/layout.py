"""Where everything of a job lies: each stage's tables in the workspace, the release, and the markers of what is done.

Only this room knows paths and columns. A marker is written last and claimed, never replaced, so whether a shard is done
has one answer. It names the digests of what it vouches for and carries no time: a rerun ends in the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from anonlib.config import JobConfig
from anonlib.errors import NotFound, WorkspacePurged
from anonlib.storage import Storage, StoredObject, open_storage
from anonlib.storage.scratch import SpooledFile
from anonlib.verification.certificate import sha256 as sha256
from anonlib.workspace import schemas, tables
from anonlib.workspace.schemas import RUN_NOTE as RUN_NOTE
from anonlib.workspace.tables import Row

SECRET = "secret"
SECRET_CHECK = "secret-check"
SALT = "salt"
INVENTORY = "inventory.parquet"
INVENTORY_NOTE = "inventory.json"
JOB_FILE = "job.yaml"
PREVIEW = "preview.html"
PURGED = "purged.json"
"""The mark of a purge, and in the end its record."""
PLAN_COUNTS = ("subjects", "persons", "classes", "redacted", "disagreements")
"""What the marker of a plan counts."""

LABELS = "labels.txt"
"""Of a plan: the sentences about labels that do not fit their faces, for a person to read."""

_READERS = 16


class Workspace(Storage):
    """A storage that raises WorkspacePurged for a write, and for a read in vain, once it holds the mark of a purge.

    A purge writes its mark, removes everything else and lists again. A writer looks for the mark before and after: the
    purge finds what was written before the mark, and a writer removes what it wrote after it, unless it is killed.
    """

    def __init__(self, inner: Storage) -> None:
        self.inner, self.uri = inner, inner.uri

    def refuse_if_purged(self) -> None:
        if self.inner.exists(PURGED):
            raise WorkspacePurged(f"The workspace {self.uri} was purged; give this job a new one.")

    def publish(self, path: str, source: Path | bytes) -> None:
        self.refuse_if_purged()
        self.inner.publish(path, source)
        self._take_back_if_purged(path)

    def claim(self, path: str, source: Path | bytes) -> bool:
        self.refuse_if_purged()
        claimed = self.inner.claim(path, source)
        self._take_back_if_purged(path)
        return claimed

    def _take_back_if_purged(self, path: str) -> None:
        try:
            self.refuse_if_purged()
        except WorkspacePurged:
            self.inner.delete(path)
            raise

    def open_read(self, path: str, etag: str | None = None, *, seekable: bool = False) -> BinaryIO:
        try:
            return self.inner.open_read(path, etag, seekable=seekable)
        except NotFound:
            self.refuse_if_purged()
            raise

    def stat(self, path: str) -> StoredObject:
        return self.inner.stat(path)

    def delete(self, path: str) -> None:
        self.inner.delete(path)

    def delete_tree(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        return self.inner.delete_tree(prefix, keep=keep)

    def list(self, prefix: str = "", *, unfinished: bool = False, foreign: bool = False) -> Iterator[StoredObject]:
        return self.inner.list(prefix, unfinished=unfinished, foreign=foreign)

    def exposed(self) -> str | None:
        return self.inner.exposed()


@dataclass(frozen=True)
class JobStores:
    """Both places of a job, opened. Picklable; holds no secret."""

    workspace: Storage
    release: Storage


def open_stores(job: JobConfig) -> JobStores:
    """The workspace of a job, which takes no writes once it is purged, and its release."""
    workspace = open_storage(job.workspace.uri, job.storage.options, private=True)
    return JobStores(Workspace(workspace), open_storage(job.output.uri, job.storage.options))


@dataclass(frozen=True)
class StageStore:
    """One stage's tables and markers under `prefix` of a storage. Reads raise NotFound and StorageError."""

    storage: Storage
    prefix: str = ""

    def path(self, *parts: str) -> str:
        return "/".join([*([self.prefix] if self.prefix else []), *parts])

    def marker(self, unit: str) -> str:
        return self.path("commits", f"{unit}.json")

    def done(self) -> set[str]:
        return self._noted("commits")

    def _noted(self, folder: str) -> set[str]:
        """The names of the JSON files of a folder, without their ending."""
        start = self.path(folder, "")
        paths = [entry.path for entry in self.storage.list(start)]
        return {path.removeprefix(start).removesuffix(".json") for path in paths if path.endswith(".json")}

    def commit(self, unit: str, payload: Mapping[str, Any]) -> bool:
        """Claim the marker of `unit`; False if someone else had."""
        return self.storage.claim(self.marker(unit), json_bytes(payload))

    def committed(self, unit: str) -> dict[str, Any] | None:
        """What the marker of `unit` says, None if it has none."""
        try:
            return dict(json.loads(self.storage.read(self.marker(unit))))
        except NotFound:
            return None

    def markers(self, units: Iterable[str]) -> list[dict[str, Any]]:
        """What the markers of these units say, in the order given; a unit without a marker is left out."""
        with ThreadPoolExecutor(_READERS) as pool:
            return [marker for marker in pool.map(self.committed, units) if marker is not None]

    def keeper(self, unit: str, key: str) -> Callable[[str, Callable[[], bytes | Path]], SpooledFile]:
        """Gives what is kept of a step of a unit's clip, which is made where nothing is: a killed run goes on there."""

        def kept(name: str, make: Callable[[], bytes | Path]) -> SpooledFile:
            path = self.path("parts", unit, sha256(key.encode())[:16], name)
            if not self.storage.exists(path):
                self.storage.publish(path, make())
            with self.storage.open_read(path) as stream:
                return SpooledFile(stream)

        return kept

    def drop_kept(self, unit: str) -> None:
        """Remove what is kept of a unit."""
        self.storage.delete_tree(self.path("parts", unit, ""))

    def arrays(self, name: str) -> bytes:
        return self.storage.read(self.path(f"{name}.npz"))

    def write_arrays(self, name: str, data: bytes) -> None:
        self.storage.publish(self.path(f"{name}.npz"), data)

    def _table(self, *parts: str, columns: Sequence[str] | None = None) -> pa.Table:
        return tables.from_bytes(self.storage.read(self._table_path(*parts)), columns)

    def _table_path(self, *parts: str) -> str:
        return f"{self.path(*parts)}.parquet"

    def _publish(self, data: bytes, *parts: str) -> str:
        """Publish a table's bytes; returns their sha256."""
        self.storage.publish(self._table_path(*parts), data)
        return sha256(data)


class ScanStore(StageStore):
    """A scan: FACES and IMAGES of each shard, and which shards could not be scanned."""

    def faces(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        """FACES of a shard, by the positions of their images and by index."""
        return self._table("faces", shard, columns=columns)

    def face_bytes(self, shard: str) -> bytes:
        """The Parquet file of FACES, whose small row groups can be read one by one."""
        return self.storage.read(self._table_path("faces", shard))

    def images(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        return self._table("images", shard, columns=columns)

    def write(self, shard: str, faces: Sequence[Row], images: Sequence[Row]) -> dict[str, str]:
        """Publish both tables of a shard; returns the digests that its marker names."""
        faces_sha256 = self._publish(tables.to_bytes(faces, schemas.FACES), "faces", shard)
        images_sha256 = self._publish(tables.to_bytes(images, schemas.IMAGES), "images", shard)
        return {"faces_sha256": faces_sha256, "images_sha256": images_sha256}

    def lose(self, shard: str, why: str) -> None:
        self.storage.publish(self.path("lost", f"{shard}.json"), json_bytes({"why": why}))

    def lost(self) -> frozenset[str]:
        return frozenset(self._noted("lost"))


class PlanStore(StageStore):
    """A plan: its tables, the textures of its surrogates, and its marker `plan`."""

    def plan(self) -> dict[str, Any] | None:
        """The marker of the whole plan, None until it is decided."""
        return self.committed("plan")

    def subjects(self, columns: Sequence[str] | None = None) -> pa.Table:
        return self._table("subjects", columns=columns)

    def classes(self) -> list[dict[str, Any]]:
        return list(self._table("classes").to_pylist())

    def assignments(self, shard: str) -> pa.Table:
        return self._table("assignments", shard)

    def draws(self, shard: str) -> list[dict[str, Any]]:
        """DRAWS rows that a shard's faces carry; none where the method draws no identities."""
        path = self._table_path("draws", shard)
        return list(self._table("draws", shard).to_pylist()) if self.storage.exists(path) else []

    def surrogate_plans(self, blocks: Iterable[str], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        return [row for block in blocks for row in self._table("surrogate_plans", block, columns=columns).to_pylist()]

    def write(self, table: pa.Table, *parts: str) -> str:
        """Publish a table of the plan, such as ("assignments", shard); returns its sha256."""
        return self._publish(tables.table_bytes(table), *parts)

    def write_labels(self, sentences: Sequence[str]) -> None:
        self.storage.publish(self.path(LABELS), "".join(f"{sentence}\n" for sentence in sentences).encode())

    def surrogate(self, name: str) -> bytes:
        return self.arrays(f"surrogates/{name}")

    def write_surrogate(self, name: str, data: bytes) -> None:
        self.write_arrays(f"surrogates/{name}", data)

    def commit_block(self, block: str, digests: Mapping[str, str]) -> bool:
        """Claim the marker of a block of surrogates; `digests`: the sha256 of each texture."""
        return self.commit(f"surrogates/{block}", {"block": block, "digests": digests})

    def blocks_done(self) -> set[str]:
        return self._noted("commits/surrogates")

    def block_markers(self, blocks: Iterable[str]) -> list[dict[str, Any]]:
        return self.markers(f"surrogates/{block}" for block in blocks)


class RenderStore(StageStore):
    """What a render notes in the workspace and must not leave it: figures of faces, and reasons in sentences."""

    def faces(self, shard: str) -> dict[str, list[dict[str, Any]]]:
        """RENDERED rows of a released shard by key, in the order of the manifest's faces; none of one given up."""
        by_key: dict[str, list[dict[str, Any]]] = {}
        with suppress(NotFound):
            for row in self._table("faces", shard).to_pylist():
                by_key.setdefault(row["key"], []).append(row)
        return by_key

    def write_faces(self, shard: str, rows: Sequence[Row]) -> None:
        self._publish(tables.to_bytes(rows, schemas.RENDERED), "faces", shard)

    def reasons(self, shard: str) -> dict[str, str]:
        """key -> why an image of a shard was quarantined; keys and shard as the input names them."""
        try:
            return {row["key"]: row["sentence"] for row in self._table("reasons", shard).to_pylist()}
        except NotFound:
            return {}

    def write_reasons(self, shard: str, rows: Sequence[Row]) -> None:
        self._publish(tables.to_bytes(rows, schemas.REASONS), "reasons", shard)


class ReleaseStore(StageStore):
    """A release: data/, manifest/ and markers of its shards, and run.json."""

    def run(self) -> dict[str, Any]:
        return dict(json.loads(self.storage.read(RUN_NOTE)))

    def manifest(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        return tables.from_bytes(self.storage.read(schemas.manifest_path(shard)), columns)

    def create_manifest(self, shard: str, rows: Sequence[Row]) -> str:
        """Create the manifest of a shard; returns its sha256. Raises StorageError where another one is."""
        data = tables.to_bytes(rows, schemas.manifest_schema(self.run().get("hide")))
        self.storage.create(schemas.manifest_path(shard), data)
        return sha256(data)


def scan_store(stores: JobStores, key: str) -> ScanStore:
    return ScanStore(stores.workspace, f"scan/{key[:16]}")


def scans_of(workspace: Storage) -> dict[str, ScanStore]:
    """The scans of a workspace by name, whatever job they are of."""
    names = {entry.path.split("/")[1] for entry in workspace.list("scan/")}
    return {name: ScanStore(workspace, f"scan/{name}") for name in sorted(names)}


def plans_of(workspace: Storage) -> list[PlanStore]:
    prefixes = {"/".join(entry.path.split("/")[:2]) for entry in workspace.list("plan/")}
    return [PlanStore(workspace, prefix) for prefix in sorted(prefixes)]


def plan_store(stores: JobStores, key: str) -> PlanStore:
    return PlanStore(stores.workspace, f"plan/{key[:16]}")


def render_store(stores: JobStores, run: str) -> RenderStore:
    return RenderStore(stores.workspace, f"render/{run[:16]}")


def audit_store(stores: JobStores, key: str) -> StageStore:
    """What an audit keeps for the next one: looks at originals by shard, and what trained attackers learned."""
    return StageStore(stores.workspace, f"audit/{key[:16]}")


def release_store(stores: JobStores) -> ReleaseStore:
    return ReleaseStore(stores.release)


def file_sha256(path: Path) -> str:
    """sha256 of a local file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_bytes(payload: Mapping[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, one line."""
    return (json.dumps(payload, sort_keys=True, ensure_ascii=False) + "\n").encode()
