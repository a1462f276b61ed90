"""Classes whose faces are decoded: everybody is a member, and so is who is only known from earlier releases.

A decoded face needs no photo, only the class's centre, so nobody has to be a guest, and a class may keep members who
are absent from this dataset. With a ledger classes therefore only grow: whoever hid together once stays together, since
who sees two releases intersects their classes. `intersections` proves it for all releases before one is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.config import ConfigError, JobConfig
from anonlib.pipeline.accounts import Accounts, Booking
from anonlib.pipeline.decoding import Draw, Painter
from anonlib.pipeline.outfits import MAYBE_SAME_PERSON, Crowd, Hidden, Wardrobe, appearance, strata_of
from anonlib.pipeline.people import People
from anonlib.privacy.classes import EquivalenceClass, Stratum
from anonlib.privacy.growth import extend, intersections
from anonlib.privacy.keys import Keyring
from anonlib.privacy.ksame import class_centres
from anonlib.privacy.strata import prevailing
from anonlib.privacy.subjects import normalized


@dataclass(frozen=True)
class _Everybody:
    """All persons as columns: this job's first, then the ledger's others. `subjects[i]` of this job are person i."""

    names: list[str]
    template: NDArray[np.float32]
    strata: list[Stratum]
    subjects: list[list[int]]


def decoded_crowds(
    job: JobConfig, people: People, keyring: Keyring, painter: Painter, accounts: Accounts | None, persons: list[str]
) -> Wardrobe:
    """Classes of at least k persons, the ledger's kept together, and the face that each is dealt."""
    hidden, booked = hidden_persons(job, people, keyring, painter, accounts, persons)
    return hidden.wardrobe(job, booked)


def hidden_persons(
    job: JobConfig,
    people: People,
    keyring: Keyring,
    painter: Painter,
    accounts: Accounts | None = None,
    persons: Sequence[str] = (),
) -> tuple[Hidden, list[Booking]]:
    """Classes of at least k persons, the ledger's kept together, and what is booked.

    `persons`: each subject's lasting name, where there is a ledger. Raises ConfigError if a person would not be hidden
    once all releases are put together.
    """
    strata = strata_of(people)
    everybody = _everybody(people, strata, persons or people.ids, accounts)
    number = {name: index for index, name in enumerate(everybody.names)}
    earlier = (
        [[[number[name] for name in crowd] for crowd in crowds] for crowds in accounts.releases()] if accounts else []
    )
    old = [[number[name] for name in crowd] for crowd in accounts.crowds()] if accounts else []
    k = job.method.k
    classes, _ = extend(old, everybody.template, everybody.strata, k=k, same_person=MAYBE_SAME_PERSON)
    weak = intersections(
        [*earlier, [one.members for one in classes]], k=k, templates=everybody.template, same_person=MAYBE_SAME_PERSON
    )
    if weak:
        raise ConfigError(
            f"{len(weak):,} people would be one of fewer than k = {k} once all releases of this ledger are put "
            "together; an earlier release had a smaller k"
        )
    shown = [one for one in classes if any(everybody.subjects[member] for member in one.members)]
    hidden = _hidden(shown, everybody, people, strata, keyring, painter)
    booked = [
        Booking(everybody.names[member], everybody.template[member], everybody.strata[member], crowd=crowd.class_id)
        for one, crowd in zip(shown, hidden.crowds, strict=True)
        for member in one.members
    ]
    return hidden, booked


def _hidden(
    classes: Sequence[EquivalenceClass],
    everybody: _Everybody,
    people: People,
    strata: list[Stratum],
    keyring: Keyring,
    painter: Painter,
) -> Hidden:
    def member_id(member: int) -> str:
        mine = everybody.subjects[member]
        return people.ids[mine[0]] if mine else keyring.pseudonym("subject", "absent", everybody.names[member])

    members = [[member_id(member) for member in one.members] for one in classes]
    centres = class_centres(everybody.template, classes)
    kinds = [prevailing([everybody.strata[member] for member in one.members]) for one in classes]
    crowds = [
        Crowd(
            keyring.pseudonym("class", *members[index]),
            members[index],
            members[index],
            sorted(subject for member in one.members for subject in everybody.subjects[member]),
            one.stratum,
            one.effective_k,
            [[] for _ in one.members],
            (),
            Draw(painter.identity(centres[index]), *appearance(kinds[index])),
        )
        for index, one in enumerate(classes)
    ]
    return Hidden(strata, np.ones(len(people.ids), bool), crowds, centres, kinds)


def _everybody(people: People, strata: list[Stratum], persons: Sequence[str], accounts: Accounts | None) -> _Everybody:
    subjects: dict[str, list[int]] = {}
    for subject, person in enumerate(persons):
        subjects.setdefault(person, []).append(subject)
    absent = {one.person: one for one in accounts.hidden()} if accounts else {}
    others = [one for person, one in absent.items() if person not in subjects]
    mine = [people.template[some].mean(axis=0) for some in subjects.values()]
    return _Everybody(
        [*subjects, *(one.person for one in others)],
        normalized(np.stack([*mine, *(one.template for one in others)]).astype(np.float32)),
        [*(strata[some[0]] for some in subjects.values()), *(one.stratum for one in others)],
        [*subjects.values(), *([] for _ in others)],
    )
