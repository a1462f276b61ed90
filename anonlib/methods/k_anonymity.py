"""k-diff and k-same: a class of at least k persons shares one surrogate, which is made of at least k persons.

k-same shows a class its own average; k-diff shows it one that was made of others. The faces that a ledger remembers
stay in their classes; newcomers form new ones. What is chosen how is in anonlib.privacy.surrogate_choice.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anonlib.methods.base import (
    Assignment,
    ClassPlan,
    EarlierReleases,
    Persons,
    SurrogateAssignment,
    SurrogatePlan,
    SurrogateSource,
    TextureReplacement,
    appearance,
)
from anonlib.methods.decoded import DecodedMethod
from anonlib.privacy.classes import EquivalenceClass, Order, effective_k, form_classes, may_be_shown
from anonlib.privacy.clustering import normalized
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.privacy.strata import Stratum, common, prevailing
from anonlib.privacy.surrogate_choice import Average, alike, averages, deal, shuffled
from anonlib.synthesis.base import FaceTexture, IdentityDraw

if TYPE_CHECKING:
    from anonlib.synthesis.textures.average import Texture
    from anonlib.verification.certificate import Claim

TOO_FEW_AGAIN = "too few of the persons it hid with in earlier releases are in this one"


class KAnonymity(DecodedMethod):
    """Classes of at least k persons, and surrogates of at least k donors: averaged portraits, or decoded means."""

    keys = ("k", "texture")
    donors_in_class = False
    """Whether a class needs k donors of its own."""

    @property
    def claim(self) -> Claim:
        from anonlib.verification.certificate import K_ANONYMITY, Claim

        return Claim(K_ANONYMITY, k=self.settings.k)

    @abstractmethod
    def order(self, persons: Persons, keyring: Keyring) -> Order:
        """How persons are arranged before they are cut into classes."""

    @abstractmethod
    def choose(
        self, kinds: Sequence[Stratum], donors: Sequence[Sequence[int]], ids: Sequence[str], keyring: Keyring
    ) -> tuple[list[Average], list[int | None]]:
        """The surrogates that could be made, and of each class which it gets; of each class kind, donors and id."""

    def plan(self, persons: Persons, keyring: Keyring, earlier: EarlierReleases) -> Assignment:
        is_donor = np.full(len(persons.ids), self.decoder is not None)
        if self.decoder is None:
            is_donor[list(persons.portraits)] = True
        is_donor &= persons.sure & (persons.photos > 0)
        former, barred = self._former_classes(persons, earlier)
        photos = persons.photos.copy()
        photos[[*(member for equivalence in former for member in equivalence.members), *barred]] = 0
        formed, _ = form_classes(
            photos,
            persons.strata,
            self.order(persons, keyring),
            k=self.settings.k,
            donors=is_donor if self.donors_in_class else None,
        )
        assigned = self._assigned(persons, keyring, [*former, *formed], is_donor)
        for person in barred:
            assigned.persons[person] = SurrogateAssignment(reason=TOO_FEW_AGAIN)
        ledger = [
            persons.ledger_row(person, name, crowd=assigned.persons[person].class_id)
            for person, name in enumerate(earlier.names)
            if persons.photos[person] and assigned.persons[person].class_id is not None
        ]
        return replace(assigned, ledger=ledger)

    def texture(self, draw: IdentityDraw | None, members: Sequence[Texture]) -> FaceTexture:
        if draw is not None:
            return self.decoded(draw)
        from anonlib.synthesis.textures.average import average

        return average(members)

    def replacement(self, name: str, source: SurrogateSource) -> TextureReplacement:
        data = source.texture(name)
        return TextureReplacement(self._face().from_bytes(data), source.digest(hashlib.sha256(data).hexdigest()))

    def _face(self) -> type[FaceTexture]:
        if self.decoder is not None:
            return self.decoder.Face
        from anonlib.synthesis.textures.average import Texture

        return Texture

    def _assigned(
        self,
        persons: Persons,
        keyring: Keyring,
        classes: Sequence[EquivalenceClass],
        is_donor: NDArray[np.bool_],
    ) -> Assignment:
        """The surrogate of each class, and of each person; only those that a class gets are made."""
        k = self.settings.k
        kinds = [prevailing([persons.strata[member] for member in found.members]) for found in classes]
        donors = [
            [member for member in found.members if is_donor[member] and persons.strata[member][: len(kind)] == kind]
            for found, kind in zip(classes, kinds, strict=True)
        ]
        ids = [
            keyring.pseudonym(Purpose.CLASS, *(persons.ids[member] for member in found.members)) for found in classes
        ]
        averaged, chosen = self.choose(kinds, donors, ids, keyring)
        used = sorted({number for number in chosen if number is not None})
        surrogates = {number: self._surrogate(averaged[number], persons, keyring) for number in used}
        plans = [
            ClassPlan(
                class_id,
                [persons.ids[member] for member in found.members],
                found.effective_k,
                found.stratum,
                None if number is None else surrogates[number].surrogate_id,
            )
            for class_id, found, number in zip(ids, classes, chosen, strict=True)
        ]
        assigned = [SurrogateAssignment(reason=f"fewer than {k} persons could hide together")] * len(persons.ids)
        for found, plan in zip(classes, plans, strict=True):
            alone = None if plan.surrogate else "there is no surrogate of other persons that it could wear"
            for member in found.members:
                names = (plan.surrogate,) if plan.surrogate else ()
                assigned[member] = SurrogateAssignment(names, plan.class_id, alone)
        return Assignment(assigned, [plan for plan in plans if plan.surrogate], list(surrogates.values()))

    def _surrogate(self, averaged: Average, persons: Persons, keyring: Keyring) -> SurrogatePlan:
        ids = [persons.ids[donor] for donor in averaged.donors]
        name = keyring.pseudonym(Purpose.SURROGATE, *ids)
        if self.decoder is None:
            portraits = [persons.portraits[donor] for donor in averaged.donors]
            return SurrogatePlan(name, ids, averaged.kind, portraits)
        mean = normalized(persons.template[list(averaged.donors)].mean(axis=0)[None])
        point = np.asarray(self.decoder.identity(mean)[0], np.float32)
        draw = IdentityDraw(point, *appearance(averaged.kind))
        return SurrogatePlan(name, ids, averaged.kind, [[] for _ in ids], draw)

    def _former_classes(self, persons: Persons, earlier: EarlierReleases) -> tuple[list[EquivalenceClass], list[int]]:
        """The ledger's classes that are shown again, as their present members, and the persons that may not be."""
        number = {name: person for person, name in enumerate(earlier.names)}
        releases = [{name for group in groups for name in group} for groups in earlier.releases]
        kept: list[EquivalenceClass] = []
        barred: list[int] = []
        for group in earlier.groups:
            absent = sorted(set(group) - set(number))
            of = number | {name: len(number) + place for place, name in enumerate(absent)}
            photos = np.concatenate([persons.photos, np.zeros(len(absent), np.int64)])
            shown = [{of[name] for name in release if name in of} for release in releases]
            members = [of[name] for name in group]
            present = tuple(sorted(member for member in members if photos[member]))
            if may_be_shown(members, shown, photos, k=self.settings.k, absences_known=earlier.absences_known):
                stratum = common(persons.strata[member] for member in present)
                hidden = effective_k(persons.photos[list(present)]) if earlier.absences_known else len(members)
                kept.append(EquivalenceClass(present, stratum, hidden))
            else:
                barred += present
        return kept, barred


class KDiff(KAnonymity):
    """Classes by a keyed shuffle; each gets a surrogate of its kind that others were averaged into."""

    def order(self, persons: Persons, keyring: Keyring) -> Order:
        return shuffled(persons.ids, keyring)

    def choose(
        self, kinds: Sequence[Stratum], donors: Sequence[Sequence[int]], ids: Sequence[str], keyring: Keyring
    ) -> tuple[list[Average], list[int | None]]:
        averaged = averages(kinds, donors, self.settings.k)
        return averaged, deal(averaged, kinds, ids, keyring)


class KSame(KAnonymity):
    """Classes of look-alikes; each gets its own average."""

    donors_in_class = True

    def order(self, persons: Persons, keyring: Keyring) -> Order:
        return alike(persons.template, self.settings.k)

    def choose(
        self, kinds: Sequence[Stratum], donors: Sequence[Sequence[int]], ids: Sequence[str], keyring: Keyring
    ) -> tuple[list[Average], list[int | None]]:
        averaged = [
            Average(tuple(of), kind, frozenset({row})) for row, (of, kind) in enumerate(zip(donors, kinds, strict=True))
        ]
        return averaged, [row if len(of) >= self.settings.k else None for row, of in enumerate(donors)]
