"""One person's way through a review: what is shown, what was decided, and carrying it out.

A decision is in the workspace's log before the page gets its answer, and nothing else is kept: a session that is closed
and opened again goes on where it was.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from threading import Lock, Thread
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.missed_faces import Found, faces_at
from anonlib.audit.review_queue import Image, Judged, Place, choose, images_of, judge, open_log, places_of, waiting
from anonlib.codes import Reason, meaning_of
from anonlib.config import JobConfig, LimitsConfig
from anonlib.errors import AnonlibError, ImageProblem, JobError, contained, kind_and_message
from anonlib.execution.base import UnitResult
from anonlib.job import Job
from anonlib.media.clip import frames_in
from anonlib.media.codec import Picture, encode
from anonlib.media.sandbox.process import decode_apart
from anonlib.review import SAMPLE
from anonlib.stages.rerender import ActiveDecisions
from anonlib.workspace.decisions import Box, Decision, Verdict, latest
from anonlib.workspace.images import JobImages
from anonlib.workspace.schemas import CLIP
from anonlib.workspace.tables import Row

MOST_QUARANTINED = 1000
LEAST_SIDE = 4
"""A drawn box of fewer px is a slip of the hand."""
COLUMNS, EVEN, MOST = 3, 12, 24
"""Of a clip's strip: frames side by side, how many are spread over the clip, and how many there are at most."""
_WIDTH = 640
_QUALITY = 95
_MOST_BYTES = 1 << 29
_SHEET = Picture(np.zeros((0, 0, 3), np.uint8), None, "JPEG", None, (), (), (0, 0))

Files = dict[tuple[str, str], bytes]
"""Image files of one shard: originals as ("original", key), outputs as ("released", sha256)."""
Report = Callable[[str, UnitResult, int], None]


