"""Classes over releases: a ledger's classes stay as they are, and without it an intersection gives people away."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from anonlib.config import JobConfig
from anonlib.methods import method_of, settings_of
from anonlib.methods.base import Assignment, EarlierReleases, Persons
from anonlib.methods.k_anonymity import TOO_FEW_AGAIN, KDiff
from anonlib.privacy.clustering import normalized
from anonlib.privacy.keys import Keyring
from anonlib.storage import open_storage
from anonlib.synthesis.textures.gallery import Gallery
from anonlib.synthesis.textures.ksame_net import NetworkDecoder
from anonlib.verification.release import unproved, verify
from anonlib.workspace.ledger_store import LedgerStore
from anonlib.workspace.schemas import LOT
from tests.support.oracles import candidates
from tests.support.runs import job, manifest, run_job

NETWORK = NetworkDecoder.shipped()
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


def deciding(root: Path, k: int = 3, ledger: dict[str, Any] | None = None) -> JobConfig:
    method = {"name": "k-diff", "k": k, "texture": "ksame-net"}
    changes = {} if ledger is None else {"ledger": {"uri": str(root / "ledger")} | ledger}
    return job("in", root, method=method, **changes)


def released(config: JobConfig, numbers: list[int], release: str) -> tuple[Assignment, list[list[int]]]:
    """What a release decides, and its classes as numbers of persons that hold over releases."""
    persons, keyring = shown(numbers, release), Keyring(SECRET, release)
    method = method_of(config.method, {"decoder": NETWORK})
    ledger, earlier = LedgerStore.open(config, release * 8), EarlierReleases()
    if ledger and config.ledger:
        known = config.ledger.absences == "known"
        earlier = EarlierReleases(ledger.persons(persons, keyring), ledger.releases(), ledger.crowds(), known)
    planned = method.plan(persons, keyring, earlier)
    if ledger:
        ledger.book(config, release, planned.bookings(persons, earlier.names))
    of = dict(zip(persons.ids, numbers, strict=True))
    return planned, [[of[member] for member in found.members] for found in planned.classes]


def hidden(planned: Assignment) -> list[bool]:
    return [bool(assigned.surrogates) for assigned in planned.persons]


def test_persons_of_a_class_stay_together_and_newcomers_form_classes_of_their_own(tmp_path: Path) -> None:
    config = deciding(tmp_path, ledger={})
    _, first = released(config, list(range(30)), "aa")
    planned, second = released(config, list(range(60)), "bb")
    assert all(hidden(planned))
    assert {frozenset(found) for found in first} <= {frozenset(found) for found in second}
    everyone = [set(range(30)), set(range(60))]
    assert all(len(candidates(person, [first, second], everyone, True)) >= 3 for person in range(60))


def test_without_a_ledger_the_releases_intersect_to_fewer_than_k(tmp_path: Path) -> None:
    config = deciding(tmp_path)
    classes = [released(config, list(range(30)), name)[1] for name in ("aa", "bb")]
    everyone = [set(range(30))] * 2
    assert any(len(candidates(person, classes, everyone, True)) < 3 for person in range(30))


def test_an_old_class_of_which_too_few_are_present_is_not_shown(tmp_path: Path) -> None:
    """The absent cannot hide the person who is present."""
    config = deciding(tmp_path, ledger={})
    _, first = released(config, list(range(30)), "aa")
    planned, second = released(config, [found[0] for found in first], "bb")
    assert not any(hidden(planned)) and not second
    assert {assigned.reason for assigned in planned.persons} == {TOO_FEW_AGAIN}


def test_a_job_may_say_that_absences_are_not_known(tmp_path: Path) -> None:
    config = deciding(tmp_path, ledger={"absences": "unknown"})
    _, first = released(config, list(range(60)), "aa")
    planned, _ = released(config, sorted(found[0] for found in first), "bb")
    assert all(hidden(planned)) and all(found.effective_k >= 3 for found in planned.classes)


def test_a_greater_k_hides_old_classes_no_more(tmp_path: Path) -> None:
    released(deciding(tmp_path, k=2, ledger={}), list(range(20)), "aa")
    planned, _ = released(deciding(tmp_path, k=8, ledger={}), list(range(20)), "bb")
    assert not any(hidden(planned))


def test_every_donor_weighs_the_same_in_the_mean_that_is_decoded(tmp_path: Path) -> None:
    config = deciding(tmp_path)
    planned, _ = released(config, list(range(24)), "aa")
    for found in planned.surrogates:
        donors = [int(name.split("-")[1]) for name in found.donors]
        mean = normalized(FACES[donors].mean(axis=0, keepdims=True))
        assert found.draw is not None
        assert np.allclose(found.draw.vector, NetworkDecoder.from_bytes(NETWORK).identity(mean)[0], atol=1e-5)


def by_lot(numbers: list[int], release: str, k: int = 3) -> tuple[Assignment, Gallery]:
    method = method_of(settings_of({"name": "k-diff", "k": k, "texture": "gallery"}), {"decoder": Gallery.shipped()})
    assert isinstance(method, KDiff)
    gallery = method.required_decoder
    assert isinstance(gallery, Gallery)
    return method.plan(shown(numbers, release), Keyring(SECRET, release), EarlierReleases()), gallery


def test_the_gallery_is_dealt_to_classes_by_lot_and_never_by_likeness() -> None:
    planned, gallery = by_lot(list(range(60)), "first")
    plans = {plan.surrogate_id: plan for plan in planned.surrogates}
    for formed in planned.classes:
        draw = plans[str(formed.surrogate)].draw
        assert draw is not None and gallery.strata[draw.rows[0]][0] == formed.stratum[0]
        assert plans[str(formed.surrogate)].donors == []
    assert all(assigned.surrogates and assigned.reason is None for assigned in planned.persons)
    turned = FACES[::-1].copy()
    persons = shown(list(range(60)), "first")
    settings = settings_of({"name": "k-diff", "k": 3, "texture": "gallery"})
    method = method_of(settings, {"decoder": Gallery.shipped()})
    others = method.plan(replace(persons, template=turned), Keyring(SECRET, "first"), EarlierReleases())
    assert others.persons == planned.persons  # of other faces with the same names and looks
    assert by_lot(list(range(60)), "second")[0].persons != planned.persons


def test_no_class_of_women_and_men_shares_a_face_of_the_gallery() -> None:
    planned, gallery = by_lot([0, 1, 2, 3], "mixed", k=4)
    persons, rows = shown([0, 1, 2, 3], "mixed"), {plan.surrogate_id: plan.draw for plan in planned.surrogates}
    assert len({kind[0] for kind in persons.strata}) == 2 and planned.classes == []
    for assigned, kind in zip(planned.persons, persons.strata, strict=True):
        draw = rows[assigned.surrogates[0]]
        assert draw is not None and gallery.strata[draw.rows[0]][0] == kind[0]


def test_dp_subset_shows_faces_of_the_persons_stratum_and_a_large_epsilon_the_nearest() -> None:
    persons = shown(list(range(40)), "subset")
    nearest = []
    for epsilon in (1e-3, 40.0):
        settings = settings_of({"name": "dp-subset", "epsilon": epsilon, "near": 1})
        method = method_of(settings, {"decoder": Gallery.shipped()})
        gallery = method.required_decoder  # type: ignore[attr-defined]
        draws = [draw for (draw,) in method.draws(persons, Keyring(SECRET, "subset"))]
        assert all(gallery.strata[draw.rows[0]][0] == kind[0] for draw, kind in zip(draws, persons.strata, strict=True))
        points = gallery.identity(persons.template)
        hits = 0
        for draw, kind, point in zip(draws, persons.strata, points, strict=True):
            rows = np.array(gallery.rows(kind))
            hits += draw.rows[0] == rows[np.argmax(gallery.bank.vectors[rows] @ point)]
        nearest.append(hits)
    assert nearest[1] == 40 and nearest[0] < 30


def test_a_drawn_vector_shows_the_nearest_face_of_the_persons_stratum() -> None:
    persons = shown(list(range(20)), "noise")
    method = method_of(settings_of({"name": "dp-vmf", "kappa": 20}), {"decoder": Gallery.shipped()})
    gallery = method.required_decoder  # type: ignore[attr-defined]
    dark = {number for number, kind in enumerate(gallery.strata) if kind[-1] == "tone-0"}
    for tone in ("tone-0", "tone-1"):
        toned = replace(persons, strata=[(*kind, tone) for kind in persons.strata])
        for (draw,), kind in zip(method.draws(toned, Keyring(SECRET, "noise")), toned.strata, strict=True):
            rows = np.array(gallery.rows(kind))
            assert draw.rows == (rows[np.argmax(gallery.bank.vectors[rows] @ draw.vector)],)
            assert (draw.rows[0] in dark) == (tone == "tone-0")


def test_one_photo_of_one_person_is_released_and_verified(people_tars: Path, tmp_path: Path) -> None:
    with tarfile.open(people_tars / "00000.tar") as tar:
        name = next(member.name for member in tar if member.name.endswith(".jpg") and "holiday" in member.name)
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "one.jpg").write_bytes(tar.extractfile(name).read())  # type: ignore[union-attr]
    method = {"name": "k-diff", "k": 5, "texture": "gallery"}
    changes = {"input": {"uri": str(tmp_path / "in")}, "too_few": "stop", "keep_fields": [], "method": method}
    run = run_job(tmp_path / "in", tmp_path, **changes)
    ((face,),) = [row["faces"] for row in manifest(run.output)]
    assert (face["method"], face["fallback"], face["k"], face["epsilon"]) == ("k-diff", LOT, None, None)
    found = verify(open_storage(str(run.output)))
    assert found.certificate.counts.by_lot == 1 and found.certificate.counts.replaced == 0
    assert any("1 by lot" in sentence for sentence in unproved(found))
