"""A report's counts are the release's own: they add up, and every exception has its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anonlib.audit.findings import ReleaseCounts
from anonlib.audit.run import claim_of, counts_of, models_of, settings_of
from anonlib.storage import open_storage
from anonlib.verification.certificate import Certificate
from anonlib.workspace.layout import JobStores
from anonlib.workspace.schemas import CERTIFICATE
from tests.support.forgery import CLASSES, MANIFEST, Forger
from tests.support.runs import Run


def certificate(root: Path) -> Certificate:
    return Certificate.from_bytes((root / CERTIFICATE).read_bytes())


def counted(release: Path, workspace: Path) -> ReleaseCounts:
    return counts_of(JobStores(open_storage(str(workspace)), open_storage(str(release))))


def test_counts_are_those_of_the_job_and_exceptions_have_their_reason(forger: Forger, finished: Run) -> None:
    counts, summary = counted(finished.output, finished.workspace), finished.summary
    assert (counts.shards, counts.images, counts.faces) == (summary.shards, summary.images, summary.faces)
    assert counts.images == counts.released + counts.no_face + counts.quarantined
    assert sum(counts.methods.values()) == counts.faces > 0
    assert sum(counts.fallbacks.values()) >= summary.fallbacks

    def damage_two(rows: list[dict[str, Any]]) -> None:
        for row in rows[:2]:
            row |= {"status": "quarantined", "reason": "damaged"}

    forger.rows(MANIFEST, damage_two)
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
    signed = certificate(finished.output)
    *made, judge = models_of(signed, ["fr-feature"])
    assert {model.name for model in made} == set(signed.models) and {model.used_for for model in made} == {"release"}
    assert (judge.name, judge.used_for) == ("fr-feature", "audit") and judge.licence and len(judge.sha256) == 64
    assert settings_of(signed) == {"name": "k-diff", "k": 2}
