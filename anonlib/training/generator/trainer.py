"""A training run from prepared faces to the shipped file: its folder, how it grows, and what is written of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from anonlib.errors import ConfigError
from anonlib.storage.local import LocalStorage
from anonlib.synthesis.base import DecoderNotes
from anonlib.synthesis.textures.ksame_net import NetworkDecoder
from anonlib.synthesis.textures.linear import Decoder
from anonlib.training.decoder import fit
from anonlib.training.generator.batches import looks_of
from anonlib.training.generator.card import card_of
from anonlib.training.generator.export import to_onnx
from anonlib.training.generator.faces import APART, load
from anonlib.training.generator.network import Generator, Linear
from anonlib.training.generator.objective import GeneratorLossWeights, GeneratorTraining
from anonlib.training.loop import CHECKPOINT, NOTES, Record, Run, Settings, read_notes

BASE = "linear.npz"


def train(
    faces: Path,
    folder: Path,
    settings: Settings,
    about: DecoderNotes,
    size: int,
    grown_from: Path | None = None,
    batch: int = 16,
    workers: int = 1,
) -> Record:
    """Train in `folder` until the settings' seconds are spent, all pieces together.

    The linear decoder that the network starts from is fitted on the same faces first. A network of 256 px is
    `grown_from` the run of one of 128 px: it starts as that one, its last block drawing nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    learned = load(faces)
    about = replace(about, faces=len(learned))
    if not (folder / BASE).exists():
        if grown_from is not None:
            shutil.copy(grown_from / BASE, folder / BASE)
        else:
            LocalStorage(folder).publish(BASE, fit(learned.examples(), about))
    decoder = Decoder.load(folder / BASE)
    task = GeneratorTraining(learned, decoder, settings, size, batch, workers)
    if grown_from is not None and not (folder / CHECKPOINT).exists():
        _grow(task, grown_from)
    run = Run(task, folder, settings)
    look = looks_of(learned)
    notes = {
        "about": asdict(about),
        "size": size,
        "batch": batch,
        "weights": asdict(GeneratorLossWeights()),
        "settings": asdict(settings),
        "look": {"mean": look.mean(axis=0).tolist(), "spread": (look.std(axis=0) + 1e-3).tolist()},
        "grown_from": read_notes(grown_from)["record"] if grown_from is not None else None,
    }
    record = run.go()
    LocalStorage(folder).publish(NOTES, json.dumps({**notes, "record": asdict(record)}, indent=1).encode())
    return record


def export(folder: Path, output: Path, note: str = "") -> NetworkDecoder:
    """Write a run's averaged network as ONNX to `output` and its card beside it, with a `note` on the run.

    Raises ConfigError without a run.
    """
    notes = read_notes(folder)
    decoder = Decoder.load(folder / BASE)
    look = notes["look"]
    generator = Generator(
        Linear.of(decoder), np.array(look["mean"], np.float32), np.array(look["spread"], np.float32), notes["size"]
    )
    state = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
    generator.load_state_dict(state["average"])
    data = to_onnx(generator, DecoderNotes(**notes["about"]), decoder)
    storage = LocalStorage(output.parent)
    storage.publish(output.name, data)
    made = NetworkDecoder.from_bytes(data)
    storage.publish(f"{output.stem}.md", card_of(notes, made, len(data), APART, note).encode())
    return made


def _grow(task: GeneratorTraining, smaller: Path) -> None:
    """Begin with the weights of a run of half the size; what it lacks stays as it was made."""
    state = torch.load(smaller / CHECKPOINT, map_location="cpu", weights_only=True)
    lacking = task.networks["generator"].load_state_dict(state["average"], strict=False)
    if lacking.unexpected_keys:
        raise ConfigError(f"{smaller} holds a network that does not fit: {', '.join(lacking.unexpected_keys[:3])}")
    task.networks["critic"].load_state_dict(state["networks"]["critic"])
