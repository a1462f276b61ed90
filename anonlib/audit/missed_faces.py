"""A second look at what was released: is there a face that the job did not find?

The job's detector looks at every released image once more, twice as large, so that faces show which were too small,
cut off or half hidden at the first look, and another detector looks at the image as it is. What the job found before,
or painted over, is nothing new. No network confirms a candidate: on LFW all six of the job's detector in 227 photos
were people, in profile or half hidden, and the face mesh took none for a face. The sample that a person judges
(`review_queue`) bounds what stays.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.evidence.gather import Report
from anonlib.audit.evidence.observe import precision
from anonlib.audit.findings import Missed
from anonlib.audit.statistics import CONFIDENCE, rate, upper_bound
from anonlib.config import LimitsConfig
from anonlib.datasets import Shard
from anonlib.errors import ImageProblem, JobError
from anonlib.execution.base import UnitResult, in_chunks
from anonlib.faces.detect import SAME_FACE, detect_as_shown, open_detector
from anonlib.faces.regions import share_inside
from anonlib.job import Job
from anonlib.media.clip import frames_in
from anonlib.media.codec import Picture, decode
from anonlib.models.requirements import device_of
from anonlib.models.runtime import Placement
from anonlib.workspace.images import JobImages
from anonlib.workspace.layout import release_store
from anonlib.workspace.schemas import CLIP, GROW, QUARANTINED
from anonlib.workspace.tables import Row

SECOND_DETECTOR = "yuface"
"""Looks beside the job's own, whose faults are others. Twice as large it takes hands and ears for faces."""
SECOND_SCORE = 0.5
"""Its least score: of 300 photos of LFW it finds 8 faces from there on that CenterFace missed, and 7 of them are."""
SECOND_BY = "the same detector ({}) at twice the scale and by " + SECOND_DETECTOR
SCALE, LARGEST = 2.0, 2560
"""How much larger the second look is than the job's, and the longest side in px that is looked at."""
FRAMES = 8
"""Frames of a clip that are looked at."""
LEAST_SIDE = 12.0
"""Longer side in px of the smallest face that counts; a smaller one cannot be recognized."""

_COVERED, _IN_OTHER = 0.3, 0.9
"""Share of a candidate's box inside a face that the job painted, from which it is nothing new, and inside a region of
another kind, which says nothing of a face that reaches out of it."""

Pixels = NDArray[np.uint8]
Painted = Sequence[tuple[Row, Sequence[float] | NDArray[np.float32]]]
"""The job's regions in an image: rows of its manifest, each with its box (4,) px there."""
Found = dict[tuple[str, str], list[list[float]]]
"""Images with a face that the job had not found, by shard and key: the boxes (4,) px in a photo, none of a clip."""


def look_twice(
    job: Job, *, sampled: int = 0, wrong: int = 0, seed: int = 0, report: Report = lambda stage, outcome, units: None
) -> tuple[Missed, Found]:
    """Look at every image of a finished release; raises JobError if one is missing or cannot be read.

    The finding says too what a person judged: `wrong` of `sampled` images.
    """
    cv2.setNumThreads(1)
    config = job.config
    side = min(round(SCALE * config.detector.side), LARGEST)
    searching, where = config.detector.searching, Placement(device_of(config), precision(config))
    detector = open_detector(searching, side=side, where=where)
    other = {"name": SECOND_DETECTOR, "path": None, "score": max(SECOND_SCORE, config.detector.score)}
    second = open_detector(searching.model_copy(update=other), where=where)
    released = JobImages(config, job.dataset.format)
    images: list[float] = []
    missed: Found = {}
    for shard in job.shards:
        began, before = time.monotonic(), len(images)
        for chunk in in_chunks(_images(job, released, shard, side), config.limits.chunk):
            found = detect_as_shown(detector, [_enlarged(picture, scale) for _, picture, _, scale, *_ in chunk])
            seconds = detect_as_shown(second, [picture for _, picture, *_ in chunk])
            for (_, _, key, scale, painted, still), large, own in zip(chunk, found, seconds, strict=True):
                boxes = replace(large, boxes=large.boxes / np.float32(scale)).with_new(own, SAME_FACE).boxes
                new = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) >= LEAST_SIDE
                new &= ~known(boxes, painted)
                images.append(float(new.any()))
                if new.any():
                    shown = missed.setdefault((shard.shard_id, key), [])
                    shown += boxes[new].tolist() if still else []
        outcome = UnitResult(shard.shard_id, images=len(images) - before, seconds=time.monotonic() - began)
        report("second look", outcome, len(job.shards))
    finding = Missed(
        second=rate(np.array(images), np.arange(len(images)), seed=seed),
        second_by=SECOND_BY.format(searching.name),
        sampled=sampled,
        wrong=wrong,
        upper=upper_bound(wrong, sampled),
        confidence=CONFIDENCE,
    )
    return finding, missed


