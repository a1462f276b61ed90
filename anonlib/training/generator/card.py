"""The model card of a trained network: what it was made of, how, what it can do, and how it fails."""

from __future__ import annotations

from typing import Any

from anonlib.synthesis.textures.network import NetworkDecoder

FAILURES = ()
"""What a stranger sees at once on sheets of the shipped weights."""


def card_of(notes: dict[str, Any], made: NetworkDecoder, size: int) -> str:
    """The card (Markdown) of a run's notes (`run.json`) and the `size` bytes of network that it made."""
    return ""
