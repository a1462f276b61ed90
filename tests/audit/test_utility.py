"""Utility counts agreement where the original is sure, and every face that was given up."""

from __future__ import annotations

import numpy as np
import pytest
from evidence import evidence, looking

from anonlib.audit.evidence import CLEAR, RELEASED
from anonlib.audit.utility import expression_kept, fallbacks, gender_kept, measure, mesh_error
from anonlib.faces.mesh import five_points
from anonlib.records import EXPRESSIONS, MESH_POINTS

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


def test_gender_is_asked_of_sure_originals_alone() -> None:
    kept = gender_kept(floats(0.9, 0.9, 0.1, 0.1, 0.6, 0.9), floats(0.6, 0.4, 0.2, 0.8, 0.6, NAN))
    np.testing.assert_array_equal(kept, [1, 0, 1, 0, NAN, NAN])


def test_expression_is_asked_of_neutral_and_happy_originals_alone() -> None:
    before = expressions("happy", "happy", "neutral", "neutral", "angry")
    after = expressions("happy", "neutral", "neutral", "sad", "angry")
    np.testing.assert_array_equal(expression_kept(before, after), [1, 0, 1, 0, NAN])


def test_an_expression_that_is_not_known_is_not_counted() -> None:
    unknown = np.full((1, len(EXPRESSIONS)), np.nan, np.float32)
    assert np.isnan(expression_kept(expressions("happy"), unknown)).all()
    assert np.isnan(expression_kept(unknown, expressions("happy"))).all()


def test_a_mesh_moved_by_an_eye_distance_is_off_by_one() -> None:
    before = meshes(3)
    points = np.stack([five_points(mesh) for mesh in before])
    eyes = np.linalg.norm(points[:, 1] - points[:, 0], axis=1)
    after = before.copy()
    after[:, :, 1] += eyes[:, None]
    after[:, :, 2] += 1000
    np.testing.assert_allclose(mesh_error(before, after), 1.0, rtol=1e-4)
    np.testing.assert_array_equal(mesh_error(before, before), 0.0)


def test_a_mesh_error_does_not_depend_on_the_size_of_the_photo() -> None:
    before = meshes(2)
    after = before + np.random.default_rng(1).normal(0, 2, before.shape).astype(np.float32)
    np.testing.assert_allclose(mesh_error(before, after), mesh_error(3 * before, 3 * after), rtol=1e-4)


def test_fallbacks_are_counted_by_reason_whatever_their_numbers() -> None:
    found = fallbacks([None, "covers only 95% of it", "covers only 9.5% of it", "hidden", None])
    assert (found.faces, found.solid, found.share) == (5, 3, 0.6)
    assert found.reasons == {"covers only N% of it": 2, "hidden": 1}
    assert np.isnan(fallbacks([]).share)


def test_what_was_not_replaced_is_not_of_use() -> None:
    replaced = np.arange(300) % 3 > 0
    before = np.repeat(meshes(1)[:, :, :2], 300, axis=0)
    eyes = float(np.linalg.norm(np.subtract(*five_points(np.pad(before[0], ((0, 0), (0, 1))))[:2])))
    after = before + np.where(replaced, 0.05, 9.0)[:, None, None] * eyes * np.array([1, 0])
    whole = looking(evidence(replaced=replaced), CLEAR, mesh=before)
    rates = measure(looking(whole, RELEASED, mesh=after.astype(np.float32), found=replaced)).rates
    assert (rates["found again"].value, rates["found again"].count) == (1.0, 200)
    assert rates["landmark error"].value == pytest.approx(0.05, rel=1e-3)
    assert rates["gender kept"].count == 0
