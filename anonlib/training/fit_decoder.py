"""`anonlib fit-decoder`: from the place of the photos to the decoder's file."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from anonlib.config import no_job
from anonlib.datasets import open_dataset
from anonlib.errors import ConfigError
from anonlib.execution.base import UnitResult
from anonlib.models.fetch import model_bytes
from anonlib.models.requirements import scan_models
from anonlib.storage.local import LocalStorage
from anonlib.synthesis.base import DecoderNotes
from anonlib.synthesis.textures.linear import Decoder
from anonlib.training.decoder import LEAST_FACES, fit
from anonlib.training.examples import Gatherer, Report, example_of


@dataclass(frozen=True)
class Fitted:
    """A decoder in its file, of how many photos, and why photos gave no face (reason -> photos)."""

    output: Path
    decoder: Decoder
    photos: int
    left_out: Counter[str]

    def rows(self) -> list[tuple[str, str]]:
        """What the terminal shows: name and value."""
        about = self.decoder.about
        return [
            ("photos", f"{self.photos:,}"),
            ("faces", f"{about.faces:,} used, {len(self.decoder.bank):,} of them in the bank"),
            *(("", f"{count:,} left out: {reason}") for reason, count in self.left_out.most_common()),
            ("terms", about.terms if about.commercial else f"{about.terms} (not for commercial use)"),
            ("decoder", f"{self.output} (personal data: it can draw the people it was fitted on)"),
            ("sha256", self.decoder.digest),
        ]


def fit_decoder(
    uri: str,
    output: Path,
    *,
    terms: str,
    about: str | None = None,
    commercial: bool = True,
    faces: int = 8000,
    report: Report = lambda stage, outcome, units: None,
) -> Fitted:
    """Fit a decoder on the faces at `uri`, at most `faces` of them, and publish it at `output`.

    Raises ConfigError where the terms are empty or the faces too few, and what reading and models raise.
    """
    if not terms.strip():
        raise ConfigError("a decoder says under which terms its photos may be used; give them by --terms")
    if faces < LEAST_FACES:
        raise ConfigError(f"a decoder needs at least {LEAST_FACES} faces; --faces is {faces}")
    job = no_job()
    gatherer = Gatherer(job, {name: model_bytes(name) for name in scan_models(job)}, example_of)
    gathered = gatherer.gather(open_dataset(uri), faces, report)
    used = len(gathered.examples)
    if used < LEAST_FACES:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in gathered.left_out.most_common())
        raise ConfigError(
            f"{used} of {gathered.photos} photos have a face to learn from and a decoder needs {LEAST_FACES}"
            + (f" ({reasons})" if reasons else "")
        )
    began = time.monotonic()
    fitted_on = about or f"photos in {uri.rstrip('/').rpartition('/')[2]}"
    data = fit(gathered.examples, DecoderNotes(fitted_on, terms, used, commercial))
    LocalStorage(output.parent).publish(output.name, data)
    report("fit", UnitResult(output.name, faces=used, seconds=time.monotonic() - began), 1)
    return Fitted(output, Decoder.from_bytes(data), gathered.photos, gathered.left_out)
