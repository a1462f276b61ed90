"""The lot is fair, keyed and repeatable, and the bound is the textbook's."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from anonlib.audit.review_sample import ReviewSample, candidates, clopper_pearson, draw_sample
from anonlib.privacy.keys import Keyring
from anonlib.storage import open_storage
from tests.support.runs import Run, manifest

KEYRING = Keyring(b"a secret of 32 bytes for the tests", "tests")


def images(count: int, shard: str = "00000") -> list[ReviewSample]:
    return [
        ReviewSample(shard, row, f"photo-{row}", "released", f"data/{shard}.tar", f"{row:064x}") for row in range(count)
    ]


def test_whoever_stops_early_has_judged_a_fair_sample_too() -> None:
    everything = images(200)
    short, long = draw_sample(everything, 20, KEYRING), draw_sample(everything, 60, KEYRING)
    assert long[:20] == short and len(set(long)) == 60
    assert draw_sample(everything, 1000, KEYRING)[:60] == long
    assert sorted(draw_sample(everything, 1000, KEYRING), key=lambda one: one.row) == everything


def test_the_order_of_the_images_changes_no_lot_and_the_secret_changes_all() -> None:
    everything = images(200)
    drawn = draw_sample(everything, 50, KEYRING)
    assert draw_sample(everything[::-1], 50, KEYRING) == drawn
    for other in (
        Keyring(b"another secret of 32 bytes, tests", "tests"),
        Keyring(KEYRING.secret, "another release"),
    ):
        assert 2 <= len(set(draw_sample(everything, 50, other)) & set(drawn)) <= 30
    same_names = {one.row for one in draw_sample(images(200, "00001"), 50, KEYRING)}
    assert same_names != {one.row for one in drawn}


def test_every_image_has_the_same_chance() -> None:
    everything = images(10)
    often = Counter(
        one.row for number in range(2000) for one in draw_sample(everything, 3, Keyring(KEYRING.secret, str(number)))
    )
    assert len(often) == 10 and all(500 < count < 700 for count in often.values())


def test_all_images_with_an_output_can_be_drawn_and_no_other(finished: Run) -> None:
    release = open_storage(str(finished.output))
    shards = [path.stem for path in sorted((finished.output / "manifest").glob("*.parquet"))]
    found = list(candidates(release, shards))
    assert [(one.key, one.status) for one in found] == [
        (row["key"], row["status"]) for row in manifest(finished.output)
    ]
    assert {one.status for one in found} == {"released", "no_face"}
    assert all(re.fullmatch("[0-9a-f]{64}", one.output_sha256) and one.path.startswith("data/") for one in found)


def test_the_bound_is_the_textbooks() -> None:
    assert clopper_pearson(0, 300) == pytest.approx(0.00994, abs=1e-5)  # the rule of three: about 3 / 300
    assert clopper_pearson(0, 100) == pytest.approx(1 - 0.05**0.01)
    assert clopper_pearson(2, 50, 0.975) == pytest.approx(0.1371, abs=1e-4)  # upper end of the two-sided 95 %
    assert clopper_pearson(0, 0) == clopper_pearson(7, 7) == 1.0


@given(st.integers(0, 400), st.integers(1, 400), st.floats(0.5, 0.999))
def test_a_share_above_the_bound_would_seldom_show_so_few(wrong: int, more: int, confidence: float) -> None:
    n = wrong + more
    upper = clopper_pearson(wrong, n, confidence)
    assert wrong / n < upper <= 1
    assert binom.cdf(wrong, n, upper) == pytest.approx(1 - confidence, rel=1e-6)


@pytest.mark.parametrize(("wrong", "n", "confidence"), [(-1, 5, 0.95), (6, 5, 0.95), (0, 5, 1.0), (0, 5, 0.0)])
def test_what_is_no_sample_has_no_bound(wrong: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="no sample"):
        clopper_pearson(wrong, n, confidence)
