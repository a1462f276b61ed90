"""Evidence that several tests of the audit look at, gathered once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from anonlib.audit.evidence.evidence import Evidence
from anonlib.audit.evidence.gather import gather
from anonlib.job import Job
from tests.support.runs import Run, made_once, planned_copy


@pytest.fixture(scope="session")
def looked_at(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Evidence]:
    """The finished run in a place of its own, where looks are kept, and what was seen."""

    def look(root: Path) -> tuple[Run, Evidence]:
        shutil.copytree(finished.output, root / "release")
        run = Run(planned_copy(finished, root), finished.summary, finished.input, root / "workspace", root / "release")
        return run, gather(Job(run.config))

    return made_once(tmp_path_factory, "looked-at", look)
