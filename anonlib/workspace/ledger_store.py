"""The ledger of a job: who was released before, as whom, beside whom, and what that has cost them.

It outlives the workspace, because a person's losses add up over releases, and it holds what recognizes a person again:
templates, drawn identities and classes. So it is a third place, as restricted as the workspace, with one file a plan.

A run is booked before its first face is drawn and then held against the budget, together with whatever else was booked
meanwhile: of two runs that would break it together at least one is refused. A booking is never lost: a plan that is
made again adds to its own file, and a refused one leaves there what was there before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.errors import ConfigError
from anonlib.methods import method_of
from anonlib.methods.base import LedgerRow, Persons
from anonlib.privacy.dp import draw_id
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.privacy.knn import nearest_row
from anonlib.privacy.ledger import LedgerEntry, refusal, suspected
from anonlib.storage import open_storage
from anonlib.synthesis.base import IdentityDraw
from anonlib.workspace import tables
from anonlib.workspace.layout import StageStore, storage_options
from anonlib.workspace.schemas import ACCOUNTS
from anonlib.workspace.tables import matrix

KNOWN_AGAIN = 0.945
"""dlib cosine from which a person without a label is taken for the most alike of those who are known.

Of 840 people of LFW 87 % are known again in photos not seen before, 1.4 % are taken for another; of people who are new
13 % are taken for one of 420 who are known. They share a face then, and an account.
"""
MAYBE_ONE_PERSON = 0.925
"""dlib cosine from which two templates may be one person's, and their draws are charged to one account.

