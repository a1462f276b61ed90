"""`anonlib audit`: a release attacked, measured, judged by its policy, and the report signed into it.

It runs inside the trust boundary, before the purge. Whatever an earlier audit left in the release is taken back first,
so a release never carries the report of an earlier state; if the audit is interrupted, it carries none.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions, version
from typing import Literal

import numpy as np

from anonlib import __version__
from anonlib.audit.attacks.base import Material
from anonlib.audit.attacks.pictures import attack_pictures
from anonlib.audit.attacks.records import ON_RECORDS, RECORDS_ALONE, attack_records
from anonlib.audit.croissant import CARD, CROISSANT, dataset_card, describe
from anonlib.audit.evidence.gather import QUICK, Report, gather, looks_store
from anonlib.audit.evidence.observe import LOOKED_WITH
from anonlib.audit.evidence.published import Published, by_truth, read_published
from anonlib.audit.findings import AuditReport, ClaimSection, ModelUse, ReleaseCounts
from anonlib.audit.gate import ONE_PHOTO_EACH, judge
from anonlib.audit.leaks.scan import scan_leaks
from anonlib.audit.missed_faces import SECOND_DETECTOR, look_twice
from anonlib.audit.report.page import REQUIRED, draw_examples, require, write_html, write_pdf
from anonlib.audit.review_queue import judged_so_far, open_log, waiting
from anonlib.audit.trained.data import NETWORK
from anonlib.audit.trained.suite import trained_attacks
from anonlib.audit.utility import expression_task, measures
from anonlib.codes import meaning_of
from anonlib.config import JobConfig, RayConfig
from anonlib.errors import JobError, NotFound, VerificationError
from anonlib.job import Job
from anonlib.methods import METHODS, method_of
from anonlib.models.catalog import MODELS
from anonlib.models.requirements import device_of
from anonlib.storage import Storage
from anonlib.verification.certificate import Certificate
from anonlib.verification.parsing import rows_of
from anonlib.verification.release import verify
from anonlib.workspace.layout import JobStores, json_bytes, release_store, render_store, sha256
from anonlib.workspace.release import publish_audit, remove_audit
from anonlib.workspace.schemas import CERTIFICATE, CERTIFIED_CLASSES, CLASSES_TABLE, QUARANTINED
from anonlib.workspace.secrets import signing_secret
from anonlib.workspace.status import require_plan


def audit(
    config: JobConfig,
    *,
    truth_field: str | None = None,
    quick: bool = False,
    seed: int = 0,
    progress: Report = lambda stage, outcome, units: None,
) -> AuditReport:
    """Audit the release of a finished job, and sign the report into it.

    `truth_field`: a sidecar field that names the people, read to evaluate with and by nothing that plans. `quick`:
    about QUICK photos are looked at, and nothing is trained, so that the policy fails. Where no person is known to be
    in two photos, attacks that compare photos are left out, which is said before anything is looked at, and the policy
    fails. Raises JobError where there is nothing to audit or an extra is not installed, StorageError, ConfigError.
    """
    for module in REQUIRED:
        require(module)
    # An audit is one process, and no cluster is started for it.
    job = Job(config.model_copy(update={"ray": RayConfig(actors=0, num_gpus=config.ray.num_gpus)}))
    if late := waiting(job, open_log(job)):
        raise JobError(f"{len(late)} shards wait for what a reviewer decided; bring it in by `anonlib render` first")
    certificate = _certificate(job)
    require_plan(job.stores, job.plan_key)
    published = read_published(job, truth_field=truth_field)
    if not _compared(published):
        logging.getLogger(__name__).warning("attacks that compare photos are %s", ONE_PHOTO_EACH)
    with job.lease.held():
        remove_audit(job.stores.release)
        report = _measured(job, certificate, published, truth_field, quick, seed, progress)
        _publish(job, report, seed)
    return report


def _measured(
    job: Job,
    certificate: Certificate,
    published: Published,
    truth_field: str | None,
    quick: bool,
    seed: int,
    progress: Report,
) -> AuditReport:
    config, used = job.config, method_of(job.config.method).recognizers_used()
    most, compared = QUICK if quick else None, _compared(published)
    evidence = gather(job, most=most, report=progress)
    evidence = by_truth(evidence, published) if truth_field else evidence
    material = Material(evidence, published, used, seed)
    disclosures = attack_records(material, ON_RECORDS if compared else RECORDS_ALONE)
    attacks = attack_pictures(material) if compared else []
    if compared and not quick:
        judges, device = looks_store(job), device_of(config)
        attacks += trained_attacks(
            evidence, config.method.name, judges, used=used, device=device, seed=seed, report=progress
        )
    judged = judged_so_far(job)
    with ThreadPoolExecutor(1) as pool:
        # Both read every released image, and neither waits for the other.
        scanned = pool.submit(scan_leaks, job, report=progress)
        missed, _ = look_twice(job, sampled=judged.judged, wrong=judged.wrong, seed=seed, report=progress)
        leaks = scanned.result()
    utility = measures(evidence, seed=seed)
    if not quick:
        utility.append(expression_task(evidence, seed=seed))
    untrue, synthesis = _untrue(job), METHODS[config.method.name].synthesis
    gate = tuple(
        judge(
            config.policy, untrue, attacks, leaks, missed, utility, disclosures, compared=compared, synthesis=synthesis
        )
    )
    detectors = {SECOND_DETECTOR, *config.detector.searching.names} & MODELS.keys()
    return AuditReport(
        release=certificate.release,
        method=config.method.name,
        settings=settings_of(certificate),
        certificate_sha256=sha256(job.stores.release.read(CERTIFICATE)),
        claim=claim_of(job.stores.release, certificate),
        people=len(set(evidence.subjects.tolist())),
        photos=len(evidence.subjects),
        labelled=evidence.labelled,
        quick=quick,
        counts=counts_of(job.stores),
        passed=all(line.passed for line in gate),
        gate=gate,
        thresholds={attacker.recognizer: attacker.threshold for attacker in material.attackers} if compared else {},
        attacks=tuple(attacks),
        disclosures=tuple(disclosures),
        leaks=tuple(leaks),
        utility=tuple(utility),
        missed=missed,
        models=models_of(certificate, {*LOOKED_WITH, NETWORK, *detectors}),
        software=software(),
    )


def _publish(job: Job, report: AuditReport, seed: int) -> None:
    examples = draw_examples(job.config, job.dataset.format, seed=seed) if report.counts.faces else []
    page = write_html(report, examples)
    croissant = describe(report, job.config, job.stores.release, job.dataset.format)
    schema = json.dumps(AuditReport.model_json_schema(), indent=1, sort_keys=True)
    files = {
        "report.json": f"{report.model_dump_json(indent=2)}\n".encode(),
        "report.schema.json": f"{schema}\n".encode(),
        "report.html": page.encode(),
        "report.pdf": write_pdf(page),
        CROISSANT: json_bytes(croissant),
        CARD: dataset_card(report, croissant, job.dataset.format).encode(),
    }
    failed = [line.name for line in report.failed]
    publish_audit(job.stores.release, signing_secret(job.config, job.stores, job.keyring), files, failed)


def _compared(published: Published) -> bool:
    """Whether any person is known to be in two photos."""
    return bool(np.bincount(published.people).max(initial=0) > 1)


def _certificate(job: Job) -> Certificate:
    try:
        return Certificate.from_bytes(job.stores.release.read(CERTIFICATE))
    except NotFound:
        raise JobError(f"{job.config.output.uri} has no certificate; finish the job first (`anonlib run`)") from None


def _untrue(job: Job) -> str | None:
    """Why the release is not as its certificate says, None if it is."""
    try:
        verify(job.stores.release)
    except VerificationError as error:
        return str(error)
    return None


# ---- what the release's own files say -------------------------------------------------------------------------


def counts_of(stores: JobStores) -> ReleaseCounts:
    """Images and faces of the manifests, and why any is an exception, as the workspace says."""

    def kind_of(reason: str | None) -> str:
        """The reason without its numbers, so that like reasons are counted together."""
        return re.sub(r"\d+(\.\d+)?", "N", reason or "no reason given")

    release, note = release_store(stores), release_store(stores).run()
    images, methods, fallbacks, reasons = (Counter[str]() for _ in range(4))
    for shard in note["shards"]:
        rendered = render_store(stores, note["run"]).faces(shard)
        for row in release.manifest(shard, ["key", "status", "reason"]).to_pylist():
            images[row["status"]] += 1
            if row["status"] == QUARANTINED:
                reasons[kind_of(meaning_of(row["reason"]))] += 1
                continue
            faces = rendered.get(row["key"], ())
            methods.update(face["method"] for face in faces)
            fallbacks.update(f"{face['fallback']}: {kind_of(face['reason'])}" for face in faces if face["fallback"])
    return ReleaseCounts(
        shards=len(note["shards"]),
        images=images.total(),
        released=images["released"],
        no_face=images["no_face"],
        quarantined=images[QUARANTINED],
        faces=methods.total(),
        methods=dict(methods.most_common()),
        fallbacks=dict(fallbacks.most_common()),
        quarantine_reasons=dict(reasons.most_common()),
    )


def claim_of(release: Storage, certificate: Certificate) -> ClaimSection:
    """The certificate's claim and, for classes, how many have how many people."""
    claim, classes = certificate.claim, []
    if CLASSES_TABLE in (table.path for table in certificate.tables):
        classes = list(rows_of(release.read(CLASSES_TABLE), CERTIFIED_CLASSES, CLASSES_TABLE))
    sizes, effective = (Counter(row[column] for row in classes) for column in ("k", "effective_k"))
    return ClaimSection(
        kind=claim.kind,
        text=str(claim),
        k=claim.k,
        class_sizes=dict(sorted(sizes.items())),
        effective_sizes=dict(sorted(effective.items())),
        epsilon=claim.epsilon,
        epsilon_unit=claim.metric or "",
    )


