"""A release beside its scan: its names or pseudonyms, which row is which sample, and the audit that belongs to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anonlib.datasets import Dataset, Shard
from anonlib.errors import JobError, NotFound
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.storage import Storage
from anonlib.verification.certificate import AuditStatement
from anonlib.workspace.layout import ReleaseStore, ScanStore
from anonlib.workspace.schemas import AUDIT_FILES, CERTIFICATE, QUARANTINED, STATEMENT
from anonlib.workspace.tables import Row


@dataclass(frozen=True)
class Naming:
    keyring: Keyring
    rekey: bool

    def shard(self, shard_id: str) -> str:
        """The shard's id in the release: in run.json and in the names of its marker, manifest and data."""
        return self.keyring.pseudonym(Purpose.SHARD, shard_id) if self.rekey else shard_id

    def shards(self, shards: Iterable[Shard]) -> dict[str, str]:
        """Id in the release -> id in the input, in the order of the release."""
        named = {self.shard(shard.shard_id): shard.shard_id for shard in shards}
        return dict(sorted(named.items())) if self.rekey else named

    def key(self, shard_id: str, key: str) -> str:
        return self.keyring.pseudonym(Purpose.KEY, shard_id, key) if self.rekey else key

    def new_shard(self, shard_id: str) -> str | None:
        return self.shard(shard_id) if self.rekey else None

    def path(self, dataset: Dataset, shard: Shard) -> str:
        return dataset.output_path(shard, self.new_shard(shard.shard_id))

    def sorted(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows of a manifest, given in the order of the input, as the release has them."""
        return sorted(rows, key=lambda row: str(row["key"])) if self.rekey else rows


@dataclass(frozen=True)
class ReleasedSample:
    """A sample: its place in the shard from 0, the input's key, its IMAGES, its MANIFEST and its FACES rows."""

    number: int
    key: str
    scanned: Row
    row: Row
    faces: Sequence[Row]

    @property
    def quarantined(self) -> bool:
        return bool(self.row["status"] == QUARANTINED)


def samples_of(
    release: ReleaseStore,
    scan: ScanStore,
    naming: Naming,
    shard: str,
    *,
    manifest: Sequence[str] | None = None,
    images: Sequence[str] = (),
    faces: Sequence[str] | None = None,
) -> list[ReleasedSample]:
    """The samples of the input's `shard` in its order; `faces` None: no faces. Raises JobError if tables do not fit."""
    columns = None if manifest is None else sorted({"key", "status", *manifest})
    by_key: dict[str, list[Row]] = defaultdict(list)
    try:
        rows = release.manifest(naming.shard(shard), columns).to_pylist()
        scanned = scan.images(shard, sorted({"key", "position", *images})).to_pylist()
        if faces is not None:
            for face in scan.faces(shard, sorted({"key", "index", *faces})).sort_by("index").to_pylist():
                by_key[face["key"]].append(face)
    except NotFound as error:
        raise JobError(f"a table of shard {shard} is missing: {error}") from None
    by_name = {row["key"]: row for row in rows}
    names = [naming.key(shard, image["key"]) for image in scanned]
    if set(names) != by_name.keys() or not len(names) == len(rows) == len(by_name):
        raise JobError(
            f"the manifest of shard {shard} has {len(rows)} rows, its scan {len(names)} images: they are not of one job"
        )
    pairs = sorted(zip(scanned, names, strict=True), key=lambda pair: int(pair[0]["position"]))
    samples = [
        ReleasedSample(number, image["key"], image, by_name[name], by_key.get(image["key"], ()))
        for number, (image, name) in enumerate(pairs)
    ]
    for sample in samples if faces is not None and (columns is None or "faces" in columns) else ():
        if not sample.quarantined and len(sample.row["faces"]) != len(sample.faces):
            raise JobError(f"the manifest of {shard} and its scan do not hold the same faces")
    return samples


def publish_audit(release: Storage, secret: bytes, files: Mapping[str, bytes], failed: list[str]) -> AuditStatement:
    """Replace the audit: AUDIT_FILES, then their statement; `failed`: lines of the policy. Raises StorageError."""
    remove_audit(release)
    for path, data in files.items():
        release.create(path, data)
    statement = AuditStatement.of(release.read(CERTIFICATE), files, failed).sign(secret)
    release.create(STATEMENT, statement.to_bytes())
    return statement


def remove_audit(release: Storage) -> None:
    """Take an audit back, its statement first."""
    for path in (STATEMENT, *AUDIT_FILES):
        release.delete(path)
