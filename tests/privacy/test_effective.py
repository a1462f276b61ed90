import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_people import lookalikes, people

from anonlib.privacy import effective
from anonlib.privacy.effective import effective_k, effective_ks, people_of


def test_effective_k_counts_people_not_members() -> None:
    one, two = people(2, 5)
    assert effective_k(np.stack([one, one, two, two]), 0.999) == 2
    assert effective_k(people(0, 1), 0.9) == 0


def test_links_connect_whom_no_single_link_does() -> None:
    angles = np.radians([0, 10, 20, 90])
    templates = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    threshold = float(np.cos(np.radians(11)))
    assert people_of(templates, threshold).tolist() == [0, 0, 0, 1]


@given(st.integers(0, 200), st.floats(0.3, 0.999))
@settings(deadline=None, max_examples=40)
def test_many_groups_at_once_count_as_one_by_one(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    templates = lookalikes(60, seed) if seed % 2 else people(60, seed, 3)
    groups = np.split(rng.permutation(60), np.sort(rng.integers(1, 60, size=8)))
    groups = [group for group in groups if len(group)]
    expected = [effective_k(templates[group], threshold) for group in groups]
    assert effective_ks(templates, groups, threshold).tolist() == expected


def test_a_large_group_is_counted_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    templates = lookalikes(90, 4)
    expected = effective_k(templates, 0.99)
    monkeypatch.setattr(effective, "_ROWS", 16)
    assert effective_ks(templates, [np.arange(90), np.array([3])], 0.99).tolist() == [expected, 1]
    assert 2 <= expected < 30
