"""What a person or a log sees of a job: progress while it runs, counts at its end, one sentence where it cannot go on.

On a terminal each stage is one line that moves. Elsewhere every finished unit is one line of JSON, since a cluster's
log is read by programs. Both go to stderr; stdout holds the result alone. Heavy modules are imported only once a
command runs.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import TaskID

    from anonlib.audit.run import Audited
    from anonlib.audit.verify import Verified
    from anonlib.config import JobConfig
    from anonlib.doctor import Finding
    from anonlib.pipeline.job import Summary
    from anonlib.pipeline.outcome import Outcome
    from anonlib.pipeline.purge import Purged
    from anonlib.pipeline.status import Reason, Status

STOPPED = 1
INTERRUPTED = 130
_TOP_REASONS = 8


@contextmanager
def guarded() -> Iterator[None]:
    """End the process with one sentence and exit code 1 for what a person can mend, 130 for Ctrl-C."""
    from anonlib.config import ConfigError
    from anonlib.datasets import DatasetError
    from anonlib.models.archives import FetchError, ModelCorrupt
    from anonlib.models.runtime import BackendMissing, DeviceLost
    from anonlib.pipeline.job import JobError
    from anonlib.privacy.certificate import Untrue
    from anonlib.storage import StorageError

    try:
        yield
    except (ConfigError, JobError, StorageError, DatasetError, FetchError, ModelCorrupt, BackendMissing) as error:
        _stop(str(error))
    except DeviceLost as error:
        _stop(f"{error} What is finished is kept, and the same command continues.")
    except Untrue as error:
        _stop(f"not as it says: {error}")
    except OSError as error:
        # ModelMissing and a cluster that does not answer among them.
        _stop(str(error) or type(error).__name__)
    except KeyboardInterrupt:
        print("\nanonlib: interrupted; what is finished is kept, and the same command continues.", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


def _stop(sentence: str) -> None:
    print(f"anonlib: {' '.join(sentence.split())}", file=sys.stderr)
    raise SystemExit(STOPPED) from None


# ---- progress -------------------------------------------------------------------------------------------------


class Progress(AbstractContextManager["Progress"], Protocol):
    """Something that `Job` reports to."""

    def __call__(self, stage: str, outcome: Outcome, units: int) -> None: ...


def open_progress(stream: TextIO | None = None) -> Progress:
    """Moving lines on a terminal, JSON lines elsewhere; on stderr if no stream is given."""
    stream = stream or sys.stderr
    return MovingLines(stream) if stream.isatty() else JsonLines(stream)


@dataclass
class Tally:
    """What a stage has done so far; times are of this process's monotonic clock, in s."""

    stage: str
    units: int
    began: float
    done: int = 0
    failed: int = 0
    images: int = 0
    faces: int = 0
    quarantined: int = 0
    latest: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count one outcome; a failed unit comes again in the next round."""
        self.latest = time.monotonic()
        if outcome.error is not None:
            self.failed += 1
            return
        self.done += 1
        self.images += int(outcome.images)
        self.faces += int(outcome.faces)
        self.quarantined += int(outcome.quarantined)

    def seconds(self) -> float:
        """From the first unit's beginning to the latest one's end."""
        return max(self.latest - self.began, 1e-6)

    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds()

    def left(self) -> float | None:
        """Seconds to go at the pace so far; None before anything is done."""
        return self.seconds() * (self.units - self.done) / self.done if self.done else None


def _open_tally(stage: str, outcome: Outcome, units: int) -> Tally:
    """A stage begins where its first unit began, after models were loaded and Ray was up."""
    return Tally(stage, units, time.monotonic() - float(outcome.seconds))


class JsonLines:
    """One line a finished unit, and one a stage."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tally: Tally | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def __call__(self, stage: str, outcome: Outcome, units: int) -> None:
        if self._tally is None or self._tally.stage != stage:
            self._close()
            self._tally = _open_tally(stage, outcome, units)
        self._tally.add(outcome)
        line: dict[str, Any] = {"stage": stage, "unit": outcome.unit, "done": self._tally.done, "of": units}
        if outcome.error is not None:
            self._say(line | {"error": outcome.error})
            return
        counts = {name: int(getattr(outcome, name)) for name in ("images", "faces", "quarantined", "fallbacks")}
        self._say(line | counts | {"seconds": round(float(outcome.seconds), 2)})

    def _close(self) -> None:
        tally, self._tally = self._tally, None
        if tally is not None:
            counts = {name: getattr(tally, name) for name in ("done", "failed", "images", "faces", "quarantined")}
            pace = {"seconds": round(tally.seconds(), 2), "images_per_s": round(tally.rate(), 2)}
            self._say({"stage": tally.stage, "finished": tally.done == tally.units, **counts, **pace})

    def _say(self, line: dict[str, Any]) -> None:
        print(json.dumps(line), file=self._stream, flush=True)


