"""What the detectors of text, persons and plates find: `python jobs/evaluate_regions.py PHOTOS --sheet FOLDER`.

Text and plates are drawn into the photos, so what is there is known to the px: one is found where boxes hold 99 % of
its ink. Persons are not drawn: where CenterFace is sure of a face there is one, and it is found where a box holds the
face's middle. A false alarm is a region in a photo before anything was drawn, for persons one without a face in it;
a photo may hold real text and people who turn away, so these figures are upper bounds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from anonlib.audit.statistics import binomial_interval
from anonlib.config import DetectorConfig, JobConfig, load_config
from anonlib.datasets import open_input
from anonlib.faces.detect import open_detector
from anonlib.faces.hidden import network_of, open_hidden, own_networks
from anonlib.faces.regions import Regions
from anonlib.media.codec import Picture
from anonlib.media.prefetch import try_to_read
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS
from anonlib.synthesis.redact import covered, redact
from anonlib.terminal import guarded, print_rows

Pixels = NDArray[np.uint8]
HELD, SURE = 0.99, 0.6
"""Share of a line's ink that boxes must hold, and the score of a face that is a person."""
SLANT = 12.0  # degrees
HEIGHTS = (16, 32)
"""Px that divide small, middle and large letters."""
CAPITALS = 0.72
"""Height of capital letters, of a font's size."""
LETTERS = "ABCDEFGHIJKLMNOPRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def evaluate(
    photos: Annotated[str, typer.Argument(help="A dataset of photos.")],
    plate: Annotated[str | None, typer.Option(help="A network of yours that finds plates.")] = None,
    most: Annotated[int, typer.Option(help="How many photos are looked at.")] = 300,
    precision: Annotated[str, typer.Option(help="What the networks compute in: f32 or bf16.")] = "f32",
    sheet: Annotated[Path | None, typer.Option(help="Where 12 photos go with all hidden.")] = None,
) -> None:
    """Print recall and false alarms of each kind with their 95 % intervals."""
    with guarded():
        hide = {"text": "fill", "person": "fill"} | ({"plate": {"path": plate}} if plate else {})
        places = {"input": {"uri": photos}, "output": {"uri": "/nowhere/a"}, "workspace": {"uri": "/nowhere/b"}}
        print_rows(figures(load_config(places | {"hide": hide, "precision": precision}), most, sheet))


def figures(job: JobConfig, most: int, sheet: Path | None) -> list[tuple[str, str]]:
    """Name and figure of each measure."""
    weights = own_networks(job) | {net: model_bytes(net) for kind in job.hide if (net := network_of(kind)) in MODELS}
    finders, faces = open_hidden(job, weights), open_detector(DetectorConfig(score=SURE))
    hits: dict[str, list[bool]] = defaultdict(list)
    for number, photo in enumerate(_photos(job, most)):
        shown = photo
        for kind, finder in finders.items():
            (before,) = finder.detect([photo])
            if kind == "person":
                middles = faces.detect([photo])[0].boxes.reshape(-1, 2, 2).mean(axis=1)
                inside = holds(before, middles)
                hits["person found"] += inside.any(axis=0).tolist()
                hits["person, false alarm in a photo"].append(bool((~inside.any(axis=1)).any()))
                found = before
            else:
                shown, ink, height = drawn(photo, kind == "plate", np.random.default_rng(number))
                (found,) = finder.detect([shown])
                held = bool((ink & covered(found.boxes, ink.shape, True)).sum() >= HELD * ink.sum())
                hits[f"{kind} found, {_size(height)}"].append(held)
                hits[f"{kind}, false alarm in a photo"].append(len(before) > 0)
            if sheet and number < 12:
                out = shown.copy()
                for box in found.boxes:
                    redact(out, box, "fill", whole=True)
                sheet.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.concatenate([shown, out], axis=1)).save(sheet / f"{kind}-{number:02d}.png")
    return [(name, _figure(told)) for name, told in sorted(hits.items())]


def holds(regions: Regions, points: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(regions, points) Which of the regions' boxes hold which of the points (n, 2) px."""
    low, high = regions.boxes[:, None, :2], regions.boxes[:, None, 2:]
    return np.asarray(((points >= low) & (points <= high)).all(axis=2))


def drawn(photo: Pixels, plate: bool, chance: np.random.Generator) -> tuple[Pixels, NDArray[np.bool_], float]:
    """The photo (H, W, 3) with a line of text or a plate, where its ink is (H, W), and how high its letters are, px."""
    height = float(np.exp(chance.uniform(np.log(10), np.log(max(photo.shape[0] / 8, 11)))))
    line = "".join(chance.choice(list(LETTERS), min(int(chance.integers(4, 12)), int(photo.shape[1] / height))))
    font, out = ImageFont.load_default(height / CAPITALS), photo.copy()
    room, (_, _, width, depth) = round(height / 2), (round(side) for side in font.getbbox(line))
    label = Image.new("LA", (width + 2 * room, depth + 2 * room), (235, 255 * plate))
    ImageDraw.Draw(label).text((room, room), line, (20, 255), font)
    label = label.rotate(chance.uniform(-SLANT, SLANT), expand=True, resample=Image.Resampling.BICUBIC)
    x, y = (int(chance.integers(max(free, 0) + 1)) for free in np.subtract(photo.shape[1::-1], label.size))
    letter, there = np.moveaxis(np.asarray(label)[: photo.shape[0] - y, : photo.shape[1] - x], 2, 0)
    view, ink = out[y : y + len(there), x : x + there.shape[1]], np.zeros(photo.shape[:2], np.bool_)
    marked = (there > 127) & (letter < 127)
    ink[y : y + len(there), x : x + there.shape[1]] = marked
    view[there > 127] = letter[there > 127, None]
    if not plate:
        view[marked] = 0 if photo[ink].mean() > 127 else 255
    return out, ink, height


def _photos(job: JobConfig, most: int) -> Iterator[Pixels]:
    dataset = open_input(job)
    samples = (sample for shard in dataset.shards() for sample in dataset.read(shard))
    pictures = (picture for sample in samples if isinstance(picture := try_to_read(sample, job), Picture))
    yield from (picture.rgb for picture, _ in zip(pictures, range(most), strict=False))


def _size(height: float) -> str:
    low, high = HEIGHTS
    if height < low:
        return f"letters under {low} px"
    return f"letters of {low} to {high} px" if height < high else f"letters over {high} px"


def _figure(told: list[bool]) -> str:
    low, high = binomial_interval(sum(told), len(told))
    return f"{sum(told)} of {len(told)}, {np.mean(told):.1%} ({low:.1%} to {high:.1%})"


if __name__ == "__main__":
    app()
