"""The classes of a release beside those of earlier ones: a ledger's classes stay, newcomers form new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from anonlib.config import JobConfig
from anonlib.methods.decoders import FaceDecoderSet, IdentityDraw
from anonlib.methods.planning import (
    PlanResult,
    SurrogateAssignment,
    SurrogatePlan,
    appearance,
    dressed,
    new_classes,
    surrogate_id,
)
from anonlib.privacy.classes import EquivalenceClass, effective_k
from anonlib.privacy.clustering import normalized
from anonlib.privacy.cross_release import may_be_shown
from anonlib.privacy.keys import Keyring
from anonlib.privacy.strata import common
from anonlib.privacy.surrogate_choice import Average
from anonlib.stages.people import Persons, best_portraits, donor_faces_of
from anonlib.workspace.ledger_store import LedgerRow, LedgerStore

TOO_FEW_AGAIN = "too few of the persons it hid with in earlier releases are in this one"


def class_wardrobe(
    job: JobConfig,
    faces: pa.Table,
    persons: Persons,
    keyring: Keyring,
    painter: FaceDecoderSet | None,
    accounts: LedgerStore | None,
    names: Sequence[str],
) -> PlanResult:
    """Classes of at least k persons, and surrogates of at least k donors: averaged portraits, or decoded means.

    `names`: each person's lasting name, where there is a ledger.
    """
    portraits = {} if painter else best_portraits(faces, persons.of_face, donor_faces_of(faces))
    is_donor = np.full(len(persons.ids), painter is not None)
    is_donor[list(portraits)] = True
    is_donor &= persons.sure & (persons.photos > 0)

    def planned(one: Average) -> SurrogatePlan:
        draw = None
        if painter:
            mean = normalized(persons.template[list(one.donors)].mean(axis=0)[None])[0]
            draw = IdentityDraw(painter.identity(mean), *appearance(one.kind))
        return SurrogatePlan(
            surrogate_id(one, persons, keyring),
            [persons.ids[donor] for donor in one.donors],
            one.kind,
            [portraits.get(donor, []) for donor in one.donors],
            draw,
        )

    old, barred = _old_classes(job, persons, accounts, names)
    taken = [member for one in old for member in one.members]
    photos = persons.photos.copy()
    photos[[*taken, *barred]] = 0
    classes = [*old, *new_classes(job, replace(persons, photos=photos), keyring, is_donor)]
    wardrobe = dressed(job, persons, keyring, classes, is_donor, planned)
    for person in barred:
        wardrobe.outfits[person] = SurrogateAssignment(reason=TOO_FEW_AGAIN)
    booked = [
        LedgerRow(
            name,
            persons.template[person],
            persons.strata[person],
            persons.labels[person] is not None,
            crowd=wardrobe.outfits[person].class_id,
        )
        for person, name in enumerate(names)
        if persons.photos[person] and wardrobe.outfits[person].class_id is not None
    ]
    return replace(wardrobe, booked=booked)


def _old_classes(
    job: JobConfig, persons: Persons, accounts: LedgerStore | None, names: Sequence[str]
) -> tuple[list[EquivalenceClass], list[int]]:
    """The ledger's classes that are shown again, as their present members, and the persons that may not be shown."""
    if accounts is None or job.ledger is None:
        return [], []
    number = {name: person for person, name in enumerate(names)}
    releases = [{name for crowd in crowds for name in crowd} for crowds in accounts.releases()]
    kept: list[EquivalenceClass] = []
    barred: list[int] = []
    for crowd in accounts.crowds():
        absent = {name: len(names) + place for place, name in enumerate(sorted(set(crowd) - set(number)))}
        of = number | absent
        photos = np.concatenate([persons.photos, np.zeros(len(absent), np.int64)])
        shown = [{of[name] for name in release if name in of} for release in releases]
        members = [of[name] for name in crowd]
        present = tuple(sorted(member for member in members if photos[member]))
        if may_be_shown(members, shown, photos, k=job.method.k, absences_known=job.ledger.absences == "known"):
            stratum = common(persons.strata[member] for member in present)
            hidden = effective_k(persons.photos[list(present)]) if job.ledger.absences == "known" else len(members)
            kept.append(EquivalenceClass(present, stratum, hidden))
        else:
            barred += present
    return kept, barred
