"""Classes whose faces are decoded: everybody is a member, and so is who is only known from earlier releases.

A decoded face needs no photo, only the class's centre, so nobody has to be a guest. With a ledger a class keeps its
members over releases, the absent ones too, since who sees two releases intersects their classes. A class is shown only
where everybody in it keeps k candidates once all releases are put together (`growth.showable`); the faces of the others
are redacted. Only the people who are present are candidates, unless the job says that nobody can know who is absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.pipeline.accounts import Accounts, Booking
from anonlib.pipeline.decoding import Draw, Painter
from anonlib.pipeline.outfits import MAYBE_SAME_PERSON, Crowd, Hidden, Wardrobe, appearance, strata_of
from anonlib.pipeline.people import People
from anonlib.privacy.classes import EquivalenceClass, Stratum, form_classes, made_classes
from anonlib.privacy.growth import extend, showable
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
    labelled: list[bool]
    subjects: list[list[int]]

    @property
    def present(self) -> set[int]:
        """The persons whom this job's dataset shows."""
        return {person for person, subjects in enumerate(self.subjects) if subjects}


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

    `persons`: each subject's lasting name, where there is a ledger. A person who would not be hidden once all releases
    are put together is in no crowd.
    """
    strata = strata_of(people)
    everybody = _everybody(people, strata, persons or people.ids, accounts)
    number = {name: index for index, name in enumerate(everybody.names)}
    present, k = everybody.present, job.method.k
    releases = accounts.releases() if accounts else []
    earlier = [[[number[name] for name in crowd] for crowd in crowds] for crowds in releases]
    there = [{number[name] for name in names} for names in accounts.present()] if accounts else []
    old = [[number[name] for name in crowd] for crowd in accounts.crowds()] if accounts else []
    known = job.ledger is None or job.ledger.absences == "known"

    def form(newcomers: NDArray[np.int64]) -> list[list[int]]:
        kinds = [everybody.strata[person] for person in newcomers]
        formed, _ = form_classes(everybody.template[newcomers], kinds, k=k, same_person=MAYBE_SAME_PERSON)
        return [newcomers[list(one.members)].tolist() for one in formed]

    classes, _ = extend(old, everybody.strata, form, join=not known)
    kept, _ = showable(
        earlier,
        there,
        classes,
        present,
        k=k,
        templates=everybody.template,
        same_person=MAYBE_SAME_PERSON,
        absences_known=known,
    )
    shown = sorted(
        ([member for member in members if not known or member in present], members)
        for members in kept
        if not present.isdisjoint(members)
    )
    groups = [np.array(candidates, np.int64) for candidates, _ in shown]
    made = made_classes(everybody.template, groups, everybody.strata, MAYBE_SAME_PERSON)
    hidden = _hidden(made, everybody, people, strata, keyring, painter)
    return hidden, [
        Booking(
            everybody.names[member],
            everybody.template[member],
            everybody.strata[member],
            labelled=everybody.labelled[member],
            present=member in present,
            crowd=crowd.class_id,
        )
        for (_, members), crowd in zip(shown, hidden.crowds, strict=True)
        for member in members
    ]


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
        [
            *(all(people.labels[one] is not None for one in some) for some in subjects.values()),
            *(one.labelled for one in others),
        ],
        [*subjects.values(), *([] for _ in others)],
    )