def known(boxes: NDArray[np.float32], painted: Painted) -> NDArray[np.bool_]:
    """(n,) Which of the boxes (n, 4) lie in what the job painted."""
    faces, others = [
        np.array([box for region, box in painted if (region.get("kind") is None) == face], np.float32).reshape(-1, 4)
        for face in (True, False)
    ]
    return (share_inside(boxes, faces, GROW) >= _COVERED) | (share_inside(boxes, others) >= _IN_OTHER)


_Image = tuple[Pixels, Picture, str, float, Painted, bool]
"""A released image: its px, itself, its key, how much it is enlarged, what the job painted, whether a still."""


def _images(job: Job, released: JobImages, shard: Shard, side: int) -> Iterator[_Image]:
    """The shard's images with an output, and how much each is enlarged to reach `side`."""
    for row in release_store(job.stores).manifest(job.naming.shard(shard.shard_id)).to_pylist():
        if row["status"] == QUARANTINED:
            continue
        try:
            data = released.image(row["path"], row["output_sha256"])
            if row["media"] == CLIP:
                yield from _frames(row, data, side, job.config.limits)
                continue
            image = decode(data, max_mpx=job.config.limits.image_mpx)
        except ImageProblem as problem:
            raise JobError(f"an image of shard {shard.shard_id} in the release cannot be read: {problem}") from None
        painted = [(face, face["box"]) for face in row["faces"]]
        yield image.rgb, image, row["key"], _scale(image.size, side), painted, True


def _scale(size: tuple[int, int], side: int) -> float:
    """How much an image of `size` (H, W) is enlarged: the job saw it at its own size at most, and the detector shrinks
    what is still larger than `side`."""
    return min(SCALE, max(1.0, side / max(size)))


def _frames(row: Row, data: bytes, side: int, limits: LimitsConfig) -> Iterator[_Image]:
    """FRAMES frames of a clip, drawn by its sha256, or all if it has fewer."""
    lots = np.random.default_rng(int(row["output_sha256"][:16], 16))
    drawn = set(lots.permutation(row["frames"])[:FRAMES].tolist())
    for frame in frames_in(data, limits):
        if frame.index in drawn:
            picture = frame.picture
            painted = faces_at(row, frame.index)
            yield picture.rgb, picture, row["key"], _scale(picture.size, side), painted, False


def faces_at(row: Row, frame: int) -> list[tuple[Row, NDArray[np.float32]]]:
    """The faces of a clip's MANIFEST row that are in a frame, with their boxes (4,) there."""
    here = [(face, 4 * (frame - face["first"])) for face in row["faces"] if face["first"] <= frame <= face["last"]]
    return [(face, np.array(face["boxes"][start : start + 4], np.float32)) for face, start in here]


def _enlarged(picture: Picture, scale: float) -> Picture:
    if scale <= 1:
        return picture

    def larger(pixels: Pixels) -> Pixels:
        return np.asarray(cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), np.uint8)

    rgb, alpha = larger(picture.rgb), None if picture.alpha is None else larger(picture.alpha)
    return replace(picture, rgb=rgb, alpha=alpha, size=(rgb.shape[0], rgb.shape[1]))
