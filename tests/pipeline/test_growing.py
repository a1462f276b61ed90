"""Classes over releases: they grow with the ledger, and without it an intersection gives people away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decoders import Fit
from runs import job

from anonlib.config import ConfigError, JobConfig
from anonlib.pipeline.accounts import Accounts
from anonlib.pipeline.decoding import Painter
from anonlib.pipeline.growing import decoded_crowds
from anonlib.pipeline.label_check import check_labels
from anonlib.pipeline.outfits import Wardrobe
from anonlib.pipeline.people import People
from anonlib.privacy.growth import intersections
from anonlib.privacy.keys import Keyring
from anonlib.privacy.subjects import normalized

SECRET = b"sixteen bytes or more"


def population(count: int) -> np.ndarray:
    return normalized(np.random.default_rng(7).normal(size=(count, 128)).astype(np.float32))


FACES = population(60)


def shown(numbers: list[int], release: str) -> People:
    """People by number, with the same faces whenever they are shown."""
    count = len(numbers)
    return People(
        np.arange(count),
        [f"{release}-{number}" for number in numbers],
        [f"person {number}" for number in numbers],
        FACES[numbers],
        np.array([number % 2 for number in numbers], np.float32),
        np.full(count, 30.0, np.float32),
        check_labels(FACES[:0], [], [], near=0.9, apart=0.8),
    )


def deciding(root: Path, fitted: Fit, k: int = 3, ledger: bool = True) -> JobConfig:
    method = {"name": "k-diff", "k": k, "texture": "linear", "decoder": str(fitted.path)}
    changes = {"ledger": {"uri": str(root / "ledger")}} if ledger else {}
    return job("in", root, method=method, **changes)


def released(config: JobConfig, fitted: Fit, numbers: list[int], release: str) -> tuple[Wardrobe, list[list[int]]]:
    """What a release decides, and its classes as numbers of persons that hold over releases (absent ones too)."""
    people, keyring = shown(numbers, release), Keyring(SECRET, release)
    painter = Painter(fitted.path.read_bytes(), config.method)
    accounts = Accounts.open(config, release * 8)
    persons = accounts.persons(people, keyring) if accounts else []
    wardrobe = decoded_crowds(config, people, keyring, painter, accounts, persons)
    if accounts:
        accounts.book(config, release, "k-diff", wardrobe.booked)
    everyone = [Keyring(SECRET, "").pseudonym("person", "label", f"person {number}") for number in range(60)]
    if not accounts:
        return wardrobe, [[numbers[wearer] for wearer in crowd.wearers] for crowd in wardrobe.crowds]
    of: dict[str, list[int]] = {}
    for one in wardrobe.booked:
        assert one.crowd is not None
        of.setdefault(one.crowd, []).append(everyone.index(one.person))
    return wardrobe, list(of.values())


def test_whoever_hid_together_stays_together_and_newcomers_join_or_form_classes(fitted: Fit, tmp_path: Path) -> None:
    config = deciding(tmp_path, fitted)
    _, first = released(config, fitted, list(range(30)), "aa")
    wardrobe, second = released(config, fitted, list(range(10, 60)), "bb")
    _, third = released(config, fitted, list(range(0, 60, 2)), "cc")
    assert all(any(set(old) <= set(new) for new in second) or not set(old) & set(range(10, 60)) for old in first)
    assert intersections([first, second, third], k=3) == []
    assert all(len(crowd.members) >= 3 and crowd.effective_k >= 3 for crowd in wardrobe.crowds)
    assert any(len(crowd.members) > len(crowd.wearers) for crowd in wardrobe.crowds)
    assert all(outfit.surrogates for outfit in wardrobe.outfits)


def test_without_a_ledger_the_releases_intersect_to_fewer_than_k(fitted: Fit, tmp_path: Path) -> None:
    config = deciding(tmp_path, fitted, ledger=False)
    releases = [
        released(config, fitted, numbers, name)[1]
        for numbers, name in ((list(range(30)), "aa"), (list(range(10, 60)), "bb"))
    ]
    assert intersections(releases, k=3) != []


def test_a_release_that_would_unmask_people_of_an_earlier_one_is_refused(fitted: Fit, tmp_path: Path) -> None:
    released(deciding(tmp_path, fitted, k=2), fitted, list(range(20)), "aa")
    with pytest.raises(ConfigError, match="smaller k"):
        released(deciding(tmp_path, fitted, k=4), fitted, list(range(20)), "bb")


def test_every_member_weighs_the_same_in_the_centre_that_is_decoded(fitted: Fit, tmp_path: Path) -> None:
    config = deciding(tmp_path, fitted, ledger=False)
    numbers = list(range(24))
    wardrobe, classes = released(config, fitted, numbers, "aa")
    painter = Painter(fitted.path.read_bytes(), config.method)
    for crowd, members in zip(wardrobe.crowds, classes, strict=True):
        centre = normalized(FACES[members].mean(axis=0, keepdims=True))[0]
        assert crowd.draw is not None
        assert np.allclose(crowd.draw.vector, painter.identity(centre), atol=1e-5)
        assert crowd.donors == crowd.members
