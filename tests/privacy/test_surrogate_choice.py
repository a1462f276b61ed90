import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.privacy.keys import Keyring
from anonlib.privacy.strata import Stratum
from anonlib.privacy.surrogate_choice import averages, deal

KEYS = Keyring(b"k" * 32, "release")


def made_classes(count: int, seed: int) -> tuple[list[Stratum], list[list[int]]]:
    rng = np.random.default_rng(seed)
    kinds = [(str(rng.integers(2)), str(rng.integers(3))) for _ in range(count)]
    return kinds, [[10 * number + one for one in range(rng.integers(0, 8))] for number in range(count)]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 40), st.integers(0, 10_000))
def test_no_class_wears_a_face_that_its_own_persons_are_in(count: int, seed: int) -> None:
    kinds, donors = made_classes(count, seed)
    made = averages(kinds, donors, 5)
    worn = deal(made, kinds, [f"class {number}" for number in range(count)], KEYS)
    assert len(worn) == count
    for number, chosen in enumerate(worn):
        if chosen is not None:
            assert set(made[chosen].donors).isdisjoint(donors[number])
            alike = [one for one in made if one.kind == kinds[number] and number not in one.classes]
            assert made[chosen].kind == kinds[number] or not alike
        else:
            assert all(number in one.classes for one in made)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 40), st.integers(0, 10_000))
def test_every_surrogate_is_made_of_k_donors_of_its_kind(count: int, seed: int) -> None:
    kinds, donors = made_classes(count, seed)
    made = averages(kinds, donors, 5)
    for one in made:
        assert len(one.donors) >= 5
        assert sorted(one.donors) == sorted(donor for number in one.classes for donor in donors[number])
        assert all(kinds[number] == one.kind for number in one.classes)
    used = [donor for one in made for donor in one.donors]
    assert len(used) == len(set(used))


def test_a_lone_class_has_nothing_to_wear() -> None:
    kinds: list[Stratum] = [("female",)]
    assert deal(averages(kinds, [[0, 1, 2]], 3), kinds, ["class"], KEYS) == [None]


def test_a_class_without_another_of_its_kind_wears_one_of_a_coarser_kind() -> None:
    kinds: list[Stratum] = [("female", "age-0"), ("female", "age-1"), ("male", "age-0")]
    made = averages(kinds, [[0, 1], [2, 3], [4, 5]], 2)
    worn = deal(made, kinds, ["a", "b", "c"], KEYS)
    assert [made[one].kind for one in worn if one is not None][:2] == [kinds[1], kinds[0]]
    assert worn[2] is not None


def test_every_other_surrogate_of_the_kind_is_equally_likely() -> None:
    """The distribution of what a person wears is the same for all persons outside its donors: epsilon 0."""
    kinds: list[Stratum] = [("female",)] * 4
    made = averages(kinds, [[0, 1], [2, 3], [4, 5], [6, 7]], 2)
    seen = np.zeros((4, 4))
    runs = 3000
    for run in range(runs):
        worn = deal(made, kinds, ["a", "b", "c", "d"], Keyring(run.to_bytes(32, "big"), "release"))
        for number, chosen in enumerate(worn):
            assert chosen is not None
            seen[number, chosen] += 1
    share = seen / runs
    assert (np.diag(share) == 0).all()
    assert np.abs(share[~np.eye(4, dtype=bool)] - 1 / 3).max() < 5 * np.sqrt(2 / 9 / runs)
