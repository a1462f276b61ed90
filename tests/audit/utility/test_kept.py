"""Utility counts agreement where the original is sure, and every face that was given up."""

from __future__ import annotations

import numpy as np
import pytest

from anonlib.audit.evidence.evidence import BASELINES, CLEAR, RELEASED, Evidence
from anonlib.audit.findings import Measure
from anonlib.audit.utility.kept import measures, mesh_error, total_variation
from anonlib.faces.mesh import five_points
from anonlib.workspace.schemas import EXPRESSIONS, MESH_POINTS
from tests.support.evidence import evidence, looking

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


def test_a_mesh_moved_by_an_eye_distance_is_off_by_one() -> None:
    before = meshes(3)
    points = np.stack([five_points(mesh) for mesh in before])
    eyes = np.linalg.norm(points[:, 1] - points[:, 0], axis=1)
    after = before.copy()
    after[:, :, 1] += eyes[:, None]
    after[:, :, 2] += 1000
    np.testing.assert_allclose(mesh_error(before, after), 1.0, rtol=1e-4)
    np.testing.assert_array_equal(mesh_error(before, before), 0.0)


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
    for name in ("faces found again", "expression kept", "expression kept, all seven", "gender kept", "age band kept"):
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
    assert found["expression kept, all seven"].released.value == pytest.approx(2 / 3)
    assert found["yaw error"].released.value == 2
    assert "two clear photos of one person: " in found["gender kept"].note


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


def test_each_distribution_is_measured(seen: Evidence) -> None:
    older = np.where(np.arange(COUNT) % 4 == 0, 80.0, SEEN["age"]).astype(np.float32)
    frown = np.tile(expressions("angry"), (COUNT, 1))
    moved = by_name(looking(seen, RELEASED, age=older, expression=frown))
    found = {name: measure.released.value for name, measure in moved.items() if name.startswith("shift")}
    assert found == {"shift of gender": 0, "shift of age band": pytest.approx(1 / 6), "shift of expression": 1}
    assert moved["shift of gender"].baselines["solid"].value is None
