"""The whole of anonlib in a few minutes, on a folder of photos: `make demo`.

The photos are six of groups of people and one of an astronaut, which come with packages that are fetched anyway, and
some of labelled people who do not exist (demo_photos.py). A contact sheet at the end shows faces before and after.

Everything lies in demo/, which git ignores. Each run starts over, so that what you see was made by the code you have.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
import webbrowser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from demo_photos import PEOPLE, PHOTOS, write_photos
from PIL import Image

from anonlib.audit.report.page import square_view
from anonlib.config import load_config
from anonlib.execution.telemetry import open_progress
from anonlib.job import Job
from anonlib.terminal import guarded, print_rows, print_summary

KEEP_FIELDS = ("caption",)
SHEET_COLUMNS, SHEET_ROWS = 4, 6
PICTURED = {
    "group-4.jpg": (40, 0, 1640, 800),
    "group-6.jpg": (170, 100, 1830, 930),
    "group-3.jpg": (420, 80, 1820, 780),
}
"""Of which photos the README shows which part, px."""
WIDTH, HEIGHT, GAP = 720, 360, 8


def main() -> int:
    """Make everything afresh: input/, workspace/ with a contact sheet, and release/; the exit code is the job's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent.parent / "demo")
    parser.add_argument("--people", type=int, default=PEOPLE, help="labelled people who do not exist")
    parser.add_argument("--photos-per-person", type=int, default=PHOTOS)
    parser.add_argument("--actors", type=int, help="0 runs without Ray; default one a core")
    parser.add_argument("--picture", type=Path, help="also write the README's picture, of released photos alone")
    options = parser.parse_args()
    folder, began = options.folder, time.monotonic()
    for place in ("input", "workspace", "release"):
        shutil.rmtree(folder / place, ignore_errors=True)
    config = load_config(
        overrides={
            "input.uri": str(folder / "input"),
            "input.subject_field": "person",
            "output.uri": str(folder / "release"),
            "workspace.uri": str(folder / "workspace"),
            "method.name": "dp-uniform",
            "method.texture": "gallery",
            "keep_fields": KEEP_FIELDS,
            "ray.actors": options.actors,
        }
    )
    with guarded():
        print("1. Getting photos of groups, and drawing people who do not exist into them", flush=True)
        count = write_photos(folder / "input", people=options.people, photos=options.photos_per_person)
        print("2. Replacing every face by a face of the gallery, which no real person has", flush=True)
        with open_progress() as progress:
            job = Job(config, report=progress, ended=progress.ended)
            summary = job.run()
        print_rows([("input", f"{count} photos in {folder / 'input'}")])
        print_summary(job, summary)
        sheet = folder / "workspace" / "sheet.jpg"
        contact_sheet(folder).save(sheet, quality=92)
        print_rows([("look at", str(sheet)), ("and at", str(folder / "release" / "data"))])
        if options.picture:
            picture(folder / "release" / "data").save(options.picture, quality=88)
        print(f"Done in {time.monotonic() - began:.0f} s")
        if sys.stdout.isatty():
            webbrowser.open(sheet.resolve().as_uri())
    return summary.code


def contact_sheet(folder: Path) -> Image.Image:
    """Faces of the demo, those of its first photos, before and after: originals, so it belongs in the workspace."""
    tables = sorted((folder / "release" / "manifest").glob("*.parquet"))
    rows = [row for table in tables for row in pq.read_table(table, columns=["key", "faces"]).to_pylist()]
    faces = [(row["key"], face["box"]) for row in rows for face in row["faces"]]
    cells = []
    for key, box in faces[: SHEET_COLUMNS * SHEET_ROWS]:
        photos = [Image.open(place / key) for place in (folder / "input", folder / "release" / "data")]
        cells.append(np.concatenate([square_view(np.asarray(photo.convert("RGB")), box) for photo in photos], axis=1))
    height, width = cells[0].shape[:2]
    page = Image.new("RGB", (SHEET_COLUMNS * (width + GAP) - GAP, SHEET_ROWS * (height + GAP) - GAP), "white")
    for number, cell in enumerate(cells):
        row, column = divmod(number, SHEET_COLUMNS)
        page.paste(Image.fromarray(cell), (column * (width + GAP), row * (height + GAP)))
    return page


def picture(released: Path) -> Image.Image:
    """Three released photos of groups, side by side."""
    page = Image.new("RGB", (len(PICTURED) * (WIDTH + GAP) - GAP, HEIGHT), "white")
    for number, (name, part) in enumerate(PICTURED.items()):
        photo = Image.open(released / name).convert("RGB")
        page.paste(photo.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, part), (number * (WIDTH + GAP), 0))
    return page


if __name__ == "__main__":
    raise SystemExit(main())
