"""The whole of anonlib in a few minutes, on photos of people who never lived: `make demo`.

Everything lies in demo/, which git ignores. Each run starts over, so that what you see was made by the code you have.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from demo_data import generator_from_onnx, make_dataset

from anonlib.audit.sheet import make_sheet
from anonlib.config import load_config
from anonlib.execution.telemetry import open_progress
from anonlib.job import Job
from anonlib.models.cache import model_bytes
from anonlib.terminal import guarded, print_rows, print_summary

K = 5
KEEP_FIELDS = ("caption",)
SHEET_FACES = 40


def main() -> int:
    """Make everything afresh: input/, workspace/ with a contact sheet, and release/; the exit code is the job's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent.parent / "demo")
    parser.add_argument("--people", type=int, default=48)
    parser.add_argument("--photos-per-person", type=int, default=5)
    parser.add_argument("--actors", type=int, help="0 runs without Ray; default one a core")
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
            "method.name": "k-diff",
            "method.k": K,
            "keep_fields": KEEP_FIELDS,
            "too_few": "ellipse",  # so that a small demo ends, too
            "ray.actors": options.actors,
        }
    )
    with guarded():
        print(f"1. Drawing photos of {options.people} people who never lived", flush=True)
        generator, counts = generator_from_onnx(model_bytes("face-gan")), (options.people, options.photos_per_person)
        shards = make_dataset(generator, folder / "input", people=counts[0], photos_per_person=counts[1])
        print(f"2. Replacing every face: k-diff, at least {K} people share a new one", flush=True)
        with open_progress() as progress:
            job = Job(config, report=progress, ended=progress.ended)
            summary = job.run()
        print_rows([("input", f"{len(shards)} tar files in {folder / 'input'}")])
        print_summary(job, summary)
        print("3. Drawing faces by lot, to show them before and after", flush=True)
        print_rows([("look at", make_sheet(config, faces=SHEET_FACES))])
        print(f"Done in {time.monotonic() - began:.0f} s")
    return summary.code


if __name__ == "__main__":
    raise SystemExit(main())
