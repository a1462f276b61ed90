"""Which surrogate each person gets: what the two families of methods answer to the plan.

A class method forms classes and deals each class a surrogate; a vector method draws for every person alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.methods.decoders import FaceDecoderSet, IdentityDraw
from anonlib.methods.feature_transfer import FeatureSource, digest_of, source_draws
from anonlib.privacy.classes import EquivalenceClass, Order, form_classes
from anonlib.privacy.dp import identities, mechanism_of
from anonlib.privacy.gallery import Gallery, mixture, surrogate
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.privacy.sampling import fit_prior, sample
from anonlib.privacy.strata import Stratum, prevailing
from anonlib.privacy.surrogate_choice import Average, alike, averages, deal, shuffled
from anonlib.stages.people import Persons, stratum_of
from anonlib.workspace.ledger_store import LedgerRow

_FEMALE = {"female": 1.0, "male": 0.0}
_AGES = (27.0, 42.0, 60.0)
"""Years that a drawn face of each age band shows."""


@dataclass(frozen=True)
class SurrogateAssignment:
    """What a person's faces wear: surrogates in the order they are tried; none and a `reason` if there is no face."""

    surrogates: tuple[str, ...] = ()
    class_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class ClassPlan:
    """A class as the plan writes it: `members` are person ids, `surrogate` the id of what they all wear."""

    class_id: str
    members: list[str]
    effective_k: int
    stratum: Stratum
    surrogate: str | None


@dataclass(frozen=True)
class SurrogatePlan:
    """A surrogate that is to be made of `donors` (person ids): of the faces in `portraits`, or of the `draw`."""

    surrogate_id: str
    donors: list[str]
    stratum: Stratum
    portraits: list[list[int]]
    draw: IdentityDraw | None = None


@dataclass(frozen=True)
class PlanResult:
    """An outfit a person, and what is behind them; `draws` by surrogate; `booked` for a ledger."""

    outfits: list[SurrogateAssignment]
    classes: list[ClassPlan] = field(default_factory=list)
    surrogates: list[SurrogatePlan] = field(default_factory=list)
    draws: dict[str, IdentityDraw] = field(default_factory=dict)
    booked: list[LedgerRow] = field(default_factory=list)


def new_classes(
    job: JobConfig, persons: Persons, keyring: Keyring, is_donor: NDArray[np.bool_]
) -> list[EquivalenceClass]:
    """The classes of these persons: k-diff shuffles them with the key, k-same groups look-alikes and counts donors."""
    k, same = job.method.k, job.method.name == "k-same"
    order: Order = alike(persons.template, k) if same else shuffled(persons.ids, keyring)
    return form_classes(persons.photos, persons.strata, order, k=k, donors=is_donor if same else None)[0]


def dressed(
    job: JobConfig,
    persons: Persons,
    keyring: Keyring,
    classes: Sequence[EquivalenceClass],
    is_donor: NDArray[np.bool_],
    planned: Callable[[Average], SurrogatePlan],
) -> PlanResult:
    """The surrogate that each class wears, and everybody's outfit; only surrogates that are worn are made."""
    kinds = [prevailing([persons.strata[member] for member in one.members]) for one in classes]
    donors = [
        [one for one in members if is_donor[one] and persons.strata[one][: len(kind)] == kind]
        for members, kind in zip((one.members for one in classes), kinds, strict=True)
    ]
    ids = [keyring.pseudonym(Purpose.CLASS, *(persons.ids[member] for member in one.members)) for one in classes]
    if job.method.name == "k-same":
        made = [
            Average(tuple(of), kind, frozenset({row})) for row, (of, kind) in enumerate(zip(donors, kinds, strict=True))
        ]
        worn = [row if len(of) >= job.method.k else None for row, of in enumerate(donors)]
    else:
        made = averages(kinds, donors, job.method.k)
        worn = deal(made, kinds, ids, keyring)
    surrogates = {number: planned(made[number]) for number in sorted({one for one in worn if one is not None})}
    plans = [
        ClassPlan(
            class_id,
            [persons.ids[member] for member in one.members],
            one.effective_k,
            one.stratum,
            None if number is None else surrogates[number].surrogate_id,
        )
        for class_id, one, number in zip(ids, classes, worn, strict=True)
    ]
    outfits = [SurrogateAssignment(reason=f"fewer than {job.method.k} persons could hide together")] * len(persons.ids)
    for one, plan in zip(classes, plans, strict=True):
        alone = None if plan.surrogate else "there is no surrogate of other persons that it could wear"
        outfit = SurrogateAssignment((plan.surrogate,) if plan.surrogate else (), plan.class_id, alone)
        for member in one.members:
            outfits[member] = outfit
    return PlanResult(outfits, [one for one in plans if one.surrogate], list(surrogates.values()))


