"""The certificate comes last and once, says only what the plan and the manifests bear out, and gives nobody away."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.config import JobConfig
from anonlib.errors import JobError, VerificationError
from anonlib.job import Job
from anonlib.methods.base import EarlierReleases, Persons
from anonlib.privacy.clustering import normalized
from anonlib.privacy.keys import Keyring
from anonlib.stages.certify import certify, class_rows
from anonlib.storage import OURS
from anonlib.verification.conditions import ClassTable
from anonlib.workspace import tables
from anonlib.workspace.layout import json_bytes, plan_store, sha256
from tests.support.methods import method_named
from tests.support.runs import SECRET, Run, contents, every_byte

TABLE, SURROGATES, CERTIFICATE = "classes.parquet", "surrogates.parquet", "certificate.json"
NAMING = {"class_id", "subject_id", "person_id", "surrogate_id", "members", "donors", "face_id"}
KEYRING = Keyring(SECRET.encode(), "tests")


def without(release: Path, *names: str) -> None:
    for name in names:
        (release / name).unlink()


def test_a_rerun_writes_the_same_bytes(copied: JobConfig, finished: Run, tmp_path: Path) -> None:
    """It died after the certificate was written, and `verify` takes no file that nobody vouches for."""
    without(tmp_path / "release", TABLE, SURROGATES, CERTIFICATE)
    for _ in range(2):
        (tmp_path / "release" / "data" / f"{OURS}write-late").write_text("half a shard")
        Job(copied).run()
        assert contents(tmp_path / "release") == contents(finished.output)


def test_none_is_written_while_a_shard_is_missing_or_of_another_job(copied: JobConfig, tmp_path: Path) -> None:
    without(tmp_path / "release", TABLE, SURROGATES, CERTIFICATE)
    marker = tmp_path / "release" / "commits" / "00001.json"
    data = marker.read_bytes()
    marker.unlink()
    opened = Job(copied)
    committed = plan_store(opened.stores, opened.plan_key).committed("plan")
    assert committed is not None
    arguments = (copied, opened.stores, opened.keyring, opened.keyring.secret, opened.plan_key, committed["blocks"])
    assert not certify(*arguments)
    marker.write_bytes(json_bytes(json.loads(data) | {"run": "0" * 64}))
    with pytest.raises(VerificationError, match="00001 is of another job"):
        certify(*arguments)
    assert not (tmp_path / "release" / CERTIFICATE).exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"effective_k": 1}, "effective k of 1"),
        ({"members": ["someone"]}, "fewer than k"),
        (None, "not the one that its marker names"),
    ],
)
def test_a_lie_is_not_signed(change: dict[str, Any] | None, sentence: str, copied: JobConfig, tmp_path: Path) -> None:
    without(tmp_path / "release", TABLE, SURROGATES, CERTIFICATE)
    (path,) = (tmp_path / "workspace").glob("plan/*/classes.parquet")
    path = path if change else tmp_path / "release" / "manifest" / "00000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    path.write_bytes(tables.to_bytes([rows[0] | change, *rows[1:]] if change else rows[1:], table.schema))
    with pytest.raises(JobError, match="gets no certificate, and must not leave") as problem:
        Job(copied).run()
    assert sentence in str(problem.value)
    assert not (tmp_path / "release" / CERTIFICATE).exists()


def everything(cell: Any) -> set[str]:
    """Every text in a table's row, nested ones too."""
    if isinstance(cell, dict):
        return {text for one in cell.values() for text in everything(one)}
    if isinstance(cell, list | tuple):
        return {text for one in cell for text in everything(one)}
    return {cell} if isinstance(cell, str) else set()


def test_nothing_in_it_joins_the_workspace_or_another_release(finished: Run) -> None:
    shown = everything(pq.read_table(finished.output / TABLE).to_pylist())
    restricted = set()
    for pattern in ("subjects", "classes", "surrogate_plans/*", "assignments/*"):
        for path in finished.workspace.glob(f"plan/*/{pattern}.parquet"):
            columns = NAMING & set(pq.read_schema(path).names)
            restricted |= everything(pq.read_table(path, columns=sorted(columns)).to_pylist())
    assert restricted and not shown & restricted
    assert not any(one.encode() in every_byte(finished.output) for one in restricted if len(one) == 24)
    (path,) = finished.workspace.glob("plan/*/classes.parquet")
    classes = pq.read_table(path).to_pylist()
    made = {row["surrogate"]: sha256(row["surrogate"].encode()) for row in classes}
    here, there = (class_rows(classes, made, Keyring(SECRET.encode(), name)) for name in ("tests", "december"))
    assert everything(here) & everything(there) == set(made.values())


def test_no_table_leads_from_a_worn_face_to_a_person_or_the_class_it_was_made_of(finished: Run) -> None:
    """A row with what a class wears and what was made of it names 12 % of the people."""
    classes, surrogates = (pq.read_table(finished.output / name).to_pylist() for name in (TABLE, SURROGATES))
    people = everything([row["people"] for row in classes])
    manifests = [row for path in (finished.output / "manifest").iterdir() for row in pq.read_table(path).to_pylist()]
    assert people and not people & everything(manifests)
    worn = {row["wears"] for row in classes}
    assert worn == everything(surrogates)
    assert all(len(everything(row) & worn) == 1 for row in [*classes, *surrogates])


def test_the_secret_and_the_key_made_of_it_are_written_nowhere(finished: Run) -> None:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    from anonlib.verification import certificate

    seed = HKDF(SHA256(), length=32, salt=None, info=certificate._KEY_PURPOSE).derive(SECRET.encode())
    everywhere = every_byte(finished.output) + every_byte(finished.workspace)
    for secret in (SECRET.encode(), seed, seed.hex().encode()):
        assert secret not in everywhere


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(("k-diff", "k-same")), st.integers(2, 5), st.integers(0, 60), st.integers(0, 10_000))
def test_the_conditions_hold_for_every_plan(name: str, k: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    strata = [(("female", "male")[rng.integers(2)], f"age-{rng.integers(3)}") for _ in range(count)]
    persons = Persons(
        np.arange(count),
        [f"person {number}" for number in range(count)],
        [None] * count,
        normalized(rng.normal(size=(count, 8)).astype(np.float32)),
        strata,
        rng.integers(0, 6, count),
        np.ones(count, bool),
    )
    portraits = {person: [0] for person in np.flatnonzero(rng.random(count) < 0.7)}
    persons = replace(persons, portraits=portraits)
    planned = method_named(name, k=k, texture="average").plan(persons, KEYRING, EarlierReleases())
    digests = {row.surrogate_id: sha256(row.surrogate_id.encode()) for row in planned.surrogates}
    table = ClassTable(k)
    for row in class_rows(map(asdict, planned.classes), digests, KEYRING):
        table.add(row)
    for digest, donors in sorted((digests[row.surrogate_id], len(row.donors)) for row in planned.surrogates):
        table.add({"digest": digest, "donors": donors})
    table.close()
    assert table.people == sum(bool(assigned.surrogates) for assigned in planned.persons)
