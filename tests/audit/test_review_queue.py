"""The sample that a person judges is fair, keyed and repeatable."""

from __future__ import annotations

from anonlib.audit.review_queue import draw_sample
from anonlib.privacy.keys import Keyring

KEYRING = Keyring(b"a secret of 32 bytes for the tests", "tests")


def images(count: int, shard: str = "00000") -> list[tuple[str, int, str]]:
    return [(shard, row, f"photo-{row}") for row in range(count)]


def test_a_longer_sample_begins_with_the_shorter_one_whatever_the_order() -> None:
    short, long = draw_sample(images(200), 20, KEYRING), draw_sample(images(200)[::-1], 60, KEYRING)
    assert long[:20] == short and len(set(long)) == 60
    assert sorted(draw_sample(images(200), 1000, KEYRING)) == [(shard, row) for shard, row, _ in images(200)]


def test_a_sample_depends_on_the_secret_the_release_and_the_shard() -> None:
    drawn = {row for _, row in draw_sample(images(200), 50, KEYRING)}
    others = (Keyring(b"another secret of 32 bytes, tests", "tests"), Keyring(KEYRING.secret, "another release"))
    samples = [*(draw_sample(images(200), 50, other) for other in others), draw_sample(images(200, "1"), 50, KEYRING)]
    assert all(2 <= len({row for _, row in sample} & drawn) <= 30 for sample in samples)
