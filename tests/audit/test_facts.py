"""A report's counts are the release's own: they add up, and every exception has its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from anonlib.audit.facts import claim_of, counts_of, models_of, settings_of
from anonlib.audit.findings import ReleaseCounts
from anonlib.storage import open_storage
from anonlib.verification.certificate import Certificate
from anonlib.workspace.layout import JobStores
from anonlib.workspace.schemas import CERTIFICATE
from tests.support.forgery import CLASSES, MANIFEST, Forger
from tests.support.runs import Run


def certificate(root: Path) -> Certificate:
    return Certificate.from_bytes((root / CERTIFICATE).read_bytes())


def counted(release: Path, workspace: Path) -> ReleaseCounts:
    note = json.loads((release / "run.json").read_text())
    stores = JobStores(open_storage(str(workspace)), open_storage(str(release)))
    return counts_of(stores, note["run"], note["shards"])


def test_counts_are_those_of_the_job(finished: Run) -> None:
    counts = counted(finished.output, finished.workspace)
    summary = finished.summary
    assert (counts.shards, counts.images, counts.faces) == (summary.shards, summary.images, summary.faces)
    assert counts.images == counts.released + counts.no_face + counts.quarantined
    assert sum(counts.methods.values()) == counts.faces > 0
    assert sum(counts.fallbacks.values()) >= summary.fallbacks


def test_an_exception_is_counted_by_its_reason(forger: Forger, finished: Run) -> None:
    def two(rows: list[dict[str, Any]]) -> None:
        rows[0] |= {"status": "quarantined", "reason": "damaged"}
        rows[1] |= {"status": "quarantined", "reason": "damaged"}

    forger.rows(MANIFEST, two)
    forger.reseal()
    counts = counted(forger.root, finished.workspace)
    assert counts.quarantined == 2 and counts.quarantine_reasons == {"the image is damaged": 2}


def test_a_claim_tells_how_many_classes_have_how_many_people(finished: Run, forger: Forger) -> None:
    claim = claim_of(open_storage(str(finished.output)), certificate(finished.output))
    assert claim.k == 2 and claim.text == "k-anonymity of the identity channel, k = 2"
    before = sum(claim.class_sizes.values())
    assert before > 1 and min(claim.class_sizes) >= 2 and sum(claim.effective_sizes.values()) == before

    forger.rows(CLASSES, lambda rows: rows[:-1])
    assert sum(claim_of(open_storage(str(forger.root)), certificate(forger.root)).class_sizes.values()) == before - 1


def test_models_name_what_made_the_release_and_what_judged_it(finished: Run) -> None:
    made = certificate(finished.output)
    models = models_of(made, ["fr-feature"])
    assert {one.name for one in models if one.used_for == "release"} == set(made.models)
    (judge,) = [one for one in models if one.used_for == "audit"]
    assert judge.name == "fr-feature" and judge.licence and len(judge.sha256) == 64


def test_settings_are_those_that_mean_something_to_the_method(finished: Run) -> None:
    settings = settings_of(certificate(finished.output))
    assert settings == {"name": "k-diff", "k": 2}