class MovingLines:
    """One line a stage: how far, how fast, how long still."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[said]}"),
            console=Console(file=stream),
            refresh_per_second=4,
        )
        self._stages: dict[str, tuple[Tally, TaskID]] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def __call__(self, stage: str, outcome: Outcome, units: int) -> None:
        if stage not in self._stages:
            line = self._bars.add_task(stage, total=units, said="")
            self._stages[stage] = (_open_tally(stage, outcome, units), line)
        tally, line = self._stages[stage]
        tally.add(outcome)
        self._bars.update(line, completed=tally.done, said=pace(tally))
        if outcome.error is not None:
            self._bars.console.print(f"{stage} {outcome.unit}: {outcome.error}", markup=False, highlight=False)


def pace(tally: Tally) -> str:
    """`120 images, 38.2/s, 140 faces, 0:12 left`."""
    said = [f"{tally.images:,} images, {tally.rate():.1f}/s"] if tally.images else []
    if tally.faces:
        said.append(f"{tally.faces:,} faces")
    if tally.quarantined:
        said.append(f"{tally.quarantined:,} quarantined")
    left = tally.left()
    if left is not None:
        said.append(f"{clock(left)} left" if tally.done < tally.units else f"in {clock(tally.seconds())}")
    return ", ".join(said)


def clock(seconds: float) -> str:
    """0:07, 12:31 or 3:05:09."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


# ---- results --------------------------------------------------------------------------------------------------


def print_summary(config: JobConfig, summary: Summary, reasons: Counter[Reason]) -> None:
    """Counts, why anything is missing or redacted, and where everything lies."""
    images = {"released": summary.released, "without a face": summary.no_face, "quarantined": summary.quarantined}
    rows = [("images", _sum(summary.images, images)), ("faces", _faces(config, summary.faces, summary.fallbacks))]
    rows += _exceptions(reasons)
    if summary.committed < summary.shards:
        rows.append(("shards", f"{summary.committed} of {summary.shards} are done; run again to continue"))
    rows += [
        ("data", f"{config.output.uri.rstrip('/')}/data"),
        ("manifest", f"{config.output.uri.rstrip('/')}/manifest"),
        ("workspace", f"{config.workspace.uri} (personal data: `anonlib purge` destroys it)"),
    ]
    print_rows(rows)


def print_status(status: Status) -> None:
    """How far a job is."""
    if status.purged:
        print_rows([("workspace", "purged; nothing personal is left there")])
    else:
        print_rows([("inventory", f"{status.shards} shards" if status.shards else "none yet: nothing has run here")])
    # More than one where the job's settings have changed since its first run.
    for scan in status.scans:
        print_rows([("scanned", f"{scan.done} of {status.shards} shards")])
    for plan in status.plans:
        if plan.blocks is None:
            print_rows([("planned", "not finished")])
        else:
            surrogates = f", surrogates {plan.done} of {plan.blocks} blocks" if plan.blocks else ""
            classes = f" in {plan.classes} classes" if plan.classes else ""
            people = f"{plan.subjects} people{classes}, " if plan.subjects else ""
            print_rows([("planned", f"{people}{plan.redacted} faces redacted by plan{surrogates}")])
            if plan.disagreements:
                where = f"plan/{plan.room}/labels.txt in the workspace"
                print_rows([("labels", f"{plan.disagreements} do not fit their faces: {where}")])
    release = status.release
    if release is None:
        return
    images = {"released": release.released, "without a face": release.no_face, "quarantined": release.quarantined}
    print_rows(
        [
            ("rendered", f"{release.committed} of {release.shards} shards"),
            ("images", _sum(release.images, images)),
            ("faces", f"{release.faces:,}, {release.fallbacks:,} of them by a fallback"),
            *_exceptions(release.reasons),
        ]
    )


