"""A training run from prepared faces to the file that ships, of either network: its folder, its notes, its card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.errors import ConfigError
from anonlib.models.catalog import PIPELINE_RECOGNIZER
from anonlib.storage.local import LocalStorage
from anonlib.synthesis.base import DecoderNotes, PublicFaces
from anonlib.synthesis.feature_transfer import FeatureTransferNetwork
from anonlib.synthesis.network_file import metadata_of
from anonlib.synthesis.textures.ksame_net import LOOKS, MOUTHS, NetworkDecoder
from anonlib.synthesis.textures.linear import Decoder
from anonlib.training.data import APART, load
from anonlib.training.decoder import fit
from anonlib.training.export import feature_transfer_onnx, generator_onnx, synthetic_identities
from anonlib.training.loop import CHECKPOINT, TrainingRecord, TrainingRun, read_checkpoint
from anonlib.training.objectives.base import TrainingSettings
from anonlib.training.objectives.feature_transfer import CropSet, FeatureTransferObjective
from anonlib.training.objectives.feature_transfer_network import FeatureTransferNet
from anonlib.training.objectives.generator import GeneratorObjective
from anonlib.training.objectives.generator_network import Generator, Linear

KSAME_NET, EMBEDDING = "ksame-net", "embedding"
NOTES, BASE, BANK = "run.json", "linear.npz", "bank.npz"
DONORS = 2000
"""Faces whose spread the donors of `embedding` have."""


def train_ksame_net(
    faces: Path,
    folder: Path,
    settings: TrainingSettings,
    about: DecoderNotes,
    *,
    size: int = 128,
    grown_from: Path | None = None,
    batch: int = 16,
) -> TrainingRecord:
    """Train in `folder` on prepared `faces` until the settings' seconds are spent, all pieces together.

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
    objective = GeneratorObjective(learned, Decoder.from_bytes((folder / BASE).read_bytes()), settings, size, batch)
    if grown_from is not None and not (folder / CHECKPOINT).exists():
        _grow(objective, grown_from)
    record = TrainingRun(objective, folder, settings).train()
    smaller = None if grown_from is None else read_notes(grown_from)["record"]
    notes = {"network": KSAME_NET, "size": size, "batch": batch, "grown_from": smaller}
    _write_notes(folder, notes, about, settings, asdict(objective.weights), record)
    return record


def train_embedding(
    faces: Path, folder: Path, settings: TrainingSettings, about: DecoderNotes, *, batch: int = 8
) -> TrainingRecord:
    """Train in `folder` on prepared `faces` until the settings' seconds are spent, all pieces together."""
    crops = CropSet.of(load(faces))
    objective = FeatureTransferObjective(crops, settings, batch)
    record = TrainingRun(objective, folder, settings).train()
    np.savez(folder / BANK, **bank_of(crops))  # type: ignore[arg-type]  # mypy takes the columns for allow_pickle
    notes = {"network": EMBEDDING, "batch": batch}
    _write_notes(folder, notes, replace(about, faces=len(crops)), settings, asdict(objective.weights), record)
    return record


def bank_of(crops: CropSet) -> dict[str, NDArray[np.float32]]:
    """DONORS faces spread evenly over the data: `centre` (d,), `donors` (b, d) about it, `female` and `age` (b,)."""
    rows = np.unique(np.linspace(0, len(crops) - 1, DONORS).astype(int))
    return {
        "centre": crops.vectors[PIPELINE_RECOGNIZER].mean(axis=0),
        "donors": crops.centred[PIPELINE_RECOGNIZER][rows],
        "female": crops.female[rows],
        "age": crops.age[rows],
    }