Measured on 840 people of LFW. Labels removed, clustering leaves 929 subjects; 16 % of the 128 pairs of parts of one
person are below it, and a subject is charged with 18 strangers (median 13). Of two releases with half of each person's
photos, 2.1 % of the people are missed and 11 strangers charged (median 6). At .91 that is 5 and .5 % missed, 65 and 48
strangers; at .945 60 and 13 % missed, 1.4 and .8 strangers. Strangers grow with the number of people.
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
        store = StageStore(open_storage(job.ledger.uri, storage_options(job), private=True), "plans")
        plan = plan_key[:16]
        paths = sorted(file.path for file in store.storage.list(f"{store.prefix}/"))
        return cls(store, plan, [_read(store, path) for path in paths if path != store.path(f"{plan}.parquet")])

    @property
    def rows(self) -> pa.Table:
        """All bookings."""
        return pa.concat_tables([ACCOUNTS.empty_table(), *self.plans])

    def persons(self, people: Persons, keyring: Keyring) -> list[str]:
        """A name for each subject's person that holds in every release: by label, else by likeness, else new."""
        rows = self.rows
        known = rows.column("person").to_pylist()
        like = _known_again(people.template, matrix(rows, "template"))
        found = []
        for number, label in enumerate(people.labels):
            if label is not None:
                found.append(keyring.person(Purpose.LABEL, label))
            elif like[number] >= 0:
                found.append(known[like[number]])
            else:
                found.append(keyring.person(Purpose.SUBJECT, people.ids[number]))
        return found

    def drawn(self, kind: str) -> dict[str, IdentityDraw]:
        """A known draw of each person whom a method of this kind (see `Method.kind`) drew before."""
        rows = self.rows
        known = zip(*(rows.column(name).to_pylist() for name in ("person", "kind", "draw")), strict=True)
        return {person: IdentityDraw.of_row(draw) for person, of, draw in known if of == kind and draw is not None}

    def releases(self) -> list[list[list[str]]]:
        """The classes of each earlier release, as the persons that it showed in them."""
        found = []
        hiding = [plan.filter(plan.column("crowd").is_valid()) for plan in self.plans]
        for plan in filter(len, hiding):
            crowds: dict[str, list[str]] = {}
            for crowd, person in zip(*(plan.column(name).to_pylist() for name in ("crowd", "person")), strict=True):
                crowds.setdefault(crowd, []).append(person)
            found.append(list(crowds.values()))
        return found

    def crowds(self) -> list[list[str]]:
        """Who hid together in any release, through others too: no person is in two."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        groups = [crowd for release in self.releases() for crowd in release]
        names = sorted({person for crowd in groups for person in crowd})
        number = {name: index for index, name in enumerate(names)}
        links = [(number[crowd[0]], number[person]) for crowd in groups for person in crowd]
        first, second = (np.array([link[end] for link in links], np.int64) for end in (0, 1))
        graph = coo_matrix((np.ones(len(links), np.bool_), (first, second)), shape=(len(names), len(names)))
        together: dict[int, list[str]] = {}
        for name, label in zip(names, connected_components(graph, directed=False)[1].tolist(), strict=True):
            together.setdefault(label, []).append(name)
        return list(together.values())

    def book(self, job: JobConfig, release: str, kind: str, bookings: Sequence[LedgerRow]) -> None:
        """Write this run's rows beside those that its plan booked before.

        Raises ConfigError, and leaves the plan's rows as they were before, if a budget is set that they break.
        """
        cost = method_of(job.method).cost
        rows: list[dict[str, Any]] = [
            {
                "person": row.person,
                "template": row.template,
                "labelled": row.labelled,
                "release": release,
                "kind": kind,
                "method": job.method.name,
                "draw_id": draw_id(row.draw.vector) if row.draw else f"{release}/{row.crowd}",
                "pure": None if cost is None else cost.pure,
                "per_radian": None if cost is None else cost.per_radian,
                "draw": row.draw and asdict(row.draw),
                "stratum": list(row.stratum),
                "crowd": row.crowd,
            }
            for row in bookings
        ]
        new = tables.of_rows(rows, ACCOUNTS)
        path = self.store.path(f"{self.plan}.parquet")
        former = self.store.storage.read(path) if self.store.storage.exists(path) else None
        before = ACCOUNTS.empty_table() if former is None else _read(self.store, path)
        self.store.storage.publish(path, tables.to_bytes([*_but(before, new), *rows], ACCOUNTS))
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
    """Of each person the others who may be the same, by any of the rows of both."""
    rows = pa.concat_tables(accounts)
    names, number = np.unique(np.array(rows.column("person").to_pylist(), str), return_inverse=True)
    labelled = np.array(rows.column("labelled").to_pylist(), bool)
    found: dict[str, list[str]] = {}
    for person, other in suspected(matrix(rows, "template"), number, labelled, MAYBE_ONE_PERSON).tolist():
        found.setdefault(str(names[person]), []).append(str(names[other]))
        found.setdefault(str(names[other]), []).append(str(names[person]))
    return found


def _read(store: StageStore, path: str) -> pa.Table:
    """A plan's bookings; raises ConfigError for those of an earlier anonlib."""
    found = tables.from_bytes(store.storage.read(path))
    if not found.schema.equals(ACCOUNTS):
        raise ConfigError(
            f"{path} in the ledger {store.storage.uri} was written by another version of anonlib, which named people "
            "by another key, so nobody in it would be known again; keep that ledger as the record of what was spent, "
            "and name a new one by ledger.uri"
        )
    return found


def _but(before: pa.Table, new: pa.Table) -> list[tables.Row]:
    """The rows of an earlier booking that the new one does not repeat."""
    repeated = {(row["person"], row["draw_id"]) for row in new.select(["person", "draw_id"]).to_pylist()}
    return [row for row in before.to_pylist() if (row["person"], row["draw_id"]) not in repeated]


def _known_again(templates: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each unit template (n, d) the row of `known` (m, d) that is surely the same person, -1 if none is."""
    if len(known) == 0:
        return np.full(len(templates), -1, np.int64)
    row = nearest_row(templates, known)
    cosine = np.einsum("ij,ij->i", templates, known[row])
    return np.where(cosine >= KNOWN_AGAIN, row, -1)
