"""k-diff and k-same: a class of at least k persons shares one surrogate, which is made of at least k persons.

k-same shows a class its own average, k-diff one that was made of others (anonlib.privacy.classes), or a face of the
gallery by a keyed draw, which no person of the dataset is in. The faces that a ledger remembers stay in their classes;
newcomers form new ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from anonlib.methods.base import (
    Assignment,
    ClassPlan,
    EarlierReleases,
    Persons,
    Rendering,
    SurrogateAssignment,
    SurrogatePlan,
    SurrogateSource,
    textured,
)
from anonlib.methods.identity_draws import DecodedMethod
from anonlib.privacy.classes import (
    Average,
    EquivalenceClass,
    Stratum,
    alike,
    averages,
    common,
    deal,
    effective_k,
    form_classes,
    may_be_shown,
    prevailing,
    shuffled,
)
from anonlib.privacy.clustering import normalized
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.synthesis.base import FaceTexture, IdentityDraw

if TYPE_CHECKING:
    from anonlib.synthesis.textures.average import Texture
    from anonlib.verification.certificate import Claim

TOO_FEW_AGAIN = "too few of the persons it hid with in earlier releases are in this one"


class KAnonymity(DecodedMethod):
    """Classes of at least k persons, and surrogates of at least k donors: averaged portraits, or decoded means."""

    keys = ("k", "texture", "region")
    own_average: ClassVar[bool]
    """Whether classes are of look-alikes who share their own average, which takes k donors, and not one of others."""

    @property
    def claim(self) -> Claim:
        from anonlib.verification.certificate import K_ANONYMITY, Claim

        return Claim(K_ANONYMITY, k=self.settings.k)

    def plan(self, persons: Persons, keyring: Keyring, earlier: EarlierReleases) -> Assignment:
        is_donor = np.full(len(persons.ids), self.decoder is not None)
        if self.decoder is None:
            is_donor[list(persons.portraits)] = True
        is_donor &= persons.sure & (persons.photos > 0)
        former, barred = self._former_classes(persons, earlier)
        photos = persons.photos.copy()
        photos[[*(member for equivalence in former for member in equivalence.members), *barred]] = 0
        order, donors, k = shuffled(persons.ids, keyring), None, self.settings.k
        if self.own_average:
            order, donors = alike(persons.template, k), is_donor
        # Who would be in a class of women and men is better served by a face of the gallery that is theirs alone.
        shared = int(self.serves_few)
        formed, _ = form_classes(photos, persons.strata, order, k=k, donors=donors, shared=shared)
        classes = [*former, *formed]
        if self.serves_few:
            assignment = self._by_lot(persons, keyring, classes)
        else:
            assignment = self._assigned(persons, keyring, classes, is_donor)
        for person in barred:
            assignment.persons[person] = SurrogateAssignment(reason=TOO_FEW_AGAIN)
        return assignment

    @property
    def serves_few(self) -> bool:
        """See Method: where its classes get faces of the gallery, which takes no donors."""
        return self.entry.has_faces and not self.own_average

    def _by_lot(self, persons: Persons, keyring: Keyring, classes: Sequence[EquivalenceClass]) -> Assignment:
        """A face of the gallery for each class, and for each person without one: a keyed uniform draw in the stratum.

        So whose face it is tells nothing of who wears it, also where fewer than k could hide together; k is another
        promise, and faces of those persons are not under it.
        """
        plans = dict[int, SurrogatePlan]()
        assigned = [SurrogateAssignment(reason="it has no photo that can be replaced")] * len(persons.ids)
        formed = []

        def dealt(kind: Stratum, name: str) -> str:
            rows = self.pool(kind)
            row = rows[int.from_bytes(keyring.digest(Purpose.DEAL, name), "big") % len(rows)]
            surrogate = keyring.pseudonym(Purpose.SURROGATE, self.texture_name, str(row))
            plans.setdefault(row, SurrogatePlan(surrogate, [], kind, [], self.draw_of_row(row)))
            return surrogate

        for equivalence in classes:
            members = [persons.ids[member] for member in equivalence.members]
            class_id = keyring.pseudonym(Purpose.CLASS, *members)
            surrogate = dealt(prevailing([persons.strata[member] for member in equivalence.members]), class_id)
            formed.append(ClassPlan(class_id, members, equivalence.effective_k, equivalence.stratum, surrogate))
            for member in equivalence.members:
                assigned[member] = SurrogateAssignment((surrogate,), class_id)
        alone = f"fewer than {self.settings.k} persons could hide together"
        for person, own in enumerate(assigned):
            if not own.surrogates and persons.photos[person]:
                own_face = dealt(persons.strata[person], persons.ids[person])
                assigned[person] = SurrogateAssignment((own_face,), reason=alone)
        return Assignment(assigned, formed, [plans[row] for row in sorted(plans)])

    def texture(self, draw: IdentityDraw | None, members: Sequence[Texture]) -> FaceTexture:
        if draw is not None:
            return self.decoded(draw)
        from anonlib.synthesis.textures.average import average

        return average(members)

    def replacement(self, name: str, source: SurrogateSource) -> Rendering:
        data = source.texture(name)
        if self.decoder is not None:
            face: type[FaceTexture] = self.decoder.Face
        else:
            from anonlib.synthesis.textures.average import Texture as face
        return textured(face.from_bytes(data), source.digest(hashlib.sha256(data).hexdigest()), self.settings.region)

    def _assigned(
        self, persons: Persons, keyring: Keyring, classes: Sequence[EquivalenceClass], is_donor: NDArray[np.bool_]
    ) -> Assignment:
        """The surrogate of each class, and of each person; only those that a class gets are made."""
        kinds = [prevailing([persons.strata[member] for member in formed.members]) for formed in classes]
        donors = [
            [member for member in formed.members if is_donor[member] and persons.strata[member][: len(kind)] == kind]
            for formed, kind in zip(classes, kinds, strict=True)
        ]
        members = [[persons.ids[member] for member in formed.members] for formed in classes]
        ids = [keyring.pseudonym(Purpose.CLASS, *own) for own in members]
        k, chosen = self.settings.k, list[int | None]()
        if self.own_average:
            numbered = enumerate(zip(donors, kinds, strict=True))
            averaged = [Average(tuple(own), kind, frozenset({number})) for number, (own, kind) in numbered]
            chosen += [number if len(own) >= k else None for number, own in enumerate(donors)]
        else:
            averaged = averages(kinds, donors, k)
            chosen += deal(averaged, kinds, ids, keyring)
        used = sorted({number for number in chosen if number is not None})
        surrogates = {number: self._surrogate(averaged[number], persons, keyring) for number in used}
        too_few = SurrogateAssignment(reason=f"fewer than {k} persons could hide together")
        assigned = [too_few] * len(persons.ids)
        plans = []
        for class_id, own, formed, number in zip(ids, members, classes, chosen, strict=True):
            if number is None:
                alone = "there is no surrogate of other persons that it could wear"
                assignment = SurrogateAssignment((), class_id, alone)
            else:
                name = surrogates[number].surrogate_id
                assignment = SurrogateAssignment((name,), class_id)
                plans.append(ClassPlan(class_id, own, formed.effective_k, formed.stratum, name))
            for member in formed.members:
                assigned[member] = assignment
        return Assignment(assigned, plans, list(surrogates.values()))

    def _surrogate(self, averaged: Average, persons: Persons, keyring: Keyring) -> SurrogatePlan:
        ids = [persons.ids[donor] for donor in averaged.donors]
        name = keyring.pseudonym(Purpose.SURROGATE, *ids)
        if self.decoder is None:
            portraits = [persons.portraits[donor] for donor in averaged.donors]
            return SurrogatePlan(name, ids, averaged.kind, portraits)
        mean = normalized(persons.template[list(averaged.donors)].mean(axis=0)[None])
        point = np.asarray(self.decoder.identity(mean)[0], np.float32)
        return SurrogatePlan(name, ids, averaged.kind, [[] for _ in ids], self.draw_of(point, averaged.kind))

    def _former_classes(self, persons: Persons, earlier: EarlierReleases) -> tuple[list[EquivalenceClass], list[int]]:
        """The ledger's classes that are shown again, as their present members, and the persons that may not be."""
        number = {name: person for person, name in enumerate(earlier.names)}
        photos = dict(zip(earlier.names, persons.photos.tolist(), strict=False))
        releases = [{name for group in groups for name in group} for groups in earlier.releases]
        kept: list[EquivalenceClass] = []
        barred: list[int] = []
        for group in earlier.groups:
            present = tuple(sorted(number[name] for name in group if photos.get(name)))
            if may_be_shown(group, releases, photos, self.settings.k, earlier.absences_known):
                stratum = common(persons.strata[member] for member in present)
                hidden = effective_k(persons.photos[list(present)]) if earlier.absences_known else len(group)
                kept.append(EquivalenceClass(present, stratum, hidden))
            else:
                barred += present
        return kept, barred


class KDiff(KAnonymity):
    """Classes by a keyed shuffle; each gets a face of its kind, of the gallery or averaged from others."""

    own_average = False
    own_texture = "gallery"


class KSame(KAnonymity):
    """Classes of look-alikes; each gets its own average."""

    own_average = True
