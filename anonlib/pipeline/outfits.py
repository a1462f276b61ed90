"""Who wears whose face, subject by subject: what the two families of methods answer to the plan.

A class method forms crowds and deals each crowd a face; a vector method draws for every subject alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.pipeline.accounts import Booking
from anonlib.pipeline.decoding import Draw, Painter
from anonlib.pipeline.lending import Lender, digest_of, lent_draws
from anonlib.pipeline.people import People, best_portraits, donor_faces_of, stratum_of
from anonlib.privacy.classes import Stratum, with_guests
from anonlib.privacy.donor import Gallery, mixture, surrogate
from anonlib.privacy.dp import identities, mechanism_of
from anonlib.privacy.keys import Keyring
from anonlib.privacy.ksame import ALTERNATIVES, class_centres, k_diff
from anonlib.privacy.sampling import fit_prior, sample
from anonlib.privacy.strata import prevailing

MAYBE_SAME_PERSON = 0.96
"""dlib cosine of two templates above which they may be one person, for effective k."""

_FEMALE = {"female": 1.0, "male": 0.0}
_AGES = (27.0, 42.0, 60.0)
"""Years that a drawn face of each age band shows."""


@dataclass(frozen=True)
class Outfit:
    """What a subject's faces wear: surrogates in the order they are tried; none and a `reason` if there is no face."""

    surrogates: tuple[str, ...] = ()
    class_id: str | None = None
    k: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Crowd:
    """A class as the plan writes it: ids of `members` and `donors`, subject numbers of its `wearers` in this job.

    `portraits`: of each donor the faces that are averaged, or `draw`: what is decoded instead.
    """

    class_id: str
    members: list[str]
    donors: list[str]
    wearers: list[int]
    stratum: Stratum
    effective_k: int
    portraits: list[list[int]]
    surrogates: tuple[str, ...]
    draw: Draw | None = None


@dataclass(frozen=True)
class Wardrobe:
    """An outfit a subject, and the crowds or draws behind them; `draws` by surrogate; `booked` for a ledger."""

    outfits: list[Outfit]
    strata: list[Stratum]
    is_donor: NDArray[np.bool_]
    crowds: list[Crowd] = field(default_factory=list)
    draws: dict[str, Draw] = field(default_factory=dict)
    booked: list[Booking] = field(default_factory=list)


@dataclass(frozen=True)
class Hidden:
    """Crowds before they are dealt a face (their `surrogates` are empty); `centres` (c, d) and `kinds` of each."""

    strata: list[Stratum]
    is_donor: NDArray[np.bool_]
    crowds: list[Crowd]
    centres: NDArray[np.float32]
    kinds: list[Stratum]

    def dealt(self, job: JobConfig) -> list[Crowd]:
        """Each crowd with whose faces it wears."""
        dealt = deal(job, self.centres, self.kinds)
        return [
            replace(crowd, surrogates=tuple(self.crowds[other].class_id for other in others))
            for crowd, others in zip(self.crowds, dealt, strict=True)
        ]

    def wardrobe(self, job: JobConfig, booked: Sequence[Booking] = ()) -> Wardrobe:
        """Everybody dressed."""
        crowds = self.dealt(job)
        outfits = crowd_outfits(job, crowds, len(self.strata))
        return Wardrobe(outfits, self.strata, self.is_donor, crowds, booked=list(booked))


def averaged_crowds(job: JobConfig, faces: pa.Table, people: People, keyring: Keyring) -> Wardrobe:
    """Classes of at least k donors, everyone else a guest, and the face that each class is dealt."""
    donor_faces = donor_faces_of(faces)
    portraits = best_portraits(faces, people.of_face, donor_faces)
    return hidden_crowds(job, people, portraits, keyring).wardrobe(job)


def hidden_crowds(job: JobConfig, people: People, portraits: Mapping[int, list[int]], keyring: Keyring) -> Hidden:
    """Who hides with whom; `portraits` of each donor, by subject number."""
    is_donor = np.zeros(len(people.ids), bool)
    is_donor[list(portraits)] = True
    strata = strata_of(people)
    classes, wearers = with_guests(people.template, strata, is_donor, k=job.method.k, same_person=MAYBE_SAME_PERSON)
    crowds = [
        Crowd(
            keyring.pseudonym("class", *(people.ids[member] for member in one.members)),
            [people.ids[member] for member in wearers[number]],
            [people.ids[member] for member in one.members],
            wearers[number],
            one.stratum,
            one.effective_k,
            [portraits[member] for member in one.members],
            (),
        )
        for number, one in enumerate(classes)
    ]
    kinds = [prevailing([strata[member] for member in one.members]) for one in classes]
    return Hidden(strata, is_donor, crowds, class_centres(people.template, classes), kinds)


def deal(job: JobConfig, centres: NDArray[np.float32], strata: Sequence[Stratum]) -> list[tuple[int, ...]]:
    """For each class, centre (c, d) and stratum, whose surrogates it wears: the method's, then those to try next."""
    dealt = k_diff(centres, strata)
    if job.method.name == "k-same":
        return [(number, *others[:ALTERNATIVES]) for number, others in enumerate(dealt)]
    return dealt


