"""What a person sees at a job's end: counts, or one sentence where it cannot go on.

Complaints go to stderr; stdout holds the result alone. Heavy modules are imported only once a command runs.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from anonlib.errors import EXIT_INTERRUPTED, EXIT_STOPPED, AnonlibError, VerificationError

if TYPE_CHECKING:
    from anonlib.audit.findings import AuditReport, GateLine
    from anonlib.doctor import CheckResult
    from anonlib.job import Job
    from anonlib.review.trial import Estimate
    from anonlib.verification.certificate import Certificate, CertifiedCounts
    from anonlib.verification.release import Verified
    from anonlib.workspace.purge import Purged
    from anonlib.workspace.status import Reasons, Status, Summary

RUN_MODULES = frozenset(
    {"PIL", "cv2", "faiss", "onnx", "onnxruntime", "openvino", "ray", "scipy", "simplejpeg", "torch", "turbojpeg"}
)
"""What the extra `run` installs. Without it releases can be verified, and jobs asked for their status and purged."""
STAY = "stay as they are, in areas that the dataset ignores"
SPARED = "stay as they are, since their people agreed"
_TOP_REASONS = 8
_FEW_CLASSES = 10


@contextmanager
def guarded() -> Iterator[None]:
    """End the process with one sentence and exit code 1 for what a person can mend, 130 for Ctrl-C."""
    code = EXIT_STOPPED
    try:
        yield
        return
    except VerificationError as error:
        sentence = f"anonlib: not as it says: {error}"
    except (AnonlibError, OSError) as error:
        # A cluster that does not answer is an OSError.
        sentence = f"anonlib: {str(error) or type(error).__name__}"
    except ModuleNotFoundError as error:
        if (name := (error.name or "").partition(".")[0]) not in RUN_MODULES:
            raise
        sentence = f"anonlib: this needs {name}, which is not installed: pip install 'anonlib[run]'"
    except KeyboardInterrupt:
        print(file=sys.stderr)
        sentence = "anonlib: interrupted; what is finished is kept, and the same command continues."
        code = EXIT_INTERRUPTED
    print(_on_one_line(" ".join(sentence.split())), file=sys.stderr)
    raise SystemExit(code)


def leave(code: int) -> NoReturn:
    """End an interrupted process at once and in silence, once it has said its sentence.

    Threads of Ray and of models are still at work. Those that the interpreter ends print tracebacks, or crash it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        # Ray is shut down, and temporary folders are removed, by what was registered for the exit.
        atexit._run_exitfuncs()
    finally:
        os._exit(code)


def _images(counts: Summary | CertifiedCounts) -> tuple[str, str]:
    parts = {"released": counts.released, "without a face": counts.no_face, "quarantined": counts.quarantined}
    return "images", f"{counts.images:,} = " + " + ".join(f"{count:,} {name}" for name, count in parts.items())


def print_summary(job: Job, summary: Summary) -> None:
    """Counts, why anything is missing or redacted, what is claimed of whom, and where all lies."""
    from anonlib.workspace.layout import plan_store
    from anonlib.workspace.status import certificate_of, crowd_of, exceptions

    config, reasons = job.config, exceptions(job.stores)
    output = config.output.uri.rstrip("/")
    fallbacks = f"; {summary.fallbacks:,} of them by a fallback" if summary.fallbacks else ""
    rows = [_images(summary), ("faces", f"{summary.faces:,}, by {config.method.name}{fallbacks}")]
    rows += [
        *_exceptions(reasons),
        *_left_out(summary.left_out),
        *job.notes(),
        *crowd_rows(crowd_of(plan_store(job.stores, job.plan_key))),
        *claim_rows(certificate_of(job.stores.release)),
    ]
    if summary.committed < summary.shards:
        rows.append(("shards", f"{summary.committed} of {summary.shards} are done; run again to continue"))
    rows += [("data", f"{output}/data"), ("manifest", f"{output}/manifest")]
    rows.append(("workspace", f"{config.workspace.uri} (personal data: `anonlib purge` destroys it)"))
    print_rows(rows)


