"""The class average as a source of faces to compare generators with: what a job does without any trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.generators.cast import Participants, RequestedLook
from anonlib.audit.generators.scanned import ScannedPhoto
from anonlib.audit.generators.sources import NOBODY, Painted, Targets, Wish, worn
from anonlib.errors import ConfigError
from anonlib.privacy.classes import form_classes
from anonlib.privacy.clustering import normalized
from anonlib.privacy.microaggregation import group_means
from anonlib.privacy.surrogate_choice import alike
from anonlib.synthesis.describe import crop_and_mesh, happiness
from anonlib.synthesis.textures.average import Portrait, average, member_texture, portrait


class AverageSource:
    """Averages classes of k people; everybody is dealt a class of his gender that he is not in."""

    def __init__(self, cast: Participants, k: int) -> None:
        self.name, self.cast = "average", cast
        known = [number for number, rows in enumerate(cast.portraits) if rows]
        if len(known) < 2 * k:
            raise ConfigError(
                f"{len(known)} people have photos good enough to be averaged, and two classes need {2 * k}"
            )
        points = cast.templates[known]
        strata = [cast.looks[number].stratum for number in known]
        classes, _ = form_classes(np.ones(len(known), np.int64), strata, alike(points, k), k=k)
        self.members = [[known[member] for member in one.members] for one in classes]
        if len(self.members) < 2:
            raise ConfigError("the people form one class only, so nobody can wear another's; ask for a smaller --k")
        means = group_means(self.identity(points), [one.members for one in classes])
        of_person = np.full(len(cast), NOBODY, np.int64)
        for number, members in enumerate(self.members):
            of_person[members] = number
        self.targets: Targets | None = Targets(normalized(means.astype(np.float32)), of_person)
        own = [member_texture([_portrait(row) for row in rows]) if rows else None for rows in cast.portraits]
        self.textures = [average([face for one in members if (face := own[one])]) for members in self.members]
        self.looks = [
            RequestedLook(*(float(np.mean(said)) for said in zip(*((cast.looks[one].female, cast.looks[one].age)
                                                         for one in members), strict=True)))
            for members in self.members
        ]  # fmt: skip

    def identity(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return normalized(vectors - self.cast.centre)

    def wish(self, donor: int, host: int) -> Wish:
        female = self.cast.looks[host].female >= 0.5
        others = [number for number, members in enumerate(self.members) if host not in members]
        alike = [number for number in others if (self.looks[number].female >= 0.5) == female] or others
        chosen = alike[donor % len(alike)]
        return Wish(chosen, self.looks[chosen])

    def paint(self, photo: ScannedPhoto, wish: Wish) -> Painted:
        return worn(photo, self.textures[wish.target])


def _portrait(row: Mapping[str, Any]) -> Portrait:
    return portrait(*crop_and_mesh(row), happiness(row["expression"]))
