import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.privacy.classes import EquivalenceClass
from anonlib.privacy.ksame import class_centres, k_diff
from anonlib.privacy.subjects import normalized


def centres_of(count: int, seed: int) -> np.ndarray:
    return normalized(np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32))


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 40), st.integers(0, 10_000))
def test_no_class_wears_its_own_surrogate_and_every_dealt_one_serves_one_class(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    strata = [(str(rng.integers(2)), str(rng.integers(3))) for _ in range(count)]
    wears = k_diff(centres_of(count, seed), strata)
    assert len(wears) == count
    assert all(number not in dealt for number, dealt in enumerate(wears))
    assert all(len(set(dealt)) == len(dealt) for dealt in wears)
    if count >= 2:
        assert sorted(dealt[0] for dealt in wears) == list(range(count))
    for stratum in set(strata):
        members = [n for n in range(count) if strata[n] == stratum]
        if len(members) >= 2:
            assert sum(wears[n][0] not in members for n in members) <= 1


def test_a_lone_class_has_nothing_to_wear() -> None:
    assert k_diff(centres_of(1, 0), [("female",)]) == [()]


def test_the_dealt_surrogate_is_further_than_a_random_one() -> None:
    centres = centres_of(200, 4)
    dealt = np.array([one[0] for one in k_diff(centres, [()] * 200)])
    assert (centres * centres[dealt]).sum(axis=1).mean() < (centres * np.roll(centres, 1, axis=0)).sum(
        axis=1
    ).mean() - 0.3


def test_every_member_weighs_the_same_in_the_centre() -> None:
    templates = normalized(np.eye(4, dtype=np.float32))
    centre = class_centres(templates, [EquivalenceClass((0, 1, 2, 3), (), 4)])[0]
    assert np.allclose(centre, 0.5)
    # The defect to guard against: normalizing inside the loop gives the last member most of the weight.
    running = templates[0]
    for template in templates[1:]:
        running = normalized((running + template)[None])[0]
    assert not np.allclose(running, centre, atol=0.05)
