from anonlib.privacy.strata import common, kinship, prevailing


def test_kinship_counts_the_leading_parts_that_agree() -> None:
    assert kinship(("female", "old"), ("female", "young")) == 1
    assert kinship(("female", "old"), ("male", "old")) == 0
    assert kinship(("female",), ("female", "old")) == 1


def test_what_all_have_in_common_is_their_stratum() -> None:
    assert common([("female", "old"), ("female", "young")]) == ("female",)
    assert common([("female", "old")] * 3) == ("female", "old")
    assert common([("a", "x"), ("b", "x")]) == ()
    assert common([]) == ()


def test_what_prevails_is_shared_by_more_than_half_of_all() -> None:
    women = [("female", "age-0")] * 4
    assert prevailing([*women, ("unsure", "age-0")]) == ("female", "age-0")
    assert prevailing([*women, *[("female", "age-1")] * 3, ("male", "age-0")]) == ("female",)
    assert prevailing([*women, *[("male", "age-0")] * 4]) == ()
    assert prevailing([("female",), ("female", "age-0")]) == ("female",)
    assert prevailing([]) == ()
