"""Faces drawn at random: the contact sheet, before and after side by side, and the report's examples of released faces.

The sheet shows originals, so it is written into the workspace alone and goes when that is purged.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from anonlib.codes import meaning_of
from anonlib.config import JobConfig
from anonlib.errors import ImageProblem, JobError, NotFound
from anonlib.faces import align
from anonlib.media.clip import frames_in
from anonlib.media.sandbox.process import decode_apart
from anonlib.storage import join_uri
from anonlib.workspace.images import JobImages
from anonlib.workspace.inventory import read_inventory
from anonlib.workspace.layout import PURGED, JobStores, open_stores, release_store, render_store
from anonlib.workspace.release import Naming
from anonlib.workspace.schemas import CLIP, ELLIPSES, QUARANTINED, RELEASED
from anonlib.workspace.secrets import open_keyring, release_name
from anonlib.workspace.tables import Row

SHEET = "sheet.jpg"
ZOOM = 2.4
"""Sides of the view around a face, in the longer side of its box."""

_MAX_SHARDS = 8  # read for one draw: a shard may be a gigabyte
_TILE = 176  # px; a cell is two tiles wide
_SEAM, _GAP, _MARGIN = 2, 20, 28
_LABEL, _TITLE = 40, 58
_INK, _SOFT, _ALARM, _EMPTY = (25, 25, 28), (110, 110, 116), (176, 42, 30), (236, 236, 238)

Pixels = NDArray[np.uint8]
SheetCell = tuple[Pixels | None, Pixels | None, str, str, bool]
"""Square views before and after, None where there is nothing to show; the two lines under them; whether to alarm."""


DrawnFace = tuple[str, Row, Row, Row]
"""A face: its shard, its image's row and its own in the manifest, and its figures in the workspace (RENDERED)."""


def label_of(face: Row) -> str:
    """The method, its k, and the fallback where that is another method, of a face's row in the manifest."""
    method, k, fallback = (face[name] for name in ("method", "k", "fallback"))
    return ", ".join(filter(None, (method, f"k = {k}" if k else "", fallback if fallback != method else "")))


def make_sheet(job: JobConfig, *, faces: int = 40, seed: int = 0) -> str:
    """Write sheet.jpg into the workspace and return its URI; the same faces for the same seed and release.

    Raises JobError if nothing is rendered or the workspace is purged.
    """
    stores = open_stores(job)
    if stores.workspace.exists(PURGED):
        raise JobError(f"the workspace {job.workspace.uri} was purged; a sheet of originals has no place any more")
    drawn, total = draw(stores, faces, seed)
    title = f"{release_name(job)}: {len(drawn)} of {total:,} faces, before and after"
    subtitle = f"drawn at random, seed {seed}. Shows originals: keep it in the workspace"
    stores.workspace.publish(SHEET, _jpeg(arrange(list(cells_of(job, stores, drawn)), title, subtitle), 92))
    return join_uri(job.workspace.uri, SHEET)


def draw_examples(job: JobConfig, format: str, *, faces: int = 12, seed: int = 0) -> list[tuple[bytes, str]]:
    """Up to `faces` of a finished release as JPEG squares with captions, the same for the same seed.

    No original is opened. `format` is the dataset's. Raises JobError if nothing is rendered.
    """
    drawn = [(row, face) for _, row, face, _ in draw(open_stores(job), faces, seed)[0] if row["status"] == RELEASED]
    images = JobImages(job, format).released([row for row, _ in drawn])
    views = [(_view(job, images.get(row["output_sha256"]), row, face), label_of(face)) for row, face in drawn]
    return [(_jpeg(Image.fromarray(view), 88), label) for view, label in views if view is not None]


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


# ---- which faces, and their pixels ----------------------------------------------------------------------------


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
    candidates = []
    for shard in shards:
        rendered = render_store(stores, run["run"]).faces(shard)
        for row in release.manifest(shard).to_pylist():
            pairs = zip(row["faces"], rendered.get(row["key"], ()), strict=True)
            candidates += [(shard, row, face, figures) for face, figures in pairs if face.get("kind") is None]
    if not candidates:
        raise JobError(f"the release {stores.release.uri} has no face to show yet")
    numbers = generator.choice(len(candidates), min(faces, len(candidates)), replace=False)
    return [candidates[number] for number in sorted(numbers)], sum(counts.values())