def models_of(certificate: Certificate, judges: Collection[str]) -> tuple[ModelUse, ...]:
    """What made the release, as its certificate has it, and what judged it."""

    def use(name: str, licence: str, sha256: str, used_for: Literal["release", "audit"]) -> ModelUse:
        known = MODELS.get(name)
        role, commercial = (name, None) if known is None else (str(known.role), known.commercial)
        return ModelUse(name=name, role=role, licence=licence, commercial=commercial, sha256=sha256, used_for=used_for)

    made = sorted(certificate.models.items())
    return (
        *(use(name, model["licence"], model["sha256"], "release") for name, model in made),
        *(use(name, MODELS[name].licence, MODELS[name].sha256, "audit") for name in sorted(judges)),
    )


def settings_of(certificate: Certificate) -> dict[str, str | int | float | bool | None]:
    """The method's settings that mean something to a reader."""
    method = certificate.method
    keys = METHODS[method["name"]].keys
    return {"name": method["name"], **{key: method[key] for key in keys if method.get(key) is not None}}


def software() -> dict[str, str]:
    """anonlib and the installed libraries that a figure may depend on, with their versions."""
    names = ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "torch", "pyarrow", "faiss-cpu", "scipy")
    return {"anonlib": __version__} | {name: version(name) for name in names if any(distributions(name=name))}
