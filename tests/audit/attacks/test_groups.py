"""Groups hold the photos that their names say, each photo at most once a kind."""

from __future__ import annotations

import numpy as np

from anonlib.audit.attacks.groups import groups_of
from anonlib.audit.evidence.evidence import CLEAR, Evidence
from tests.support.evidence import evidence, looking


def known(count: int = 300) -> Evidence:
    number = np.arange(count)
    pose = np.zeros((count, 3), np.float32)
    pose[:, 0] = np.resize([0, -10, 14.9, 15, -20, 30, -31, 80], count)
    whole = evidence(eye_distance=(20 + number).astype(np.float32))
    return looking(
        whole,
        CLEAR,
        female=np.resize([0.1, 0.4, 0.5, 0.9], count).astype(np.float32),
        age=np.resize([20, 29.9, 30, 50, 50.1, 80], count).astype(np.float32),
        pose=pose,
    )


def test_every_photo_is_in_one_group_of_each_kind_and_in_the_right_one() -> None:
    groups = groups_of(known())
    for kind in ("gender", "age", "pose", "size"):
        assert (sum(rows.astype(int) for by, _, rows in groups if by == kind) == 1).all()
    named = {name: rows for _, name, rows in groups}
    assert named["female"][:4].tolist() == [False, False, True, True]
    assert named["under 30"][:6].tolist() == [True, True, False, False, False, False]
    assert named["over 50"][:6].tolist() == [False, False, False, False, True, True]
    assert named["frontal"][:8].tolist() == [True, True, True, False, False, False, False, False]
    assert named["turned over 30 degrees"][:8].tolist() == [False] * 6 + [True, True]


def test_sizes_are_thirds_and_say_their_px() -> None:
    sizes = {name: rows for by, name, rows in groups_of(known()) if by == "size"}
    assert list(sizes) == ["eyes under 120 px apart", "eyes 120 to 219 px apart", "eyes over 219 px apart"]
    assert [int(rows.sum()) for rows in sizes.values()] == [100, 100, 100]


def test_what_is_not_known_is_in_no_group() -> None:
    groups = groups_of(evidence(eye_distance=np.full(300, np.nan, np.float32)))
    assert {by for by, _, _ in groups} == {"gender", "age", "pose"}
    assert not any(rows.any() for _, _, rows in groups)
