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
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from mmap import mmap
from pathlib import PurePosixPath
from typing import Any, TypeGuard

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from anonlib.audit.evidence.gather import Report
from anonlib.audit.findings import LeakCheck
from anonlib.audit.leaks import contents, images
from anonlib.codes import foreign_words
from anonlib.datasets import Item, Sample, Shard, items_of, label
from anonlib.datasets.folder import SIDECARS
from anonlib.datasets.names import MEDIA_EXTENSIONS, MEDIA_HEAD, clip_kind, is_media, suffix_of
from anonlib.datasets.parquet_footer import Table
from anonlib.datasets.webdataset import image_names
from anonlib.errors import ImageProblem, JobError, NotExact
from anonlib.execution.base import UnitResult
from anonlib.faces.embed import Recognizer
from anonlib.faces.original import face_core, is_original
from anonlib.faces.track import Track
from anonlib.job import Job
from anonlib.media import exact
from anonlib.media.clip import frames_in
from anonlib.media.codec import Picture, decode
from anonlib.media.mark import unmarked
from anonlib.media.prefetch import try_to_read
from anonlib.methods import METHODS
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import SECOND_RECOGNIZER
from anonlib.models.runtime import load_engine
from anonlib.workspace import schemas, tables
from anonlib.workspace.images import JobImages
from anonlib.workspace.layout import RUN_NOTE, release_store, scan_store
from anonlib.workspace.release import ReleasedSample, samples_of

NO_ROW, QUARANTINED_OUT, WHOLE = "image without a row", "quarantined image", "whole original"
HASH, KEY, PERSON, NAMED_KEY = "hash of an original", "original key", "person's label", "person's label in a key"
EMBEDDING, LEFT, OUTSIDE, ODD = "embedding", "original px in a face", "changed px outside faces", "odd thing in a file"
STRAY, NAME, WORDS = "file that belongs to no shard", "foreign name", "foreign word in a manifest"
FIELD = "field that the job does not keep"
CHECKS = (
    *(*images.KINDS, STRAY, NO_ROW, QUARANTINED_OUT, WHOLE, HASH, KEY, PERSON, NAMED_KEY, NAME, WORDS, FIELD),
    *(EMBEDDING, ODD, LEFT, OUTSIDE),
)

_WELL_KNOWN = frozenset({RUN_NOTE, schemas.CERTIFICATE, *schemas.CERTIFIED})
_MOST_PLACES = 5


def scan_leaks(job: Job, *, report: Report = lambda stage, outcome, units: None) -> list[LeakCheck]:
    """Every check of CHECKS, by name; raises JobError if release, scan and originals do not belong together."""
    return _LeakScan(job).run(report)