class Session:
    """`lists` name images by their numbers in `images`: sample, quarantined, second look.

    `suggested`: boxes that the second look found in an image, for the person to accept or clear. `applying`: how
    carrying out the decisions goes, once it was started: the progress, then the result or the problem.
    """

    def __init__(self, config: JobConfig, *, sample: int = SAMPLE, second: Found | None = None, who: str = "") -> None:
        self.job, self.who = Job(config), who
        self.log = open_log(self.job)
        self._lock = Lock()
        self.applying: dict[str, Any] | None = None
        self.decisions = self.log.latest()
        suggested = places_of(self.job, second or {})
        drawn, held, self.quarantined = choose(self.job, self.decisions, sample, MOST_QUARANTINED)
        images = self._read((*drawn, *held, *suggested))
        numbers = {place: number for number, place in enumerate(images)}
        self.images = list(images.values())
        lists = {"sample": drawn, "quarantined": held, "second": suggested}
        self.lists = {name: [numbers[place] for place in places] for name, places in lists.items()}
        self.suggested = {numbers[place]: boxes for place, boxes in suggested.items()}
        self.pictures = Pictures(self.job, self.images)

    def decision(self, number: int) -> Decision | None:
        """What stands on an image."""
        return self.decisions.get((self.images[number].shard, self.images[number].key))

    def allowed(self, number: int) -> tuple[Verdict, ...]:
        """The verdicts that an image can get; one that the job held back can be let out if it has pixels: not a file
        that cannot be decoded or is over a limit, but a photo whose scan, rendering or check failed."""
        clip = self.images[number].row["media"] == CLIP  # a box would be a box of one frame
        if number not in self.lists["quarantined"]:
            return ("confirmed", "withhold") if clip else ("confirmed", "mask", "withhold")
        if clip:
            return ("withhold",)
        return ("withhold", "release_masked") if self.images[number].size else ("withhold",)

    def carried_out(self, number: int) -> bool:
        """Whether the manifest says what was decided, or nothing where nothing was."""
        image, decision = self.images[number], self.decision(number)
        word = ActiveDecisions.of_all([decision] if decision else []).word(image.shard, image.key)
        hidden = {tuple(map(round, face["box"])) for face in image.row["faces"][image.faces :]}
        wanted = set(decision.boxes) if decision else set()
        return bool(image.row["review"] == word and (hidden == wanted or image.held_back))

    def judged(self) -> Judged:
        """What the verdicts on the sample so far say of the release."""
        decisions = map(self.decision, self.lists["sample"])
        return judge([decision.verdict if decision else None for decision in decisions])

    def decide(self, number: int, verdict: Verdict, boxes: Iterable[Sequence[float]] = ()) -> Decision:
        """Put a verdict on an image into the log; raises JobError, StorageError."""
        if verdict not in self.allowed(number):
            raise JobError("this image cannot get that verdict")
        inside = tuple(_inside(self.images[number], box) for box in boxes)
        if verdict in ("mask", "release_masked") and not inside:
            raise JobError("draw a box around each face that is to be hidden")
        return self._add(self.images[number], verdict, inside)

    def undo(self, number: int) -> None:
        """Take back what stands on an image; nothing happens if nothing does."""
        if self.decision(number) is not None:
            self._add(self.images[number], "undone")

    def _add(self, image: Image, verdict: Verdict, boxes: tuple[Box, ...] = ()) -> Decision:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        decision = Decision(shard=image.shard, key=image.key, verdict=verdict, boxes=boxes, who=self.who, when=when)
        with self._lock:
            self.log.add(decision)
            self.decisions = latest([*self.decisions.values(), decision])
        return decision

    def apply(self, report: Report = lambda stage, outcome, units: None) -> tuple[list[str], list[dict[str, Any]]]:
        """Render every waiting shard again and sign the release anew; returns these shards and the images that changed:
        statuses, and how many drawn faces are `hidden`. Raises what `Job.render` raises."""
        self.job.report = report
        shards = waiting(self.job, self.log)
        self.job.render()
        before = list(self.images)
        places = [(image.shard, image.position) for image in before]
        now = self._read([place for place in places if place[0] in set(shards)])
        with self._lock:
            self.images = [now.get(place, image) for place, image in zip(places, before, strict=True)]
            self.decisions = self.log.latest()
        self.pictures.update(now.values())
        changes = []
        for old, new in zip(before, self.images, strict=True):
            if old.row != new.row:
                statuses = {"before": old.row["status"], "after": new.row["status"]}
                hidden = len(new.row["faces"][new.faces :])  # a reviewer's come after those of the scan
                changes.append({"key": new.key, **statuses, "hidden": hidden, "reason": why_not(new)})
        return shards, changes

    @property
    def busy(self) -> bool:
        """Whether decisions are being carried out."""
        return self.applying is not None and self.applying["result"] is None and self.applying["problem"] is None

    def start_applying(self) -> None:
        """Carry out the decisions in a thread, unless one is at it."""
        with self._lock:
            if not self.busy:
                self.applying = {"done": 0, "shards": 0, "result": None, "problem": None}
                Thread(target=self._apply_and_tell, args=(self.applying,), daemon=True).start()

    def _apply_and_tell(self, state: dict[str, Any]) -> None:
        def report(stage: str, outcome: UnitResult, units: int) -> None:
            if stage == "render" and outcome.error is None:
                state.update(done=state["done"] + 1, shards=units)

        try:
            with contained("carrying out decisions") as failure:
                shards, changes = self.apply(report)
                state["result"] = {"shards": shards, "changes": changes}
        except AnonlibError as error:
            state["problem"] = str(error)
        if failure.error is not None:
            state["problem"] = kind_and_message(failure.error)

    def _read(self, places: Sequence[Place]) -> dict[Place, Image]:
        """Images as manifest and scan have them, in the order of their places; raises JobError."""
        images = {shard: images_of(self.job, shard) for shard in {shard for shard, _ in places}}
        return {(shard, row): images[shard][row] for shard, row in places}


def _inside(image: Image, box: Sequence[float]) -> Box:
    """The box in whole px of the image; raises JobError."""
    if len(box) != 4 or image.size is None:
        raise JobError("a box has four sides and lies in an image")
    (height, width), (x0, y0, x1, y1) = image.size, (round(side) for side in box)
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if x1 - x0 < LEAST_SIDE or y1 - y0 < LEAST_SIDE:
        raise JobError("a box is too small, or lies outside the image")
    return x0, y0, x1, y1


def why_not(image: Image) -> str | None:
    """Why an image is not released, in a sentence."""
    return None if image.row["reason"] is None else image.why or meaning_of(image.row["reason"])


