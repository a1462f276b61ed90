"""`anonlib audit`: a release attacked, measured, judged by its policy, and the report signed into it.

It runs inside the trust boundary, before the purge. Whatever an earlier audit left in the release is taken back first,
so a release never carries the report of another state of itself; cut off, it carries none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from anonlib.audit.attacks.base import Material
from anonlib.audit.attacks.linkage import linkage_of_releases
from anonlib.audit.attacks.suite import WITH_PICTURES, attack_pictures
from anonlib.audit.attacks.suite import attack_records as run_on_records
from anonlib.audit.croissant import CROISSANT, describe, read_files
from anonlib.audit.evidence.gather import gather, looks_store
from anonlib.audit.evidence.observe import LOOKED_WITH
from anonlib.audit.evidence.published import by_truth, read_published
from anonlib.audit.facts import claim_of, counts_of, models_of, settings_of, software
from anonlib.audit.findings import AuditReport, Disclosure, GateLine
from anonlib.audit.gate import disclosure_lines, judge
from anonlib.audit.leaks.scan import scan_leaks
from anonlib.audit.missed_faces import look_twice
from anonlib.audit.report import REQUIRED, require, write_html, write_json, write_pdf, write_schema
from anonlib.audit.review_queue import judged_so_far, open_log, waiting
from anonlib.audit.sheet import draw_examples
from anonlib.audit.trained.data import NETWORK
from anonlib.audit.trained.suite import trained_attacks
from anonlib.audit.utility.downstream import expression_task, labels_of
from anonlib.audit.utility.kept import measures
from anonlib.config import JobConfig, RayConfig
from anonlib.errors import JobError, NotFound, VerificationError
from anonlib.execution.base import UnitResult
from anonlib.job import Job
from anonlib.methods import method_of
from anonlib.models.catalog import MODELS
from anonlib.models.requirements import device_of
from anonlib.verification.certificate import AuditStatement, Certificate
from anonlib.verification.release import verify
from anonlib.workspace.layout import RUN_NOTE, json_bytes, sha256
from anonlib.workspace.release import publish_audit, remove_audit
from anonlib.workspace.schemas import CERTIFICATE
from anonlib.workspace.secrets import signing_secret

SEED = 0

Progress = Callable[[str, UnitResult, int], None]


@dataclass(frozen=True)
class Audited:
    """The report as it lies in the release, and what was signed."""

    report: AuditReport
    statement: AuditStatement


def audit(
    config: JobConfig,
    *,
    link_with: JobConfig | None = None,
    truth_field: str | None = None,
    seed: int = SEED,
    progress: Progress = lambda stage, outcome, units: None,
) -> Audited:
    """Audit the release of a finished job; `link_with`: another release of the same people, to be linked with it.

    `truth_field`: a sidecar field that names the people, read to evaluate with and by nothing that plans. Raises
    JobError where there is nothing to audit or an extra is not installed, StorageError, ConfigError.
    """
    for module in REQUIRED:
        require(module)
    job = _opened(config)
    if late := waiting(job, open_log(job)):
        raise JobError(f"{len(late)} shards wait for what a reviewer decided; bring it in by `anonlib render` first")
    with job.lease.held():
        return _audit(job, link_with, truth_field, seed, progress)


def _audit(job: Job, link_with: JobConfig | None, truth_field: str | None, seed: int, progress: Progress) -> Audited:
    config, release, used = job.config, job.stores.release, _recognizers(job.config)
    remove_audit(release)
    evidence = gather(config, report=progress)
    certificate = _certificate(job)
    published = read_published(job, truth_field=truth_field)
    evidence = by_truth(evidence, published) if truth_field else evidence
    shards = json.loads(release.read(RUN_NOTE))["shards"]
    material = Material(evidence, published, used, seed)
    attacks, disclosures = attack_pictures(material), run_on_records(material)
    attacks += trained_attacks(
        evidence,
        config.method.name,
        looks_store(job),
        used=used,
        device=device_of(config),
        seed=seed,
        report=progress,
    )
    if link_with is not None:
        if not evidence.labelled or link_with.input.subject_field is None:
            raise JobError(
                "two releases can be linked only where both name who is in a photo; give both a subject_field"
            )
        other = gather(link_with, report=progress)
        attacks += linkage_of_releases(evidence, other, used=used | _recognizers(link_with), seed=seed)
    leaks = scan_leaks(job, report=progress)
    judged = judged_so_far(job)
    missed = look_twice(job, report=progress).missed(judged.judged, judged.wrong, seed=seed)
    crops = {kind: look.crops for kind, look in evidence.looks.items()}
    task = expression_task(crops, labels_of(job, evidence), evidence.subjects, seed=seed)
    utility = [*measures(evidence, seed=seed), task]
    report = AuditReport(
        release=certificate.release,
        method=config.method.name,
        settings=settings_of(certificate),
        certificate_sha256=sha256(release.read(CERTIFICATE)),
        claim=claim_of(release, certificate),
        people=len(set(evidence.subjects.tolist())),
        photos=len(evidence.subjects),
        labelled=evidence.labelled,
        counts=counts_of(job.stores, certificate.run, shards),
        gate=judge(config.policy, _untrue(job), attacks, leaks, missed, utility, disclosures),
        thresholds=tuple(attacker.threshold for attacker in material.attackers),
        attacks=tuple(attacks),
        disclosures=tuple(disclosures),
        histograms=tuple(attacker.histogram() for attacker in material.attackers),
        leaks=tuple(leaks),
        utility=tuple(utility),
        missed=missed,
        models=models_of(certificate, {*LOOKED_WITH, NETWORK, *({job.config.detector.name} & MODELS.keys())}),
        software=software(),
    )
    return Audited(report, _published(job, report, shards, seed))


def attack_records(
    config: JobConfig,
    only: Sequence[str],
    *,
    truth_field: str | None = None,
    seed: int = SEED,
    progress: Progress = lambda stage, outcome, units: None,
) -> tuple[list[Disclosure], list[GateLine]]:
    """The attacks in `only` on what a finished release says beside its pictures, and what the policy says of each.

    Nothing is written into the release. Raises JobError, StorageError, ConfigError.
    """
    job = _opened(config)
    _certificate(job)
    published = read_published(job, truth_field=truth_field)
    evidence = gather(config, report=progress) if WITH_PICTURES & set(only) else None
    evidence = by_truth(evidence, published) if evidence and truth_field else evidence
    found = run_on_records(Material(evidence, published, _recognizers(config), seed), only)
    return found, list(disclosure_lines(config.policy, found, only))


def _recognizers(config: JobConfig) -> frozenset[str]:
    """Those that the method, its training or its re-check used: what it is judged by must not be among them."""
    return method_of(config.method).recognizers_used()


def _opened(config: JobConfig) -> Job:
    """The job; an audit is one process, and no cluster is started for it."""
    return Job(config.model_copy(update={"ray": RayConfig(actors=0, num_gpus=config.ray.num_gpus)}))


def _published(job: Job, report: AuditReport, shards: list[str], seed: int) -> AuditStatement:
    page = write_html(report, draw_examples(job.config, job.dataset.format, seed=seed))
    described = describe(report, job.config, read_files(job.stores.release, shards, job.dataset.format, [CERTIFICATE]))
    files = {
        "report.json": write_json(report),
        "report.schema.json": write_schema(),
        "report.html": page.encode(),
        "report.pdf": write_pdf(page),
        CROISSANT: json_bytes(described),
    }
    failed = [line.name for line in report.gate.lines if not line.passed]
    return publish_audit(job.stores.release, signing_secret(job.config, job.stores, job.keyring), files, failed)


def _certificate(job: Job) -> Certificate:
    try:
        return Certificate.from_bytes(job.stores.release.read(CERTIFICATE))
    except NotFound:
        raise JobError("the release has no certificate; finish the job first (`anonlib run`)") from None


def _untrue(job: Job) -> str | None:
    """Why the release is not as its certificate says, None if it is."""
    try:
        verify(job.stores.release)
    except VerificationError as error:
        return str(error)
    return None
