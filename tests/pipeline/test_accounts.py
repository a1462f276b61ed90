"""The ledger as a job keeps it: people are known again, a loss is booked before it happens, and a budget holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import job

from anonlib.config import ConfigError, JobConfig, load_config
from anonlib.pipeline.accounts import Accounts, Booking, OverBudget, kind_of
from anonlib.pipeline.decoding import Draw
from anonlib.pipeline.label_check import check_labels
from anonlib.pipeline.people import People
from anonlib.privacy.dp import identities, mechanism_of
from anonlib.privacy.keys import Keyring
from anonlib.privacy.subjects import normalized

SECRET = b"sixteen bytes or more"
PLAN = "0123456789abcdef"
KIND = "dp-laplace by some decoder"
DRAWN = {"method.name": "dp-uniform", "method.decoder": "decoder.npz"}
DECODED = {"method.texture": "linear", "method.decoder": "decoder.npz"}


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return normalized(np.random.default_rng(seed).normal(size=(count, 128)).astype(np.float32))


def people(labels: list[str | None], template: np.ndarray, release: str) -> People:
    names = [f"{release}-{number}" for number in range(len(labels))]
    faces = np.arange(len(labels), dtype=np.int64)
    zeros, ages = np.zeros(len(labels), np.float32), np.full(len(labels), 40.0, np.float32)
    check = check_labels(template[:0], [], [], near=0.9, apart=0.8)
    return People(faces, names, labels, template, zeros, ages, check)


def noisy(root: Path, **ledger: Any) -> JobConfig:
    method = {"name": "dp-laplace", "epsilon": 3, "decoder": "decoder.npz"}
    return job("in", root, method=method, ledger={"uri": str(root / "ledger"), **ledger})


def book(config: JobConfig, release: str, who: People, plan: str = PLAN) -> list[str]:
    keyring = Keyring(SECRET, release)
    accounts = Accounts.open(config, plan)
    assert accounts is not None
    persons = accounts.persons(who, keyring)
    drawn = identities(mechanism_of(config.method), who.template, who.ids, keyring)
    found = zip(persons, who.template, drawn, strict=True)
    accounts.book(
        config, release, KIND, [Booking(name, face, ("male",), Draw(z, 1.0, 40.0)) for name, face, z in found]
    )
    return persons


def test_a_person_is_known_again_by_label_and_by_likeness_in_every_release(tmp_path: Path) -> None:
    config, faces = noisy(tmp_path), vectors(3)
    first = book(config, "one", people(["ann", None, None], faces, "one"))
    moved = normalized(faces + 0.1 * vectors(3, seed=1))
    other = np.concatenate([vectors(1, seed=2), moved[1:], vectors(1, seed=3)])
    second = book(config, "two", people(["ann", None, None, None], other, "two"), plan="f" * 64)
    assert second[:3] == first
    assert second[3] not in first
    assert len(set(second)) == 4


def test_without_a_ledger_nobody_is_remembered(tmp_path: Path) -> None:
    assert Accounts.open(job("in", tmp_path), PLAN) is None


def test_releases_add_up_and_the_one_that_breaks_the_budget_is_refused_before_it_starts(tmp_path: Path) -> None:
    config, who = noisy(tmp_path, budget=7), people(["ann", "bob"], vectors(2), "one")
    book(config, "one", who, plan="a" * 64)
    book(config, "two", who, plan="b" * 64)
    with pytest.raises(OverBudget, match=r"2 of the 2 subjects .* budget of epsilon 7 .* at 9, by 2"):
        book(config, "three", who, plan="c" * 64)
    names = sorted(path.name for path in (tmp_path / "ledger" / "plans").iterdir())
    assert names == [f"{'a' * 16}.parquet", f"{'b' * 16}.parquet"]
    assert book(config, "three", people(["cyd"], vectors(1, seed=5), "three"), plan="c" * 64)


def test_the_same_plan_again_books_the_same_bytes_and_costs_nothing(tmp_path: Path) -> None:
    config, who = noisy(tmp_path, budget=3), people(["ann"], vectors(1), "one")
    book(config, "one", who)
    (file,) = (tmp_path / "ledger" / "plans").iterdir()
    before = file.read_bytes()
    book(config, "one", who)
    assert file.read_bytes() == before


def test_an_earlier_draw_that_is_worn_again_costs_nothing(tmp_path: Path) -> None:
    config, who = noisy(tmp_path, budget=3), people(["ann"], vectors(1), "one")
    (person,) = book(config, "one", who, plan="a" * 64)
    accounts = Accounts.open(config, "b" * 64)
    assert accounts is not None
    again = accounts.drawn(KIND)
    accounts.book(config, "two", KIND, [Booking(person, who.template[0], ("male",), again[person])])
    assert accounts.drawn("another") == {}


def test_a_draw_is_of_its_method_parameters_and_decoder_whatever_decodes_it_by_which_texture(tmp_path: Path) -> None:
    method = noisy(tmp_path).method
    kind = kind_of(method, "digest")
    assert kind_of(method.model_copy(update={"texture": "bank", "k": 9, "decoder": "moved.npz"}), "digest") == kind
    assert kind_of(method.model_copy(update={"epsilon": 4.0}), "digest") != kind
    assert kind_of(method, "another decoder's") != kind


def test_subjects_that_may_be_one_person_share_one_account(tmp_path: Path) -> None:
    config, face = noisy(tmp_path, budget=4), vectors(1)
    split = people([None, None], np.concatenate([face, normalized(face + 0.05 * vectors(1, seed=1))]), "one")
    with pytest.raises(OverBudget):
        book(config, "one", split)
    apart = replace(split, template=vectors(2))
    book(config, "one", apart)


def test_a_method_that_promises_no_epsilon_fits_no_budget(tmp_path: Path) -> None:
    method = {"name": "sampling", "decoder": "decoder.npz"}
    config = job("in", tmp_path, method=method, ledger={"uri": str(tmp_path / "ledger"), "budget": 100})
    accounts = Accounts.open(config, PLAN)
    assert accounts is not None
    with pytest.raises(OverBudget, match="promises no epsilon"):
        accounts.book(
            config, "one", KIND, [Booking("ann", vectors(1)[0], ("female",), Draw(vectors(1, 9)[0], 1.0, 40.0))]
        )


def test_the_ledger_holds_no_name(tmp_path: Path) -> None:
    book(noisy(tmp_path), "one", people(["ann-the-person"], vectors(1), "one"))
    (file,) = (tmp_path / "ledger" / "plans").iterdir()
    assert b"ann-the-person" not in file.read_bytes()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"ledger.uri": "ws/ledger", "secret.env": "S"}, "separate places"),
        ({"ledger.uri": "ledger", **DRAWN}, "name one by secret.env"),
        ({"method.draw": "reuse", "secret.env": "S", **DRAWN}, "needs a ledger"),
        ({"method.draw": "reuse", "ledger.uri": "l", "secret.env": "S", **DECODED}, "a method that draws"),
        ({"ledger.uri": "ledger", "secret.env": "S"}, "no photos to average"),
        ({"ledger.uri": "ledger", "ledger.budget": -1, "secret.env": "S", **DRAWN}, "ledger.budget"),
    ],
)
def test_a_ledger_that_cannot_work_is_refused_in_a_sentence(changes: dict[str, Any], complaint: str) -> None:
    places = {"input.uri": "in", "output.uri": "out", "workspace.uri": "ws"}
    with pytest.raises(ConfigError, match=complaint):
        load_config(overrides=places | changes)
