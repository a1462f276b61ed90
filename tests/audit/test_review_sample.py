"""The sample is fair, keyed and repeatable."""

from __future__ import annotations

import re
from collections import Counter

from anonlib.audit.review_sample import ReviewSample, candidates, draw_sample
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