def cells_of(job: JobConfig, stores: JobStores, drawn: Sequence[DrawnFace]) -> Iterator[SheetCell]:
    """The cells of the drawn faces, in their order; a shard is read once."""
    naming = Naming(open_keyring(job, stores), job.rekey)
    shards = {naming.shard(shard.shard_id): shard for shard in read_inventory(stores)}
    images = JobImages(job, shards[drawn[0][0]].format)
    for name, group in groupby(drawn, key=itemgetter(0)):
        faces = list(group)
        key = partial(naming.key, shards[name].shard_id)
        originals = images.originals(shards[name], {row["key"] for _, row, *_ in faces}, key)
        outputs = images.released([row for _, row, *_ in faces if row["status"] != QUARANTINED])
        for _, row, face, figures in faces:
            before = _view(job, originals.get(row["key"]), row, face)
            after = _view(job, outputs.get(row["output_sha256"]), row, face)
            label, note, alarming = label_of(face), "", False
            if row["status"] == QUARANTINED:
                label, note, alarming = QUARANTINED, meaning_of(row["reason"]), True
            elif after is None:
                note, alarming = "its released image is not where it should be", True
            elif face["fallback"]:
                note, alarming = str(figures["reason"]), face["fallback"] in ELLIPSES
            elif similarity := figures["similarity"]:
                ratio = max(entry["to_source"] / entry["threshold"] for entry in similarity)
                note = f"similarity at {ratio:.0%} of the limit"
            yield before, after, label, note, alarming


def _view(job: JobConfig, data: bytes | None, row: Row, face: Row) -> Pixels | None:
    """A square around the face in its image, or in the frame of its clip that its box is of; None without an image."""
    limits, box, first = job.limits, face["box"], face["first"]
    try:
        if not data or (row["media"] == CLIP and first is None):
            return None
        if row["media"] == CLIP:
            frame = first + int(np.abs(np.reshape(face["boxes"], (-1, 4)) - box).sum(axis=1).argmin())
            rgb = next(shown.rgb for shown in frames_in(data, limits) if shown.index == frame)
        else:
            rgb = decode_apart(data, limits).rgb
    except (ImageProblem, StopIteration):
        return None
    return square_view(rgb, box, _TILE)


def square_view(rgb: Pixels, box: Sequence[float], tile: int, zoom: float = ZOOM) -> Pixels:
    """A square (tile, tile, 3) `zoom` times the longer side of a box (x0, y0, x1, y1; px) of an image (H, W, 3).

    It is made smaller or moved to lie in the photo; what is still outside is white.
    """
    x0, y0, x1, y1 = box
    longer, sides = max(x1 - x0, y1 - y0, 1.0), np.array([rgb.shape[1], rgb.shape[0]], np.float32)
    side = min(zoom * longer, max(longer, float(sides.min())))
    centre = np.clip(np.array([x0 + x1, y0 + y1]) / 2, side / 2, sides - side / 2)
    centre = np.where(side >= sides, sides / 2, centre)
    matrix = align.square(np.asarray(centre, np.float32), side, 0.0, tile)
    inside = align.crop(np.full_like(rgb, 255), matrix, tile)
    return np.where(inside > 127, align.crop(rgb, matrix, tile), np.uint8(255)).astype(np.uint8)


# ---- the page -------------------------------------------------------------------------------------------------


def arrange(cells: Sequence[SheetCell], title: str, subtitle: str) -> Image.Image:
    """The page: cells in rows, about as wide as it is high."""
    wide, high = 2 * _TILE + _SEAM + _GAP, _TILE + _LABEL + _GAP
    columns = max(1, round((1.1 * len(cells) * high / wide) ** 0.5))
    rows = -(-len(cells) // columns)
    page = Image.new("RGB", (2 * _MARGIN + columns * wide - _GAP, 2 * _MARGIN + _TITLE + rows * high - _GAP), "white")
    pen, width = ImageDraw.Draw(page), columns * wide - _GAP
    write(pen, (_MARGIN, _MARGIN - 8), title, 22, _INK, width)
    write(pen, (_MARGIN, _MARGIN + 22), subtitle, 14, _SOFT, width)
    for number, (before, after, label, note, alarming) in enumerate(cells):
        x, y = _MARGIN + number % columns * wide, _MARGIN + _TITLE + number // columns * high
        for view, left in ((before, x), (after, x + _TILE + _SEAM)):
            if view is None:
                pen.rectangle((left, y, left + _TILE - 1, y + _TILE - 1), fill=_EMPTY)
                write(pen, (left + 10, y + 8), "no image", 13, _SOFT, _TILE - 20)
            else:
                page.paste(Image.fromarray(view), (left, y))
        write(pen, (x, y + _TILE + 4), label, 15, _ALARM if alarming else _INK, wide - _GAP)
        write(pen, (x, y + _TILE + 22), note, 13, _SOFT, wide - _GAP)
    return page


def write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, ink: Iterable[int], width: int) -> None:
    """One line, cut with dots where it is longer than `width` px."""
    font, line = ImageFont.load_default(size), text
    while text and pen.textlength(line, font=font) > width:
        text = text[:-1]
        line = f"{text}..."
    pen.text(at, line, fill=tuple(ink), font=font)
