"""The model card of a trained network: its text stands in cards/NAME.md, what a run measured is filled in here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from anonlib.synthesis.feature_transfer import FeatureTransferNetwork
from anonlib.synthesis.textures.ksame_net import LOOKS, MOUTHS, NetworkDecoder
from anonlib.training.data import APART


def card_of(notes: Mapping[str, Any], network: NetworkDecoder | FeatureTransferNetwork, size: int, note: str) -> str:
    """The card (Markdown) of a run's `notes` (run.json), the network of `size` bytes, and a `note` on the run."""
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
