"""The leak scan: everything in a release, looked at beside the originals that it was made of.

It runs inside the trust boundary, a shard at a time: first all that the shard's files hold, indexed, then its originals
one by one, each asked for in that index and compared px by px. An original's names and hashes are looked for in its own
shard and in the files that all shards share, not in other shards.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from anonlib.audit.evidence.release import ReleasedImages
from anonlib.audit.findings import LeakCheck
from anonlib.audit.leaks import vectors
from anonlib.audit.leaks.containers import carried, is_picture
from anonlib.audit.leaks.counts import LeakCounts
from anonlib.audit.leaks.index import WORD, RestrictedIndex, contains, spellings, tells, text_of, without
from anonlib.audit.leaks.metadata_kinds import KINDS, PART, PROFILE
from anonlib.audit.leaks.pixels import changed_outside, face_core, left_of, may_change
from anonlib.codes import foreign_words
from anonlib.config import SYNTHESIS_METHODS
from anonlib.datasets import Item, Sample, Shard, format_of, items_of, label
from anonlib.datasets.folder import SIDECARS
from anonlib.datasets.names import IMAGE_EXTENSIONS, suffix_of
from anonlib.datasets.parquet import Footer
from anonlib.errors import ImageProblem, JobError
from anonlib.execution.base import UnitResult
from anonlib.job import Job
from anonlib.media.codec import Picture, decode
from anonlib.stages.scan import try_to_read
from anonlib.workspace import tables
from anonlib.workspace.layout import RUN_NOTE, StageStore, scan_store
from anonlib.workspace.schemas import CERTIFICATE, CERTIFIED, MANIFEST, MESH_POINTS, QUARANTINED

NO_ROW, QUARANTINED_OUT, WHOLE = "image without a row", "quarantined image", "whole original"
HASH, KEY, PERSON, NAMED_KEY = "hash of an original", "original key", "person's label", "person's label in a key"
EMBEDDING, LEFT, OUTSIDE, ODD = "embedding", "original px in a face", "changed px outside faces", "odd thing in a file"
STRAY, NAME, WORDS = "file of nobody's", "foreign name", "foreign word in a manifest"
CHECKS = (
    *(*KINDS, STRAY, NO_ROW, QUARANTINED_OUT, WHOLE, HASH, KEY, PERSON, NAMED_KEY, NAME, WORDS, EMBEDDING, ODD, LEFT),
    OUTSIDE,
)

_WELL_KNOWN = frozenset({RUN_NOTE, CERTIFICATE, *CERTIFIED})

Report = Callable[[str, UnitResult, int], None]


def scan_leaks(
    job: Job, *, ignore: Collection[str] = (), report: Report = lambda stage, outcome, units: None
) -> list[LeakCheck]:
    """Every check of CHECKS, by name; raises JobError if release, scan and originals do not belong together.

    `ignore`: paths in the release that an earlier audit wrote.
    """
    return _Scan(job).run(frozenset(ignore), report)


class _Scan:
    """One pass over the shards; `tally` counts."""

    def __init__(self, job: Job) -> None:
        cv2.setNumThreads(1)
        self.job, self.config = job, job.config
        self.release = job.stores.release
        self.store = StageStore(self.release, "")
        self.scan = scan_store(job.stores, job.scan_key)
        self.naming = job.naming
        self.images = ReleasedImages(job.config, job.dataset.format)
        self.tally = LeakCounts(CHECKS)
        self.shared = RestrictedIndex()
        self.contents: dict[bytes, str] = {}
        self.small = self.silent = 0
        subject, kept = job.config.input.subject_field, {one.removeprefix("json:") for one in job.config.keep_fields}
        path = (subject or "").removeprefix("json:").split(".")
        self.subject_kept = subject is not None and any(".".join(path[:end]) in kept for end in range(1, len(path) + 1))

    def run(self, ignore: frozenset[str], report: Report) -> list[LeakCheck]:
        names = self.naming.shards(self.job.shards)
        markers = {name: self.store.committed(name) for name in names}
        missing = [names[name] for name, marker in markers.items() if marker is None]
        if missing:
            raise JobError(f"{len(missing)} shards are not rendered, {missing[0]} for one; finish the job first")
        own = {path for marker in markers.values() if marker for path in marker["files"]}
        own |= {path for shard in markers for path in (self.store.marker(shard), self._manifest(shard))}
        others = [entry.path for entry in self.release.list(unfinished=True) if entry.path not in own | ignore]
        for number, path in enumerate(others):
            where = path if path in _WELL_KNOWN or not self.config.rekey else f"file {number} that no shard names"
            self._shared_file(path, where)
        shown = json.loads(self.release.read(RUN_NOTE))["shards"]
        self.tally.count(NAME, RUN_NOTE, shown != list(names))
        for shard in self.job.shards:
            began = time.monotonic()
            images = self._shard(shard, markers[self.naming.shard(shard.shard_id)] or {})
            outcome = UnitResult(shard.shard_id, images=images, seconds=time.monotonic() - began)
            report("leaks", outcome, len(self.job.shards))
        return self.tally.checks(self._notes())

    def _manifest(self, shard: str) -> str:
        return self.store.path("manifest", f"{shard}.parquet")

    def _shared_file(self, path: str, where: str) -> None:
        """A file that belongs to no shard: ours by name, or one that nobody vouches for."""
        self.tally.count(STRAY, where, path not in _WELL_KNOWN)
        if path in CERTIFIED:
            data = self.release.read(path)
            self._columns(data, where, CERTIFIED[path])
            self.shared.add(where, json.dumps(tables.from_bytes(data).to_pylist(), ensure_ascii=False, default=str))
            return
        if path not in _WELL_KNOWN and self.config.rekey:
            self.shared.add(where, path)
        for item in items_of(self.release, path):
            self._item(item, where, self.shared, self.contents, {})

    # ---- what the release holds -------------------------------------------------------------------------------

    def _shard(self, shard: Shard, marker: Mapping[str, Any]) -> int:
        """One shard; returns how many images it has."""
        name = self.naming.shard(shard.shard_id)
        data = self.release.read(self._manifest(name))
        rows = tables.from_bytes(data).to_pylist()
        vouched = {row["output_sha256"]: row for row in rows if row["output_sha256"] is not None}
        lost = {row["key"] for row in rows if row["status"] == QUARANTINED}
        haystack = RestrictedIndex()
        contents: dict[bytes, str] = {}
        self._columns(data, f"manifest of {name}", MANIFEST)
        for row in rows:
            strange = foreign_words(row)
            self.tally.count(WORDS, f"{self._where(shard, row)}, {', '.join(strange)}", bool(strange))
            text = json.dumps(row, ensure_ascii=False, default=str)
            # A hash of what was written is no hash of an original, unless a face-less one came out as it was.
            haystack.add(self._where(shard, row), text if self.config.rekey else without(text, row["key"]))
            outputless = row["path"] is None and row["output_sha256"] is None
            if row["status"] == QUARANTINED:
                self.tally.count(QUARANTINED_OUT, self._where(shard, row), not outputless)
        haystack.add(f"marker of {name}", json.dumps(marker, ensure_ascii=False))
        seen: dict[str, str] = {}
        by_key = {row["key"]: row for row in rows}
        for path in marker["files"]:
            if self.config.rekey:
                haystack.add(f"files of {name}", path)
                self.tally.count(NAME, f"name of a file of {name}", not self._is_new_name(path, shard, by_key))
            for number, item in enumerate(items_of(self.release, path)):
                row = by_key.get(item.key) or by_key.get((item.key or "").rpartition(".")[0])
                if row is not None:
                    where = self._where(shard, row)
                else:
                    where = f"{path}, item {number}" if self.config.rekey else item.where
                if self.config.rekey and format_of(path) == "webdataset" and item.key is not None:
                    self.tally.count(NAME, f"{where}, its name", not self._is_new_member(item, by_key))
                if row is not None and row["key"] in lost:
                    self.tally.count(QUARANTINED_OUT, where, True)
                self._item(item, where, haystack, contents, seen, vouched, by_key)
        images = 0
        faces = self._faces(shard)
        self._shard_name(shard, haystack)
        for sample in self.job.dataset.read(shard):
            row = by_key.get(self.naming.key(shard.shard_id, sample.key))
            if row is None:
                raise JobError(f"the manifest of {shard.shard_id} has no row for an image of its shard")
            self._original(sample, row, faces.get(sample.key, []), shard, haystack, contents, seen)
            images += 1
        if images < len(rows):
            raise JobError(f"the manifest of {shard.shard_id} has more rows than its shard has images")
        return images

    def _is_new_name(self, path: str, shard: Shard, by_key: Mapping[str, Any]) -> bool:
        """Whether a file with new keys is called as it should be: after its shard, or in a folder after its sample."""
        if format_of(path) != "folder" and suffix_of(path) not in SIDECARS:
            return path == self.naming.path(self.job.dataset, shard)
        stem, _, ending = path.removeprefix("data/").rpartition(".")
        return stem in by_key and (ending in IMAGE_EXTENSIONS or ending in SIDECARS)

    def _is_new_member(self, item: Item, by_key: Mapping[str, Any]) -> bool:
        """Whether a member of a tar with new keys has one, and an extension that the job lists or that is usual."""
        listed = (self.config.input.image_field or "").lower().split(";") + list(self.config.keep_fields)
        return item.key in by_key and (item.name in IMAGE_EXTENSIONS or item.name == "json" or item.name in listed)

    def _shard_name(self, shard: Shard, haystack: RestrictedIndex) -> None:
        """Look for the name of an original shard's file, where it is more than a word."""
        name = PurePosixPath(shard.uri).name.partition(".")[0]
        if self.config.rekey and not shard.files and len(WORD.findall(name)) > 1:
            said = _first(one.find(name) for one in (haystack, self.shared))
            self.tally.count(KEY, said or f"shard {self.naming.shard(shard.shard_id)}", said is not None)

    def _item(
        self,
        item: Item,
        where: str,
        haystack: RestrictedIndex,
        contents: dict[bytes, str],
        seen: dict[str, str],
        vouched: Mapping[str, Mapping[str, Any]] | None = None,
        by_key: Mapping[str, Any] | None = None,
    ) -> None:
        """Look at one thing, and index what it says."""
        self.tally.count(ODD, where, item.odd)
        kept = frozenset(one.removeprefix("json:") for one in self.config.keep_fields)
        if isinstance(item.content, Footer):
            # Without new keys it repeats the least and the greatest key, which the manifest shows.
            if self.config.rekey:
                haystack.add(where, item.content.text)
            return
        if isinstance(item.content, pa.Schema):
            self._columns(item.content, where, None, kept)
            return
        value = item.content
        image = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(image, bytes) and is_picture(image):
            digest = hashlib.sha256(image).hexdigest()
            row = (vouched or {}).get(digest)
            seen[digest] = where
            if row is not None:
                where = where if item.key else f"{where.partition(':')[0]}: {row['key']}"
            self.tally.count(NO_ROW, where, row is None and item.name not in kept)
            found = carried(image)
            for kind in KINDS:
                self.tally.count(kind, where, kind in found)
            if isinstance(value, dict):
                haystack.add(where, json.dumps({name: str(one) for name, one in value.items() if name != "bytes"}))
        elif isinstance(value, bytes):
            self.tally.count(EMBEDDING, where, vectors.in_member(value, kept))
            text = text_of(value)
            if text is None:
                haystack.add_digest(where, value)
            else:
                haystack.add(where, text if self.config.rekey or item.key is None else without(text, item.key))
        else:
            self.tally.count(EMBEDDING, where, vectors.in_value(value, kept))
            if self.config.rekey or not (isinstance(value, str) and value in (by_key or {})):
                haystack.add(where, json.dumps(value, ensure_ascii=False, default=str))
        if isinstance(image, bytes):
            contents[hashlib.sha256(image).digest()] = where
        if self.config.rekey:
            haystack.add(where, f"{item.key or ''} {item.name}")

    def _columns(
        self, table: bytes | pa.Schema, where: str, ours: pa.Schema | None, kept: frozenset[str] = frozenset()
    ) -> None:
        schema = pq.read_schema(io.BytesIO(table)) if isinstance(table, bytes) else table
        found = vectors.restricted_columns(schema, ours, kept)
        self.tally.count(EMBEDDING, f"{where}, column {', '.join(found)}", bool(found))

    # ---- each original beside it ------------------------------------------------------------------------------

    def _original(
        self,
        sample: Sample,
        row: Mapping[str, Any],
        faces: Sequence[Mapping[str, Any]],
        shard: Shard,
        haystack: RestrictedIndex,
        contents: Mapping[bytes, str],
        seen: Mapping[str, str],
    ) -> None:
        here = self._where(shard, row)
        stacks = (haystack, self.shared)
        if sample.image is not None:
            digest = hashlib.sha256(sample.image)
            as_it_was = digest.hexdigest() == row["output_sha256"] and not row["faces"]
            copy = None if as_it_was else contents.get(digest.digest(), self.contents.get(digest.digest()))
            self.tally.count(WHOLE, copy or here, copy is not None)
            shown = None if as_it_was else _first(one.find_digest_of(sample.image) for one in stacks)
            self.tally.count(HASH, shown or here, shown is not None)
        name = label(sample, self.config.input.subject_field) if self.config.input.subject_field else None
        self.silent += name is not None and not tells(name)
        if name is not None and not self.subject_kept:
            said = _first(one.find(name) for one in stacks)
            self.tally.count(PERSON, said or here, said is not None)
            if not self.config.rekey:
                self.tally.count(NAMED_KEY, here, contains(row["key"], name))
        if self.config.rekey:
            wanted = {sample.key} | {one for one in spellings(sample.key) if any(sign.isdigit() for sign in one)}
            said = _first(one.find(spelling) for spelling in sorted(wanted) for one in stacks)
            self.tally.count(KEY, said or here, said is not None)
        if row["status"] == QUARANTINED:
            return
        if row["output_sha256"] not in seen:
            self.tally.count(NO_ROW, here, True)
            return
        before = try_to_read(sample, self.config)
        if isinstance(before, ImageProblem):
            raise JobError(f"an original of {shard.shard_id} cannot be read any more: {before.reason.meaning}")
        try:
            after = decode(self.images.image(row["path"], row["output_sha256"]), max_mpx=self.config.limits.image_mpx)
        except ImageProblem:
            self.tally.count(PART, here, True)
            return
        self._compare(before, after, row["faces"], faces, here)

    def _compare(
        self,
        before: Picture,
        after: Picture,
        outcomes: Sequence[Mapping[str, Any]],
        faces: Sequence[Mapping[str, Any]],
        where: str,
    ) -> None:
        if len(outcomes) != len(faces):
            raise JobError(f"{where.partition('/')[0]}: the manifest and the scan do not hold the same faces")
        size = before.rgb.shape[0], before.rgb.shape[1]
        if after.rgb.shape != before.rgb.shape or after.format != before.format:
            self.tally.count(OUTSIDE, where, True)
            return
        allowed = np.zeros(size, bool)
        for outcome, face in zip(outcomes, faces, strict=True):
            box = np.array(face["box"], np.float32)
            mesh = _mesh(face) if outcome["method"] in SYNTHESIS_METHODS else None
            allowed |= may_change(size, box, mesh)
            left = left_of(before.rgb, after.rgb, face_core(size, box, mesh))
            if left.detail is None and not left.original:
                self.small += 1
                continue
            self.tally.count(LEFT, where, left.original)
        self.tally.count(OUTSIDE, where, changed_outside(before, after, allowed, self.config.jpeg_quality) > 0)
        self.tally.count(PROFILE, where, after.space not in (None, before.space))

    def _faces(self, shard: Shard) -> dict[str, list[dict[str, Any]]]:
        data = self.scan.storage.read(self.scan.path("faces", f"{shard.shard_id}.parquet"))
        faces: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in tables.from_bytes(data, ("key", "index", "box", "mesh")).to_pylist():
            faces[row["key"]].append(row)
        return faces

    def _where(self, shard: Shard, row: Mapping[str, Any]) -> str:
        return f"{self.naming.shard(shard.shard_id)}/{row['key']}"

    def _notes(self) -> dict[str, str]:
        """What a reader must know of a check."""
        notes = {LEFT: f"{self.small:,} faces were too small or too flat to compare"}
        if self.config.input.subject_field is None:
            notes[PERSON] = notes[NAMED_KEY] = "no field names the person, so there was nothing to look for"
        elif self.subject_kept:
            notes[PERSON] = notes[NAMED_KEY] = "the job keeps the field by name"
        elif self.silent:
            notes[PERSON] = f"{self.silent:,} labels are too short to be looked for"
        if self.config.rekey:
            notes[NAMED_KEY] = "the release has new keys"
        else:
            notes[KEY] = notes[NAME] = "the release keeps its keys"
        return notes


def _mesh(face: Mapping[str, Any]) -> NDArray[np.float32]:
    return np.array(face["mesh"], np.float32).reshape(MESH_POINTS, 3)


def _first(found: Iterator[str | None]) -> str | None:
    return next((one for one in found if one is not None), None)
