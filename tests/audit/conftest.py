"""Evidence that several tests of the audit look at, gathered once."""

from __future__ import annotations

import shutil

import pytest

from anonlib.audit.evidence.evidence import Evidence
from anonlib.audit.evidence.gather import gather
from anonlib.job import Job
from tests.support.runs import Run, planned_copy


@pytest.fixture(scope="session")
def looked_at(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Evidence]:
    """The finished run in a place of its own, where looks are kept, and what was seen."""
    root = tmp_path_factory.mktemp("looked-at")
    shutil.copytree(finished.output, root / "release")
    run = Run(planned_copy(finished, root), finished.summary, finished.input, root / "workspace", root / "release")
    return run, gather(Job(run.config))
