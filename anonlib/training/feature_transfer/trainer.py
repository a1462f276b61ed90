"""A training run of `embedding` from prepared faces to the file that ships: its folder, its donors, its card."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from anonlib.models.fetch import model_bytes
from anonlib.storage.local import LocalStorage
from anonlib.synthesis.base import DecoderNotes
from anonlib.synthesis.feature_transfer import FeatureTransferNetwork, notes_of
from anonlib.synthesis.textures.ksame_net import BankVectors
from anonlib.training.feature_transfer.card import card_of
from anonlib.training.feature_transfer.data import CropSet
from anonlib.training.feature_transfer.export import to_onnx
from anonlib.training.feature_transfer.network import FeatureTransferNet
from anonlib.training.feature_transfer.objective import (
    LOOKS,
    READERS,
    FeatureTransferLossWeights,
    FeatureTransferTraining,
)
from anonlib.training.generator.faces import load
from anonlib.training.loop import CHECKPOINT, NOTES, Record, Run, Settings, read_notes
from anonlib.training.synthetic_identities import nobodies

BANK = "bank.npz"
DONORS = 2000


def train(faces: Path, folder: Path, settings: Settings, about: DecoderNotes, batch: int = 8) -> Record:
    """Train in `folder` until the settings' seconds are spent, all pieces together."""
    learned = CropSet.of(load(faces))
    models = {name: model_bytes(name) for name in (*READERS, LOOKS)}
    run = Run(FeatureTransferTraining(learned, models, settings, batch=batch), folder, settings)
    record = run.go()
    keep(folder, learned, replace(about, faces=len(learned)), settings, record)
    return record


def keep(folder: Path, faces: CropSet, about: DecoderNotes, settings: Settings, record: Record) -> None:
    """Write what an export needs beside the checkpoint: the donors, and what the card tells."""
    donors = bank_of(faces)
    np.savez(folder / BANK, **donors)  # type: ignore[arg-type]  # mypy takes the columns for allow_pickle
    notes = {
        "about": asdict(about),
        "weights": asdict(FeatureTransferLossWeights()),
        "settings": asdict(settings),
        "record": asdict(record),
    }
    LocalStorage(folder).publish(NOTES, json.dumps(notes, indent=1).encode())


def bank_of(faces: CropSet) -> dict[str, NDArray[np.float32]]:
    """DONORS faces spread evenly over the data: `centre` (d,), `donors` (b, d) about it, `female` and `age` (b,)."""
    first = READERS[0]
    rows = np.unique(np.linspace(0, len(faces) - 1, DONORS).astype(int))
    return {
        "centre": faces.centres()[first],
        "donors": faces.centred()[first][rows],
        "female": faces.female[rows],
        "age": faces.age[rows],
    }


def export(folder: Path, output: Path, note: str = "") -> FeatureTransferNetwork:
    """Write a run's averaged network to `output` and its card beside it, with a `note` on the run.

    Raises ConfigError without a run.
    """
    notes = read_notes(folder)
    net = FeatureTransferNet()
    net.load_state_dict(torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)["average"])
    with np.load(folder / BANK, allow_pickle=False) as bank:
        donors = nobodies(BankVectors(bank["donors"], bank["female"], bank["age"]))
        own = {"centre": bank["centre"], "donors": donors.vectors, "female": donors.female, "age": donors.age}
    data = to_onnx(net, notes_of(DecoderNotes(**notes["about"]), **own))
    storage = LocalStorage(output.parent)
    storage.publish(output.name, data)
    made = FeatureTransferNetwork.from_bytes(data)
    storage.publish(f"{output.stem}.md", card_of(notes, made, len(data), note).encode())
    return made
