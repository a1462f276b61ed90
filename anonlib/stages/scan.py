"""Scan: every image once, find its faces and describe them, into the workspace.

A sample that cannot be read becomes a row with the reason. A redaction needs boxes alone, so the other networks do not
run for one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby
from typing import Any

import cv2

from anonlib.codes import Problem, Reason
from anonlib.config import NO_DETECTOR, InputConfig, JobConfig
from anonlib.datasets import Dataset, Sample, Shard, label, values_of
from anonlib.datasets.names import MEDIA_EXTENSIONS, is_damaged_json, json_object, suffix_of
from anonlib.errors import ImageProblem, StorageError, contained
from anonlib.execution.base import UnitResult, current
from anonlib.faces.detect import detect_as_shown, open_detector
from anonlib.faces.given import given_regions, joined
from anonlib.faces.hidden import least_side, open_hidden
from anonlib.faces.regions import FACE, MOST_REGIONS, NO_REGIONS, Regions, labelled_face, together
from anonlib.media.clip import ClipInfo
from anonlib.media.codec import Picture
from anonlib.media.prefetch import chunks_ahead, on_threads, read_or_open, sample_bytes
from anonlib.methods import method_of
from anonlib.models.requirements import ModelBytes, placement
from anonlib.stages.clip_scan import ClipScanner, clip_row, file_of
from anonlib.stages.spare import Consents
from anonlib.synthesis.base import Pixels
from anonlib.synthesis.describe import Describer
from anonlib.workspace.layout import JobStores, ScanStore, scan_store, sha256

MOST_FIELDS = 1000
_TOGETHER = 8
"""Photos that are described in one go."""
Row = dict[str, Any]
ReadSample = tuple[Sample, Picture | ClipInfo | ImageProblem]
Photo = tuple[Sample, Picture, Row, Regions]
"""A readable photo, maybe decoded smaller than it is, its row of IMAGES, and the regions that its fields name."""
ReadableClip = tuple[Sample, ClipInfo, Row, Regions]


@dataclass
class Beside:
    """What is beside the photos of shards: how many `samples` there are, how many are `labelled` with a person and
    `boxed`, and how many have each of their `fields`.

    A name is that of a member or column, or `json:NAME` of a key in a JSON sidecar; at most MOST_FIELDS are counted.
    """

    samples: int = 0
    labelled: int = 0
    boxed: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, samples: Iterable[Sample], wanted: InputConfig) -> None:
        """Count the fields of samples that could be read."""
        for sample in samples:
            if sample.problem is not None:
                continue
            self.samples += 1
            self.labelled += bool(wanted.subject_field and label(sample, wanted.subject_field))
            self.boxed += bool(wanted.boxes_field and any(True for _ in values_of(sample, wanted.boxes_field)))
            names = set(sample.fields)
            for name, value in sample.fields.items():
                if suffix_of(f"x.{name}") == "json":
                    names |= {f"json:{key}" for key in json_object(value)}
            for name in sorted(names):
                if name in self.fields or len(self.fields) < MOST_FIELDS:
                    self.fields[name] += 1

    @classmethod
    def of(cls, markers: Iterable[Mapping[str, Any]]) -> Beside:
        """That of all shards together, by their markers of the scan."""
        total = cls()
        for marker in markers:
            total.samples += marker.get("samples", 0)
            total.labelled += marker.get("labelled", 0)
            total.boxed += marker.get("boxed", 0)
            total.fields.update(marker.get("fields", {}))
            total.left_out.update(marker.get("left_out", {}))
        return total

    def missing(self, keep: Collection[str]) -> list[str]:
        """The names among those to be kept that no sample has."""
        complete = self.samples and len(self.fields) < MOST_FIELDS
        return [name for name in keep if complete and not self._spellings(name) & self.fields.keys()]

    def dropped(self, keep: Collection[str]) -> dict[str, int]:
        """Members and columns of which nothing is kept, with the number of samples that have them."""
        kept = {spelling for name in keep for spelling in self._spellings(name)}
        if any(name.startswith("json:") for name in kept & self.fields.keys()):
            kept |= {name for name in self.fields if suffix_of(f"x.{name}") == "json"}
        names = [name for name in self.fields if not name.startswith("json:") and name not in kept]
        return {name: self.fields[name] for name in sorted(names)}

    @staticmethod
    def _spellings(name: str) -> set[str]:
        """How a kept field may be called here; NAME.txt of a folder is its member `jpg.txt`."""
        return {name, f"json:{name}", *(f"{ending}.{name}" for ending in MEDIA_EXTENSIONS)}


@dataclass
class Scanned:
    """What a scan has found in a shard so far: rows of IMAGES and FACES in the order of the samples."""

    images: list[Row] = field(default_factory=list)
    faces: list[Row] = field(default_factory=list)
    beside: Beside = field(default_factory=Beside)


class ScanStage:
    """Holds the models; `run(shard)` writes faces/SHARD and images/SHARD and claims the marker."""

    name = "scan"

    def __init__(
        self,
        job: JobConfig,
        dataset: Dataset,
        stores: JobStores,
        key: str,
        models: ModelBytes,
        consents: Consents | None = None,
    ) -> None:
        cv2.setNumThreads(1)
        self.job, self.dataset, self.consents = job, dataset, consents
        self.synthesis = method_of(job.method).synthesis
        self.store: ScanStore = scan_store(stores, key)
        self.detector = open_detector(job.detector, models, where=placement(job))
        self.hidden = open_hidden(job, models)
        self.describer = Describer(job, models) if "facemesh" in models else None
        self._on_cores = on_threads(job.ray.threads)
        self.clips = ClipScanner(job, models, self.describer if self.synthesis else None)
        self.least_side = None if self.describer else least_side(job, self.hidden)

    def run(self, shard: Shard) -> UnitResult:
        """Scan one shard; safe to repeat and to race."""
        scanned = Scanned()
        for _ in self.chunks(shard, scanned, self.job.shard_bytes):
            pass
        self.publish(shard, scanned)
        return UnitResult(shard.shard_id, images=len(scanned.images), faces=len(scanned.faces))

    def chunks(
        self, shard: Shard, scanned: Scanned, budget: int
    ) -> Iterator[tuple[list[ReadSample], list[Row], list[Row]]]:
        """Scan a shard into `scanned`, chunk by chunk, two of which take at most `budget` bytes.

        Gives samples as they were read, maybe smaller than they are, and their rows of IMAGES and FACES.
        """
        current().read += shard.bytes
        read = partial(read_or_open, job=self.job, least_side=self.least_side)
        cost = partial(sample_bytes, job=self.job, least_side=self.least_side)
        samples, most = self.dataset.read(shard, scanned.beside.left_out), self.job.limits.chunk
        for chunk in chunks_ahead(read, samples, cost, most=most, budget=budget, timed=current().timed):
            scanned.beside.add((sample for sample, _ in chunk), self.job.input)
            images: list[Row] = []
            faces: list[Row] = []
            known = self._readable(chunk, images, len(scanned.images))
            for of_clips, group in groupby(known, lambda item: isinstance(item[1], ClipInfo)):
                readable = list(group)
                faces += self._follow(shard, readable) if of_clips else self._describe(readable)
            for face in faces:
                face["face_id"] = f"{shard.shard_id}/{face['key']}#{face['index']}"
            counts = Counter(face["key"] for face in faces)
            for row in images:
                row["faces"] = counts[row["key"]]
            scanned.images += images
            scanned.faces += faces
            yield [*chunk], images, faces

    def publish(self, shard: Shard, scanned: Scanned) -> None:
        """Write the tables of a shard and claim its marker."""
        with current().timed("publish"):
            digests = self.store.write(shard.shard_id, scanned.faces, scanned.images)
            unreadable = sum("reason" in row for row in scanned.images)
            counts = len(scanned.images), len(scanned.faces), unreadable
            self.store.commit(shard.shard_id, _marker(shard, *counts, scanned.beside) | digests)
            if self.job.clip.segment:
                self.store.drop_kept(shard.shard_id)

    def _readable(self, chunk: Sequence[ReadSample], images: list[Row], first: int) -> list[Any]:
        """The readable photos and clips of a chunk, each a Photo or a ReadableClip; every sample gets its row, by
        positions from `first` on."""
        readable: list[Any] = []
        for sample, picture in chunk:
            row: Row = {"key": sample.key, "position": first + len(images), "faces": 0}
            if sample.image is not None:  # also of one with a problem, which a reviewer may release
                row["digest"] = sha256(sample.image)
            images.append(row)
            try:
                given = self._given(sample, picture)
            except ImageProblem as problem:
                picture, given = problem, NO_REGIONS
            if isinstance(picture, ImageProblem):
                row |= {"reason": picture.reason, "problem": str(picture)}
            elif isinstance(picture, ClipInfo):
                row |= clip_row(sample, picture)
                readable.append((sample, picture, row, given))
            else:
                row["height"], row["width"] = picture.size
                row |= {"format": picture.format, "exact": picture.is_exact}
                row |= {"orientation": picture.orientation, "space": picture.space}
                row |= {"stripped": picture.stripped, "notes": picture.notes}
                readable.append((sample, picture, row, given))
        return readable

    def _given(self, sample: Sample, picture: Picture | ClipInfo | ImageProblem) -> Regions:
        """The regions that a readable photo's own fields name; raises ImageProblem."""
        wanted = self.job.input
        if wanted.boxes_field is None or isinstance(picture, ImageProblem):
            return NO_REGIONS
        value = next(values_of(sample, wanted.boxes_field), None)
        sidecars = (content for name, content in sample.fields.items() if suffix_of(f"x.{name}") == "json")
        if value is None and any(map(is_damaged_json, sidecars)):
            raise ImageProblem(Reason.BAD_BOXES)
        if value is None and self.job.detector.name == NO_DETECTOR:
            raise ImageProblem(Reason.NO_BOXES)
        size = (picture.height, picture.width) if isinstance(picture, ClipInfo) else picture.size
        return given_regions(value, size, wanted)

    def _follow(self, shard: Shard, clips: list[ReadableClip]) -> list[Row]:
        """Face rows of clips; one that cannot be followed gets the reason into its row."""
        faces = []
        for sample, info, row, given in clips:
            name = label(sample, self.job.input.subject_field) if self.job.input.subject_field else None
            try:
                with contained("scanning a clip") as failure:
                    found, row["frames"] = self.clips.scan(
                        file_of(sample).path, info, name, given, self.store.keeper(shard.shard_id, sample.key)
                    )
                    faces += [{"key": sample.key} | face for face in found]
                problem = failure.problem(Reason.SCAN_FAILED)
            except ImageProblem as damaged:
                problem = Problem(damaged.reason, str(damaged))
            if problem:
                row |= {"reason": problem.reason, "problem": str(problem)}
        return faces

    def _describe(self, photos: list[Photo]) -> list[Row]:
        """Face rows of a chunk; if the chunk fails as one, image by image, so that only the culprit is lost."""
        with contained("scanning") as failure:
            return self._faces(photos)
        if len(photos) > 1:
            return [face for photo in photos for face in self._describe([photo])]
        if problem := failure.problem(Reason.SCAN_FAILED):
            photos[0][2].update(reason=problem.reason, problem=str(problem))
        return []

    def _described(self, pixels: list[Pixels], faces: list[Regions]) -> list[list[dict[str, Any]]]:
        """Of each photo the description of each face; each core has a few photos at a time."""
        if self.describer is None:
            return [[{}] * len(of_photo) for of_photo in faces]
        several = [slice(start, start + _TOGETHER) for start in range(0, len(pixels), _TOGETHER)]
        describe = self.describer.describe
        return [*chain.from_iterable(self._on_cores(lambda few: describe(pixels[few], faces[few]), several))]

    def _faces(self, photos: list[Photo]) -> list[Row]:
        pixels = [picture.rgb for _, picture, _, _ in photos]
        with current().timed("detect"):
            shown = [picture for _, picture, _, _ in photos]
            several = [detect_as_shown(finder, shown) for finder in (self.detector, *self.hidden.values())]
            found = [together(of_photo) for of_photo in zip(*several, strict=True)]
        ignore = self.job.input.boxes_ignore
        found = [joined(regions, given, ignore=ignore) for (_, _, _, given), regions in zip(photos, found, strict=True)]
        for number, (_, _, row, _) in enumerate(photos):
            if len(found[number]) > MOST_REGIONS:
                found[number] = NO_REGIONS
                row.update(reason=Reason.TOO_MANY_REGIONS, problem=Reason.TOO_MANY_REGIONS.meaning)
        faces = [regions.faces for regions in found]
        with current().timed("describe"):
            described = self._described(pixels, faces)
        rows: list[Row] = []
        for (sample, picture, _, _), regions, of_faces in zip(photos, found, described, strict=True):
            labelled, descriptions = labelled_face(regions, picture.size), iter(of_faces)
            name = label(sample, self.job.input.subject_field) if self.job.input.subject_field else None
            for index, kind in enumerate(regions.kinds):
                row = {
                    "key": sample.key,
                    "index": index,
                    "height": picture.size[0],
                    "width": picture.size[1],
                    "label": name if index == labelled else None,
                    "kind": None if kind == FACE else kind,
                    "score": float(regions.scores[index]),
                    "box": regions.boxes[index],
                    "landmarks": regions.landmarks[index].ravel(),
                }
                rows.append(row | (next(descriptions) if kind == FACE else {}))
            if self.consents:
                self.consents.spare(rows[len(rows) - len(regions) :], forget=not self.synthesis)
        return rows


