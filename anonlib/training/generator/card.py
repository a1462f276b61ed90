"""The model card of a trained network: what it was made of, how, what it can do, and how it fails."""

from __future__ import annotations

from typing import Any

from anonlib.synthesis.textures.ksame_net import LOOKS, MOUTHS, NetworkDecoder

_CARD = """# ksame-net

A convolutional decoder from an identity vector and a wanted look to a canonical face texture, after k-Same-Net (Meden
et al. 2018), as a residual on a linear decoder. Written by `python jobs/train_generator.py export`.

## Data and terms
- Trained on: {fitted_on}; {faces:,} faces that were frontal, uncovered, without glasses and large enough.
- Faces with a dlib cosine of {apart} or more to anybody of the evaluation's dataset were left out before training.
- Terms: {terms}. Commercial use: {commercial}. A job must accept them by name.
- The identities that `sampling` and `surrogate` draw from are {bank:,} people who do not exist, drawn from a normal
  distribution as wide as these faces'; no vector of a real person is in the file. It can still draw a face that
  resembles somebody it was trained on.

## Network
- In: a unit vector of the identity space ({dimension} numbers) and a look: {looks}.
- Out: log detail of the canonical frame, {size} x {size} px, and a neutral shape of 468 points.
- A job asks for two expressions (neutral, happy) at mouth openings {mouths}; nothing else of a photo reaches it.
- {megabytes:.1f} MB in half precision. sha256 `{digest}`.

## Training
- {steps:,} steps of {batch} scenes in {minutes:.0f} minutes on {machine}, seed {seed}, learning rate {rate:g}
  falling to none, Adam; what ships is the exponential moving average.{grown}{note}
- Objective: {weights}.
- Judges while training: dlib-resnet and mobileface (identity), age-gender, expression, and a critic trained along. They
  can be pleased more than they deserve; fr-feature and faceres never took part.

## Figures on faces kept from training
{figures}

Evaluated on people of another dataset by `python jobs/evaluate_generator.py`; the README has the table.

## Known failures
{failures}
"""

FAILURES = (
    "Skin is smoother than skin: pores, freckles and fine wrinkles are averages.",
    "Foreheads end plain at the edge of the oval; hair that falls into a face is not drawn.",
    "Glasses are never drawn.",
    "Teeth and throats of its own shine or are pale; the renderer puts the mean inside of many mouths there instead.",
    "Skin is lit as the photo's is only in the large: in hard light the face looks softer than its neck.",
    "Seven expressions were asked for in training, but only neutral and happy were common; the others are faint.",
    "Ages are those of the photos' estimates: 20 to 70 are believable, the very old are too smooth.",
)
"""What a stranger sees on sheets of the shipped weights."""


def card_of(notes: dict[str, Any], made: NetworkDecoder, size: int, apart: float, note: str = "") -> str:
    """The card (Markdown) of a run's notes (`run.json`) and the `size` bytes of network that it made.

    `note`: what else there is to say of the run.
    """
    record, settings, about = notes["record"], notes["settings"], made.about
    before = notes["grown_from"]
    grown = ""
    if before is not None:
        grown = f" Grown from {before['steps']:,} steps at half the size, {before['seconds'] / 60:.0f} minutes."
    return _CARD.format(
        fitted_on=about.fitted_on,
        faces=about.faces,
        apart=apart,
        terms=about.terms,
        commercial="yes" if about.commercial else "no",
        bank=len(made.bank.vectors),
        dimension=len(made.centre),
        looks=", ".join(LOOKS),
        size=notes["size"],
        mouths=", ".join(f"{mouth:g}" for mouth in MOUTHS),
        megabytes=size / 1e6,
        digest=made.digest,
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
        failures="\n".join(f"- {failure}" for failure in FAILURES),
    )
