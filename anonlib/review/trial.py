"""A job on a few of its images, in a temporary folder of this user: what `preview` shows and `estimate` times.

The images are drawn, copied with their label and boxes, planned among themselves and rendered; no release comes of it.
"""

from __future__ import annotations

import base64
import io
import json
import math
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anonlib.codes import meaning_of
from anonlib.config import NO_DETECTOR, InputConfig, JobConfig, OutputConfig, RayConfig, SecretConfig, WorkspaceConfig
from anonlib.datasets import Dataset, Sample, Shard, label, open_input, values_of
from anonlib.datasets.names import is_media
from anonlib.errors import JobError
from anonlib.execution.base import UnitResult
from anonlib.execution.rounds import SerialRunner
from anonlib.job import Job
from anonlib.media.sandbox.process import decode_apart
from anonlib.storage import join_uri
from anonlib.storage.scratch import scratch
from anonlib.workspace.layout import PREVIEW, open_stores, release_store, render_store, scan_store
from anonlib.workspace.release import samples_of
from anonlib.workspace.schemas import LOT
from anonlib.workspace.tables import Row

_SHARDS = 8
"""From which a preview's images are drawn: a shard may be a gigabyte."""
_SIDE, _QUALITY = 720, 85
_BY_PHOTO = ("scan", "render", "redact")
"""Stages that take time by the photo, and not by the person."""
_ASSET = Path(__file__).parent / "assets" / PREVIEW
Report = Callable[[str, UnitResult, int], None]


def drawn(dataset: Dataset, shard: Shard, most: int, seed: int) -> tuple[list[Sample], int]:
    """Up to `most` readable photos of a shard, each as likely, in their order, and how many images it has in all."""
    chance, chosen = random.Random(f"{seed} {shard.shard_id}"), list[Sample]()
    count = photos = 0
    for sample in dataset.read(shard):
        count += 1
        if sample.image is None:
            continue
        photos += 1
        if len(chosen) < most:
            chosen.append(sample)
        elif (place := chance.randrange(photos)) < most:
            chosen[place] = sample
    return sorted(chosen, key=lambda sample: sample.position), count


def tried(
    config: JobConfig, samples: Sequence[Sample], folder: Path, report: Report | None = None, cores: int | None = None
) -> tuple[Job, dict[str, float]]:
    """Run the job on these photos below `folder`, on all cores or so many; returns it, finished in places of its own
    there, and its seconds of one core by stage. Raises what a job does."""
    source, wanted = folder / "input", config.input
    source.mkdir()
    told = []
    for number, sample in enumerate(samples):
        name = f"{number:05d}"
        (source / f"{name}.{_ending(sample)}").write_bytes(sample.image or b"")
        fields: dict[str, Any] = {}
        if wanted.subject_field and (person := label(sample, wanted.subject_field)):
            fields["person"] = person
        if wanted.boxes_field and (boxes := next(values_of(sample, wanted.boxes_field), None)) is not None:
            fields["boxes"] = boxes.decode("utf-8", "replace") if isinstance(boxes, bytes) else boxes
        (source / f"{name}.json").write_text(json.dumps(fields, default=str))
        told.append(fields)
    (folder / "secret").write_text(secrets.token_hex(32))
    named = {name for fields in told for name in fields}
    changes = {
        "uri": str(source),
        "format": "folder",
        "image_field": None,
        "key_field": None,
        "subject_field": "person" if "person" in named else None,
        "boxes_field": "boxes" if "boxes" in named or config.detector.name == NO_DETECTOR else None,
    }
    places = {
        "input": InputConfig(**(wanted.model_dump() | changes)),
        "output": OutputConfig(uri=str(folder / "release")),
        "workspace": WorkspaceConfig(uri=str(folder / "workspace")),
        "secret": SecretConfig(file=str(folder / "secret")),
        "ray": RayConfig(actors=cores or 0, num_gpus=config.ray.num_gpus),
    }
    alone = {"ledger": None, "signing": None, "too_few": "ellipse", "rekey": False, "keep_fields": ()}
    seconds: dict[str, float] = {}

    def timed(stage: str, outcome: UnitResult, units: int) -> None:
        seconds[stage] = seconds.get(stage, 0.0) + outcome.seconds
        if report is not None:
            report(stage, outcome, units)

    runner = SerialRunner(cores) if cores else None
    job = Job(config.model_copy(update=places | alone), report=timed, runner=runner)
    job.run()
    return job, seconds


def _ending(sample: Sample) -> str:
    ending = sample.image_field.rpartition(".")[2].lower()
    return ending if is_media(f"x.{ending}") else "jpg"