def _marker(shard: Shard, images: int, faces: int, unreadable: int, beside: Beside | None = None) -> dict[str, Any]:
    counts = {"images": images, "faces": faces, "unreadable": unreadable}
    return {"shard": shard.shard_id, "etag": shard.etag, **counts, **vars(beside or Beside())}


def lose(shard: Shard, why: str, scan: ScanStore) -> None:
    """Commit the scan of a shard that could not be scanned, with no face; safe to repeat.

    It is not known which images it has, so one row stands for all of them. Raises StorageError if another driver has
    scanned it meanwhile, whose tables this one has replaced.
    """
    if scan.committed(shard.shard_id) is not None:
        return
    problem = Problem(Reason.SHARD_UNSCANNED)
    key = f"{shard.shard_id}#unscanned"
    row = {"key": key, "position": 0, "reason": problem.reason, "problem": str(problem), "faces": 0}
    marker = _marker(shard, 1, 0, 1) | scan.write(shard.shard_id, [], [row])
    if not scan.commit(shard.shard_id, marker) and scan.committed(shard.shard_id) != marker:
        raise StorageError(
            f"Another driver scanned shard {shard.shard_id} while this one gave it up; delete "
            f"{scan.marker(shard.shard_id)} in {scan.storage.uri} and run the job again."
        )
    # Last, so that what a killed driver did not give up is scanned again. Without it the shard is rendered in vain.
    scan.lose(shard.shard_id, why)
