"""The ledger as a job keeps it: people are known again, a loss is booked before it happens, and a budget holds."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.config import JobConfig
from anonlib.errors import ConfigError
from anonlib.methods.base import LedgerRow, Persons
from anonlib.privacy.clustering import normalized
from anonlib.privacy.dp import Mechanism, draw_id, identities
from anonlib.privacy.keys import Keyring
from anonlib.workspace import tables
from anonlib.workspace.ledger_store import LedgerStore
from anonlib.workspace.schemas import ACCOUNTS
from tests.support.runs import job

SECRET = b"thirty-two bytes or more of a secret"
PLAN = "0123456789abcdef"


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return normalized(np.random.default_rng(seed).normal(size=(count, 128)).astype(np.float32))


def people(labels: list[str | None], template: np.ndarray, release: str) -> Persons:
    names = [f"{release}-{number}" for number in range(len(labels))]
    ones, strata = np.ones(len(labels), np.int64), [("male", "age-1")] * len(labels)
    return Persons(np.arange(len(labels)), names, labels, template, strata, ones, ones > 0)


def noisy(root: Path, **ledger: Any) -> JobConfig:
    method = {"name": "dp-laplace", "epsilon": 3}
    return job("in", root, method=method, ledger={"uri": str(root / "ledger"), **ledger})


def opened(config: JobConfig, plan: str = PLAN) -> LedgerStore:
    ledger = LedgerStore.open(config, plan)
    assert ledger is not None
    return ledger


def row(person: str, face: np.ndarray, z: np.ndarray, labelled: bool = True) -> LedgerRow:
    return LedgerRow(person, face, labelled, draw=draw_id(z))


def book(config: JobConfig, release: str, who: Persons, plan: str = PLAN) -> list[str]:
    """A fresh draw for each of them; returns their names."""
    ledger, keyring = opened(config, plan), Keyring(SECRET, release)
    names = ledger.persons(who, keyring)
    drawn = identities(Mechanism("laplace", config.method.epsilon), who.template, who.ids, keyring)
    rows = zip(names, who.template, drawn, (label is not None for label in who.labels), strict=True)
    ledger.book(config, release, [row(*values) for values in rows])
    return names


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "ledger" / "plans").glob("*"))}


def test_a_person_is_known_again_by_label_and_by_likeness_in_every_release(tmp_path: Path) -> None:
    config, faces = noisy(tmp_path), vectors(3)
    first = book(config, "one", people(["ann", None, None], faces, "one"))
    moved = normalized(faces + 0.1 * vectors(3, seed=1))
    other = np.concatenate([vectors(1, seed=2), moved[1:], vectors(1, seed=3)])
    second = book(config, "two", people(["ann", None, None, None], other, "two"), plan="f" * 64)
    assert second[:3] == first
    assert len(set(second)) == 4
    assert b"ann" not in b"".join(files(tmp_path).values()), "the ledger holds no name"
    assert LedgerStore.open(job("in", tmp_path), PLAN) is None


def test_releases_add_up_and_the_one_that_breaks_the_budget_is_refused_before_it_starts(tmp_path: Path) -> None:
    config, who = noisy(tmp_path, budget=7), people(["ann", "bob"], vectors(2), "one")
    book(config, "one", who, plan="a" * 64)
    book(config, "two", who, plan="b" * 64)
    before = files(tmp_path)
    with pytest.raises(ConfigError, match=r"2 of the 2 accounts .* budget of epsilon 7 .* at 9, by 2"):
        book(config, "three", who, plan="c" * 64)
    assert files(tmp_path) == before and list(before) == [f"{'a' * 16}.parquet", f"{'b' * 16}.parquet"]
    assert book(config, "three", people(["cyd"], vectors(1, seed=5), "three"), plan="c" * 64)


def test_a_plan_that_is_made_again_keeps_its_booking_though_it_is_refused_now(tmp_path: Path) -> None:
    """Its release may be out. What was booked since does not concern draws that are shown already."""
    config, who = noisy(tmp_path, budget=7), people(["ann", "bob"], vectors(2), "one")
    book(config, "one", who, plan="a" * 64)
    book(noisy(tmp_path), "two", who, plan="b" * 64)
    book(noisy(tmp_path), "three", who, plan="c" * 64)
    before = files(tmp_path)
    book(config, "one", who, plan="a" * 64)
    assert files(tmp_path) == before
    with pytest.raises(ConfigError, match="at 12, by 5"):
        book(config, "anew", who, plan="a" * 64)
    assert files(tmp_path) == before and len(before) == 3


def test_every_draw_costs_once_however_often_it_is_worn(tmp_path: Path) -> None:
    config, who = noisy(tmp_path / "a", budget=5), people(["ann"], vectors(1), "one")
    book(config, "one", who, plan="a" * 64)
    with pytest.raises(ConfigError, match="at 6, by 1"):
        book(config, "anew", who, plan="a" * 64)
    two = [row("ann", who.template[0], z) for z in vectors(2, seed=8)]
    with pytest.raises(ConfigError, match="at 6, by 1"):
        opened(noisy(tmp_path / "b", budget=5)).book(noisy(tmp_path / "b", budget=5), "one", two)
    shared = vectors(1, seed=8)[0]
    parts = [row(f"part {number}", face, shared, labelled=False) for number, face in enumerate(lookalikes(3))]
    opened(noisy(tmp_path / "c")).book(noisy(tmp_path / "c", budget=3), "one", parts)


def lookalikes(count: int) -> np.ndarray:
    """Each is like the next at .94, and like no other at .925."""
    turn, angle = np.eye(128, dtype=np.float32), np.arccos(0.94)
    steps = [turn[0]]
    for number in range(1, count):
        steps.append(np.cos(angle) * steps[-1] + np.sin(angle) * turn[number])
    return normalized(np.stack(steps).astype(np.float32))


@pytest.mark.parametrize("labels", [(None, None), ("ann", None), ("ann", "bob")])
def test_an_account_is_shared_by_lookalikes_unless_both_have_a_label(
    tmp_path: Path, labels: tuple[str | None, ...]
) -> None:
    config, who = noisy(tmp_path, budget=4), people([*labels], lookalikes(2), "one")
    if None in labels:
        with pytest.raises(ConfigError, match="at 6, by 2"):
            book(config, "one", who)
        who = people([*labels], vectors(2), "one")
    book(config, "one", who)


def test_lookalikes_of_lookalikes_are_not_charged(tmp_path: Path) -> None:
    who = people([None] * 12, lookalikes(12), "one")
    book(noisy(tmp_path, budget=9), "one", who)
    with pytest.raises(ConfigError, match=r"10 of the 12 accounts .* at 9, by 1;"):
        book(noisy(tmp_path / "less", budget=8), "one", who)


def test_every_look_of_a_person_is_theirs(tmp_path: Path) -> None:
    """Ann was booked twice, by templates that are not alike; who looks like the second may be her."""
    faces = vectors(2)
    for number, face in enumerate(faces):
        book(noisy(tmp_path), f"{number}", people(["ann"], face[None], f"{number}"), plan=f"{number}" * 64)
    aside = normalized(vectors(1, seed=4) - (vectors(1, seed=4) @ faces[1]) * faces[1])
    like = people([None], normalized(0.935 * faces[1:] + np.sqrt(1 - 0.935**2) * aside), "three")
    with pytest.raises(ConfigError, match=r"2 of the 2 accounts .* at 9, by 2"):
        book(noisy(tmp_path, budget=7), "three", like, plan="c" * 64)
    book(noisy(tmp_path, budget=9), "three", like, plan="c" * 64)


def test_who_is_absent_is_charged_for_a_suspect(tmp_path: Path) -> None:
    """Bob is no part of the second release, but who is in it may be him."""
    faces = lookalikes(3)
    book(noisy(tmp_path), "one", people([None], faces[1:2], "one"), plan="a" * 64)
    book(noisy(tmp_path), "two", people([None], faces[:1], "two"), plan="b" * 64)
    with pytest.raises(ConfigError, match=r"1 of the 2 accounts .* at 9, by 2"):
        book(noisy(tmp_path, budget=7), "three", people([None], faces[2:], "three"), plan="c" * 64)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=5, unique_by=lambda shown: shown[0]),
        min_size=1,
        max_size=4,
    )
)
def test_no_person_is_ever_shown_more_than_the_budget_by_rows_of_their_own(
    tmp_path_factory: pytest.TempPathFactory, releases: list[list[tuple[int, bool]]]
) -> None:
    """Whatever is booked, labelled or not: what was not refused adds up to the budget at most, person by person."""
    root, faces, budget = tmp_path_factory.mktemp("ledger"), lookalikes(6), 7
    for number, shown in enumerate(releases):
        labels = [f"person {person}" if labelled else None for person, labelled in shown]
        who = people(labels, faces[[person for person, _ in shown]], f"r{number}")
        before = files(root)
        try:
            book(noisy(root, budget=budget), f"r{number}", who, plan=f"{number}" * 64)
        except ConfigError:
            assert files(root) == before
    rows = [row for data in files(root).values() for row in pq.read_table(io.BytesIO(data)).to_pylist()]
    for face in faces:
        draws = {row["draw_id"]: row["pure"] for row in rows if np.float32(row["template"]) @ face > 0.999}
        assert sum(draws.values()) <= budget


def test_a_method_that_promises_no_epsilon_fits_no_budget(tmp_path: Path) -> None:
    method = {"name": "sampling"}
    config = job("in", tmp_path, method=method, ledger={"uri": str(tmp_path / "ledger"), "budget": 100})
    with pytest.raises(ConfigError, match="promises no epsilon"):
        opened(config).book(config, "one", [row("ann", vectors(1)[0], vectors(1, 9)[0])])


def test_classes_are_read_back_and_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    config, names = noisy(tmp_path), ("ann", "bob", "cyd")
    crowd = [LedgerRow(name, face, True, crowd="a class") for name, face in zip(names, vectors(3), strict=True)]
    opened(config).book(config, "one", crowd)
    later = opened(config, "f" * 64)
    assert later.releases() == [[[*names]]] == [later.crowds()]
    (path,) = (tmp_path / "ledger" / "plans").iterdir()
    pq.write_table(pq.read_table(path).drop_columns(["labelled"]), path)
    with pytest.raises(ConfigError, match=r"written by another version of anonlib, .* name a new one by ledger\.uri"):
        LedgerStore.open(config, "f" * 64)


@pytest.mark.parametrize("column", ["pure", "template"])
@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_a_ledger_with_what_is_no_number_is_refused(column: str, number: float, tmp_path: Path) -> None:
    config = noisy(tmp_path, budget=5)
    book(config, "one", people(["ann", None], vectors(2), "one"))
    (path,) = (tmp_path / "ledger" / "plans").iterdir()
    rows = pq.read_table(path).to_pylist()
    rows[1] |= {column: {"pure": number, "template": [number] * 128}[column]}
    path.write_bytes(tables.to_bytes(rows, ACCOUNTS))
    with pytest.raises(ConfigError, match=r"infinite or none \(NaN\).* restore the file"):
        LedgerStore.open(config, "f" * 64)