class _LeakScan:
    """One pass over the shards; of each check it counts what was looked at and found, and keeps a few places."""

    def __init__(self, job: Job) -> None:
        cv2.setNumThreads(1)
        self.job, self.config, self.naming, self.rekey = job, job.config, job.naming, job.config.rekey
        self.release, self.store = job.stores.release, release_store(job.stores)
        self.images = JobImages(job.config, job.dataset.format)
        self.shared = contents.ReleaseIndex()
        self.checked: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.places: dict[str, list[str]] = defaultdict(list)
        self.too_flat = self.short_labels = 0
        self.flicker: images.Flicker | None = None
        keep, self.subject = self.config.keep_fields, self.config.input.subject_field
        self.kept = frozenset(name.removeprefix("json:") for name in keep)
        self.listed = {*keep, *image_names(self.config.input.image_field)}
        path = (self.subject or "").removeprefix("json:").split(".")
        self.subject_kept = any(".".join(path[: end + 1]) in self.kept for end in range(len(path)))

    def run(self, report: Report) -> list[LeakCheck]:
        names = self.naming.shards(self.job.shards)
        markers = {name: self.store.committed(name) for name in names}
        missing = [names[name] for name, marker in markers.items() if marker is None]
        if missing:
            raise JobError(f"{len(missing)} shards are not rendered, {missing[0]} for one; finish the job first")
        of_shards = {path for marker in markers.values() if marker for path in marker["files"]}
        of_shards |= {path for shard in markers for path in (schemas.marker_path(shard), schemas.manifest_path(shard))}
        others = [entry.path for entry in self.release.list(unfinished=True) if entry.path not in of_shards]
        for number, path in enumerate(others):
            self._shared_file(path, f"file {number} that no shard names")
        self._count(NAME, RUN_NOTE, json.loads(self.release.read(RUN_NOTE))["shards"] != list(names))
        for shard in self.job.shards:
            began = time.monotonic()
            count = self._shard(shard, markers[self.naming.shard(shard.shard_id)] or {})
            outcome = UnitResult(shard.shard_id, images=count, seconds=time.monotonic() - began)
            report("leaks", outcome, len(self.job.shards))
        notes, checks = self._notes(), []
        for name in CHECKS:
            counts = {"checked": self.checked[name], "found": self.found[name]}
            checks.append(LeakCheck(name=name, where=tuple(self.places[name]), note=notes.get(name, ""), **counts))
        return checks

    def _count(self, check: str, where: str, found: bool) -> None:
        """One more thing looked at, at `where` of the release."""
        self.checked[check] += 1
        self.found[check] += found
        places = self.places[check]
        if found and where not in places and len(places) < _MOST_PLACES:
            places.append(where)

    def _columns(self, schema: pa.Schema, where: str, ours: pa.Schema | None) -> None:
        found = contents.restricted_columns(schema, ours, self.kept if ours is None else ())
        self._count(EMBEDDING, f"{where}, column {', '.join(found)}", bool(found))

    def _look_up(self, check: str, phrases: Iterable[str], here: str, index: contents.ReleaseIndex) -> None:
        """Look up phrases in what the shard and all shards hold; nothing found counts as looked at `here`."""
        places = (held.find(phrase) for phrase in phrases for held in (index, self.shared))
        place = next((place for place in places if place is not None), None)
        self._count(check, place or here, place is not None)

    def _own_key_removed(self, text: str, key: str | None) -> str:
        return text if self.rekey or not key else contents.without(text, key)

    def _notes(self) -> dict[str, str]:
        """What a reader must know of a check."""
        notes = {LEFT: f"{self.too_flat:,} faces were too small or too flat to compare"}
        notes[LEFT] += self.flicker.words() if self.flicker else ""
        if self.subject is None:
            notes[PERSON] = notes[NAMED_KEY] = "no field names the person, so there was nothing to look for"
        elif self.subject_kept:
            notes[PERSON] = notes[NAMED_KEY] = "the job keeps the field by name"
        elif self.short_labels:
            notes[PERSON] = f"{self.short_labels:,} labels are too short to be looked for"
        if self.rekey:
            return notes | {NAMED_KEY: "the release has new keys"}
        return notes | dict.fromkeys((KEY, NAME), "the release keeps its keys")

    # ---- what the release holds -------------------------------------------------------------------------------

    def _shared_file(self, path: str, number: str) -> None:
        """A file that belongs to no shard: ours by name, or a stray one, named by its `number` where keys are new."""
        stray = path not in _WELL_KNOWN
        where = number if stray and self.rekey else path
        self._count(STRAY, where, stray)
        if path in schemas.CERTIFIED:
            data = self.release.read(path)
            self._columns(pq.read_schema(io.BytesIO(data)), where, schemas.CERTIFIED[path])
            rows = tables.from_bytes(data).to_pylist()
            self.shared.add(where, json.dumps(rows, ensure_ascii=False, default=str))
            return
        if stray and self.rekey:
            self.shared.add(where, path)
        for item in items_of(self.release, path):
            self._item(item, where, self.shared)

    def _shard(self, shard: Shard, marker: Mapping[str, Any]) -> int:
        """One shard; returns how many images it has."""
        name, scan = self.naming.shard(shard.shard_id), scan_store(self.job.stores, self.job.scan_key)
        samples = samples_of(self.store, scan, self.naming, shard.shard_id, faces=("box", "mesh", "track"))
        index = contents.ReleaseIndex([sample.row for sample in samples])
        self._columns(
            self.store.manifest(name).schema, f"manifest of {name}", schemas.manifest_schema(self.config.hide)
        )
        for key, row in index.rows.items():
            where, columns = f"{name}/{key}", foreign_words(row)
            self._count(WORDS, f"{where}, {', '.join(columns)}", bool(columns))
            # A hash of what was written is no hash of an original, unless an image without faces came out as it was.
            index.add(where, self._own_key_removed(json.dumps(row, ensure_ascii=False, default=str), key))
            if row["status"] == schemas.QUARANTINED:
                self._count(QUARANTINED_OUT, where, row["path"] is not None or row["output_sha256"] is not None)
        index.add(f"marker of {name}", json.dumps(marker, ensure_ascii=False))
        for path in marker["files"]:
            self._data_file(path, shard, index)
        # The name of an original shard's file is looked up where it is more than a word.
        stem = PurePosixPath(shard.uri).name.partition(".")[0]
        if self.rekey and not shard.files and len(contents.words_of(stem)) > 1:
            self._look_up(KEY, [stem], f"shard {name}", index)
        for original, sample in zip_longest(self.job.dataset.read(shard), samples):
            if original is None or sample is None or original.key != sample.key:
                raise JobError(f"the shard {shard.shard_id} does not hold the images of its manifest")
            self._original(original, sample, f"{name}/{sample.row['key']}", index)
        return len(samples)

    def _data_file(self, path: str, shard: Shard, index: contents.ReleaseIndex) -> None:
        name, of_one_sample = self.naming.shard(shard.shard_id), is_media(path) or suffix_of(path) in SIDECARS
        if self.rekey:
            index.add(f"files of {name}", path)
            # It is called after its shard, or in a folder after its sample.
            usual = path == self.naming.path(self.job.dataset, shard)
            if of_one_sample:
                stem, _, ending = path.removeprefix("data/").rpartition(".")
                usual = stem in index.rows and (ending in MEDIA_EXTENSIONS or ending in SIDECARS)
            self._count(NAME, f"name of a file of {name}", not usual)
        for number, item in enumerate(items_of(self.release, path)):
            key = item.key or ""
            row = index.rows.get(key) or index.rows.get(key.rpartition(".")[0])
            where = f"{path}, item {number}" if self.rekey else item.where
            where = where if row is None else f"{name}/{row['key']}"
            if self.rekey and item.key is not None and not is_media(path):
                usual = item.name in MEDIA_EXTENSIONS | self.listed | {"json"} and row is not None
                self._count(NAME, f"{where}, its name", not usual)
            if row is not None and row["status"] == schemas.QUARANTINED and not index.shows_another(row["key"]):
                self._count(QUARANTINED_OUT, where, True)
            if item.key is not None and _is_file(item.content):
                self._count(FIELD, where, not self._is_kept(item.name, item.content))
            self._item(item, where, index)

    def _is_kept(self, name: str, content: bytes) -> bool:
        """Whether the job lets a member through: an image, a listed extension, or JSON of listed keys alone."""
        if name in self.listed or is_media(f"x.{name}") or (not name and images.is_picture(content)):
            return True
        document = contents.text_of(content)[1] if suffix_of(f"x.{name}") == "json" else None
        return isinstance(document, dict) and document.keys() <= self.kept

    def _item(self, item: Item, where: str, index: contents.ReleaseIndex) -> None:
        """Look at one thing, and index what it says."""
        self._count(ODD, where, item.odd)
        value = item.content
        if isinstance(value, Table):
            # Without new keys it repeats the least and the greatest key, which the manifest shows.
            if self.rekey:
                index.add(where, value.footer_text)
            return
        if isinstance(value, pa.Schema):
            self._columns(value, where, None)
            return
        image = value.get("bytes") if isinstance(value, dict) else value
        if _is_file(image) and (images.is_picture(image) or clip_kind(image[:MEDIA_HEAD])):
            where = self._image(item, image, where, index)
        elif isinstance(value, bytes):
            text, document = contents.text_of(value)
            embedding = contents.holds_embedding(value if document is None else document, self.kept)
            self._count(EMBEDDING, where, embedding)
            if text is None:
                index.digests.setdefault(value, where)
            else:
                index.add(where, self._own_key_removed(text, item.key))
        else:
            self._count(EMBEDDING, where, contents.holds_embedding(value, self.kept))
            if self.rekey or not (isinstance(value, str) and value in index.rows):
                index.add(where, json.dumps(value, ensure_ascii=False, default=str))
        if _is_file(image):
            index.contents[hashlib.sha256(image).hexdigest()] = where
        if self.rekey:
            index.add(where, f"{item.key or ''} {item.name}")

    def _image(self, item: Item, image: bytes, where: str, index: contents.ReleaseIndex) -> str:
        """An image of the release; returns where it is, by its row where it has one."""
        row = index.vouched.get(hashlib.sha256(image).hexdigest())
        if row is not None and not item.key:
            where = f"{where.partition(':')[0]}: {row['key']}"
        self._count(NO_ROW, where, row is None)
        found = images.carried(image)
        if not images.is_picture(image) or (row is not None and row["media"] == schemas.CLIP):
            audio = self.config.clip.audio == "keep"
            found = images.carried_by_clip(image, self.config.limits, keep_audio=audio)
        for kind in images.KINDS:
            self._count(kind, where, kind in found)
        if isinstance(item.content, dict):
            rest = {name: str(value) for name, value in item.content.items() if name != "bytes"}
            index.add(where, json.dumps(rest))
        return where

    # ---- each original beside it ------------------------------------------------------------------------------

    def _original(self, original: Sample, sample: ReleasedSample, here: str, index: contents.ReleaseIndex) -> None:
        """Look up an original's bytes, hashes and names, and compare its px."""
        row, content = sample.row, original.content
        digest = hashlib.sha256(content or b"").hexdigest()
        if content is not None:
            copy = hashed = None
            if digest != row["output_sha256"] or row["faces"]:
                copy = index.contents.get(digest, self.shared.contents.get(digest))
                hashed = index.find_digest_of(content) or self.shared.find_digest_of(content)
            self._count(WHOLE, copy or here, copy is not None)
            self._count(HASH, hashed or here, hashed is not None)
        name = label(original, self.subject) if self.subject else None
        self.short_labels += name is not None and not contents.tells(name)
        if name is not None and not self.subject_kept:
            self._look_up(PERSON, [name], here, index)
            if not self.rekey:
                self._count(NAMED_KEY, here, contents.contains(row["key"], name))
        if self.rekey:
            numbered = {name for name in contents.spellings(original.key) if any(char.isdigit() for char in name)}
            self._look_up(KEY, sorted({original.key} | numbered), here, index)
        if sample.quarantined:
            return
        if row["output_sha256"] not in index.contents:
            self._count(NO_ROW, here, True)
            return
        if content is not None and row["media"] == schemas.CLIP:
            self._compare_clip(content, self.images.image(row["path"], row["output_sha256"]), sample, here)
            return
        before = try_to_read(original, self.config)
        if isinstance(before, ImageProblem):
            raise JobError(f"the original of {here} cannot be read any more: {before.reason.meaning}")
        file = self.images.image(row["path"], row["output_sha256"])
        try:
            after = decode(file, max_mpx=self.config.limits.image_mpx)
        except ImageProblem:
            self._count(images.PART, here, True)
            return
        allowed = self._compare(before, after, sample, here)
        if allowed is None:
            return
        if row["outside"] != schemas.EXACT:
            before = before if self.config.outside == "exact" else before.plain
            changed = images.changed_outside(before, after, allowed, self.config.jpeg_quality)
        else:
            files, pictures = (original.image or b"", file), (before, after)
            changed = images.changed_in_exact(files, pictures, allowed, row["orientation"], self.config.limits)
        self._count(OUTSIDE, here, changed > 0)
        if before.format == "JPEG" or row["outside"] == schemas.EXACT:
            self._count(ODD, here, not _is_ours(file, after.stored) or after.orientation != row["orientation"])

    def _compare_clip(self, before: bytes, after: bytes, sample: ReleasedSample, where: str) -> None:
        """Compare px of a clip's faces: of a redaction in a frame of every half second, of a face that was replaced in
        the frame that the scan has its mesh of."""
        faces = [
            (row, Track.of(row["track"]), outcome)
            for row, outcome in zip(sample.faces, sample.row["faces"], strict=True)
        ]
        step = max(round(sample.row["frames"] / sample.row["seconds"] / 2), 1)
        flicker = self.flicker = self.flicker or images.Flicker(
            Recognizer(SECOND_RECOGNIZER, load_engine(model_bytes(SECOND_RECOGNIZER)))
        )
        try:
            for old, new in zip(*(frames_in(data, self.config.limits) for data in (before, after)), strict=True):
                for row, track, outcome in faces:
                    mesh = None
                    if outcome["surrogate_digest"] and old.index in track.frames:
                        flicker.add((where, row["index"]), old, new, track.at(old.index))
                    if METHODS[outcome["method"]].synthesis:
                        mesh = np.array(row["mesh"], np.float32).reshape(schemas.MESH_POINTS, 3)
                    if old.index in (track.frames[::step] if mesh is None else (track.nearest(row["box"]),)):
                        core = face_core(old.rgb.shape[:2], track.at(old.index).boxes[0], mesh)
                        left = _is_left(old.picture, new.picture, core)
                        self.too_flat += left is None
                        if left is not None:
                            self._count(LEFT, where, left)
        except (ImageProblem, ValueError):  # it cannot be read, or has another number of frames or another size
            self._count(OUTSIDE, where, True)
        flicker.end_clip()

    def _compare(self, before: Picture, after: Picture, sample: ReleasedSample, where: str) -> NDArray[np.bool_] | None:
        """Compare px of faces: the manifest says what was done, the scan where; the px (H, W) that may have changed."""
        if after.rgb.shape != before.rgb.shape or after.format != before.format:
            self._count(OUTSIDE, where, True)
            return None
        size = before.rgb.shape[0], before.rgb.shape[1]
        allowed = np.zeros(size, bool)
        for outcome, face in zip(sample.row["faces"], sample.faces, strict=True):
            if outcome["method"] == schemas.KEPT:
                continue
            box, mesh = np.array(face["box"], np.float32), None
            if METHODS[outcome["method"]].synthesis:
                mesh = np.array(face["mesh"], np.float32).reshape(schemas.MESH_POINTS, 3)
            allowed |= images.may_change(size, box, mesh, whole=outcome.get("kind") is not None)
            core = face_core(size, box, mesh)
            left = _is_left(before, after, core)
            if before.alpha is not None:
                allowed |= images.may_change(size, box, None)
            self.too_flat += left is None
            if left is not None:
                self._count(LEFT, where, left)
        self._count(images.PROFILE, where, after.space not in (None, before.space))
        return allowed


def _is_left(before: Picture, after: Picture, core: NDArray[np.bool_]) -> bool | None:
    """Whether px of a face, or an alpha that draws it, are as they were; None where that cannot be told."""
    left = is_original(before.rgb, after.rgb, core)
    if before.alpha is not None:
        whole = np.full(core.shape, 255, np.uint8) if after.alpha is None else after.alpha
        left = is_original(np.dstack([before.alpha] * 3), np.dstack([whole] * 3), core) or left
    return left


def _is_file(content: Any) -> TypeGuard[bytes]:
    """Whether it is bytes, which of a clip are mapped."""
    return isinstance(content, bytes | mmap)


def _is_ours(file: bytes, stored: exact.Stored) -> bool:
    """Whether a file is, byte for byte, a picture under headers that anonlib writes."""
    plain = unmarked(file)
    try:
        return exact.rewrite(plain, stored) == plain
    except NotExact:
        return False
