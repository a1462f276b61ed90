"""Released faces for the report, drawn by lot, so that nobody chooses what an officer sees. No original is opened."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import groupby

from PIL import Image

from anonlib.audit.evidence.release import ReleasedImages
from anonlib.audit.report.page import ExampleImage
from anonlib.audit.sheet import Pick, draw, square_view
from anonlib.config import JobConfig
from anonlib.media.codec import decode
from anonlib.workspace.layout import open_stores
from anonlib.workspace.schemas import RELEASED

_TILE = 176  # px


def draw_examples(job: JobConfig, format: str, *, faces: int = 12, seed: int = 0) -> list[ExampleImage]:
    """Up to `faces` of a finished release, the same for the same seed; JPEG, as a square around each face.

    `format` is the dataset's. Raises JobError if nothing is rendered, or an image is not the one in its manifest.
    """
    picks, _ = draw(open_stores(job), faces, seed)
    return list(_examples(job, format, [pick for pick in picks if pick.row["status"] == RELEASED]))


def _examples(job: JobConfig, format: str, picks: list[Pick]) -> Iterator[ExampleImage]:
    released = ReleasedImages(job, format)
    for _, of_image in groupby(picks, key=lambda pick: (pick.shard, pick.position)):
        same = list(of_image)
        row = same[0].row
        data = released.image(str(row["path"]), str(row["output_sha256"]))
        rgb = decode(data, max_mpx=job.limits.image_mpx).rgb
        for pick in same:
            buffer = io.BytesIO()
            Image.fromarray(square_view(rgb, pick.face["box"], _TILE)).save(buffer, "JPEG", quality=88)
            yield ExampleImage(buffer.getvalue(), _caption(pick))


def _caption(pick: Pick) -> str:
    face = pick.face
    parts = [str(face["method"]), *([f"k = {face['k']}"] if face["k"] else [])]
    if face["fallback"] and face["fallback"] != face["method"]:
        parts.append(str(face["fallback"]))
    return ", ".join(parts)
