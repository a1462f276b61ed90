import numpy as np
import pytest

from anonlib.privacy.strata import common, kinship, nearest_kin, prevailing


def test_kinship_counts_the_leading_parts_that_agree() -> None:
    assert kinship(("female", "old"), ("female", "young")) == 1
    assert kinship(("female", "old"), ("male", "old")) == 0
    assert kinship(("female",), ("female", "old")) == 1


def test_what_all_have_in_common_is_their_stratum() -> None:
    assert common([("female", "old"), ("female", "young")]) == ("female",)
    assert common([("female", "old")] * 3) == ("female", "old")
    assert common([("a", "x"), ("b", "x")]) == ()
    assert common([]) == ()


@pytest.mark.parametrize(
    ("stratum", "goal"), [(("female", "old"), 1), (("female", "young"), 1), (("male", "old"), 2), (("unsure",), 0)]
)
def test_kin_come_before_the_most_similar(stratum: tuple[str, ...], goal: int) -> None:
    bank = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    strata = [("male", "young"), ("female", "old"), ("male", "old")]
    assert nearest_kin(np.array([[1, 0]], np.float32), [stratum], bank, strata).tolist() == [goal]


def test_the_only_one_of_a_kind_finds_the_next_of_kin() -> None:
    bank = np.array([[1, 0], [0, 1], [1, 0.1]], np.float32)
    strata = [("female", "old"), ("female", "young"), ("male", "old")]
    assert nearest_kin(bank[:1], strata[:1], bank, strata, np.array([0])).tolist() == [1]
    assert nearest_kin(bank[2:], strata[2:], bank, strata, np.array([2])).tolist() == [0]


def test_what_prevails_is_shared_by_more_than_half_of_all() -> None:
    women = [("female", "age-0")] * 4
    assert prevailing([*women, ("unsure", "age-0")]) == ("female", "age-0")
    assert prevailing([*women, *[("female", "age-1")] * 3, ("male", "age-0")]) == ("female",)
    assert prevailing([*women, *[("male", "age-0")] * 4]) == ()
    assert prevailing([("female",), ("female", "age-0")]) == ("female",)
    assert prevailing([]) == ()
