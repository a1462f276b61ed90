"""The ledger of a job: who was released before, as whom, beside whom, and what that has cost them.

It outlives the workspace, because losses add up over releases, and has one file a plan. A run is booked before it draws
a face and then held against the budget, so of two runs that would break it together one at least is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from anonlib.config import JobConfig
from anonlib.errors import ConfigError
from anonlib.methods import method_of
from anonlib.methods.base import LedgerRow, Persons
from anonlib.privacy.dp import LedgerEntry, refusal, suspected
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.privacy.knn import nearest
from anonlib.storage import open_storage
from anonlib.workspace import tables
from anonlib.workspace.layout import StageStore
from anonlib.workspace.schemas import ACCOUNTS
from anonlib.workspace.tables import matrix

KNOWN_AGAIN = 0.945
"""dlib cosine from which a person without a label is taken for a known one: 87 % of LFW are, 13 % of strangers too."""
MAYBE_ONE_PERSON = 0.925
"""dlib cosine from which two templates may be one person's, and their draws are charged to one account.

Measured on 840 people of LFW, by two releases with half of each person's photos: 2.1 % of the people are missed, and a
subject is charged with 11 strangers (median 6). At .91 that is .5 % and 48, at .945 13 % and .8. The strangers grow
with the number of people.
"""


@dataclass(frozen=True)
class LedgerStore:
    """The ledger's tables of all plans but `plan`, by file name."""

    store: StageStore
    plan: str
    plans: list[pa.Table]

    @classmethod
    def open(cls, job: JobConfig, plan_key: str) -> LedgerStore | None:
        """The ledger that a job names, read; None if it names none."""
        if job.ledger is None:
            return None
        store = StageStore(open_storage(job.ledger.uri, job.storage.options, private=True), "plans")
        plan = plan_key[:16]
        paths = sorted(file.path for file in store.storage.list(f"{store.prefix}/"))
        return cls(store, plan, [_read(store, path) for path in paths if path != store.path(f"{plan}.parquet")])

    @property
    def rows(self) -> pa.Table:
        return pa.concat_tables([ACCOUNTS.empty_table(), *self.plans])

    def persons(self, people: Persons, keyring: Keyring) -> list[str]:
        """A name for each subject's person that holds in every release: by label, else by likeness, else new."""
        rows = self.rows
        known = rows.column("person").to_pylist()
        alike = nearest(people.template, matrix(rows, "template"), count=1, floor=KNOWN_AGAIN)[:, 0]
        names = []
        for subject, label, row in zip(people.ids, people.labels, alike, strict=True):
            if label is not None:
                names.append(keyring.person(Purpose.LABEL, label))
            elif row >= 0:
                names.append(known[row])
            else:
                names.append(keyring.person(Purpose.SUBJECT, subject))
        return names

    def releases(self) -> list[list[list[str]]]:
        """The classes of each earlier release, as the persons that it showed in them."""
        releases = []
        for plan in self.plans:
            crowds: dict[str, list[str]] = {}
            for row in plan.select(["crowd", "person"]).to_pylist():
                if row["crowd"] is not None:
                    crowds.setdefault(row["crowd"], []).append(row["person"])
            releases.append(list(crowds.values()))
        return [crowds for crowds in releases if crowds]

    def crowds(self) -> list[list[str]]:
        """Who hid together in any release, through others too: no person is in two."""
        from scipy.cluster.hierarchy import DisjointSet

        groups = [crowd for release in self.releases() for crowd in release]
        together = DisjointSet(sorted({person for crowd in groups for person in crowd}))
        for crowd in groups:
            for person in crowd:
                together.merge(crowd[0], person)
        return sorted(sorted(crowd) for crowd in together.subsets())

    def book(self, job: JobConfig, release: str, bookings: Sequence[LedgerRow]) -> None:
        """Add this run's rows to those of its plan; raises ConfigError, and changes nothing, if they break a budget."""
        cost = method_of(job.method).cost
        rows: list[dict[str, Any]] = [
            {
                "person": row.person,
                "template": row.template,
                "labelled": row.labelled,
                "release": release,
                "method": job.method.name,
                "draw_id": row.draw or f"{release}/{row.crowd}",
                "pure": None if cost is None else cost.pure,
                "crowd": row.crowd,
            }
            for row in bookings
        ]
        new, path = tables.of_rows(rows, ACCOUNTS), self.store.path(f"{self.plan}.parquet")
        former = self.store.storage.read(path) if self.store.storage.exists(path) else None
        before = ACCOUNTS.empty_table() if former is None else _read(self.store, path)
        repeated = {(row["person"], row["draw_id"]) for row in rows}
        kept = [row for row in before.to_pylist() if (row["person"], row["draw_id"]) not in repeated]
        self.store.storage.publish(path, tables.to_bytes([*kept, *rows], ACCOUNTS))
        if job.ledger is None or job.ledger.budget is None:
            return
        others = LedgerStore.open(job, self.plan)
        booked = pa.concat_tables([self.rows if others is None else others.rows, before])
        refused = refusal(_entries(booked), _entries(new), job.ledger.budget, _suspects(booked, new))
        if refused is not None:
            if former is None:
                self.store.storage.delete(path)
            else:
                self.store.storage.publish(path, former)
            raise ConfigError(refused)


def _entries(rows: pa.Table) -> list[LedgerEntry]:
    """A draw without an epsilon counts as infinite, so that no budget outlives it."""
    return [
        LedgerEntry(row["person"], row["draw_id"], math.inf if row["pure"] is None else row["pure"])
        for row in rows.select(["person", "draw_id", "pure"]).to_pylist()
    ]


def _suspects(*accounts: pa.Table) -> dict[str, list[str]]:
    """The others who may be the same person, by any of the rows of both."""
    rows = pa.concat_tables(accounts)
    names, number = np.unique(np.array(rows.column("person").to_pylist(), str), return_inverse=True)
    labelled = np.array(rows.column("labelled").to_pylist(), bool)
    suspects: dict[str, list[str]] = {}
    for person, other in suspected(matrix(rows, "template"), number, labelled, MAYBE_ONE_PERSON).tolist():
        suspects.setdefault(str(names[person]), []).append(str(names[other]))
        suspects.setdefault(str(names[other]), []).append(str(names[person]))
    return suspects


def _read(store: StageStore, path: str) -> pa.Table:
    """A plan's bookings; raises ConfigError for those of an earlier anonlib, and for what is no number."""
    import pyarrow.compute as pc

    rows = tables.from_bytes(store.storage.read(path))
    rows = rows.select([name for name in ACCOUNTS.names if name in rows.column_names])  # earlier ones have more
    if not rows.schema.equals(ACCOUNTS):
        raise ConfigError(
            f"{path} in the ledger {store.storage.uri} was written by another version of anonlib, which named people "
            "by another key, so nobody in it would be known again; keep that ledger as the record of what was spent, "
            "and name a new one by ledger.uri"
        )
    known = pc.all(pc.is_finite(rows.column("pure")), min_count=0).as_py()
    if not known or not np.isfinite(matrix(rows, "template")).all():
        raise ConfigError(
            f"{path} in the ledger {store.storage.uri} holds a number that is infinite or none (NaN), so what people "
            "have spent cannot be added up; restore the file from a copy"
        )
    return rows
