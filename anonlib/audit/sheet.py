"""Faces drawn at random: the contact sheet, before and after side by side, and the report's examples of released faces.

The sheet shows originals, so it is written into the workspace alone and goes when that is purged.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from anonlib.audit.report import ExampleImage
from anonlib.codes import meaning_of
from anonlib.config import JobConfig
from anonlib.errors import ImageProblem, JobError, NotFound
from anonlib.faces import align
from anonlib.media.codec import decode
from anonlib.media.sandbox import decode_apart
from anonlib.storage import join_uri
from anonlib.workspace.images import JobImages
from anonlib.workspace.inventory import read_inventory
from anonlib.workspace.layout import PURGED, JobStores, open_stores, release_store, render_store
from anonlib.workspace.release import Naming
from anonlib.workspace.schemas import QUARANTINED, RELEASED, SOLID
from anonlib.workspace.secrets import open_keyring, release_name

SHEET = "sheet.jpg"
ZOOM = 2.4
"""Sides of the view around a face, in the longer side of its box."""

_MAX_SHARDS = 8  # read for one draw: a shard may be a gigabyte
_TILE = 176  # px; a cell is two tiles wide
_SEAM, _GAP, _MARGIN = 2, 20, 28
_LABEL, _TITLE = 40, 58
_INK, _SOFT, _ALARM, _EMPTY = (25, 25, 28), (110, 110, 116), (176, 42, 30), (236, 236, 238)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class DrawnFace:
    """One face of one image: `position` counts samples of the shard, `row` is the image's, `face` the face's.

    `figures`: the face's row in the workspace (RENDERED).
    """

    shard: str
    position: int
    row: dict[str, Any]
    face: dict[str, Any]
    figures: dict[str, Any]

    @property
    def method(self) -> str:
        """The method, its k, and the fallback where that is another method."""
        method, k, fallback = (self.face[name] for name in ("method", "k", "fallback"))
        parts = [str(method), f"k = {k}" if k else "", str(fallback) if fallback and fallback != method else ""]
        return ", ".join(filter(None, parts))


@dataclass(frozen=True)
class SheetCell:
    """Two square views (side, side, 3), None where there is nothing to show, and the two lines under them."""

    before: Pixels | None
    after: Pixels | None
    label: str
    note: str
    alarming: bool = False


def make_sheet(job: JobConfig, *, faces: int = 40, seed: int = 0) -> str:
    """Write sheet.jpg into the workspace and return its URI; the same faces for the same seed and release.

    Raises JobError if nothing is rendered or the workspace is purged.
    """
    stores = open_stores(job)
    if stores.workspace.exists(PURGED):
        raise JobError(f"the workspace {job.workspace.uri} was purged; a sheet of originals has no place any more")
    drawn, total = draw(stores, faces, seed)
    cells = list(cells_of(job, stores, drawn))
    title = f"{release_name(job)}: {len(cells)} of {total:,} faces, before and after"
    page = arrange(cells, title, f"drawn at random, seed {seed}. Shows originals: keep it in the workspace")
    stores.workspace.publish(SHEET, _jpeg(page, 92))
    return join_uri(job.workspace.uri, SHEET)


def draw_examples(job: JobConfig, format: str, *, faces: int = 12, seed: int = 0) -> list[ExampleImage]:
    """Up to `faces` of a finished release as JPEG squares, the same for the same seed. No original is opened.

    `format` is the dataset's. Raises JobError if nothing is rendered, or an image is not the one in its manifest.
    """
    drawn, _ = draw(open_stores(job), faces, seed)
    images, examples = JobImages(job, format), []
    released = [face for face in drawn if face.row["status"] == RELEASED]
    for _, group in groupby(released, key=lambda face: (face.shard, face.position)):
        same = list(group)
        data = images.image(str(same[0].row["path"]), str(same[0].row["output_sha256"]))
        rgb = decode(data, max_mpx=job.limits.image_mpx).rgb
        views = (Image.fromarray(square_view(rgb, face.face["box"], _TILE)) for face in same)
        examples += [ExampleImage(_jpeg(view, 88), face.method) for view, face in zip(views, same, strict=True)]
    return examples


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


# ---- which faces ----------------------------------------------------------------------------------------------


def draw(stores: JobStores, faces: int, seed: int) -> tuple[list[DrawnFace], int]:
    """Faces drawn from at most 8 shards, in the order of the dataset, and how many faces the release has in all.

    Shards are drawn by the number of their faces; up to 8 shards, every face has the same chance. Raises JobError.
    """
    release = release_store(stores)
    try:
        run = release.run()
    except NotFound:
        raise JobError(f"the output {stores.release.uri} holds no release yet; run the job first") from None
    counts = {str(marker["shard"]): int(marker["faces"]) for marker in release.markers(run["shards"])}
    generator = np.random.default_rng(seed)
    shards = [shard for shard, count in counts.items() if count]
    if len(shards) > _MAX_SHARDS:
        weight = np.array([counts[shard] for shard in shards], float)
        numbers = generator.choice(len(shards), _MAX_SHARDS, replace=False, p=weight / weight.sum())
        shards = [shards[number] for number in sorted(numbers)]
    candidates = [face for shard in shards for face in _faces_of(stores, run["run"], shard)]
    if not candidates:
        raise JobError(f"the release {stores.release.uri} has no face to show yet")
    numbers = generator.choice(len(candidates), min(faces, len(candidates)), replace=False)
    return [candidates[number] for number in sorted(numbers)], sum(counts.values())


def _faces_of(stores: JobStores, run: str, shard: str) -> Iterator[DrawnFace]:
    rendered = render_store(stores, run).faces(shard)
    for position, row in enumerate(release_store(stores).manifest(shard).to_pylist()):
        for face, figures in zip(row["faces"], rendered.get(row["key"], ()), strict=True):
            yield DrawnFace(shard, position, row, face, figures)


# ---- their pixels ---------------------------------------------------------------------------------------------


def cells_of(job: JobConfig, stores: JobStores, drawn: Sequence[DrawnFace]) -> Iterator[SheetCell]:
    """The cells of the drawn faces, in their order; a shard is read once."""
    naming = Naming(open_keyring(job, stores), job.rekey)
    shards = {naming.shard(shard.shard_id): shard for shard in read_inventory(stores)}
    images = JobImages(job, shards[drawn[0].shard].format)
    for name, group in groupby(drawn, key=lambda face: face.shard):
        faces = list(group)
        key = partial(naming.key, shards[name].shard_id)
        before = images.originals(shards[name], {face.row["key"] for face in faces}, key)
        after = images.released([face.row for face in faces if face.row["status"] != QUARANTINED])
        for face in faces:
            yield _cell(job, face, before.get(face.row["key"]), after.get(face.row["output_sha256"]))


def _cell(job: JobConfig, drawn: DrawnFace, before: bytes | None, after: bytes | None) -> SheetCell:
    original = _view(job, before, drawn.face["box"])
    if drawn.row["status"] == QUARANTINED:
        return SheetCell(original, None, QUARANTINED, meaning_of(drawn.row["reason"]), True)
    if after is None:
        return SheetCell(original, None, drawn.method, "its released image is not where it should be", True)
    released = _view(job, after, drawn.face["box"])
    if drawn.face["fallback"]:
        note, alarming = str(drawn.figures["reason"]), drawn.face["fallback"] in SOLID
        return SheetCell(original, released, drawn.method, note, alarming)
    ratios = [entry["to_source"] / entry["threshold"] for entry in drawn.figures["similarity"] or ()]
    note = f"similarity at {max(ratios):.0%} of the limit" if ratios else ""
    return SheetCell(original, released, drawn.method, note)


def _view(job: JobConfig, data: bytes | None, box: Sequence[float]) -> Pixels | None:
    """A square around a box, None where there is no image to show."""
    if data is None:
        return None
    try:
        rgb = decode_apart(data, max_mpx=job.limits.image_mpx, seconds=job.limits.image_seconds).rgb
    except ImageProblem:
        return None
    return square_view(rgb, box, _TILE)


def square_view(rgb: Pixels, box: Sequence[float], tile: int, zoom: float = ZOOM) -> Pixels:
    """A square (tile, tile, 3) `zoom` times the longer side of a box (x0, y0, x1, y1; px) of an image (H, W, 3).

    It is made smaller or moved to lie in the photo; what is still outside is white.
    """
    x0, y0, x1, y1 = box
    longer = max(x1 - x0, y1 - y0, 1.0)
    side = min(zoom * longer, max(longer, float(min(rgb.shape[:2]))))
    centre = np.array([_inside((x0 + x1) / 2, side, rgb.shape[1]), _inside((y0 + y1) / 2, side, rgb.shape[0])])
    matrix = align.square(centre.astype(np.float32), side, 0.0, tile)
    view = align.crop(rgb, matrix, tile)
    inside = align.crop(np.full_like(rgb, 255), matrix, tile)
    return np.where(inside > 127, view, np.uint8(255)).astype(np.uint8)


def _inside(centre: float, side: float, length: int) -> float:
    """The centre nearest to `centre` whose view of `side` lies within 0..length, or the middle if none does."""
    return length / 2 if side >= length else min(max(centre, side / 2), length - side / 2)


# ---- the page -------------------------------------------------------------------------------------------------


def arrange(cells: Sequence[SheetCell], title: str, subtitle: str) -> Image.Image:
    """The page: cells in rows, as wide as it is high or a little wider."""
    wide, high = 2 * _TILE + _SEAM + _GAP, _TILE + _LABEL + _GAP
    ideal = (1.1 * len(cells) * high / wide) ** 0.5
    # Near the ideal, the number of columns that leaves the fewest empty places.
    columns = min(range(max(1, round(ideal) - 1), round(ideal) + 2), key=lambda n: (-len(cells) % n, abs(n - ideal)))
    rows = -(-len(cells) // columns)
    page = Image.new("RGB", (2 * _MARGIN + columns * wide - _GAP, 2 * _MARGIN + _TITLE + rows * high - _GAP), "white")
    pen = ImageDraw.Draw(page)
    width = page.width - 2 * _MARGIN
    write(pen, (_MARGIN, _MARGIN - 8), title, 22, _INK, width)
    write(pen, (_MARGIN, _MARGIN + 22), subtitle, 14, _SOFT, width)
    for number, cell in enumerate(cells):
        x, y = _MARGIN + number % columns * wide, _MARGIN + _TITLE + number // columns * high
        for view, left in ((cell.before, x), (cell.after, x + _TILE + _SEAM)):
            if view is None:
                pen.rectangle((left, y, left + _TILE - 1, y + _TILE - 1), fill=_EMPTY)
                write(pen, (left + 10, y + 8), "no image", 13, _SOFT, _TILE - 20)
            else:
                page.paste(Image.fromarray(view), (left, y))
        write(pen, (x, y + _TILE + 4), cell.label, 15, _ALARM if cell.alarming else _INK, wide - _GAP)
        write(pen, (x, y + _TILE + 22), cell.note, 13, _SOFT, wide - _GAP)
    return page


def write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, ink: Iterable[int], width: int) -> None:
    """One line, cut with dots where it is longer than `width` px."""
    font = ImageFont.load_default(size)
    if pen.textlength(text, font=font) > width:
        while text and pen.textlength(f"{text}...", font=font) > width:
            text = text[:-1]
        text += "..."
    pen.text(at, text, fill=tuple(ink), font=font)