def print_verified(found: Verified) -> None:
    """What a release proves of itself, and what it cannot."""
    from anonlib.audit.verify import in_words, unproved

    certificate, counts = found.certificate, found.certificate.counts
    images = {"released": counts.released, "without a face": counts.no_face, "quarantined": counts.quarantined}
    claim, method = in_words(certificate.claim), certificate.method["name"]
    rows = [
        ("release", f"{certificate.release}, made by anonlib {certificate.anonlib}; all is as its certificate says"),
        ("claim", f"{claim}; by {method}, of {counts.replaced:,} of {counts.faces:,} faces"),
        ("images", _sum(counts.images, images)),
        ("files", f"{found.files:,}, each as signed, and no other"),
    ]
    if found.classes:
        rows.append(("classes", f"{found.people:,} people, each in one of {found.classes:,} classes"))
    if found.audit is not None:
        failed = f"FAILED its policy: {'; '.join(found.audit.failed)}"
        rows.append(("audit", "passed its policy; see report.html" if found.audit.passed else failed))
    rows += [("signed by", certificate.public_key + (", as it should be" if found.pinned else ""))]
    rows += [("not proved" if number == 0 else "", line) for number, line in enumerate(unproved(found))]
    print_rows(rows)


def print_audited(audited: Audited, output: str) -> None:
    """What a terminal shows of an audit; the whole is in the release `output`."""
    from anonlib.audit.terminal import outcome, table

    for line in table(audited.report):
        print(line)
    report = f"{output.rstrip('/')}/report.html, .pdf and .json, signed in audit.json"
    print_rows([*outcome(audited.report), ("report", report)])


def print_purged(config: JobConfig, record: Purged) -> None:
    """What was destroyed; what was not goes to stderr."""
    print_rows(
        [
            ("workspace", f"{config.workspace.uri}: {record.files:,} files, {record.bytes / 1e6:,.1f} MB destroyed"),
            ("secret", record.secret),
            ("record", f"{config.workspace.uri.rstrip('/')}/purged.json"),
        ]
    )
    if record.remains:
        print(f"anonlib: not everything is gone. {record.remains}", file=sys.stderr)


def print_findings(findings: Iterable[Finding]) -> int:
    """One line each as they come, with what to do below; returns how many are problems."""
    problems = 0
    for one in findings:
        problems += one.level == "problem"
        print_rows([(one.level, f"{one.what}: {one.said}"), *([("", one.advice)] if one.advice else [])])
    return problems


def _sum(total: int, parts: dict[str, int]) -> str:
    return f"{total:,} = " + " + ".join(f"{count:,} {name}" for name, count in parts.items())


def _faces(config: JobConfig, faces: int, fallbacks: int) -> str:
    said = f"{faces:,}, by {config.method.name}"
    return f"{said}; {fallbacks:,} of them by a fallback" if fallbacks else said


def _exceptions(reasons: Counter[Reason]) -> list[tuple[str, str]]:
    """The commonest reasons first, each with what it was the reason for."""
    rows = [("", f"{count:,} {reason.kind}: {reason.why}") for reason, count in reasons.most_common(_TOP_REASONS)]
    more = len(reasons) - _TOP_REASONS
    return [*rows, ("", f"and {more} other reasons, all in the manifest")] if more > 0 else rows


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Name and value, a line each, aligned."""
    width = max(10, *(len(name) for name, _ in rows))
    for name, value in rows:
        print(f"{name:<{width}} {value}")
