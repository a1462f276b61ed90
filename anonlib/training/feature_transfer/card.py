"""The model card of `embedding`: what it was made of, how, what it can do, and how it fails."""

from __future__ import annotations

from typing import Any

from anonlib.synthesis.feature_transfer import FeatureTransferNetwork

FAILURES = (
    "People recognize the face: it is the same person with altered features. The method claims nothing.",
    "Up close it shows here and there: the shadow of a donor's moustache, brows too heavy, lids and noses too hard.",
    "What is left of rims of glasses, and lips of an open mouth that were moved, look drawn.",
    "Recognizers that nobody tried may see through it, and so may one that is trained on its outputs.",
    "Turned heads change less than frontal ones, so more of them fall back to the flat ellipse.",
)
"""What a stranger sees at once on sheets of the shipped weights, and what was not measured."""


def card_of(notes: dict[str, Any], made: FeatureTransferNetwork, size: int, note: str = "") -> str:
    """The card (Markdown) of a run's notes (`run.json`), the `size` bytes of file it made, and a `note` on the run."""
    record, settings, weights = notes["record"], notes["settings"], notes["weights"]
    about = made.about
    figures = record["figures"].items()
    return "\n".join(
        [
            "# embedding",
            "",
            "A U-Net that tints and moves the px of an aligned face crop (128 px) along the way from a person to a",
            "donor, so that recognizers read the donor's features (after Hanawa et al. 2024). It ships with",
            f"{len(made.donors):,} donors who do not exist: vectors as wide as the training data's.",
            "",
            f"- Trained on: {about.fitted_on}; {about.faces:,} faces.",
            f"- Terms: {about.terms}" + ("" if about.commercial else " (a job must accept them: `embedding`)") + ".",
            f"- Run: {record['steps']:,} steps of the loop in {record['seconds'] / 60:.0f} minutes on "
            f"{record['machine']}; seed {settings['seed']}, rate {settings['rate']:g}.",
            f"- Loss: {', '.join(f'{name} {value:g}' for name, value in weights.items())}."
            + (f" {note}" if note else ""),
            "- Identity by dlib-resnet and mobileface, looks by expression; fr-feature and faceres took no part.",
            f"- File: {size / 1e6:.1f} MB, half precision, sha256 {made.digest}.",
            "",
            "On faces that it was not trained on, cosines about each recognizer's centre:",
            "",
            *(f"- {name}: {value:.2f}" for name, value in figures if name != "dB"),
            f"- the photo is kept to {record['figures'].get('dB', 0):.1f} dB inside the face",
            "",
            "Known failures:",
            "",
            *(f"- {one}" for one in FAILURES),
            "",
        ]
    )
