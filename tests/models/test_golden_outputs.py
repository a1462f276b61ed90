"""Claims about the real models: every backend says here what the publisher's own runtime says."""

from __future__ import annotations

import numpy as np
import pytest

from anonlib.models import cache
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import Batch, load_engine


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_its_stored_answer_on_every_backend(name: str, backend) -> None:
    assert cache.disagreement(name, load_engine(model_bytes(name), backend=backend)) is None


@pytest.mark.parametrize("name", MODELS)
def test_the_card_tells_the_outputs_as_they_are(name: str) -> None:
    model, stored = MODELS[name], cache.stored()[name]
    assert len(model.outputs) == len(stored)
    for output, answer in zip(model.outputs, stored, strict=True):
        fixed = [d for d in output.shape if isinstance(d, int)]
        assert answer["shape"][1 : 1 + len(fixed)] == fixed


class Wrong:
    """An engine with a fault put into it."""

    backend = "wrong"

    def __init__(self, fault: str) -> None:
        self.fault, self.right = fault, load_engine(model_bytes("mobileface"))

    def __call__(self, batch: Batch) -> tuple[Batch, ...]:
        (out,) = self.right(batch)
        if self.fault == "off":
            return (out * np.float32(1.01),)
        if self.fault == "mixed":
            return (out if len(batch) == 2 else out[:, ::-1],)
        if self.fault == "nan":
            return (out * np.float32("nan"),)
        return (out[:, :100],) if self.fault == "short" else (out, out)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("off", "is off its stored answer by"),
        ("nan", "is off its stored answer by nan"),
        ("mixed", "mixes the images of a batch"),
        ("short", "has the shape"),
        ("twice", "has 2 outputs; 1 were stored"),
    ],
)
def test_every_kind_of_wrong_answer_is_told_in_a_sentence(fault: str, said: str) -> None:
    sentence = cache.disagreement("mobileface", Wrong(fault))
    assert sentence is not None and said in sentence
