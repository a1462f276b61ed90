"""Utility counts agreement where the original is sure, and every face that was given up; a pattern that survives can be
learned from a release, one that does not cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from anonlib.audit.evidence.evidence import BASELINES, CLEAR, RELEASED, Evidence
from anonlib.audit.findings import Measure
from anonlib.audit.utility import TASK_KINDS, expression_task, measures, total_variation
from anonlib.workspace.schemas import EXPRESSIONS, MESH_POINTS
from tests.support.evidence import evidence, look, looking

NAN = float("nan")


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def expressions(*names: str) -> np.ndarray:
    rows = np.full((len(names), len(EXPRESSIONS)), 0.05, np.float32)
    for row, name in zip(rows, names, strict=True):
        row[EXPRESSIONS.index(name)] = 0.7
    return rows


def meshes(count: int) -> np.ndarray:
    points = np.random.default_rng(0).normal(100, 10, (count, MESH_POINTS, 3)).astype(np.float32)
    points[:, [33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7], 0] -= 40
    return points


COUNT = 300
SEEN = {
    "female": np.tile(floats(0.95, 0.9, 0.05), 100),
    "age": np.tile(floats(30, 42, 60), 100),
    "expression": np.tile(expressions("happy", "neutral", "neutral"), (100, 1)),
    "pose": np.zeros((COUNT, 3), np.float32),
    "mesh": np.repeat(meshes(1)[:, :, :2], COUNT, axis=0),
    "sharpness": np.full(COUNT, 20, np.float32),
    "crispness": np.full(COUNT, 9, np.float32),
    "eyes": np.tile(floats(0, 0, 0.3, 0.2, 0, 0, 0.3, 0.2), (COUNT, 1)),
    "real": np.tile(floats(0.9, 0.2), (COUNT, 1)),
}


@pytest.fixture(scope="module")
def seen() -> Evidence:
    """The clear photos and the released ones say the same; under the baselines nothing can be read."""
    whole = evidence()
    for kind in (CLEAR, RELEASED):
        whole = looking(whole, kind, **SEEN)
    for kind in BASELINES:
        whole = looking(whole, kind, found=np.zeros(COUNT, bool))
    return whole


def by_name(whole: Evidence) -> dict[str, Measure]:
    return {one.name: one for one in measures(whole)}


def test_a_release_that_is_as_it_was_loses_nothing(seen: Evidence) -> None:
    found = by_name(seen)
    for name in ("faces found again", "expression kept", "gender kept", "age band kept"):
        assert (found[name].released.value, found[name].better) == (1.0, "higher"), name
    assert found["sharpness"].released.value == 1.0
    assert found["skin as sharp"].released.value is None  # boxes of 80 px say nothing of pores
    for name, share in (("called real by antispoof", 1.0), ("called real by liveness", 0.0)):
        assert (found[name].released.value, found[name].baselines[CLEAR].value) == (share, share)
    for name in (
        "landmark error",
        "yaw error",
        "pitch error",
        "roll error",
        "gaze error",
        "age error",
        "shift of gender",
        "shift of age band",
        "shift of expression",
    ):
        assert (found[name].released.value, found[name].better) == (0.0, "lower"), name


def test_what_cannot_be_read_is_lost_and_has_no_error(seen: Evidence) -> None:
    hidden = np.arange(COUNT) % 4 == 0
    gone = {name: np.where(hidden.reshape(-1, *[1] * (one.ndim - 1)), np.nan, one) for name, one in SEEN.items()}
    found = by_name(looking(seen, RELEASED, found=~hidden, **gone))
    for name in ("faces found again", "expression kept", "gender kept", "age band kept"):
        assert found[name].released.value == pytest.approx(0.75), name
        assert found[name].baselines["solid"].value == 0.0
    assert (found["yaw error"].released.value, found["yaw error"].released.count) == (0.0, 225)
    assert (found["landmark error"].baselines["solid"].value, found["landmark error"].baselines["solid"].count) == (
        None,
        0,
    )


def test_an_agreement_is_asked_of_originals_that_are_sure_and_angles_are_apart_the_short_way_round(
    seen: Evidence,
) -> None:
    female = np.resize(floats(0.9, 0.9, 0.1, 0.1, 0.6), COUNT)
    again = np.resize(floats(0.6, 0.4, 0.2, NAN, 0.6), COUNT)
    smile, other = ("happy", "neutral", "angry"), ("neutral", "neutral", "angry")
    before, after = (np.tile(expressions(*names), (100, 1)) for names in (smile, other))
    yaws = [np.resize(np.array([[yaw, 0, 0]], np.float32), (COUNT, 3)) for yaw in (179, -179)]
    whole = looking(seen, CLEAR, female=female, expression=before, pose=yaws[0])
    found = by_name(looking(whole, RELEASED, female=again, expression=after, pose=yaws[1]))
    assert (found["gender kept"].released.value, found["gender kept"].released.count) == (0.5, 240)
    assert (found["expression kept"].released.value, found["expression kept"].released.count) == (0.5, 200)
    assert found["yaw error"].released.value == 2


@pytest.mark.parametrize(
    ("before", "after", "value", "count"),
    [
        (["male"] * 10, ["female"] + ["male"] * 9, 0.1, 10),
        (["a", "b"] * 50, ["b", "a"] * 50, 0, 100),
        (["a"] * 10, ["b", "c"] * 5, 1, 10),
        (["a", "a", "b", "b"], ["a", "", "b", ""], 0, 2),
        (["a", "b"], ["", ""], None, 0),
        (["", ""], ["", ""], None, 0),
    ],
)
def test_total_variation_is_of_the_shares_of_faces_that_can_be_read(
    before: list[str], after: list[str], value: float | None, count: int
) -> None:
    found = total_variation(np.array(before), np.array(after), np.arange(len(before)))
    assert (found.value, found.count) == (value if value is None else pytest.approx(value), count)


# ---- a downstream task --------------------------------------------------------------------------------------------

SMILES = np.tile([0, 1], 120)
SURE = np.full((240, len(EXPRESSIONS)), 0.01, np.float32)
SURE[np.arange(240), [EXPRESSIONS.index(TASK_KINDS[smile]) for smile in SMILES]] = 0.94


def task(smiles: np.ndarray = SURE, **crops: np.ndarray) -> Measure:
    """60 people with four photos each, whose clear faces show `smiles`."""
    seen = {kind: replace(look(np.zeros((240, 1), np.float32)), crops=faces) for kind, faces in crops.items()}
    seen[CLEAR] = replace(seen[CLEAR], expression=smiles)
    return expression_task(evidence(subjects=np.repeat(np.arange(60), 4), looks=seen))


def drawn(smiles: np.ndarray, seed: int) -> np.ndarray:
    """Noise with a bar for a mouth, that a smile opens."""
    faces = np.random.default_rng(seed).integers(90, 130, (240, 64, 64)).astype(np.uint8)
    faces[:, 48:52, 20:44] = 30
    faces[smiles == 1, 52:60, 25:39] = 240
    return faces


def test_a_surviving_pattern_is_learned_and_tested_on_clear_faces() -> None:
    found = task(clear=drawn(SMILES, 0), released=drawn(SMILES, 1), turned=drawn(1 - SMILES, 2))
    assert (found.released.value or 0) > 0.95 and found.released.chance == 0.5
    assert (found.baselines["turned"].value or 0) < 0.05  # tested on released faces, frowns would look perfect


def test_nobody_is_tested_by_a_network_that_knows_them() -> None:
    """What tells smiles is different in each person: it can be learned by heart and not otherwise."""
    marks = np.random.default_rng(3).integers(0, 2, (60, 2, 8, 8)).repeat(8, axis=2).repeat(8, axis=3)
    crops = np.asarray(marks[np.repeat(np.arange(60), 4), SMILES] * 255, np.uint8)
    found = task(clear=crops, released=crops).released
    assert found.value == pytest.approx(0.5, abs=0.14)  # three deviations of as many throws of a coin