# ---- estimate -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """What a job takes: `images` in `bytes` of input, and `core_hours` of scan and render with the half width `error`
    of their 95 % interval, as a share; None of a single shard."""

    images: int
    bytes: int
    core_hours: float
    error: float | None


def estimate(config: JobConfig, *, shards: int = 3, images: int = 60, seed: int = 0) -> Estimate:
    """Time up to `images` photos of each of some shards; hours grow with bytes. Raises as a job does."""
    from scipy.stats import t

    dataset = open_input(config)
    every = dataset.shards()
    rates, counts, read = [], 0, 0
    for shard in random.Random(seed).sample(every, min(shards, len(every))):
        samples, count = drawn(dataset, shard, images, seed)
        counts, read = counts + count, read + shard.bytes
        with scratch() as folder:
            stages = tried(config, samples, folder, cores=1)[1] if samples else {}
        seconds = sum(stages.get(name, 0.0) for name in _BY_PHOTO)
        rates.append(seconds / max(len(samples), 1) * count / max(shard.bytes, 1))
    total, n = sum(shard.bytes for shard in every), len(rates)
    if not n or not any(rates):
        raise JobError("no photo of the drawn shards can be read, so nothing can be timed")
    mean = float(np.mean(rates))
    spread = float(t.ppf(0.975, n - 1) * np.std(rates, ddof=1) / math.sqrt(n) / mean) if n > 1 else None
    return Estimate(round(counts / max(read, 1) * total), total, mean * total / 3600, spread)


# ---- preview --------------------------------------------------------------------------------------------------


def preview(config: JobConfig, *, images: int = 40, seed: int = 0, report: Report | None = None) -> str:
    """Write preview.html into the workspace, and return its URI: photos before and after, found faces with their
    scores, and why any fell back. Raises as a job does."""
    dataset = open_input(config)
    shards = dataset.shards()
    chosen = random.Random(seed).sample(shards, min(_SHARDS, len(shards)))
    several = [drawn(dataset, shard, math.ceil(images / len(chosen)), seed)[0] for shard in chosen]
    samples = [sample for of_shard in several for sample in of_shard][:images]
    with scratch() as folder:
        cards = "\n".join(_cards(tried(config, samples, folder, report)[0], folder, samples))
    page = _ASSET.read_text().replace("<!-- cards -->", cards).replace("$score", f"{config.detector.score:g}")
    open_stores(config).workspace.publish(PREVIEW, page.encode())
    return join_uri(config.workspace.uri, PREVIEW)


def _cards(job: Job, folder: Path, samples: Sequence[Sample]) -> Iterator[str]:
    """A figure of each photo of a trial, in their order."""
    rest = iter(samples)
    release, scan = release_store(job.stores), scan_store(job.stores, job.scan_key)
    reasons = render_store(job.stores, release.run()["run"])
    for shard in job.shards:
        rendered = reasons.faces(shard.shard_id)
        for photo in samples_of(release, scan, job.naming, shard.shard_id, faces=("score", "box", "kind")):
            sample, boxes, pictures = next(rest), "", list[bytes]()
            told = [f"quarantined: {meaning_of(photo.row['reason'])}"] if photo.quarantined else []
            if not told:
                (path,) = (folder / "release" / "data").glob(f"{photo.key.rpartition('.')[0]}.*")
                pictures = [sample.image or b"", path.read_bytes()]
                size = photo.row["width"], photo.row["height"]
                for found, figures in zip(photo.faces, rendered.get(photo.key, ()), strict=True):
                    boxes += _box(size, found, fell=figures["fallback"] not in (None, LOT))
                    if figures["reason"]:
                        told.append(f"{found['score']:.2f}, {figures['method']}: {figures['reason']}")
            shown = "".join(f'<div><img alt="" src="{_thumb(job.config, data)}">{boxes}</div>' for data in pictures)
            yield f"<figure>{shown}<figcaption>{escape('; '.join([sample.key, *told]))}</figcaption></figure>"


def _box(size: tuple[int, int], found: Row, *, fell: bool) -> str:
    """A found region as a frame over its picture, with its kind and score."""
    x0, y0, x1, y1 = found["box"]
    sides = 100 * x0 / size[0], 100 * y0 / size[1], 100 * (x1 - x0) / size[0], 100 * (y1 - y0) / size[1]
    style = "left:{:.2f}%;top:{:.2f}%;width:{:.2f}%;height:{:.2f}%".format(*sides)
    title, score = escape(f"{found['kind'] or 'face'} {found['score']:.2f}", quote=True), f"{found['score']:.3f}"
    return f'<b{" class=fell" * fell} style="{style}" data-score="{score}" title="{title}"></b>'


def _thumb(config: JobConfig, data: bytes) -> str:
    """A picture as a data URI."""
    picture = decode_apart(data, config.limits)
    shown, buffer = Image.fromarray(picture.rgb), io.BytesIO()
    shown.thumbnail((_SIDE, _SIDE))
    shown.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
