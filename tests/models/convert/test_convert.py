"""Claims about choosing a converter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anonlib.errors import ModelError
from anonlib.models.catalog import MODELS
from anonlib.models.convert import to_onnx


@pytest.mark.parametrize("name", ["facemesh", "faceres", "mobileface"])
def test_every_graph_model_asks_for_values_that_its_graph_must_have(name: str) -> None:
    empty = b'{"modelTopology": {"node": [{"op": "Placeholder", "name": "p", "attr": {"shape": {"shape": {"dim": '
    empty += b'[{"size": 1}, {"size": 8}, {"size": 8}, {"size": 3}]}}}}]}, "weightsManifest": []}'
    members = {m.path: empty for m in MODELS[name].source.members}
    with pytest.raises(ModelError, match=f"The model {name} has no value called"):
        to_onnx(MODELS[name], members)


def test_a_model_without_a_converter_is_named() -> None:
    stranger = replace(MODELS["centerface"], name="stranger")
    with pytest.raises(ValueError, match="No converter is written for the model stranger"):
        to_onnx(stranger, {m.path: b"" for m in stranger.source.members})
