"""A recognizer that took part is never called held out; one that did not, always."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest

from anonlib.audit.attacks.recognizers_used import TRAINED_WITH, used_by
from anonlib.config import STILL_RECOGNIZED
from tests.support.runs import job

PIPELINE = {"dlib-resnet", "faceres"}


@pytest.mark.parametrize(
    ("method", "used"),
    [
        ({"name": "solid"}, set()),
        ({"name": "blur"}, set()),
        ({"name": "k-diff"}, PIPELINE),
        ({"name": "k-same", "texture": "ksame-net"}, {*PIPELINE, "mobileface"}),
        ({"name": "dp-uniform", "texture": "ksame-net"}, {*PIPELINE, "mobileface"}),
        ({"name": "dp-uniform", "decoder": "faces.npz"}, PIPELINE),
        ({"name": "embedding", "accept": STILL_RECOGNIZED}, {*PIPELINE, "mobileface"}),
    ],
)
def test_what_a_method_used(method: dict[str, Any], used: set[str]) -> None:
    assert used_by(job("in", "s3://bucket/tests", method=method, secret={"env": "SECRET"})) == used


@pytest.mark.parametrize("card", ["shipped/ksame-net.md", "shipped/feature-transfer.md"])
def test_the_model_cards_say_so_too(card: str) -> None:
    text = " ".join(resources.files("anonlib.synthesis").joinpath(card).read_text().split())
    assert f"{TRAINED_WITH[0]} and {TRAINED_WITH[1]}" in text
    assert "fr-feature and faceres never took part" in text or "fr-feature and faceres took no part" in text
