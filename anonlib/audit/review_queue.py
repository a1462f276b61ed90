"""The images that a review shows, and what the verdicts on its sample say of the release.

The sample is of the images that the job itself let out: an image that a reviewer withheld stays in it, an image that a
reviewer let out is not part of it. So the sample, and with it the bound, stays while decisions are carried out.
Images are ordered by a keyed digest of their names, which cannot be foreseen without the secret: the first m of them
are a fair sample of m, and a longer sample begins with the shorter one.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anonlib.audit.missed_faces import Found
from anonlib.audit.statistics import upper_bound
from anonlib.codes import Reason
from anonlib.errors import JobError
from anonlib.job import Job
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.stages.rerender import ActiveDecisions, vouched_by
from anonlib.workspace.decisions import Decision, DecisionLog
from anonlib.workspace.layout import release_store, render_store, scan_store
from anonlib.workspace.release import samples_of
from anonlib.workspace.schemas import QUARANTINED

NAMED = ("key", "status", "reason", "path", "output_sha256")

Place = tuple[str, int]
"""A shard and a row of its manifest."""


@dataclass(frozen=True)
class Image:
    """One image: `position` and `key` in the input, its manifest `row`, and of the original `size` (H, W) and `faces`.

    `size` is None where the original has no pixels; `why` it was quarantined is the workspace's sentence.
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
    """Of the sample's first images, up to one without a verdict: `judged`, of which `wrong` showed a face or had to go.

    Only this prefix is a random sample; `skipped` verdicts come after it. `upper` bounds the release's share of wrong.
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
    active, names = ActiveDecisions.of_all(log.latest().values()), job.naming.shards(job.shards)
    carried = {names[marker["shard"]]: vouched_by(marker) for marker in release_store(job.stores).markers(names)}
    shards = [shard.shard_id for shard in job.shards]
    return [shard for shard in shards if carried.get(shard) != active.vouched(shard, job.keyring)]


def images_of(job: Job, shard: str, columns: Sequence[str] | None = None) -> list[Image]:
    """Every image of a shard, in order, with these columns of its manifest or all; raises JobError."""
    release, scan = release_store(job.stores), scan_store(job.stores, job.scan_key)
    why = render_store(job.stores, release.run()["run"]).reasons(shard)
    images = []
    for sample in samples_of(release, scan, job.naming, shard, manifest=columns, images=("height", "width", "faces")):
        height, width, faces = (int(sample.scanned[name] or 0) for name in ("height", "width", "faces"))
        size, row = (height, width) if height else None, {"review": None, **sample.row}
        images.append(Image(shard, sample.number, sample.key, size, row, faces, why.get(sample.key)))
    return images


def choose(
    job: Job, decisions: Mapping[tuple[str, str], Decision], n: int, most_held: int = 0
) -> tuple[list[Place], list[Place], int]:
    """A random sample of `n` images that the job let out, in its order; at most `most_held` that it held; how many."""
    held: list[Place] = []
    quarantined = 0

    def let_out() -> Iterator[tuple[str, int, str]]:
        nonlocal quarantined
        for shard in job.shards:
            for image in images_of(job, shard.shard_id, NAMED):
                decision = decisions.get((image.shard, image.key))
                if image.held_back or (decision is not None and decision.verdict == "release_masked"):
                    quarantined += 1
                    if len(held) < most_held:
                        held.append((image.shard, image.position))
                else:
                    yield image.shard, image.position, str(image.row["key"])

    sample = draw_sample(let_out(), n, job.keyring)
    return sample, held, quarantined


def draw_sample(images: Iterable[tuple[str, int, str]], n: int, keyring: Keyring) -> list[Place]:
    """`n` of the images (shard, row, key), or all if there are fewer, in the order of their digests."""
    drawn = heapq.nsmallest(n, images, key=lambda image: keyring.digest(Purpose.SAMPLE, image[0], image[2]))
    return [(shard, row) for shard, row, _ in drawn]


def places_of(job: Job, found: Found) -> dict[Place, list[list[float]]]:
    """Where the images of overlooked faces are, in their order, with the boxes found in each still."""
    shards = {shard for shard, _ in found}
    rows = {(shard, image.row["key"]): image.position for shard in shards for image in images_of(job, shard, NAMED)}
    return {(shard, rows[shard, key]): boxes for (shard, key), boxes in found.items()}


def judge(verdicts: Sequence[str | None]) -> Judged:
    """What the verdicts on a sample, in its order, say of the release; None: not judged."""
    judged = next((number for number, verdict in enumerate(verdicts) if verdict is None), len(verdicts))
    wrong = sum(verdict != "confirmed" for verdict in verdicts[:judged])
    skipped = sum(verdict is not None for verdict in verdicts[judged:])
    return Judged(judged, wrong, upper_bound(wrong, judged), skipped)


def judged_so_far(job: Job) -> Judged:
    """The same of a job's release, from the decisions in its workspace alone; raises JobError."""
    decisions = open_log(job).latest()
    sample, _, _ = choose(job, decisions, len(decisions) + 1)
    keys = {shard: [image.key for image in images_of(job, shard, NAMED)] for shard in {shard for shard, _ in sample}}
    found = [decisions.get((shard, keys[shard][row])) for shard, row in sample]
    return judge([decision.verdict if decision else None for decision in found])