def crowd_outfits(job: JobConfig, crowds: Sequence[Crowd], subjects: int) -> list[Outfit]:
    """Of every subject: its class's, or why it has none."""
    outfits = [hidden_nowhere(job)] * subjects
    for crowd in crowds:
        for subject in crowd.wearers:
            outfits[subject] = crowd_outfit(crowd.class_id, crowd.surrogates, len(crowd.members))
    return outfits


def crowd_outfit(class_id: str, surrogates: Sequence[str], k: int) -> Outfit:
    """What every member of a class of k wears."""
    alone = None if surrogates else "there is no other class whose surrogate it could wear"
    return Outfit(tuple(surrogates), class_id, k, alone)


def hidden_nowhere(job: JobConfig) -> Outfit:
    """Of a subject without a class."""
    return Outfit(reason=f"fewer than {job.method.k} subjects could hide together")


def draws_of(
    job: JobConfig,
    people: People,
    keyring: Keyring,
    painter: Painter,
    persons: Sequence[str],
    earlier: Mapping[str, Draw],
) -> Wardrobe:
    """One identity a subject and release, which all of the person's faces wear.

    `persons`: each subject's lasting name, where there is a ledger; `earlier`: the draws to be worn again, by person.
    """
    strata = strata_of(people)
    drawn = _drawn(job, painter.decoder.identity(people.template), people.ids, strata, keyring, painter)
    return _worn(people, strata, drawn, lambda draw: painter.digest(draw, keyring), persons, earlier)


def donors_of(
    job: JobConfig,
    people: People,
    keyring: Keyring,
    lender: Lender,
    persons: Sequence[str],
    earlier: Mapping[str, Draw],
) -> Wardrobe:
    """One donor a subject and release, who lends all of the person's faces; the rest as in `draws_of`."""
    strata = strata_of(people)
    looks = [appearance(stratum) for stratum in strata]
    drawn = lent_draws(job, lender, people.template, people.ids, strata, looks, keyring)
    return _worn(people, strata, drawn, lambda draw: digest_of(lender, draw, keyring), persons, earlier)


def _worn(
    people: People,
    strata: list[Stratum],
    drawn: list[list[Draw]],
    digest: Callable[[Draw], str],
    persons: Sequence[str],
    earlier: Mapping[str, Draw],
) -> Wardrobe:
    """What each subject's draws come to: those of an earlier release where there are any."""
    known = {number: earlier[person] for number, person in enumerate(persons) if person in earlier}
    named = [
        {digest(draw): draw for draw in ([known[number]] if number in known else draws)}
        for number, draws in enumerate(drawn)
    ]
    return Wardrobe(
        [Outfit(tuple(draws)) for draws in named],
        strata,
        np.zeros(len(people.ids), bool),
        draws={surrogate: draw for draws in named for surrogate, draw in draws.items()},
        booked=[
            Booking(
                person,
                people.template[number],
                strata[number],
                labelled=people.labels[number] is not None,
                draw=next(iter(named[number].values())),
            )
            for number, person in enumerate(persons)
        ],
    )


def _drawn(
    job: JobConfig,
    identities_of: NDArray[np.float32],
    ids: list[str],
    strata: list[Stratum],
    keyring: Keyring,
    painter: Painter,
) -> list[list[Draw]]:
    """The method's draws for each subject, a point of the identity space (n, d), in the order they are tried."""
    method, bank = job.method, painter.decoder.bank
    looks = [appearance(stratum) for stratum in strata]
    if method.name == "sampling":
        own, other = method.own_angle, method.other_angle
        prior = fit_prior(bank.vectors)
        sampled = sample(prior, bank.vectors, identities_of, ids, keyring, own_angle=own, other_angle=other)
        return [[Draw(z, *look) for z in one.points] for one, look in zip(sampled, looks, strict=True)]
    if method.name == "surrogate":
        public = [stratum_of(*one) for one in zip(bank.female, bank.age, strict=True)]
        gallery = Gallery(bank.vectors, public)
        choice = surrogate(identities_of, gallery, method.k, strata=strata, own_angle=method.own_angle)
        mixed = zip(mixture(gallery, choice), looks, choice.rows.tolist(), choice.weights.tolist(), strict=True)
        return [[Draw(z, *look, tuple(rows), tuple(weights))] for z, look, rows, weights in mixed]
    vectors = identities(mechanism_of(method), identities_of, ids, keyring)
    return [[Draw(z, *look)] for z, look in zip(vectors, looks, strict=True)]


def appearance(stratum: Stratum) -> tuple[float, float]:
    """(female 0-1, age in years) that a stratum's new faces show: the band and no more; half and 42 where mixed."""
    gender = stratum[0] if stratum else ""
    band = int(stratum[1].removeprefix("age-")) if len(stratum) > 1 else 1
    return _FEMALE.get(gender, 0.5), _AGES[band]


def strata_of(people: People) -> list[Stratum]:
    """Gender and age band of every subject."""
    return [stratum_of(*one) for one in zip(people.female, people.age, strict=True)]
