"""The arithmetic of published figures: ratios within a round, faces counted once, subjects measured against labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.jobs import script

BENCHMARK = script("benchmark")


def test_ratios_are_medians_of_pairs_against_the_better_backend() -> None:
    rounds = [
        {
            "deface, onnxrt": {"images_s": 5},
            "deface, opencv": {"images_s": opencv},
            "anonlib, Ray, f32": {"images_s": ray, "images_s_ray_running": 2 * ray},
            "anonlib, serial, f32": {"images_s": serial},
            "floor, f32": {"images_s": 60},
        }
        for opencv, ray, serial in ((10, 30, 20), (1, 4, 1), (20, 60, 10))
    ]
    assert BENCHMARK.rates(rounds)["anonlib, Ray, f32"] == 30
    ratios = BENCHMARK.ratios(rounds)
    assert ratios["anonlib, Ray, f32 / deface, opencv"] == (3, 3, 4)
    assert ratios["anonlib, serial, f32 / deface, opencv"] == (0.5, 1, 2)
    assert ratios["anonlib, Ray already running, f32 / deface, opencv"] == (6, 6, 8)
    assert ratios["anonlib, Ray, f32 / floor, f32"] == (4 / 60, 0.5, 1)


def test_a_face_has_one_partner_at_most() -> None:
    box = (0, 0, 10, 10)
    assert BENCHMARK.in_both({"a": [box, box], "b": [box]}, {"a": [(1, 0, 11, 10, 0.9)], "c": [box]}) == 1
    assert BENCHMARK.in_both({"a": [box]}, {"a": [(9, 9, 19, 19, 0.9)]}) == 0
    assert BENCHMARK.in_both({"a": [box]}, {"a": [(0, 0, 10, 20)]}) == 1
    assert BENCHMARK.in_both({"a": [box], "b": []}, {"a": [], "b": [box]}) == 0


SCRIPT = script("evaluate_subjects")
NUMBERS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25)


@given(NUMBERS)
def test_bcubed_is_its_definition_and_the_truth_is_perfect(pairs: list[tuple[int, int]]) -> None:
    truth, cluster = np.array(pairs).T
    same_person, same_cluster = truth[:, None] == truth, cluster[:, None] == cluster
    both = (same_person & same_cluster).sum(axis=1)
    found = SCRIPT.bcubed(truth, cluster)
    assert found["precision"] == pytest.approx((both / same_cluster.sum(axis=1)).mean())
    assert found["recall"] == pytest.approx((both / same_person.sum(axis=1)).mean())
    above = np.triu(np.ones_like(same_person), 1)
    assert found["merged"] == (above & same_cluster & ~same_person).sum()
    assert found["split"] == (above & same_person & ~same_cluster).sum()
    assert found["f"] == pytest.approx(2 / (1 / found["precision"] + 1 / found["recall"]))
    right = SCRIPT.bcubed(truth, 7 - 3 * truth)
    assert (right["precision"], right["recall"], right["merged"], right["split"]) == (1, 1, 0, 0)


def test_a_class_is_real_if_it_hides_as_many_people_as_it_says() -> None:
    subject, truth = np.arange(6), np.array([0, 1, 2, 3, 3, 4])
    found = SCRIPT.real_classes([(0, 1, 2), (3, 4, 5)], [3, 3], subject, truth, 3)
    assert found == {"classes": 2, "effective_real": 1, "k_real": 1, "share": 0.5}
    known = SCRIPT.real_classes([(0, 1, 2), (3, 4, 5)], [3, 2], subject, truth, 3)
    assert (known["effective_real"], known["k_real"]) == (2, 1)
    nameless = SCRIPT.real_classes([(0, 1)], [2], np.array([0]), np.array([0]), 2)
    assert nameless["classes"] == 0 and np.isnan(nameless["share"])
