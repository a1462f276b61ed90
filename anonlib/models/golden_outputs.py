"""Stored answers: what each publisher's own runtime says, so that a wrong model is noticed on any machine.

A sha256 says that the bytes are right, not that this machine computes right with them. So two fixed images go
through the model, and some numbers of every output are compared with stored ones. Those were not made by our
conversion: they come from TF.js and face-api (facemesh, faceres, mobileface, dlib-resnet, expression), from the
unrepaired ONNX one image at a time (centerface, fr-feature, age-gender) and from torch (face-gan). Both images
also go through alone: a graph that mixes the faces of a batch gives itself away there.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from anonlib.models.catalog import MODELS, ModelCard
from anonlib.models.runtime import Batch, Engine, prepare

# of an output's largest number; onnxruntime, OpenVINO and torch were all within 2e-5 of the publishers' runtimes
TOLERANCE = 1e-3
_PROBE_SIZE = (96, 128)  # for models that take any size
_SAMPLES = 8


def probe(model: ModelCard) -> Batch:
    """Two fixed inputs, float32 (2, C, H, W). Integer arithmetic only, so they are the same everywhere."""
    height, width = model.input.size or _PROBE_SIZE
    y, x, c = np.mgrid[0:height, 0:width, 0 : model.input.channels]
    first = (7 * y + 13 * x + 50 * c + (x * y) // 8) % 256
    second = (5 * x + 3 * y + (x * x + y * y) // 16 + 90 * c) % 256
    pixels: NDArray[np.uint8] = np.stack([first, second]).astype(np.uint8)
    if model.input.colour == "none":  # latent numbers about -2..2
        latent: Batch = (pixels.astype(np.float32) - np.float32(128)) / np.float32(64)
        return np.ascontiguousarray(latent.transpose(0, 3, 1, 2))
    return prepare(model, pixels)


def describe(outputs: tuple[Batch, ...]) -> list[dict[str, list[float]]]:
    """Per output: its shape, its largest magnitude, and some of its numbers for each of the two inputs."""
    described = []
    for output in outputs:
        rows = output.reshape(len(output), -1)
        picks = np.linspace(0, rows.shape[1] - 1, _SAMPLES).astype(int)
        described.append(
            {
                "shape": [float(d) for d in output.shape],
                "largest": [float(f"{np.abs(r).max():.6g}") for r in rows],
                "first": [float(f"{v:.6g}") for v in rows[0, picks]],
                "second": [float(f"{v:.6g}") for v in rows[1, picks]],
            }
        )
    return described


@cache
def stored() -> dict[str, list[dict[str, list[float]]]]:
    """The stored answers of all models, by name."""
    answers: dict[str, list[dict[str, list[float]]]] = json.loads(
        files("anonlib.models").joinpath("golden_outputs.json").read_text()
    )
    return answers


def disagreement(name: str, engine: Engine) -> str | None:
    """None if the engine gives the stored answer, else a sentence that says where it does not."""
    batch = probe(MODELS[name])
    outputs = engine(batch)
    singles = [engine(batch[i : i + 1]) for i in range(2)]
    said, expected = describe(outputs), stored()[name]
    if len(said) != len(expected):
        return f"The model {name} has {len(said)} outputs; {len(expected)} were stored."
    for number, (got, want) in enumerate(zip(said, expected, strict=True)):
        if got["shape"] != want["shape"]:
            return f"Output {number} of the model {name} has the shape {got['shape']}, not {want['shape']}."
        for key in ("largest", "first", "second"):
            off = np.abs(np.subtract(got[key], want[key])).max() / max(want["largest"])
            if not off <= TOLERANCE:
                return f"Output {number} of the model {name} is off its stored answer by {off:.2g}."
        alone = np.concatenate([s[number] for s in singles])
        off = np.abs(alone - outputs[number]).max() / max(want["largest"])
        if not off <= TOLERANCE:
            return f"The model {name} mixes the images of a batch: output {number} changes by {off:.2g}."
    return None
