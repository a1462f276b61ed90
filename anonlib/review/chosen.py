"""Which images a person is shown, and what their verdicts on the sample allow to be said.

The sample is of the images that the job itself let out: one that a reviewer withheld stays in it, one that a reviewer
let out is not of it. So the lot, and with it the bound, does not move while decisions are carried out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anonlib.audit.review_sample import ReviewSample, clopper_pearson, draw_sample
from anonlib.codes import Reason
from anonlib.errors import JobError
from anonlib.job import Job
from anonlib.stages.rerender import vouched_by
from anonlib.stages.review_decisions import ActiveDecisions
from anonlib.workspace.decisions import Decision, DecisionLog
from anonlib.workspace.layout import release_store, render_store, scan_store
from anonlib.workspace.release import samples_of
from anonlib.workspace.schemas import QUARANTINED

if TYPE_CHECKING:
    from anonlib.audit.missed_faces import MissedFace

NAMED = ("key", "status", "reason", "path", "output_sha256")

Place = tuple[str, int]
"""A shard and a row of its manifest."""


@dataclass(frozen=True)
class Image:
    """One image as manifest and scan know it: `size` (H, W) of its upright original, None if that has no pixels.

    `position` and `key` are the input's; `faces` were found in the original; `why` is the workspace's sentence of what
    was quarantined.
    """

    shard: str
    position: int
    key: str
    size: tuple[int, int] | None
    row: Mapping[str, Any]
    faces: int = 0
    why: str | None = None

    @property
    def held_back(self) -> bool:
        """Whether the job itself quarantined it."""
        return bool(self.row["status"] == QUARANTINED and self.row["reason"] != Reason.WITHHELD)


@dataclass(frozen=True)
class Judged:
    """Of the sample, in its order: `judged` images, of which `wrong` still showed a face or had to be withheld.

    Whoever judges a lot in its order has judged a fair sample at any point, and whoever leaves some out has not: so
    `judged` ends at the first image without a verdict, and `skipped` counts verdicts after it. `upper` bounds the share
    of wrong images in the whole release (Clopper-Pearson).
    """

    judged: int
    wrong: int
    upper: float
    skipped: int


def open_log(job: Job) -> DecisionLog:
    """The decisions on the job's release; raises JobError if that is not complete."""
    summary = job.summary()
    if summary.committed < summary.shards:
        raise JobError(f"the release {job.config.output.uri} is not complete; finish it with `anonlib run` first")
    return DecisionLog(job.stores.workspace, release_store(job.stores).run()["run"])


def waiting(job: Job, log: DecisionLog) -> list[str]:
    """The shards of a job whose markers do not vouch for the decisions that stand."""
    active = ActiveDecisions.of_all(log.latest().values())
    names = job.naming.shards(job.shards)
    markers = {names[marker["shard"]]: marker for marker in release_store(job.stores).markers(names)}
    carried = {shard: vouched_by(marker) for shard, marker in markers.items()}
    shards = [shard.shard_id for shard in job.shards]
    return [shard for shard in shards if carried.get(shard) != active.vouched(shard, job.keyring)]


def images_of(job: Job, shard: str, columns: Sequence[str] | None = None) -> list[Image]:
    """Every image of a shard, in order, with these columns of its manifest or all; raises JobError."""
    release, scan = release_store(job.stores), scan_store(job.stores, job.scan_key)
    sizes = ("height", "width", "faces")
    samples = samples_of(release, scan, job.naming, shard, manifest=columns, images=sizes)
    why = render_store(job.stores, release.run()["run"]).reasons(shard)
    return [
        Image(
            shard,
            sample.number,
            sample.key,
            (int(sample.scanned["height"]), int(sample.scanned["width"])) if sample.scanned["height"] else None,
            {"review": None, **sample.row},
            int(sample.scanned["faces"]),
            why.get(sample.key),
        )
        for sample in samples
    ]


@dataclass(frozen=True)
class Chosen:
    """What a review shows: the sample in the order of its lots, and the first of `quarantined` that were held back."""

    sample: list[Place]
    held: list[Place]
    quarantined: int


def choose(job: Job, decisions: Mapping[tuple[str, str], Decision], n: int, most_held: int = 0) -> Chosen:
    """`n` images by lot of those that the job let out, and at most `most_held` of those that it did not."""
    held: list[Place] = []
    quarantined = 0

    def let_out() -> Iterator[ReviewSample]:
        nonlocal quarantined
        for shard in job.shards:
            for image in images_of(job, shard.shard_id, NAMED):
                decision = decisions.get((image.shard, image.key))
                if image.held_back or (decision is not None and decision.verdict == "release_masked"):
                    quarantined += 1
                    if len(held) < most_held:
                        held.append((image.shard, image.position))
                else:
                    row = {name: image.row[name] or "" for name in NAMED if name != "reason"}
                    yield ReviewSample(image.shard, image.position, **row)

    sample = [(one.shard, one.row) for one in draw_sample(let_out(), n, job.keyring)]
    return Chosen(sample, held, quarantined)


def places_of(job: Job, candidates: Sequence[MissedFace]) -> dict[Place, list[list[float]]]:
    """The images of the candidates, in their order, with the boxes found in each; raises JobError for no image."""
    rows = {
        shard: {image.row["key"]: image.position for image in images_of(job, shard, NAMED)}
        for shard in {one.shard for one in candidates}
    }
    found: dict[Place, list[list[float]]] = {}
    for one in candidates:
        if one.key not in rows[one.shard]:
            raise JobError(f"shard {one.shard} lacks an image that is to be looked at again")
        found.setdefault((one.shard, rows[one.shard][one.key]), []).append([float(side) for side in one.box])
    return found


def judge(verdicts: Sequence[str | None]) -> Judged:
    """What the verdicts on a sample, in its order, allow to be said; None: not judged."""
    judged = next((number for number, one in enumerate(verdicts) if one is None), len(verdicts))
    wrong = sum(one != "confirmed" for one in verdicts[:judged])
    skipped = sum(one is not None for one in verdicts[judged:])
    return Judged(judged, wrong, clopper_pearson(wrong, judged), skipped)


def judged_so_far(job: Job) -> Judged:
    """The same of a job's release, from the decisions in its workspace alone; raises JobError."""
    decisions = open_log(job).latest()
    sample = choose(job, decisions, len(decisions) + 1).sample
    keys = {shard: [image.key for image in images_of(job, shard, NAMED)] for shard in {shard for shard, _ in sample}}
    found = [decisions.get((shard, keys[shard][row])) for shard, row in sample]
    return judge([one.verdict if one else None for one in found])
