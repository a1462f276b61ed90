"""Whether a network's answers hold in bfloat16: `python jobs/evaluate_precision.py PHOTOS --label-field json:person`.

What the detectors find, what the recognizers tell apart (rank-1: the nearest photo of another is of the same person),
and where meshes, eyes and attributes lie, each in f32 and in bf16 on the same crops, which are always cut by f32. A
network may compute in bf16 (`bf16` in catalog.toml) if it finds the faces that f32 finds, names as many people, and
moves points by less than the network itself is out. Where the CPU has no bf16, `--emulate` lets torch round every
operation to it, slowly; that is another order of sums than OpenVINO's, and no measure of speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from anonlib.config import DetectorConfig, load_config
from anonlib.datasets import label, open_input
from anonlib.faces.centerface import CenterFaceDetector, YuFaceDetector
from anonlib.faces.embed import Recognizer, read_attributes
from anonlib.faces.mesh import FaceMesh, five_points
from anonlib.faces.regions import Regions, labelled_face
from anonlib.media.codec import Picture
from anonlib.media.prefetch import try_to_read
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import Batch, Engine, load_engine
from anonlib.terminal import guarded, print_rows

RECOGNIZERS = ("dlib-resnet", "faceres", "fr-feature", "facenet", "mobileface")
SAME = 0.5  # IoU of a face that both precisions find
Load = Callable[[str], Engine]
Pixels = NDArray[np.uint8]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def evaluate(
    photos: Annotated[str, typer.Argument(help="A dataset of labelled photos, one main face each.")],
    label_field: Annotated[str, typer.Option(help="The field that names the person.")] = "json:person",
    most: Annotated[int, typer.Option(help="How many photos are looked at.")] = 500,
    emulate: Annotated[bool, typer.Option(help="By torch, on a CPU without bf16.")] = False,
) -> None:
    """Print a line for each network."""
    with guarded():
        images, names = read(photos, label_field, most)
        print_rows(compared(images, names, emulated if emulate else in_bf16))


def read(uri: str, field: str, most: int) -> tuple[list[Pixels], list[str]]:
    """Up to `most` readable photos that have a label, and their labels."""
    places = {"output.uri": "/nowhere/output", "workspace.uri": "/nowhere/workspace"}
    job = load_config(overrides={"input.uri": uri, "input.subject_field": field, **places})
    dataset = open_input(job)
    images, names = [], []
    for sample in (sample for shard in dataset.shards() for sample in dataset.read(shard)):
        name, picture = label(sample, field), try_to_read(sample, job)
        if name is not None and isinstance(picture, Picture):
            images.append(picture.rgb)
            names.append(name)
        if len(images) == most:
            break
    return images, names


def in_f32(name: str) -> Engine:
    return load_engine(model_bytes(name))


def in_bf16(name: str) -> Engine:
    return load_engine(model_bytes(name), precision="bf16")


def emulated(name: str) -> Engine:
    """A network whose weights and answers of every operation are rounded to bfloat16."""
    import torch

    from anonlib.models.torch_graph import TorchGraph

    graph = TorchGraph(model_bytes(name)).to(torch.bfloat16)

    def run(piece: Batch) -> list[Batch]:
        with torch.inference_mode():
            return [out.float().numpy() for out in graph(torch.from_numpy(piece).to(torch.bfloat16))]

    return Engine("torch", [run], in_f32(name).row_shape, on_gpu=False)


def compared(images: Sequence[Pixels], names: Sequence[str], other: Load) -> list[tuple[str, str]]:
    """What each network answers in f32 and in bf16."""
    cv2.setNumThreads(1)
    rows = [("photos", f"{len(images)} of {len(set(names))} people")]
    detections: list[list[Regions]] = []
    settings: Any = {"side": DetectorConfig().side, "score": DetectorConfig().score}
    for name, kind in (("centerface", CenterFaceDetector), ("yuface", YuFaceDetector)):
        found, again = (kind(load(name), **settings).detect(images) for load in (in_f32, other))
        shared = [in_both(a, b) for a, b in zip(found, again, strict=True)]
        both, moved = sum(len(pair) for pair in shared), np.concatenate(shared)
        counts = f"{sum(map(len, found))} faces in f32, {sum(map(len, again))} in bf16, {both} in both"
        rows.append((name, f"{counts}; IoU {moved.mean():.3f}, least {moved.min():.3f}"))
        detections.append(found)
    chosen = [labelled_face(regions, image.shape[:2]) for image, regions in zip(images, detections[0], strict=True)]
    kept = [number for number, face in enumerate(chosen) if face is not None and face >= 0]
    images, people = [images[number] for number in kept], np.array(names)[kept]
    faces = [detections[0][number].rows(slice(chosen[number], chosen[number] + 1)) for number in kept]
    iris = in_f32("iris")
    meshes = [mesh.points[0] for mesh in FaceMesh(in_f32("facemesh"), iris).fit(images, faces)]
    again = [mesh.points[0] for mesh in FaceMesh(other("facemesh"), iris).fit(images, faces)]
    points = [five_points(mesh) for mesh in meshes]
    away = [np.linalg.norm(a[:, :2] - b[:, :2], axis=1).mean() / np.linalg.norm(five[0] - five[1])
            for a, b, five in zip(meshes, again, points, strict=True)]  # fmt: skip
    shares = np.percentile(away, (50, 99)) * 100
    rows.append(("facemesh", f"points move by {shares[0]:.2f} % of the eyes' distance, 99 % by {shares[1]:.2f} %"))
    eyes, blinks = (FaceMesh(in_f32("facemesh"), load("iris")).fit(images, faces) for load in (in_f32, other))
    moved = np.abs(np.concatenate([a.eyes - b.eyes for a, b in zip(eyes, blinks, strict=True)]))
    rows.append(("iris", f"numbers of gaze and lids move by {np.nanmean(moved):.4f}, at most {np.nanmax(moved):.3f}"))
    for name in RECOGNIZERS:
        first, second = (Recognizer(name, load(name)).embed(images, points) for load in (in_f32, other))
        ranks = " and ".join(f"{100 * rank_one(vectors, people):.2f} %" for vectors in (first, second))
        cosines = np.abs(first @ first.T - second @ second.T)
        rows.append(
            (name, f"rank-1 {ranks}; cosines of pairs move by {cosines.mean():.4f}, at most {cosines.max():.3f}")
        )
    readers = [read_attributes(load("age-gender"), load("expression"), images, points) for load in (in_f32, other)]
    (age, female, mood), (age2, female2, mood2) = readers
    sexes = (female > 0.5) != (female2 > 0.5)
    rows.append(("age-gender", f"ages move by {np.abs(age - age2).mean():.2f} years; {sexes.sum()} genders change"))
    rows.append(("expression", f"{(mood.argmax(1) != mood2.argmax(1)).sum()} first expressions change"))
    return rows


def in_both(first: Regions, second: Regions) -> NDArray[np.float64]:
    """The IoU of each face of `first` with its best partner in `second`, where that is SAME or more."""
    a, b = first.boxes[:, None], second.boxes[None]
    common = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(axis=2)
    areas = sum((boxes[..., 2:] - boxes[..., :2]).prod(axis=2) for boxes in (a, b))
    best = (common / np.maximum(areas - common, 1e-9)).max(axis=1, initial=0)
    return np.asarray(best[best >= SAME], np.float64)


def rank_one(vectors: NDArray[np.float32], people: NDArray[np.str_]) -> float:
    """The share of photos whose nearest other photo is of the same person, of people with several."""
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -2)
    found, counts = np.unique(people, return_counts=True)
    several = np.isin(people, found[counts > 1])
    return float((people[likeness.argmax(axis=1)] == people)[several].mean())


if __name__ == "__main__":
    app()
