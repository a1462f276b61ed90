import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from made_people import lookalikes, people

from anonlib.privacy.effective import effective_ks
from anonlib.privacy.microaggregation import microaggregate
from anonlib.privacy.settle import settled


@given(st.integers(2, 5), st.integers(1, 120), st.integers(0, 1000), st.floats(0.4, 0.999))
@settings(deadline=None, max_examples=80)
def test_whatever_the_lookalikes_a_group_holds_k_to_2k_minus_1_people_or_none_does(
    k: int, count: int, seed: int, same_person: float
) -> None:
    templates = (lookalikes if seed % 2 else people)(max(count, k), seed)
    groups, given_up = settled(
        templates, microaggregate(templates, k), [()] * len(templates), k=k, same_person=same_person
    )
    held = [subject for group in groups for subject in group.tolist()]
    assert sorted(held + given_up) == list(range(len(templates)))
    assert len(given_up) in (0, len(templates))
    found = effective_ks(templates, groups, same_person)
    assert ((found >= k) & (found < 2 * k)).all()
    # The other way round it need not be: two subjects of a group may be alike through somebody outside it only.
    assert not given_up or effective_ks(templates, [np.arange(len(templates))], same_person)[0] < k


def test_a_group_that_parts_leaves_no_person_in_two_parts() -> None:
    singles = people(8, 3)
    templates = np.concatenate([singles, singles])
    groups, _ = settled(templates, [np.arange(16)], [()] * 16, k=3, same_person=0.999)
    assert len(groups) > 1
    for group in groups:
        assert {(subject + 8) % 16 for subject in group.tolist()} == set(group.tolist())


def test_a_group_with_a_fixed_subject_stays_whole() -> None:
    fixed = np.zeros(12, bool)
    fixed[5] = True
    groups, _ = settled(people(12, 1), [np.arange(12)], [()] * 12, k=3, same_person=0.999, fixed=fixed)
    assert [group.tolist() for group in groups] == [list(range(12))]


def test_a_short_group_joins_its_kin_before_the_most_similar() -> None:
    one, two, three = np.eye(3, dtype=np.float32)
    near = np.stack([one, one, one + 0.3 * two, one + 0.3 * three, two, three])
    templates = near / np.linalg.norm(near, axis=1, keepdims=True)
    strata = [("female",)] * 2 + [("male",)] * 2 + [("female",)] * 2
    pairs = [np.array([0, 1]), np.array([2, 3]), np.array([4, 5])]
    groups, _ = settled(templates, pairs, strata, k=2, same_person=0.99)
    assert sorted(group.tolist() for group in groups) == [[0, 1, 4, 5], [2, 3]]