class Pictures:
    """The pixels of a review, in memory alone: originals and released images as JPEGs that any browser shows.

    A shard is read once for all of its images that are to be shown; the shard used longest ago is dropped first.
    """

    def __init__(self, job: Job, images: Iterable[Image]) -> None:
        self.job = job
        self._shards = {shard.shard_id: shard for shard in job.shards}
        self._loaded: OrderedDict[str, Files] = OrderedDict()
        self._lock = Lock()
        self._wanted: dict[str, dict[str, Image]] = defaultdict(dict)
        self.update(images)

    def update(self, images: Iterable[Image]) -> None:
        """Take these images as they are now, and drop what was read of their shards."""
        with self._lock:
            # Opened anew: a dataset remembers which files it listed, and takes another one for a change.
            self._images = JobImages(self.job.config, self.job.shards[0].format)
            for image in images:
                self._wanted[image.shard][image.key] = image
                self._loaded.pop(image.shard, None)

    def show(self, image: Image, kind: Literal["original", "released"]) -> bytes:
        """A JPEG of the upright original, or of what the release holds, of a clip a strip; raises ImageProblem,
        StorageError."""
        name = image.key if kind == "original" else str(image.row["output_sha256"])
        data = self._files(image.shard).get((kind, name))
        if data is None:
            raise ImageProblem(Reason.NO_IMAGE, "there is no image where it should be")
        limits = self.job.config.limits
        if image.row["media"] == CLIP:
            return encode(Strip(image.row).picture(data, limits), _SHEET, jpeg_quality=_QUALITY)
        picture = decode_apart(data, limits)
        return encode(picture.rgb, replace(picture.plain, format="JPEG", alpha=None), jpeg_quality=_QUALITY)

    def _files(self, shard: str) -> Files:
        with self._lock:
            files = self._loaded.pop(shard, None)
            if files is None:
                wanted = self._wanted[shard]
                originals = self._images.originals(self._shards[shard], wanted)
                outputs = self._images.released(image.row for image in wanted.values() if image.row["output_sha256"])
                files = {("original", key): data for key, data in originals.items()}
                files |= {("released", digest): data for digest, data in outputs.items()}
            self._loaded[shard] = files
            held = sum(len(data) for loaded in self._loaded.values() for data in loaded.values())
            while len(self._loaded) > 1 and held > _MOST_BYTES:
                _, dropped = self._loaded.popitem(last=False)
                held -= sum(map(len, dropped.values()))
            return files


class Strip:
    """A clip as one picture that a person can judge: frames from beginning to end, and of every track at least one.

    The frames of a MANIFEST row lie in a picture of `size` (H, W), each `scale` times its own size.
    """

    def __init__(self, row: Row) -> None:
        if not row["frames"]:
            raise ImageProblem(Reason.NO_VIDEO, "the clip was not read to its end, so no frame of it is shown")
        self.row = row
        even = np.linspace(0, row["frames"] - 1, min(EVEN, row["frames"])).round().astype(int).tolist()
        unseen = (face for face in row["faces"] if not any(face["first"] <= frame <= face["last"] for frame in even))
        more = [(face["first"] + face["last"]) // 2 for face in unseen]
        self.frames = sorted({*even, *more[: MOST - len(even)]})
        self.scale = min(1.0, _WIDTH / row["width"])
        self._cell = round(row["height"] * self.scale), round(row["width"] * self.scale)
        columns = min(COLUMNS, len(self.frames))
        self.size = self._cell[0] * -(-len(self.frames) // columns), self._cell[1] * columns

    def _origin(self, place: int) -> tuple[int, int]:
        """Where the frame at a place of `frames` lies, x and y."""
        return place % COLUMNS * self._cell[1], place // COLUMNS * self._cell[0]

    def faces(self) -> list[dict[str, Any]]:
        """The faces of the frames shown, their boxes in px of the strip."""
        shown = []
        for place, frame in enumerate(self.frames):
            offset = np.tile(self._origin(place), 2)
            for face, box in faces_at(self.row, frame):
                inside = np.rint(box * self.scale + offset).astype(int).tolist()
                shown.append({"box": inside, "method": face["method"], "fallback": face["fallback"]})
        return shown

    def picture(self, data: bytes, limits: LimitsConfig) -> NDArray[np.uint8]:
        """The strip (H, W, 3) of a clip's file; raises ImageProblem."""
        whole = np.zeros((*self.size, 3), np.uint8)
        for frame in frames_in(data, limits):
            if frame.index in self.frames:
                x, y = self._origin(self.frames.index(frame.index))
                small = cv2.resize(frame.rgb, self._cell[::-1], interpolation=cv2.INTER_AREA)
                whole[y : y + self._cell[0], x : x + self._cell[1]] = small
        return whole
