"""Classes over releases: a ledger's classes stay as they are, and without it an intersection gives people away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from anonlib.config import JobConfig
from anonlib.methods.class_growth import TOO_FEW_AGAIN, class_wardrobe
from anonlib.methods.decoders import FaceDecoderSet
from anonlib.methods.planning import PlanResult
from anonlib.privacy.clustering import normalized
from anonlib.privacy.keys import Keyring
from anonlib.stages.people import Persons
from anonlib.workspace.ledger_store import LedgerStore
from tests.support.decoders import Fit
from tests.support.oracles import candidates
from tests.support.runs import job

SECRET = b"sixteen bytes or more, thirty-two"
FACES = normalized(np.random.default_rng(7).normal(size=(60, 128)).astype(np.float32))


def shown(numbers: list[int], release: str) -> Persons:
    """Persons by number, each with one photo and the same face whenever they are shown."""
    count = len(numbers)
    return Persons(
        np.arange(count),
        [f"{release}-{number}" for number in numbers],
        [f"person {number}" for number in numbers],
        FACES[numbers],
        [("female" if number % 2 else "male", "age-0") for number in numbers],
        np.ones(count, np.int64),
        np.ones(count, bool),
    )


def deciding(root: Path, fitted: Fit, k: int = 3, ledger: dict[str, Any] | None = None) -> JobConfig:
    method = {"name": "k-diff", "k": k, "texture": "linear", "decoder": str(fitted.path)}
    changes = {} if ledger is None else {"ledger": {"uri": str(root / "ledger")} | ledger}
    return job("in", root, method=method, **changes)


def released(config: JobConfig, fitted: Fit, numbers: list[int], release: str) -> tuple[PlanResult, list[list[int]]]:
    """What a release decides, and its classes as numbers of persons that hold over releases."""
    persons, keyring = shown(numbers, release), Keyring(SECRET, release)
    painter = FaceDecoderSet(fitted.path.read_bytes(), config.method)
    accounts = LedgerStore.open(config, release * 8)
    names = accounts.persons(persons, keyring) if accounts else []
    wardrobe = class_wardrobe(config, pa.table({}), persons, keyring, painter, accounts, names)
    if accounts:
        accounts.book(config, release, "k-diff", wardrobe.booked)
    of = dict(zip(persons.ids, numbers, strict=True))
    return wardrobe, [[of[member] for member in one.members] for one in wardrobe.classes]


def hidden(wardrobe: PlanResult) -> list[bool]:
    return [bool(outfit.surrogates) for outfit in wardrobe.outfits]


def test_who_hid_together_stays_together_and_newcomers_form_classes_of_their_own(fitted: Fit, tmp_path: Path) -> None:
    config = deciding(tmp_path, fitted, ledger={})
    _, first = released(config, fitted, list(range(30)), "aa")
    wardrobe, second = released(config, fitted, list(range(60)), "bb")
    assert all(hidden(wardrobe))
    assert {frozenset(one) for one in first} <= {frozenset(one) for one in second}
    everyone = [set(range(30)), set(range(60))]
    assert all(len(candidates(person, [first, second], everyone, True)) >= 3 for person in range(60))


def test_without_a_ledger_the_releases_intersect_to_fewer_than_k(fitted: Fit, tmp_path: Path) -> None:
    config = deciding(tmp_path, fitted)
    classes = [released(config, fitted, list(range(30)), name)[1] for name in ("aa", "bb")]
    everyone = [set(range(30))] * 2
    assert any(len(candidates(person, classes, everyone, True)) < 3 for person in range(30))


def test_an_old_class_of_which_too_few_are_present_is_not_shown(fitted: Fit, tmp_path: Path) -> None:
    """REVIEW-claims, finding 6: the absent cannot hide the one who is there."""
    config = deciding(tmp_path, fitted, ledger={})
    _, first = released(config, fitted, list(range(30)), "aa")
    alone = [one[0] for one in first]
    wardrobe, second = released(config, fitted, alone, "bb")
    assert not any(hidden(wardrobe)) and not second
    assert {outfit.reason for outfit in wardrobe.outfits} == {TOO_FEW_AGAIN}
    assert wardrobe.booked == []


def test_a_job_may_say_that_absences_are_not_known(fitted: Fit, tmp_path: Path) -> None:
    config = deciding(tmp_path, fitted, ledger={"absences": "unknown"})
    _, first = released(config, fitted, list(range(60)), "aa")
    alone = sorted(one[0] for one in first)
    wardrobe, _ = released(config, fitted, alone, "bb")
    assert all(hidden(wardrobe))
    assert all(one.effective_k >= 3 for one in wardrobe.classes)


def test_a_greater_k_hides_old_classes_no_more(fitted: Fit, tmp_path: Path) -> None:
    released(deciding(tmp_path, fitted, k=2, ledger={}), fitted, list(range(20)), "aa")
    wardrobe, _ = released(deciding(tmp_path, fitted, k=8, ledger={}), fitted, list(range(20)), "bb")
    assert not any(hidden(wardrobe))


def test_every_donor_weighs_the_same_in_the_mean_that_is_decoded(fitted: Fit, tmp_path: Path) -> None:
    config = deciding(tmp_path, fitted)
    wardrobe, _ = released(config, fitted, list(range(24)), "aa")
    painter = FaceDecoderSet(fitted.path.read_bytes(), config.method)
    for one in wardrobe.surrogates:
        donors = [int(name.split("-")[1]) for name in one.donors]
        mean = normalized(FACES[donors].mean(axis=0, keepdims=True))[0]
        assert one.draw is not None
        assert np.allclose(one.draw.vector, painter.identity(mean), atol=1e-5)