def export(folder: Path, output: Path, note: str = "") -> NetworkDecoder | FeatureTransferNetwork:
    """Write a run's averaged network as ONNX to `output` and its card beside it, with a `note` on the run.

    Raises ConfigError without a run.
    """
    notes = read_notes(folder)
    about = DecoderNotes(**notes["about"])
    weights = read_checkpoint(folder)["average"]
    network: NetworkDecoder | FeatureTransferNetwork
    if notes["network"] == KSAME_NET:
        decoder, looks = Decoder.from_bytes((folder / BASE).read_bytes()), np.ones(len(LOOKS), np.float32)
        generator = Generator(Linear.of(decoder), looks, looks, notes["size"])
        generator.load_state_dict(weights)
        data = generator_onnx(generator, about, decoder)
        network = NetworkDecoder.from_bytes(data)
    else:
        net = FeatureTransferNet()
        net.load_state_dict(weights)
        with np.load(folder / BANK, allow_pickle=False) as bank:
            donors = synthetic_identities(PublicFaces(bank["donors"], bank["female"], bank["age"]))
            columns = {"donors": donors.vectors, "female": donors.female, "age": donors.age}
            data = feature_transfer_onnx(net, metadata_of(about, {"centre": bank["centre"]}, columns))
        network = FeatureTransferNetwork.from_bytes(data)
    storage = LocalStorage(output.parent)
    storage.publish(output.name, data)
    storage.publish(f"{output.stem}.md", card_of(notes, network, len(data), note).encode())
    return network


def card_of(notes: Mapping[str, Any], network: NetworkDecoder | FeatureTransferNetwork, size: int, note: str) -> str:
    """The card cards/NAME.md of a run's `notes` (run.json), the network of `size` bytes, and a `note` on the run."""
    record, settings, about = notes["record"], notes["settings"], network.about
    grown_from = notes.get("grown_from")
    grown = ""
    if grown_from is not None:
        minutes = grown_from["seconds"] / 60
        grown = f" Grown from {grown_from['steps']:,} steps at half the size, {minutes:.0f} minutes."
    text = resources.files("anonlib.training").joinpath(f"cards/{notes['network']}.md").read_text()
    return text.format(
        fitted_on=about.fitted_on,
        faces=about.faces,
        apart=APART,
        terms=about.terms,
        commercial="yes" if about.commercial else "no",
        identities=len(network.donors if isinstance(network, FeatureTransferNetwork) else network.bank.vectors),
        dimension=len(network.centre),
        looks=", ".join(LOOKS),
        mouths=", ".join(f"{mouth:g}" for mouth in MOUTHS),
        size=notes.get("size"),
        megabytes=size / 1e6,
        digest=network.digest,
        steps=record["steps"],
        batch=notes["batch"],
        minutes=record["seconds"] / 60,
        machine=record["machine"],
        seed=settings["seed"],
        rate=settings["rate"],
        grown=grown,
        note=f" {note}" if note else "",
        weights=", ".join(f"{name} {value:g}" for name, value in notes["weights"].items()),
        figures="\n".join(f"- {name}: {value:.3f}" for name, value in record["figures"].items()),
    )


def read_notes(folder: Path) -> dict[str, Any]:
    """The notes of a run; raises ConfigError if no piece of it is done."""
    try:
        notes: dict[str, Any] = json.loads((folder / NOTES).read_text())
    except FileNotFoundError:
        raise ConfigError(f"{folder} holds no finished piece of a training run; train there first") from None
    return notes


def _write_notes(
    folder: Path,
    notes: Mapping[str, Any],
    about: DecoderNotes,
    settings: TrainingSettings,
    weights: Mapping[str, float],
    record: TrainingRecord,
) -> None:
    facts = {"about": asdict(about), "weights": weights, "settings": asdict(settings), "record": asdict(record)}
    LocalStorage(folder).publish(NOTES, json.dumps({**notes, **facts}, indent=1).encode())


def _grow(objective: GeneratorObjective, smaller: Path) -> None:
    """Begin with the weights of a run of half the size; what it lacks stays as it was initialized."""
    state = read_checkpoint(smaller)
    lacking = objective.networks["generator"].load_state_dict(state["average"], strict=False)
    if lacking.unexpected_keys:
        raise ConfigError(f"{smaller} holds a network that does not fit: {', '.join(lacking.unexpected_keys[:3])}")
    objective.networks["critic"].load_state_dict(state["networks"]["critic"])