def print_estimate(found: Estimate, workers: int, core_hour: float) -> None:
    """What a job takes, on `workers` cores that cost `core_hour` each."""
    error = "the error of one shard is not known" if found.error is None else f"+- {found.error:.0%} at 95 %"
    hours = f"{found.core_hours:,.2f} of a core ({error}), {found.core_hours / workers:,.2f} on {workers:,}"
    rows = [("images", f"about {found.images:,}, {found.bytes / 2**30:,.2f} GiB"), ("hours", hours)]
    rows += [("cost", f"{found.core_hours * core_hour:,.2f}")] if core_hour else []
    print_rows(
        [*rows, ("", "scan and render of stills; grouping people and making faces come on top (docs/scaling.md)")]
    )


def crowd_rows(crowd: tuple[int, int, int, int] | None) -> list[tuple[str, str]]:
    """Who was told apart, and what their faces do not keep (`crowd_of`); a warning where classes are few."""
    if crowd is None:
        return []
    people, classes, gender, age = crowd
    if not classes:
        return [("people", f"{people:,}")]
    others = f"{gender:,} wear a face that is not of their gender, {age:,} one that is not of their age band"
    rows = [("people", f"{people:,} in {classes:,} classes; {others}")]
    if classes < _FEW_CLASSES:
        few = "classes are few: people in one photo may wear the same face, and not one of their gender or age"
        rows.append(("warning", f"{few}; more people or a smaller k make more classes"))
    return rows


def claim_rows(certificate: Certificate | None) -> list[tuple[str, str]]:
    """What is claimed, how many faces that covers, and why the others are outside."""
    if certificate is None:
        return []
    counts = certificate.counts
    hidden = [
        (
            "hidden",
            f"{of.regions:,} of {kind} by {of.method}{', flat where found again' if of.method == 'fill' else ''}, "
            f"found by {of.network}; what it missed stays as it was",
        )
        for kind, of in certificate.hidden.items()
    ]
    if certificate.claim.kind == "none":
        staying = ((counts.ignored, STAY), (counts.spared, SPARED))
        stay = [("", f"{count:,} faces {why}") for count, why in staying if count]
        return [("claim", "none (docs/methods.md)"), *stay, *hidden]
    rows = [("claim", f"{certificate.claim}: {counts.replaced:,} of {counts.faces:,} faces are inside it")]
    why = {
        "are hidden under ellipses": counts.solid,
        "wear another face than planned": counts.next_surrogate,
        "show a face of the gallery by lot, since too few people could hide together": counts.by_lot,
        STAY: counts.ignored,
        SPARED: counts.spared,
        "are in quarantined images": counts.withheld,
    }
    outside = ", ".join(f"{count:,} {what}" for what, count in why.items() if count)
    rows += [("", f"{counts.faces - counts.replaced:,} are outside it: {outside}")] if outside else []
    return rows + hidden


def print_status(status: Status) -> None:
    """How far a job is."""
    rows = [("inventory", f"{status.shards} shards" if status.shards else "none yet: nothing has run here")]
    # More than one where the job's settings have changed since its first run.
    rows += [("scanned", f"{scan} of {status.shards} shards") for scan in status.scans]
    rows += _left_out(status.left_out)
    for plan in status.plans:
        if "blocks" not in plan:
            rows.append(("planned", "not finished"))
            continue
        surrogates = f", surrogates {plan['done']} of {plan['blocks']} blocks" if plan["blocks"] else ""
        classes = f" in {plan['classes']} classes" if plan["classes"] else ""
        people = f"{plan['persons']} people{classes}, " if plan["persons"] else ""
        rows.append(("planned", f"{people}{plan['redacted']} faces redacted by plan{surrogates}"))
        if doubts := plan["disagreements"]:
            rows.append(("labels", f"{doubts} do not fit their faces: {plan['labels']} in the workspace"))
    if release := status.release:
        rows += [("rendered", f"{release.committed} of {release.shards} shards"), _images(release)]
        rows.append(("faces", f"{release.faces:,}, {release.fallbacks:,} of them by a fallback"))
        rows += _exceptions(status.reasons)
    print_rows(rows)


