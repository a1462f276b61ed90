"""Whole small jobs (solid, no actors) of files changed at random: what holds of every release, whatever came in."""

from __future__ import annotations

import io
import json
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from anonlib.datasets import open_dataset
from anonlib.datasets.base import Sample
from anonlib.errors import AnonlibError
from tests.fuzz.mutate import mutated
from tests.fuzz.properties import MARKER, has_planted
from tests.fuzz.seeds import SIDECAR, seeds
from tests.support.photos import tar
from tests.support.runs import manifest, run_job

ENDINGS = {"jpeg": ("jpg", "jpeg"), "png": ("png",), "webp": ("webp",), "other": ("tif", "gif", "bmp", "ppm")}
PHOTOS = 60


def photos(random: Random, files: dict[str, list[bytes]], count: int = PHOTOS) -> list[tuple[str, str, bytes]]:
    """(kind, ending, bytes) of photos, most of them changed, and some under the ending of another kind."""
    found = []
    for _ in range(count):
        kind, named = random.choice(list(ENDINGS)), random.choice(list(ENDINGS))
        file = random.choice(files[kind])
        if random.random() < 0.8:
            file = mutated(random, kind, file, random.choice(files[kind]))
        ending = random.choice(ENDINGS[kind if random.random() < 0.9 else named])
        found.append((kind, ending, file))
    return found


def write_input(random: Random, folder: Path, files: dict[str, list[bytes]]) -> str:
    """A dataset of one of the formats; its name."""
    content = photos(random, files)
    format = random.choice(("folder", "tar", "parquet", "damaged tars", "damaged parquet"))
    folder.mkdir(parents=True)
    sidecar = json.dumps(SIDECAR).encode()
    if format == "folder":
        for number, (_, ending, file) in enumerate(content):
            (folder / f"{number:03d}.{ending}").write_bytes(file)
            (folder / f"{number:03d}.json").write_bytes(mutated(random, "sidecar", sidecar, sidecar))
    elif format == "tar":
        members = []
        for number, (_, ending, file) in enumerate(content):
            members += [(f"{number:03d}.{ending}", file)]
            members += [(f"{number:03d}.json", mutated(random, "sidecar", sidecar, sidecar))]
        tar(folder / "0.tar", members)
    elif format == "parquet":
        table = pa.table({"image": [file for _, _, file in content], "caption": [MARKER.decode()] * len(content)})
        pq.write_table(table, folder / "0.parquet", row_group_size=16)
    else:
        kind = "tar" if format == "damaged tars" else "parquet"
        for number in range(6):
            file = mutated(random, kind, random.choice(files[kind]), random.choice(files[kind]))
            (folder / f"{number}.{kind}").write_bytes(file)
    return format


def try_job(random: Random, root: Path, files: dict[str, list[bytes]]) -> tuple[str, int]:
    """The format and how many rows; AssertionError where a release is not as it must be."""
    format = write_input(random, root / "in", files)
    keep_fields = ["id"] * random.randrange(2)
    keep = {
        "input": {"uri": str(root / "in")},
        "method": {"name": "solid"},
        "keep_fields": keep_fields,
    }
    try:
        samples = _samples(root / "in")
        run = run_job(root / "in", root, **keep)
    except AnonlibError as error:
        return f"{format} refused ({str(error)[:60]})", 0
    rows: list[dict[str, Any]] = manifest(run.output)
    assert len(rows) == len(samples), f"{len(samples)} samples, {len(rows)} rows"
    statuses = [row["status"] for row in rows]
    assert set(statuses) <= {"released", "no_face", "quarantined"}, "another status"
    released = [] if all(status == "quarantined" for status in statuses) else _samples(run.output / "data")
    assert len(released) == len(rows) - statuses.count("quarantined"), "released photos and rows differ"
    assert all(sample.image is not None for sample in released), "a released photo cannot be read"
    for sample in released:
        with Image.open(io.BytesIO(sample.image or b"")) as image:
            image.load()
        assert not has_planted(sample.image or b"") or _is_px(samples, sample), "something planted leaves"
    return format, len(rows)


def _samples(folder: Path) -> list[Sample]:
    dataset = open_dataset(str(folder))
    return [sample for shard in dataset.shards() for sample in dataset.read(shard)]


def _is_px(samples: list[Sample], released: Sample) -> bool:
    """Whether what was planted stood where the picture is (tests/fuzz/properties.py tells that of single photos)."""
    from tests.fuzz.properties import _picture_data

    for sample in samples:
        if sample.key == released.key and sample.image:
            kind = {b"\xff": "JPEG", b"\x89": "PNG"}.get(sample.image[:1], "WEBP")
            return has_planted(_picture_data(sample.image, kind))
    return False


def run_jobs(count: int, seed: int) -> int:
    """Run jobs and print what does not hold; 1 if anything."""
    files, finds, rows = seeds(), 0, 0
    start = time.monotonic()
    for number in range(count):
        with tempfile.TemporaryDirectory() as folder:
            try:
                format, more = try_job(Random(f"{seed}-job-{number}"), Path(folder) / "job", files)
                rows += more
                print(f"job {number}: {format}, {more} rows, {time.monotonic() - start:.0f} s", flush=True)
            except Exception:  # noqa: BLE001  any is a find
                finds += 1
                print(f"job {number}: {traceback.format_exc()}", flush=True)
    print(f"{count} jobs, {rows:,} rows, {finds} finds, {time.monotonic() - start:.0f} s")
    return int(bool(finds))
