"""Claims about the real models: every backend says here what the publisher's own runtime says.

How packages are converted has no test beside these: `anonlib models pull` refuses what has another sha256 than
catalog.toml says.
"""

from __future__ import annotations

import numpy as np
import pytest

from anonlib.models import cache
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import Batch, Engine, load_engine


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_its_stored_answer_on_every_backend(name: str, backend) -> None:
    assert cache.disagreement(name, load_engine(model_bytes(name), backend=backend)) == ""


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda out: (out * np.float32(1.01),), "is off its stored answer by"),
        (lambda out: (out * np.float32("nan"),), "is off its stored answer by nan"),
        (lambda out: (out if len(out) == 2 else out[:, ::-1],), "mixes the images of a batch"),
    ],
    ids=["off", "nan", "mixed"],
)
def test_every_kind_of_wrong_answer_is_told_in_a_sentence(fault, sentence: str, monkeypatch) -> None:
    right = load_engine(model_bytes("mobileface"))
    whole = Engine.__call__

    def wrong(engine: Engine, batch: Batch) -> tuple[Batch, ...]:
        return fault(*whole(engine, batch))

    monkeypatch.setattr(Engine, "__call__", wrong)
    assert sentence in cache.disagreement("mobileface", right)


def test_centerface_takes_every_multiple_of_32() -> None:
    engine = load_engine(model_bytes("centerface"))
    for height, width in ((64, 96), (32, 160)):
        maps = engine(np.zeros((2, 3, height, width), dtype=np.float32))
        assert [m.shape for m in maps] == [(2, channels, height // 4, width // 4) for channels in (1, 2, 2, 10)]