def print_verified(found: Verified) -> None:
    """What a release proves of itself, and what it cannot."""
    from anonlib.verification.release import unproved

    certificate, counts = found.certificate, found.certificate.counts
    by = f"by {certificate.method['name']}, of {counts.replaced:,} of {counts.faces:,} faces"
    rows = [
        ("release", f"{_quoted(certificate.release)}, made by anonlib {_quoted(certificate.anonlib)}"),
        ("", "all is as its certificate says"),
        ("claim", f"{certificate.claim}; {by}"),
        *([("", str(certificate.scope))] if certificate.scope and certificate.claim.kind != "none" else []),
        _images(counts),
        *_left_out(found.left_out),
        ("files", f"{found.files:,}, each as signed, and no other"),
    ]
    if found.classes:
        rows.append(("classes", f"{found.people:,} people, each in one of {found.classes:,} classes"))
    if found.audit is not None:
        failed = f"FAILED its policy: {'; '.join(found.audit.failed)}"
        rows.append(("audit", "passed its policy; see report.html" if found.audit.passed else failed))
    elif found.promised:
        rows.append(("audit", "MISSING, although its maker promised one"))
    rows.append(("signed by", certificate.public_key + (", as it should be" if found.pinned else "")))
    rows += [("not proved" if number == 0 else "", line) for number, line in enumerate(unproved(found))]
    print_rows(rows)


def print_audited(report: AuditReport, output: str) -> None:
    """Whether an audit passed, and why not; all else is in the report in the release `output`."""
    files = f"{output.rstrip('/')}/report.html, .pdf and .json, signed in audit.json"
    print_rows([*policy_rows(report.gate), ("report", files)])


def policy_rows(lines: Sequence[GateLine]) -> list[tuple[str, str]]:
    """Whether the policy holds, and what does not."""
    failed = [line for line in lines if not line.passed]
    verdict = f"FAILED, {len(failed)} of {len(lines)} lines" if failed else f"passed, all {len(lines)} lines"
    return [("policy", verdict), *(("", f"{line.name}: {line.why}") for line in failed)]


def print_purged(workspace: str, record: Purged, earlier: Purged | None) -> None:
    """What was destroyed, or in an `earlier` purge; what was not goes to stderr."""
    destroyed = f"{record.files:,} files, {record.bytes / 1e6:,.1f} MB destroyed"
    if earlier is not None and earlier.finished:
        destroyed = f"purged on {record.at}, {destroyed} then; nothing is left there now"
    rows = [("workspace", f"{workspace}: {destroyed}"), ("secret", record.secret)]
    print_rows([*rows, ("record", f"{workspace.rstrip('/')}/purged.json")])
    if record.remains:
        print(f"anonlib: not everything is gone. {record.remains}", file=sys.stderr)


def print_findings(findings: Iterable[CheckResult]) -> int:
    """One line each as they come, with what to do below; returns how many are problems."""
    problems = 0
    for level, what, found, advice in findings:
        problems += level == "problem"
        print_rows([(level, f"{what}: {found}"), *([("", advice)] if advice else [])])
    return problems


def _exceptions(reasons: Reasons) -> list[tuple[str, str]]:
    """The commonest reasons first, each with what it was the reason for."""
    rows = [("", f"{count:,} {kind}: {why}") for (kind, why), count in reasons.most_common(_TOP_REASONS)]
    more = len(reasons) - _TOP_REASONS
    return [*rows, ("", f"and {more} other reasons, all in the manifest")] if more > 0 else rows


def _left_out(kinds: Mapping[str, int]) -> list[tuple[str, str]]:
    from anonlib.datasets.names import counted_kinds

    return [("left out", counted_kinds(kinds))] if kinds else []


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Name and value, a line each, aligned; what stands in a file of strangers stays on its line."""
    width = max(10, *(len(name) for name, _ in rows))
    for name, value in rows:
        print(f"{name:<{width}} {_on_one_line(value)}")


def _quoted(text: str) -> str:
    """A word of a release that anybody may have chosen: so short that no terminal wraps it into a line of its own."""
    return f"'{_on_one_line(text)[:60]}'"


def _on_one_line(text: str) -> str:
    """Without runs of spaces, and with control characters and line ends as escapes, which no terminal obeys."""
    from anonlib.datasets.names import printable

    return printable(re.sub(" {2,}", " ", text))
