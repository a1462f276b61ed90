"""Redactions: a flat ellipse, a blur, a mosaic. They show no identity, need boxes alone and claim nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.methods.base import Method, Region, SurrogateSource


@dataclass(frozen=True)
class Fill:
    """One of anonlib.synthesis.redact's ways to fill a face's ellipse."""

    kind: str
    digest: None = None

    def apply(self, picture: NDArray[np.uint8], region: Region) -> None:
        """See Replacement."""
        from anonlib.synthesis.redact import redact

        redact(picture, region.box, self.kind)


FLAT = Fill("solid")  # the fallback of every method: it holds no px of the face


class Redaction(Method):
    """Every face gets the fill that the method is called after."""

    synthesis = False
    describe = recheck = ()

    def replacement(self, name: str, source: SurrogateSource) -> Fill:
        return Fill(name)
