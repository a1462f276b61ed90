"""The leak scan: everything in a release, looked at beside the originals that it was made of.

It runs inside the trust boundary, a shard at a time: first all that the shard's files hold, indexed, then its originals
one by one, each looked up in that index and compared px by px. An original's names and hashes are looked up in its own
shard and in the files that all shards share, not in other shards.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from anonlib.audit.findings import LeakCheck
from anonlib.audit.leaks.containers import KINDS, PART, PROFILE, carried, is_picture
from anonlib.audit.leaks.contents import (
    WORD,
    ReleaseIndex,
    contains,
    holds_embedding,
    parsed_json,
    restricted_columns,
    spellings,
    tells,
    text_of,
    without,
)
from anonlib.audit.leaks.pixels import changed_outside, face_core, left_of, may_change
from anonlib.codes import foreign_words
from anonlib.datasets import Item, Sample, Shard, items_of, label
from anonlib.datasets.folder import SIDECARS
from anonlib.datasets.names import IMAGE_EXTENSIONS, is_image, suffix_of
from anonlib.datasets.parquet import Footer
from anonlib.errors import ImageProblem, JobError
from anonlib.execution.base import UnitResult
from anonlib.job import Job
from anonlib.media.codec import Picture, decode
from anonlib.media.prefetch import try_to_read
from anonlib.methods import METHODS
from anonlib.workspace import tables
from anonlib.workspace.images import JobImages
from anonlib.workspace.layout import RUN_NOTE, release_store, scan_store
from anonlib.workspace.release import ReleasedSample, samples_of
from anonlib.workspace.schemas import (
    CERTIFICATE,
    CERTIFIED,
    MANIFEST,
    MESH_POINTS,
    QUARANTINED,
    manifest_path,
    marker_path,
)

NO_ROW, QUARANTINED_OUT, WHOLE = "image without a row", "quarantined image", "whole original"
HASH, KEY, PERSON, NAMED_KEY = "hash of an original", "original key", "person's label", "person's label in a key"
EMBEDDING, LEFT, OUTSIDE, ODD = "embedding", "original px in a face", "changed px outside faces", "odd thing in a file"
STRAY, NAME, WORDS = "file that belongs to no shard", "foreign name", "foreign word in a manifest"
FIELD = "field that the job does not keep"
CHECKS = (
    *(*KINDS, STRAY, NO_ROW, QUARANTINED_OUT, WHOLE, HASH, KEY, PERSON, NAMED_KEY, NAME, WORDS, FIELD, EMBEDDING, ODD),
    *(LEFT, OUTSIDE),
)

_WELL_KNOWN = frozenset({RUN_NOTE, CERTIFICATE, *CERTIFIED})
_MOST_PLACES = 5

Row = Mapping[str, Any]
Report = Callable[[str, UnitResult, int], None]


def scan_leaks(
    job: Job, *, ignore: Collection[str] = (), report: Report = lambda stage, outcome, units: None
) -> list[LeakCheck]:
    """Every check of CHECKS, by name; raises JobError if release, scan and originals do not belong together.

    `ignore`: paths in the release that an earlier audit wrote.
    """
    return _LeakScan(job).run(frozenset(ignore), report)


class LeakCounts:
    """Of each check of CHECKS how many things it looked at, how many it found, and the first few places by name."""

    def __init__(self) -> None:
        self._checked: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        self._places: dict[str, list[str]] = defaultdict(list)

    def count(self, check: str, where: str, found: bool) -> None:
        """One more thing looked at, at `where` of the release."""
        self._checked[check] += 1
        if found:
            self._found[check] += 1
            places = self._places[check]
            if where not in places and len(places) < _MOST_PLACES:
                places.append(where)

    def checks(self, notes: Mapping[str, str]) -> list[LeakCheck]:
        """All of them, in order, also those that had nothing to look at."""
        return [
            LeakCheck(
                name=name,
                checked=self._checked[name],
                found=self._found[name],
                where=tuple(self._places[name]),
                note=notes.get(name, ""),
            )
            for name in CHECKS
        ]


@dataclass
class _Contents:
    """What files of the release hold: words and digests, where each content is by sha256, and its images.

    `rows`: the manifest's by key; `vouched`: those with an output, by its sha256.
    """

    rows: Mapping[str, Row] = field(default_factory=dict)
    vouched: Mapping[str, Row] = field(default_factory=dict)
    index: ReleaseIndex = field(default_factory=ReleaseIndex)
    digests: dict[bytes, str] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)

    def row_of(self, key: str | None) -> Row | None:
        """The row of a key, which may have an ending."""
        return self.rows.get(key or "") or self.rows.get((key or "").rpartition(".")[0])


class _LeakScan:
    """One pass over the shards."""

    def __init__(self, job: Job) -> None:
        cv2.setNumThreads(1)
        self.job, self.config, self.naming = job, job.config, job.naming
        self.release = job.stores.release
        self.store = release_store(job.stores)
        self.scan = scan_store(job.stores, job.scan_key)
        self.images = JobImages(job.config, job.dataset.format)
        self.counts = LeakCounts()
        self.shared = _Contents()
        self.too_flat = self.short_labels = 0
        keep, subject = self.config.keep_fields, self.config.input.subject_field
        self.kept = frozenset(name.removeprefix("json:") for name in keep)
        self.listed = {*keep, *(self.config.input.image_field or "").lower().split(";")} - {""}
        path = (subject or "").removeprefix("json:").split(".")
        self.subject_kept = subject is not None and any(
            ".".join(path[:end]) in self.kept for end in range(1, len(path) + 1)
        )

    def run(self, ignore: frozenset[str], report: Report) -> list[LeakCheck]:
        names = self.naming.shards(self.job.shards)
        markers = {name: self.store.committed(name) for name in names}
        missing = [names[name] for name, marker in markers.items() if marker is None]
        if missing:
            raise JobError(f"{len(missing)} shards are not rendered, {missing[0]} for one; finish the job first")
        of_shards = {path for marker in markers.values() if marker for path in marker["files"]}
        of_shards |= {path for shard in markers for path in (marker_path(shard), manifest_path(shard))}
        others = [entry.path for entry in self.release.list(unfinished=True) if entry.path not in of_shards | ignore]
        for number, path in enumerate(others):
            hidden = path not in _WELL_KNOWN and self.config.rekey
            self._shared_file(path, f"file {number} that no shard names" if hidden else path)
        self.counts.count(NAME, RUN_NOTE, json.loads(self.release.read(RUN_NOTE))["shards"] != list(names))
        for shard in self.job.shards:
            began = time.monotonic()
            images = self._shard(shard, markers[self.naming.shard(shard.shard_id)] or {})
            outcome = UnitResult(shard.shard_id, images=images, seconds=time.monotonic() - began)
            report("leaks", outcome, len(self.job.shards))
        return self.counts.checks(self._notes())

    def _shared_file(self, path: str, where: str) -> None:
        """A file that belongs to no shard: ours by name, or a stray one."""
        self.counts.count(STRAY, where, path not in _WELL_KNOWN)
        if path in CERTIFIED:
            data = self.release.read(path)
            self._columns(data, where, CERTIFIED[path])
            rows = tables.from_bytes(data).to_pylist()
            self.shared.index.add(where, json.dumps(rows, ensure_ascii=False, default=str))
            return
        if path not in _WELL_KNOWN and self.config.rekey:
            self.shared.index.add(where, path)
        for item in items_of(self.release, path):
            self._item(item, where, self.shared)

    # ---- what the release holds -------------------------------------------------------------------------------

    def _shard(self, shard: Shard, marker: Mapping[str, Any]) -> int:
        """One shard; returns how many images it has."""
        name = self.naming.shard(shard.shard_id)
        known = samples_of(self.store, self.scan, self.naming, shard.shard_id, faces=("box", "mesh"))
        samples = {sample.key: sample for sample in known}
        rows = {str(sample.row["key"]): sample.row for sample in known}
        vouched = {row["output_sha256"]: row for row in rows.values() if row["output_sha256"] is not None}
        contents = _Contents(rows, vouched)
        self._columns(self.store.manifest(name).schema, f"manifest of {name}", MANIFEST)
        for key, row in rows.items():
            self._row(row, f"{name}/{key}", contents)
        contents.index.add(f"marker of {name}", json.dumps(marker, ensure_ascii=False))
        for path in marker["files"]:
            self._data_file(path, shard, contents)
        self._shard_name(shard, contents)
        images = 0
        for original in self.job.dataset.read(shard):
            if original.key not in samples:
                raise JobError(f"the manifest of {shard.shard_id} has no row for an image of its shard")
            self._original(original, samples[original.key], f"{name}/{samples[original.key].row['key']}", contents)
            images += 1
        if images < len(rows):
            raise JobError(f"the manifest of {shard.shard_id} has more rows than its shard has images")
        return images

    def _row(self, row: Row, where: str, contents: _Contents) -> None:
        columns = foreign_words(row)
        self.counts.count(WORDS, f"{where}, {', '.join(columns)}", bool(columns))
        text = json.dumps(row, ensure_ascii=False, default=str)
        # A hash of what was written is no hash of an original, unless an image without faces came out as it was.
        contents.index.add(where, text if self.config.rekey else without(text, row["key"]))
        if row["status"] == QUARANTINED:
            self.counts.count(QUARANTINED_OUT, where, row["path"] is not None or row["output_sha256"] is not None)

    def _data_file(self, path: str, shard: Shard, contents: _Contents) -> None:
        name = self.naming.shard(shard.shard_id)
        if self.config.rekey:
            contents.index.add(f"files of {name}", path)
            self.counts.count(NAME, f"name of a file of {name}", not self._is_new_name(path, shard, contents))
        for number, item in enumerate(items_of(self.release, path)):
            row = contents.row_of(item.key)
            where = f"{path}, item {number}" if self.config.rekey else item.where
            where = where if row is None else f"{name}/{row['key']}"
            if self.config.rekey and item.key is not None and not is_image(path):
                usual = item.name in IMAGE_EXTENSIONS | self.listed | {"json"}
                self.counts.count(NAME, f"{where}, its name", not (usual and item.key in contents.rows))
            if row is not None and row["status"] == QUARANTINED:
                self.counts.count(QUARANTINED_OUT, where, True)
            if item.key is not None and isinstance(item.content, bytes):
                self.counts.count(FIELD, where, not self._is_kept(item.name, item.content))
            self._item(item, where, contents)

    def _is_new_name(self, path: str, shard: Shard, contents: _Contents) -> bool:
        """Whether a file with new keys is called as it should be: after its shard, or in a folder after its sample."""
        if not is_image(path) and suffix_of(path) not in SIDECARS:
            return path == self.naming.path(self.job.dataset, shard)
        stem, _, ending = path.removeprefix("data/").rpartition(".")
        return stem in contents.rows and (ending in IMAGE_EXTENSIONS or ending in SIDECARS)

    def _is_kept(self, name: str, content: bytes) -> bool:
        """Whether the job lets a member through: an image, a listed extension, or JSON of listed keys alone."""
        ending = suffix_of(f"x.{name}")
        if name in self.listed or ending in IMAGE_EXTENSIONS:
            return True
        document = parsed_json(text_of(content) or "") if ending == "json" else None
        return isinstance(document, dict) and document.keys() <= self.kept

    def _shard_name(self, shard: Shard, contents: _Contents) -> None:
        """Look up the name of an original shard's file, where it is more than a word."""
        name = PurePosixPath(shard.uri).name.partition(".")[0]
        if self.config.rekey and not shard.files and len(WORD.findall(name)) > 1:
            self._look_up(KEY, [name], f"shard {self.naming.shard(shard.shard_id)}", contents)

    def _look_up(self, check: str, phrases: Iterable[str], here: str, contents: _Contents) -> None:
        """Look up phrases in what the shard and all shards hold; nothing found counts as looked at `here`."""
        places = (index.find(phrase) for phrase in phrases for index in (contents.index, self.shared.index))
        place = next((place for place in places if place is not None), None)
        self.counts.count(check, place or here, place is not None)

    def _item(self, item: Item, where: str, contents: _Contents) -> None:
        """Look at one thing, and index what it says."""
        self.counts.count(ODD, where, item.odd)
        value = item.content
        if isinstance(value, Footer):
            # Without new keys it repeats the least and the greatest key, which the manifest shows.
            if self.config.rekey:
                contents.index.add(where, value.text)
            return
        if isinstance(value, pa.Schema):
            self._columns(value, where, None)
            return
        image = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(image, bytes) and is_picture(image):
            where = self._image(item, image, where, contents)
        elif isinstance(value, bytes):
            text = text_of(value)
            parsed = None if text is None else parsed_json(text)
            self.counts.count(EMBEDDING, where, holds_embedding(value if parsed is None else parsed, self.kept))
            if text is None:
                contents.index.add_digest(where, value)
            else:
                contents.index.add(where, text if self.config.rekey or item.key is None else without(text, item.key))
        else:
            self.counts.count(EMBEDDING, where, holds_embedding(value, self.kept))
            if self.config.rekey or not (isinstance(value, str) and value in contents.rows):
                contents.index.add(where, json.dumps(value, ensure_ascii=False, default=str))
        if isinstance(image, bytes):
            contents.digests[hashlib.sha256(image).digest()] = where
        if self.config.rekey:
            contents.index.add(where, f"{item.key or ''} {item.name}")

    def _image(self, item: Item, image: bytes, where: str, contents: _Contents) -> str:
        """An image of the release; returns where it is, by its row where it has one."""
        digest = hashlib.sha256(image).hexdigest()
        contents.images.add(digest)
        row = contents.vouched.get(digest)
        if row is not None and not item.key:
            where = f"{where.partition(':')[0]}: {row['key']}"
        self.counts.count(NO_ROW, where, row is None and item.name not in self.kept)
        found = carried(image)
        for kind in KINDS:
            self.counts.count(kind, where, kind in found)
        if isinstance(item.content, dict):
            rest = {name: str(value) for name, value in item.content.items() if name != "bytes"}
            contents.index.add(where, json.dumps(rest))
        return where

    def _columns(self, table: bytes | pa.Schema, where: str, ours: pa.Schema | None) -> None:
        schema = pq.read_schema(io.BytesIO(table)) if isinstance(table, bytes) else table
        found = restricted_columns(schema, ours, self.kept if ours is None else ())
        self.counts.count(EMBEDDING, f"{where}, column {', '.join(found)}", bool(found))

    # ---- each original beside it ------------------------------------------------------------------------------

    def _original(self, original: Sample, sample: ReleasedSample, here: str, contents: _Contents) -> None:
        row = sample.row
        if original.image is not None:
            self._whole(original.image, row, here, contents)
        subject = self.config.input.subject_field
        name = label(original, subject) if subject else None
        self.short_labels += name is not None and not tells(name)
        if name is not None and not self.subject_kept:
            self._look_up(PERSON, [name], here, contents)
            if not self.config.rekey:
                self.counts.count(NAMED_KEY, here, contains(row["key"], name))
        if self.config.rekey:
            numbered = {text for text in spellings(original.key) if any(char.isdigit() for char in text)}
            self._look_up(KEY, sorted({original.key} | numbered), here, contents)
        if sample.quarantined:
            return
        if row["output_sha256"] not in contents.images:
            self.counts.count(NO_ROW, here, True)
            return
        before = try_to_read(original, self.config)
        if isinstance(before, ImageProblem):
            raise JobError(f"the original of {here} cannot be read any more: {before.reason.meaning}")
        try:
            after = decode(self.images.image(row["path"], row["output_sha256"]), max_mpx=self.config.limits.image_mpx)
        except ImageProblem:
            self.counts.count(PART, here, True)
            return
        self._compare(before, after, row["faces"], sample.faces, here)

    def _whole(self, original: bytes, row: Row, here: str, contents: _Contents) -> None:
        """Whether an original, or a plain hash of it, is in the release."""
        digest = hashlib.sha256(original)
        copy = hashed = None
        if digest.hexdigest() != row["output_sha256"] or row["faces"]:
            copy = contents.digests.get(digest.digest(), self.shared.digests.get(digest.digest()))
            hashed = contents.index.find_digest_of(original) or self.shared.index.find_digest_of(original)
        self.counts.count(WHOLE, copy or here, copy is not None)
        self.counts.count(HASH, hashed or here, hashed is not None)

    def _compare(
        self, before: Picture, after: Picture, outcomes: Sequence[Row], faces: Sequence[Row], where: str
    ) -> None:
        """Compare px: `outcomes` are the manifest's faces, `faces` the scan's."""
        size = before.rgb.shape[0], before.rgb.shape[1]
        if after.rgb.shape != before.rgb.shape or after.format != before.format:
            self.counts.count(OUTSIDE, where, True)
            return
        allowed = np.zeros(size, bool)
        for outcome, face in zip(outcomes, faces, strict=True):
            box, mesh = np.array(face["box"], np.float32), None
            if METHODS[outcome["method"]].synthesis:
                mesh = np.array(face["mesh"], np.float32).reshape(MESH_POINTS, 3)
            allowed |= may_change(size, box, mesh)
            left = left_of(before.rgb, after.rgb, face_core(size, box, mesh))
            if left.detail is None and not left.original:
                self.too_flat += 1
                continue
            self.counts.count(LEFT, where, left.original)
        self.counts.count(OUTSIDE, where, changed_outside(before, after, allowed, self.config.jpeg_quality) > 0)
        self.counts.count(PROFILE, where, after.space not in (None, before.space))

    def _notes(self) -> dict[str, str]:
        """What a reader must know of a check."""
        notes = {LEFT: f"{self.too_flat:,} faces were too small or too flat to compare"}
        if self.config.input.subject_field is None:
            notes[PERSON] = notes[NAMED_KEY] = "no field names the person, so there was nothing to look for"
        elif self.subject_kept:
            notes[PERSON] = notes[NAMED_KEY] = "the job keeps the field by name"
        elif self.short_labels:
            notes[PERSON] = f"{self.short_labels:,} labels are too short to be looked for"
        if self.config.rekey:
            notes[NAMED_KEY] = "the release has new keys"
        else:
            notes[KEY] = notes[NAME] = "the release keeps its keys"
        return notes
