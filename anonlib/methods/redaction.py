"""Redactions: a filled or flat ellipse, a blur, a mosaic. They show no identity, need boxes alone and claim nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.methods.base import Method, Region, SurrogateSource
from anonlib.workspace.schemas import FILLS


@dataclass(frozen=True)
class Fill:
    """One of anonlib.synthesis.redact's ways to fill a face's ellipse, or the `whole` box of another kind of region."""

    kind: str
    whole: bool = False
    digest: None = None

    def apply(self, picture: NDArray[np.uint8], region: Region) -> None:
        """See Replacement."""
        from anonlib.synthesis.redact import redact

        redact(picture, region.box, self.kind, region.others, self.whole)


def fallback_of(method: str, otherwise: str) -> Fill:
    """What hides a face that a job's method does not replace: the method itself, if it is one that may."""
    return Fill(method if method in FILLS else otherwise)


class Redaction(Method):
    """Every face gets the fill that the method is called after."""

    synthesis = False
    describe = recheck = ()

    def replacement(self, name: str, source: SurrogateSource) -> Fill:
        return Fill(name)
