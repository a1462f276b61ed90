"""Whether a face of a clip shows in its release: `python jobs/evaluate_clips.py make PORTRAITS FOLDER`, then `look`.

`make` paints clips of portraits that pan, zoom, turn, leave and come back, cross each other, are cut, in the dark and
blurred, and writes where each face is. `look` counts the frames of released clips (of anonlib or of any other tool,
under the same names) in which a detector, at a low score, finds a face at such a place, in which a recognizer takes it
for the portrait's at LFW's FAR 1e-3, and in which px of the original are left. A new face may be like a portrait by
chance, since a recognizer finds some strangers alike. So `look` also says in how many of these frames a face is like
the portrait of another clip, the mean of all other clips: what of the first number lies above that is of the person.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from anonlib.config import ClipConfig, DetectorConfig, LimitsConfig, load_config
from anonlib.datasets import open_input
from anonlib.faces.detect import Finder, open_detector
from anonlib.faces.embed import THRESHOLDS, Recognizer
from anonlib.faces.original import face_core, is_original
from anonlib.faces.regions import overlaps
from anonlib.media.clip import ClipInfo, read_frames
from anonlib.media.clip_writer import clip_writer
from anonlib.media.codec import Picture
from anonlib.media.prefetch import try_to_read
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from anonlib.terminal import guarded, print_rows

KINDS = ("pan", "zoom", "turn", "leave", "cross", "cut", "dark", "blur")
DETECTORS, RECOGNIZERS = ("centerface", "yuface"), ("dlib-resnet", "faceres")
WIDTH, HEIGHT, RATE, FRAMES = 640, 360, 12, 24
COUNTED = ("with a face", "found", "alike", "like another", "left")
LOW = 0.15
"""The score from which `look` counts a detection; jobs take .4."""
_AT = 0.3  # IoU from which a detection is of a painted face
_SEEN = 0.5  # share of a face that lies in the frame and before no other, from which it counts as shown
_HEAD = 1.1  # half the side of what is cut out of a portrait, in sides of its face's box

Pixels = NDArray[np.uint8]
Box = NDArray[np.float32]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def make(
    portraits: Annotated[str, typer.Argument(help="A dataset of photos with one face each.")],
    folder: Annotated[Path, typer.Argument(help="Where clips/KIND-NUMBER.mp4 and truth.json are written.")],
    each: Annotated[int, typer.Option(help="Clips of each kind.")] = 5,
) -> None:
    """Paint clips with known faces."""
    with guarded():
        (folder / "clips").mkdir(parents=True)
        heads, truth = _heads(portraits, 2 * each * len(KINDS)), {}
        for number, kind in enumerate(kind for kind in KINDS for _ in range(each)):
            name, pair = f"{kind}-{number % each}.mp4", heads[2 * number : 2 * number + 2]
            truth[name] = _painted(folder / "clips" / name, kind, pair, number)
            for person, (picture, box, _) in enumerate(pair):
                cv2.imwrite(str(folder / f"{Path(name).stem}-{person}.png"), picture[..., ::-1])
                truth[name][f"portrait {person}"] = box.tolist()
        (folder / "truth.json").write_text(json.dumps(truth))


def _heads(uri: str, most: int) -> list[tuple[Pixels, Box, Pixels]]:
    """Portraits, the box of the face of each, and a soft mask of its head."""
    places = {"output.uri": "/nowhere/output", "workspace.uri": "/nowhere/workspace"}
    job = load_config(overrides={"input.uri": uri, **places})
    dataset, detector, found = open_input(job), open_detector(DetectorConfig(score=0.6)), []
    for sample in (sample for shard in dataset.shards() for sample in dataset.read(shard)):
        picture = try_to_read(sample, job)
        if not isinstance(picture, Picture) or len(faces := detector.detect([picture.rgb])[0]) != 1:
            continue
        box = faces.boxes[0]
        centre, half = (box[:2] + box[2:]) / 2, _HEAD * (box[2:] - box[:2])
        mask = np.zeros(picture.rgb.shape[:2], np.uint8)
        cv2.ellipse(mask, (centre.tolist(), (1.5 * half).tolist(), 0.0), 255, -1)
        found.append((picture.rgb, box, np.asarray(cv2.GaussianBlur(mask, (0, 0), 6))))
        if len(found) == most:
            return found
    raise typer.BadParameter(f"{uri} has {len(found)} portraits with one face, {most} are needed")


def _placed(kind: str, time: float, person: int) -> tuple[float, float, float, float, float] | None:
    """Where a head is at a time from 0 to 1: its middle, the height of its face's box in px, its roll in degrees, and
    how narrow it is; None where it is not painted."""
    swing = float(np.sin(2 * np.pi * time))
    if kind != "cross" and person != (kind == "cut" and time >= 0.5):
        return None
    match kind:
        case "pan":
            return 100 + 440 * time, 180, 120, 0, 1
        case "zoom":
            return 320, 180, 30 + 170 * time, 0, 1
        case "turn":
            return 320, 180, 140, 30 * swing, float(np.cos(np.radians(50 * swing)))
        case "leave":
            return 320 + 480 * float(np.sin(np.pi * time)), 180, 130, 0, 1
        case "cross":
            return (80 + 480 * time, 170, 100, 0, 1) if person == 0 else (560 - 480 * time, 190, 140, 0, 1)
    return 300 + 40 * swing, 180, 60 if kind == "blur" else 130, 0, 1


def _painted(path: Path, kind: str, heads: list[tuple[Pixels, Box, Pixels]], seed: int) -> dict[str, Any]:
    """Write a clip; the boxes of the faces that show in each frame, by person."""
    random = np.random.default_rng(seed)
    wall = cv2.resize(random.integers(60, 180, (5, 9, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    one, rate = Fraction(1), Fraction(RATE)
    length = Fraction(FRAMES, RATE)
    info = ClipInfo(
        WIDTH, HEIGHT, FRAMES, rate, 1 / rate, one, 0 * one, length, (1, 1, 1), "mp4", "h264", False, (), ()
    )
    boxes: list[dict[str, list[float]]] = []
    with clip_writer(path, info, None, ClipConfig(), LimitsConfig()) as writer:
        for number in range(FRAMES):
            frame, time = np.asarray(wall, np.float64), number / (FRAMES - 1)
            here: dict[str, list[float]] = {}
            for person, (picture, box, mask) in enumerate(heads):
                if (place := _placed(kind, time, person)) is None:
                    continue
                x, y, size, roll, narrow = place
                scale = size / float(box[3] - box[1])
                centre = (box[:2] + box[2:]) / 2
                turn = cv2.getRotationMatrix2D(centre.tolist(), roll, scale)
                turn[:, 2] += np.array([x, y]) - centre
                turn[0] = turn[0] * narrow + [0, 0, x * (1 - narrow)]
                corners = np.array([[box[i], box[j]] for i in (0, 2) for j in (1, 3)]) @ turn[:, :2].T + turn[:, 2]
                shown = np.concatenate([corners.min(axis=0), corners.max(axis=0)]).astype(np.float32)
                warped = [cv2.warpAffine(of, turn, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR) for of in (picture, mask)]
                alpha = warped[1][..., None] / 255
                frame = frame * (1 - alpha) + warped[0] * alpha
                here = {name: other for name, other in here.items() if _share(np.array(other), shown) < 1 - _SEEN}
                if _share(shown, np.array([0, 0, WIDTH, HEIGHT], np.float32)) >= _SEEN:
                    here[str(person)] = shown.tolist()
            if kind == "dark":
                level = 0.12 + 0.88 * abs(1 - 2 * time)
                frame = frame * level + random.normal(0, 3, frame.shape)
            if kind == "blur":
                frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), 0.1 + 4 * time), np.float64)
            writer.write(np.clip(frame, 0, 255).astype(np.uint8), number / rate)
            boxes.append(here)
    return {"frames": boxes}


def _share(box: Box, other: Box) -> float:
    """The share of a box (4,) that lies in another."""
    sides = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)
    return float(sides.prod() / np.prod(box[2:] - box[:2]))


@app.command()
def look(
    folder: Annotated[Path, typer.Argument(help="What `make` wrote.")],
    released: Annotated[list[Path], typer.Argument(help="Folders of released clips under the same names.")],
    every: Annotated[int, typer.Option(help="Look at one frame in this many.")] = 1,
) -> None:
    """Print for each folder how many frames show a face, and an original one, of how many that have one, by kind."""
    with guarded():
        truth = json.loads((folder / "truth.json").read_text())
        finders = [open_detector(DetectorConfig(name=name, score=LOW)) for name in DETECTORS]
        recognizers = [Recognizer(name, load_engine(model_bytes(name))) for name in RECOGNIZERS]
        # The vectors (clips, d) of the portraits of each person, of each recognizer.
        sources = {
            person: [
                np.stack(vectors)
                for vectors in zip(
                    *(_source(folder / f"{Path(name).stem}-{person}.png", finders[0], recognizers) for name in truth),
                    strict=True,
                )
            ]
            for person in "01"
        }
        for place in released:
            counts: Counter[tuple[str, str]] = Counter()
            for number, (name, known) in enumerate(truth.items()):
                kind, seen = name.partition("-")[0], {n: known["frames"][n] for n in range(0, FRAMES, every)}
                paths = place / name, folder / "clips" / name
                counts += _looked(*paths, kind, seen, sources, number, finders, recognizers)
            rows = [(str(place), "")]
            for kind in (*KINDS, "all"):
                of = KINDS if kind == "all" else (kind,)
                shown, found, alike, other, left = (sum(counts[one, what] for one in of) for what in COUNTED)
                words = f"frames with a face {shown:.0f}, one is found in {found:.0f}"
                words += f", one like the portrait in {alike:.0f} (like another's: {other:.1f})"
                rows.append((kind, f"{words}, px of the original in {left:.0f}"))
            print_rows(rows)


def _source(path: Path, finder: Finder, recognizers: list[Recognizer]) -> list[NDArray[np.float32]]:
    """The vector of a portrait by each recognizer."""
    picture = np.asarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), np.uint8)
    face = finder.detect([picture])[0]
    points = [face.landmarks[int(face.scores.argmax())]]
    return [recognizer.embed([picture], points)[0] for recognizer in recognizers]


def _looked(
    path: Path,
    clear: Path,
    kind: str,
    truth: dict[int, dict[str, list[float]]],
    sources: dict[str, list[NDArray[np.float32]]],
    own: int,
    finders: list[Finder],
    recognizers: list[Recognizer],
) -> dict[tuple[str, str], float]:
    """Frames of a clip with a face, with one that is found at its place, with one that a recognizer takes for the
    portrait's, with one that it takes for another clip's (the mean of all), and with px of the `clear` clip's.

    `sources`: of each person the vectors (clips, d) of the portraits of all clips, by each recognizer; this one is the
    clip `own`.
    """
    counts: dict[tuple[str, str], float] = defaultdict(float)
    both = (chain.from_iterable(read_frames(of, LimitsConfig())) for of in (clear, path))
    for before, frame in zip(*both, strict=True):
        faces = truth.get(frame.index)
        if not faces:
            continue
        counts[kind, "with a face"] += 1
        found = left = False
        alike = np.zeros(len(next(iter(sources.values()))[0]), np.bool_)
        for box in faces.values():
            core = face_core((HEIGHT, WIDTH), np.array(box, np.float32), None)
            left |= is_original(before.rgb, frame.rgb, core) is True
        for regions in (finder.detect([frame.rgb])[0] for finder in finders):
            for person, box in faces.items():
                at = np.flatnonzero(overlaps(regions.boxes, np.array(box, np.float32)) >= _AT)
                found |= len(at) > 0
                for recognizer, portraits in zip(recognizers, sources[person], strict=True) if len(at) else ():
                    vectors = recognizer.embed([frame.rgb] * len(at), [regions.landmarks[row] for row in at])
                    alike |= (vectors @ portraits.T >= THRESHOLDS[recognizer.name]).any(axis=0)
        counts[kind, "found"] += found
        counts[kind, "alike"] += alike[own]
        counts[kind, "like another"] += np.delete(alike, own).mean() if len(alike) > 1 else 0.0
        counts[kind, "left"] += left
    return counts


if __name__ == "__main__":
    app()