def surrogate_id(one: Average, persons: Persons, keyring: Keyring) -> str:
    """The name of a surrogate in this job's workspace."""
    return keyring.pseudonym(Purpose.SURROGATE, *(persons.ids[donor] for donor in one.donors))


def draws_of(
    job: JobConfig,
    persons: Persons,
    keyring: Keyring,
    painter: FaceDecoderSet,
    names: Sequence[str],
    earlier: Mapping[str, IdentityDraw],
) -> PlanResult:
    """One identity a person and release, which all of the person's faces wear.

    `names`: each person's lasting name, where there is a ledger; `earlier`: the draws to be worn again, by name.
    """
    drawn = _drawn(job, painter.decoder.identity(persons.template), persons.ids, persons.strata, keyring, painter)
    return _worn(persons, drawn, lambda draw: painter.digest(draw, keyring), names, earlier)


def donors_of(
    job: JobConfig,
    persons: Persons,
    keyring: Keyring,
    lender: FeatureSource,
    names: Sequence[str],
    earlier: Mapping[str, IdentityDraw],
) -> PlanResult:
    """One donor a person and release, who lends all of the person's faces; the rest as in `draws_of`."""
    looks = [appearance(stratum) for stratum in persons.strata]
    drawn = source_draws(job, lender, persons.template, persons.ids, persons.strata, looks, keyring)
    return _worn(persons, drawn, lambda draw: digest_of(lender, draw, keyring), names, earlier)


def _worn(
    persons: Persons,
    drawn: list[list[IdentityDraw]],
    digest: Callable[[IdentityDraw], str],
    names: Sequence[str],
    earlier: Mapping[str, IdentityDraw],
) -> PlanResult:
    """What each person's draws come to: those of an earlier release where there are any."""
    known = {number: earlier[name] for number, name in enumerate(names) if name in earlier}
    named = [
        {digest(draw): draw for draw in ([known[number]] if number in known else draws)}
        for number, draws in enumerate(drawn)
    ]
    return PlanResult(
        [SurrogateAssignment(tuple(draws)) for draws in named],
        draws={surrogate: draw for draws in named for surrogate, draw in draws.items()},
        booked=[
            LedgerRow(
                name,
                persons.template[number],
                persons.strata[number],
                persons.labels[number] is not None,
                draw=next(iter(named[number].values())),
            )
            for number, name in enumerate(names)
        ],
    )


def _drawn(
    job: JobConfig,
    identities_of: NDArray[np.float32],
    ids: list[str],
    strata: list[Stratum],
    keyring: Keyring,
    painter: FaceDecoderSet,
) -> list[list[IdentityDraw]]:
    """The method's draws for each person, a point of the identity space (n, d), in the order they are tried."""
    method, bank = job.method, painter.decoder.bank
    looks = [appearance(stratum) for stratum in strata]
    if method.name == "sampling":
        own, other = method.own_angle, method.other_angle
        prior = fit_prior(bank.vectors)
        sampled = sample(prior, bank.vectors, identities_of, ids, keyring, own_angle=own, other_angle=other)
        return [[IdentityDraw(z, *look) for z in one.points] for one, look in zip(sampled, looks, strict=True)]
    if method.name == "surrogate":
        public = [stratum_of(*one) for one in zip(bank.female, bank.age, strict=True)]
        gallery = Gallery(bank.vectors, public)
        choice = surrogate(identities_of, gallery, method.k, strata=strata, own_angle=method.own_angle)
        mixed = zip(mixture(gallery, choice), looks, choice.rows.tolist(), choice.weights.tolist(), strict=True)
        return [[IdentityDraw(z, *look, tuple(rows), tuple(weights))] for z, look, rows, weights in mixed]
    vectors = identities(mechanism_of(method), identities_of, ids, keyring)
    return [[IdentityDraw(z, *look)] for z, look in zip(vectors, looks, strict=True)]


def appearance(stratum: Stratum) -> tuple[float, float]:
    """(female 0-1, age in years) that a stratum's new faces show: the band and no more; half and 42 where mixed."""
    gender = stratum[0] if stratum else ""
    band = int(stratum[1].removeprefix("age-")) if len(stratum) > 1 else 1
    return _FEMALE.get(gender, 0.5), _AGES[band]
