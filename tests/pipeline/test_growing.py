"""Classes over releases: they grow with the ledger, and without it an intersection gives people away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decoders import Fit
from runs import job

from anonlib.config import JobConfig
from anonlib.pipeline.accounts import Accounts
from anonlib.pipeline.decoding import Painter
from anonlib.pipeline.growing import decoded_crowds
from anonlib.pipeline.label_check import check_labels
from anonlib.pipeline.outfits import Wardrobe
from anonlib.pipeline.people import People
from anonlib.privacy.growth import intersections
from anonlib.privacy.keys import Keyring
from anonlib.privacy.subjects import normalized

SECRET = b"thirty-two bytes or more of a secret"


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


def deciding(root: Path, fitted: Fit, k: int = 3, ledger: bool = True, absences: str = "known") -> JobConfig:
    method = {"name": "k-diff", "k": k, "texture": "linear", "decoder": str(fitted.path)}
    changes = {"ledger": {"uri": str(root / "ledger"), "absences": absences}} if ledger else {}
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
    everyone = [keyring.person("label", f"person {number}") for number in range(60)]
    if not accounts:
        return wardrobe, [[numbers[wearer] for wearer in crowd.wearers] for crowd in wardrobe.crowds]
    of: dict[str, list[int]] = {}
    for one in wardrobe.booked:
        assert one.crowd is not None
        of.setdefault(one.crowd, []).append(everyone.index(one.person))
    return wardrobe, list(of.values())


def dressed(wardrobe: Wardrobe, numbers: list[int]) -> set[int]:
    """The persons who wear a face; the others are redacted."""
    return {number for number, outfit in zip(numbers, wardrobe.outfits, strict=True) if outfit.surrogates}


@pytest.mark.parametrize("absences", ["known", "unknown"])
def test_over_releases_everybody_shown_keeps_k_candidates_and_old_classes_stay(
    fitted: Fit, tmp_path: Path, absences: str
) -> None:
    config = deciding(tmp_path, fitted, absences=absences)
    present = [list(range(30)), list(range(10, 60)), list(range(0, 60, 2))]
    found = [released(config, fitted, numbers, name) for numbers, name in zip(present, ("aa", "bb", "cc"), strict=True)]
    releases = [classes for _, classes in found]
    known = absences == "known"
    assert intersections(releases, [set(one) for one in present], k=3, absences_known=known) == []
    worn = [dressed(wardrobe, numbers) for (wardrobe, _), numbers in zip(found, present, strict=True)]
    assert len(worn[0]) == 30 and worn[1] >= set(range(30, 60)), "newcomers form classes of their own"
    for classes, wearing in zip(releases, worn, strict=True):
        assert wearing == wearing & {person for members in classes for person in members}
    for one, later in ((0, 1), (0, 2), (1, 2)):
        for old in releases[one]:
            homes = [new for new in releases[later] if set(old) & set(new)]
            assert len(homes) <= 1 and all(set(old) <= set(new) for new in homes), "an old class parted"
    for wardrobe, _ in found:
        assert all(crowd.effective_k >= 3 for crowd in wardrobe.crowds)
        if known:
            assert all(len(crowd.wearers) == len(crowd.members) >= 3 for crowd in wardrobe.crowds), (
                "an absent one counts"
            )
    assert known or any(len(crowd.members) > len(crowd.wearers) for crowd in found[1][0].crowds)


def test_two_of_a_class_of_old_are_redacted_unless_nobody_can_know_who_is_absent(fitted: Fit, tmp_path: Path) -> None:
    for absences, expected in (("known", set()), ("unknown", {0, 1})):
        config = deciding(tmp_path / absences, fitted, absences=absences)
        first, _ = released(config, fitted, list(range(24)), "aa")
        assert len(dressed(first, list(range(24)))) == 24
        second, booked = released(config, fitted, [0, 1], "bb")
        assert dressed(second, [0, 1]) == expected
        assert [bool(crowd.members) for crowd in second.crowds] == [True] * len(booked)
        assert all(outfit.reason or outfit.surrogates for outfit in second.outfits)


def test_a_lone_newcomer_waits_and_those_who_are_k_form_a_class(fitted: Fit, tmp_path: Path) -> None:
    config = deciding(tmp_path, fitted)
    _, first = released(config, fitted, list(range(24)), "aa")
    alone, second = released(config, fitted, [*range(24), 24], "bb")
    assert 24 not in dressed(alone, [*range(24), 24]) and sorted(map(sorted, second)) == sorted(map(sorted, first))
    later = [*range(24), *range(24, 50, 2)]
    grown, third = released(config, fitted, later, "cc")
    assert dressed(grown, later) == set(later)
    assert {24, *range(26, 50, 2)} == {one for members in third for one in members} - set(range(24))


def test_without_a_ledger_the_releases_intersect_to_fewer_than_k(fitted: Fit, tmp_path: Path) -> None:
    config, present = deciding(tmp_path, fitted, ledger=False), [list(range(30)), list(range(10, 60))]
    releases = [released(config, fitted, numbers, name)[1] for numbers, name in zip(present, ("aa", "bb"), strict=True)]
    assert intersections(releases, [set(one) for one in present], k=3, absences_known=False) != []


def test_people_of_an_earlier_release_with_a_smaller_k_are_redacted(fitted: Fit, tmp_path: Path) -> None:
    _, first = released(deciding(tmp_path, fitted, k=2), fitted, list(range(20)), "aa")
    small = {person for members in first if len(members) < 4 for person in members}
    wardrobe, _ = released(deciding(tmp_path, fitted, k=4), fitted, list(range(20)), "bb")
    assert small and dressed(wardrobe, list(range(20))).isdisjoint(small)


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
